//! [`Event`]: a line of what `vmnet --events` says on standard output.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line of JSON. The last one of a command is its result or its failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// How far it is.
    Progress {
        /// What is being done, for people.
        phase: String,
        /// How much of it is done: operations, or bytes of a file.
        done: u64,
        /// How much there is.
        total: u64,
    },
    /// What people are told meanwhile.
    Note {
        /// For people; no colours.
        text: String,
    },
    /// What people would have read of the result that follows, colours and all.
    Text {
        /// It.
        text: String,
    },
    /// It was done: the command's `--json` document.
    Result {
        /// The document.
        value: Value,
    },
    /// It was not: the document of a failure.
    Failure {
        /// The document.
        value: Value,
    },
    /// What a later version may say beside these.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_the_page_says_and_new_kinds_are_no_error() {
        let event = Event::Progress { phase: "adding ports".into(), done: 2, total: 7 };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(line, r#"{"event":"progress","phase":"adding ports","done":2,"total":7}"#);
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        let other = r#"{"event":"weather","sky":"blue"}"#;
        assert_eq!(serde_json::from_str::<Event>(other).unwrap(), Event::Unknown);
        assert!(serde_json::from_str::<Event>("{}").is_err());
    }
}
