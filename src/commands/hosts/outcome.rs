//! [`Outcome`]: what became of a call on one host.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Outcomes;
use crate::commands::output::{BAD, BOLD, GOOD, chain, visible};
use crate::remote::{Answer, RemoteError};

/// How many characters of a colour are believed.
const LONGEST_STYLE: usize = 16;

/// What came back.
pub(super) enum Outcome {
    /// vmnet there told its result or its failure.
    Answered {
        /// It.
        answer: Answer,
        /// The same for people.
        text: String,
    },
    /// Nothing, and it is not known what it did.
    Lost(RemoteError),
    /// It was not asked.
    Never,
}

impl Outcome {
    /// Whether it did what it was asked to.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Answered { answer, .. } if !answer.failed)
    }

    /// The document of the result or of the failure.
    pub(super) fn document(&self) -> Value {
        match self {
            Self::Answered { answer, .. } => answer.document.clone(),
            Self::Lost(error) => document(error),
            Self::Never => Value::Null,
        }
    }

    /// The document of the failure; null where it is none.
    pub(super) fn failure(&self) -> Value {
        if self.is_done() { Value::Null } else { self.document() }
    }

    /// A field of the result.
    pub(super) fn field(&self, name: &str) -> &Value {
        static NONE: Value = Value::Null;
        match self {
            Self::Answered { answer, .. } if !answer.failed => &answer.document[name],
            _ => &NONE,
        }
    }

    /// What people read of it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Answered { answer, text } if !answer.failed => safe(text),
            other => lines(&other.document()).iter().map(|line| format!("{line}\n")).collect(),
        }
    }

    /// Its exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Answered { answer, .. } => u8::try_from(answer.code).unwrap_or(1),
            Self::Lost(error) if error.wants_install() => 4,
            Self::Lost(_) => 1,
            Self::Never => 0,
        }
    }
}

/// The worst of several exit codes: what the definition lacks comes before what a host lacks, and both before the rest.
pub(super) fn worst(outcomes: &Outcomes) -> u8 {
    const ORDER: [u8; 4] = [0, 3, 4, 2];
    let rank = |code: &u8| match ORDER.iter().position(|known| known == code) {
        Some(0) => 0,
        Some(position) => position + 1,
        None => 1,
    };
    outcomes.values().map(Outcome::code).max_by_key(rank).unwrap_or_default()
}

/// Those that did not do it, as a failure tells them.
pub(super) fn failures(outcomes: &Outcomes) -> BTreeMap<String, Value> {
    let failed = outcomes.iter().filter(|(_, outcome)| !outcome.is_done());
    failed.map(|(name, outcome)| (name.clone(), outcome.document())).collect()
}

/// The document of a failure to reach a host.
pub(super) fn document(error: &RemoteError) -> Value {
    let mut chain = chain(error);
    let causes = chain.split_off(1);
    match error.help() {
        Some(help) => json!({ "error": chain[0], "causes": causes, "help": help }),
        None => json!({ "error": chain[0], "causes": causes }),
    }
}

/// What failed and why, in one line, as the host said it.
pub(super) fn sentence(document: &Value) -> String {
    let causes = document["causes"].as_array().into_iter().flatten();
    let all = std::iter::once(&document["error"]).chain(causes);
    all.filter_map(Value::as_str).collect::<Vec<_>>().join(": ")
}

/// Why a host did not do it, in a line without colours.
pub(super) fn reason(document: &Value) -> String {
    let text = lines(document).into_iter().next().unwrap_or_else(|| "it said nothing".to_owned());
    let plain = anstream::adapter::strip_str(&text).to_string();
    plain.strip_prefix("error: ").map_or(plain.clone(), ToOwned::to_owned)
}

/// What became of it on each host, for people, a paragraph each.
pub(in crate::commands) fn told(hosts: &BTreeMap<String, Value>) -> String {
    let mut text = String::new();
    for (name, document) in hosts {
        for (number, line) in lines(document).iter().enumerate() {
            let head = if number == 0 { format!("{BOLD}{name}{BOLD:#}: ") } else { " ".repeat(name.len() + 2) };
            text.push_str(&format!("  {head}{line}\n"));
        }
    }
    text
}

/// A failure in lines: what, why, what to do, and how the host is now.
fn lines(document: &Value) -> Vec<String> {
    let word = |value: &Value| value.as_str().map(visible);
    let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
    let mut lines = Vec::new();
    let refusals: Vec<String> = list("refusals").iter().filter_map(|refusal| word(&refusal["message"])).collect();
    let problems = list("problems").iter().filter_map(|problem| word(&problem["problem"])).collect::<Vec<_>>();
    let what = if refusals.is_empty() { problems } else { refusals };
    if what.is_empty() {
        let sentence = sentence(document);
        if !sentence.is_empty() {
            lines.push(format!("{BAD}error{BAD:#}: {}", visible(&sentence)));
        }
    }
    lines.extend(what.into_iter().map(|what| format!("{BAD}error{BAD:#}: {what}")));
    lines.extend(word(&document["help"]).map(|help| format!("{GOOD}help{GOOD:#}: {help}")));
    lines.extend(word(&document["state"]));
    lines
}

/// What another machine wrote for people: colours stay, anything else that a terminal would obey is made visible.
fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        safe.push_str(&visible(&rest[..at]));
        rest = &rest[at..];
        let length = style(rest).unwrap_or(1);
        match length {
            1 => safe.push_str("\\u{1b}"),
            length => safe.push_str(&rest[..length]),
        }
        rest = &rest[length..];
    }
    safe + &visible(rest)
}

/// The length of a sequence that sets a colour, where there is one.
fn style(text: &str) -> Option<usize> {
    let inside = text.strip_prefix("\u{1b}[")?;
    let end = inside.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    (end < LONGEST_STYLE && inside[end..].starts_with('m')).then_some(end + 3)
}

/// A host's text below its name.
pub(super) fn paragraph(name: &str, text: &str) -> String {
    let mut all = format!("{BOLD}{name}{BOLD:#}\n");
    for line in text.trim_end().lines() {
        match line.is_empty() {
            true => all.push('\n'),
            false => all.push_str(&format!("  {line}\n")),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_writes_keeps_its_colours_and_nothing_else() {
        assert_eq!(safe("a\u{1b}[1;32mb\u{1b}[0mc\n"), "a\u{1b}[1;32mb\u{1b}[0mc\n");
        assert_eq!(safe("a\u{1b}[2Jb\u{1b}]0;x\u{7}"), "a\\u{1b}[2Jb\\u{1b}]0;x\\u{7}");
        assert_eq!(safe("\u{1b}"), "\\u{1b}");
        assert_eq!(safe("\u{1b}[1"), "\\u{1b}[1");
    }

    #[test]
    fn a_failure_is_told_with_its_reason_and_what_to_do() {
        let document =
            json!({"error": "nothing was changed", "causes": ["held"], "help": "wait", "state": "as before"});
        let text = told(&BTreeMap::from([("h1".to_owned(), document)]));
        let text = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(text, "  h1: error: nothing was changed: held\n      help: wait\n      as before\n");
        let refused = json!({"error": "this host makes it impossible", "refusals": [{"message": "no eno1"}]});
        assert!(told(&BTreeMap::from([("h1".to_owned(), refused)])).contains("no eno1"));
    }
}
