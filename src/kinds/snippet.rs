//! [`Snippet`]: elements for a libvirt domain, well-formed by construction. Pure.

use std::fmt;
use std::str::FromStr;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use serde::Serialize;

/// XML elements side by side, to stand among a domain's devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Snippet(String);

/// Why a text is no [`Snippet`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no list of XML elements: {0}")]
pub struct SnippetError(String);

impl Snippet {
    /// It as text, without space around it.
    pub fn as_str(&self) -> &str {
        self.0.trim()
    }
}

impl FromStr for Snippet {
    type Err = SnippetError;
    fn from_str(text: &str) -> Result<Self, SnippetError> {
        check(text).map_err(SnippetError)?;
        Ok(Self(text.to_owned()))
    }
}

/// Whatever could end the element that it is put into, or mean something else there, is refused.
fn check(text: &str) -> Result<(), String> {
    if let Some(bad) = text.chars().find(|c| !is_char(*c)) {
        return Err(format!("it has the character {bad:?}, which XML can't hold"));
    }
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_comments = true;
    let (mut depth, mut elements) = (0_usize, 0_usize);
    loop {
        let event = reader.read_event().map_err(|error| error.to_string())?;
        match event {
            Event::Start(start) => {
                element(&start)?;
                elements += 1;
                depth += 1;
            }
            Event::Empty(start) => {
                element(&start)?;
                elements += 1;
            }
            // The reader compares names, and knows one that was never begun.
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Text(text) if depth == 0 => {
                if !text.chars().all(|c| c.is_ascii_whitespace()) {
                    return Err("text stands outside of every element".to_owned());
                }
            }
            Event::Text(text) => {
                if text.contains("]]>") {
                    return Err("text has ]]> in it".to_owned());
                }
            }
            Event::GeneralRef(_) | Event::CData(_) if depth == 0 => {
                return Err("text stands outside of every element".to_owned());
            }
            Event::GeneralRef(reference) => entity(&reference)?,
            Event::CData(_) | Event::Comment(_) => {}
            Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {
                return Err("it has a declaration or an instruction (<?…?>, <!…>)".to_owned());
            }
            Event::Eof => break,
        }
    }
    match (depth, elements) {
        (0, 0) => Err("there is no element".to_owned()),
        (0, _) => Ok(()),
        _ => Err("an element is not closed".to_owned()),
    }
}

/// Name and attributes; no prefix, which nothing in a domain's devices has.
fn element(start: &BytesStart<'_>) -> Result<(), String> {
    let name = start.name();
    let name = name.as_ref();
    name_of(name)?;
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| format!("in <{name}>: {error}"))?;
        let key = attribute.key.as_ref();
        name_of(key)?;
        if key == "xmlns" {
            return Err("an element with a name space of its own is no device".to_owned());
        }
        if attribute.value.contains('<') {
            return Err(format!("in <{name}>: the value of {key} has a < in it"));
        }
        for reference in attribute.value.split('&').skip(1) {
            let bare = || format!("in <{name}>: the value of {key} has a bare &");
            let (reference, _) = reference.split_once(';').ok_or_else(bare)?;
            entity(reference)?;
        }
    }
    Ok(())
}

fn name_of(name: &str) -> Result<(), String> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let fits = starts && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if fits { Ok(()) } else { Err(format!("{name:?} is no name of an element or attribute of libvirt's")) }
}

/// An entity that every reader knows, or a character by its number.
fn entity(name: &str) -> Result<(), String> {
    let number = match name.strip_prefix('#') {
        None if ["lt", "gt", "amp", "quot", "apos"].contains(&name) => return Ok(()),
        None => return Err(format!("nobody knows the entity &{name};")),
        Some(digits) => match digits.strip_prefix('x') {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => digits.parse(),
        },
    };
    match number.ok().and_then(char::from_u32).filter(|c| is_char(*c)) {
        Some(_) => Ok(()),
        None => Err(format!("&{name}; is no character that XML can hold")),
    }
}

/// XML 1.0, section 2.2, production Char.
fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r') || (c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}'))
}

impl fmt::Display for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_taken() {
        for good in [
            "<watchdog model='itco'/>",
            "\n<video>\n  <model type='none'/>\n</video>\n<!-- two -->\n<a b=\"x &amp; &#65;\">1 &lt; 2</a>\n",
        ] {
            assert!(good.parse::<Snippet>().is_ok(), "{good}: {:?}", good.parse::<Snippet>());
        }
    }

    #[test]
    fn what_is_not_well_formed_or_leads_out_is_refused() {
        for (bad, word) in [
            ("", "no element"),
            ("plain", "outside"),
            ("<a>", "not closed"),
            ("</devices><a/>", "devices"),
            ("<a></b>", "b"),
            ("<a/></devices><devices>", "devices"),
            ("<a b=c/>", "a"),
            ("<a b='1' b='2'/>", "b"),
            ("<a b='&who;'/>", "who"),
            ("<a>&who;</a>", "who"),
            ("&amp;<a/>", "outside"),
            ("<a b='&#0;'/>", "#0"),
            ("<a b='<'/>", "<"),
            ("<a b='&'/>", "bare"),
            ("<?xml version='1.0'?><a/>", "declaration"),
            ("<!DOCTYPE a [<!ENTITY e 'x'>]><a/>", "declaration"),
            ("<qemu:commandline/>", "name"),
            ("<a xmlns='urn:x'/>", "name space"),
            ("<a>\u{1}</a>", "character"),
            ("<a>]]></a>", "]]>"),
        ] {
            let error = bad.parse::<Snippet>().expect_err(bad).to_string();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}
