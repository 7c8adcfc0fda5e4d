//! [`Url`]: where an image comes from. Pure: nothing is looked up.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// An `http` or `https` address without a login in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Url(String);

/// More than any server takes.
const LONGEST: usize = 2048;

/// Why a text is no [`Url`]; Display says what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("this is no address that begins with https:// or http://")]
    Scheme,
    /// A user or a password: definitions are kept in git, and messages name the address.
    #[error("this address has a login in it")]
    Login,
    /// The host is missing or has a character that no host has.
    #[error("this address has no host")]
    Host,
    /// A character that no address has.
    #[error("this address has the character {0:?}")]
    Character(char),
    /// It says a place inside of the file.
    #[error("this address has a # in it")]
    Fragment,
    /// Nobody types that.
    #[error("this address is longer than {LONGEST} characters")]
    Long,
}

impl UrlError {
    /// What would be right, as a sentence without a full stop.
    pub fn help(&self) -> &'static str {
        match self {
            UrlError::Scheme => {
                "write it like \"https://cloud.example/debian-12.qcow2\"; a file of this machine is file ="
            }
            UrlError::Login => "leave out what stands before the @: the digest, not a secret, says what is right",
            UrlError::Host => "write it like \"https://cloud.example/debian-12.qcow2\"",
            UrlError::Character(_) => "write such characters as % and two hexadecimal digits, as browsers copy them",
            UrlError::Fragment => "leave out the # and what follows",
            UrlError::Long => "name a shorter one",
        }
    }
}

impl Url {
    /// It as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nobody on the way can read or change what comes.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// What stands between host and question mark: the end of it tells a format.
    pub fn path(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        let rest = rest.split_once('?').map_or(rest, |(path, _)| path);
        rest.find('/').map_or("", |at| &rest[at..])
    }

    /// The last part of the path, for people.
    pub fn file_name(&self) -> &str {
        self.path().rsplit('/').find(|part| !part.is_empty()).unwrap_or(&self.0)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Url {
    type Err = UrlError;
    fn from_str(text: &str) -> Result<Self, UrlError> {
        let rest = text.strip_prefix("https://").or(text.strip_prefix("http://")).ok_or(UrlError::Scheme)?;
        if text.len() > LONGEST {
            return Err(UrlError::Long);
        }
        // RFC 3986: what is not in this set is written as % and digits.
        let known = |c: char| c.is_ascii_alphanumeric() || "-._~:/?[]@!$&'()*+,;=%".contains(c);
        if rest.contains('#') {
            return Err(UrlError::Fragment);
        }
        if let Some(other) = rest.chars().find(|c| !known(*c)) {
            return Err(UrlError::Character(other));
        }
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(UrlError::Login);
        }
        let in_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        let starts = authority.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
        if !starts || !authority.chars().all(in_host) {
            return Err(UrlError::Host);
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let url: Url = "https://cloud.example:8443/a/debian-12.qcow2?x=1/2.img".parse().unwrap();
        assert_eq!((url.path(), url.file_name()), ("/a/debian-12.qcow2", "debian-12.qcow2"));
        assert!(url.is_https());
        let bare: Url = "http://[::1]".parse().unwrap();
        assert_eq!((bare.path(), bare.file_name(), bare.is_https()), ("", "http://[::1]", false));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (text, error) in [
            ("", UrlError::Scheme),
            ("debian.qcow2", UrlError::Scheme),
            ("file:///etc/shadow", UrlError::Scheme),
            ("ftp://a/b", UrlError::Scheme),
            ("https://", UrlError::Host),
            ("https:///a", UrlError::Host),
            ("https://-a/", UrlError::Host),
            ("https://a*b/", UrlError::Host),
            ("https://me:secret@a/b", UrlError::Login),
            ("https://a/b c", UrlError::Character(' ')),
            ("https://a/\r\nHost:b", UrlError::Character('\r')),
            ("https://a/\u{fc}", UrlError::Character('\u{fc}')),
            ("https://a/b#c", UrlError::Fragment),
        ] {
            assert_eq!(text.parse::<Url>(), Err(error), "{text}");
        }
        assert_eq!(format!("https://a/{}", "b".repeat(3000)).parse::<Url>(), Err(UrlError::Long));
    }
}
