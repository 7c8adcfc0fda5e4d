//! [`Output`]: what people read and what programs read.
//!
//! With `--json` every command prints one JSON document on standard output, failures too; everything else goes to
//! standard error. Colours and tables are for terminals.

use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::failure::Failure;
use crate::desired::Note;

/// Where a command's results go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
}

/// Emphasis for headings.
pub(super) const BOLD: Style = Style::new().bold();
/// What is good.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// What is bad.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What deserves a look.
pub(super) const WARN: Style = AnsiColor::Yellow.on_default();

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a result: `value` for programs, `text` for people.
    pub(super) fn result(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let mut stdout = anstream::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut stdout, value).map_err(|error| Failure::output(error.into()))?;
            writeln!(stdout).map_err(Failure::output)
        } else {
            let text = text();
            let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            write!(stdout, "{text}{end}").map_err(Failure::output)
        }
    }

    /// Says something to people while a command runs.
    pub(super) fn say(&self, text: impl std::fmt::Display) {
        if !self.json {
            // Whoever closed standard error does not want to know.
            let _ = writeln!(anstream::stderr(), "{text}");
        }
    }

    /// Says what an administrator wants to know although it is no error.
    pub(super) fn notes(&self, notes: &[Note]) {
        for note in notes {
            self.say(format_args!("{WARN}note{WARN:#}: {}: {}", note.about.escape_debug(), note.text));
        }
    }

    /// Tells how a command failed: each problem once, with its causes.
    pub(super) fn failure(&self, failure: &Failure) {
        if matches!(failure, Failure::NobodyReads) {
            return;
        }
        if self.json {
            let text = serde_json::to_string_pretty(&FailureReport::of(failure));
            // A report of strings serializes; where standard output is gone, the exit code still tells.
            let _ = writeln!(anstream::stdout(), "{}", text.unwrap_or_default());
            return;
        }
        let mut stderr = anstream::stderr().lock();
        let _ = match failure {
            Failure::Definition { path, text, problems } => {
                write!(stderr, "{}", problems.render(&path.display().to_string(), text, true))
            }
            Failure::Refused(refusals) => {
                refusals.iter().try_for_each(|refusal| writeln!(stderr, "{BAD}error{BAD:#}: {refusal}"))
            }
            other => {
                let chain = chain(other);
                let result = writeln!(stderr, "{BAD}error{BAD:#}: {}", chain.join(": "));
                match other.help() {
                    Some(help) => result.and_then(|()| writeln!(stderr, "{GOOD}help{GOOD:#}: {help}")),
                    None => result,
                }
            }
        };
    }
}

/// What failed and why, from the near to the far.
pub(super) fn chain(failure: &Failure) -> Vec<String> {
    let mut parts = vec![failure.to_string()];
    let mut source = std::error::Error::source(failure);
    while let Some(error) = source {
        let text = error.to_string();
        // A transparent wrapper says what its source says.
        if parts.last() != Some(&text) {
            parts.push(text);
        }
        source = error.source();
    }
    parts
}

#[derive(Serialize)]
struct FailureReport {
    error: String,
    causes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<crate::definition::ProblemReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refusals: Vec<RefusalReport>,
}

#[derive(Serialize)]
struct RefusalReport {
    #[serde(flatten)]
    refusal: crate::desired::Refusal,
    message: String,
}

impl FailureReport {
    fn of(failure: &Failure) -> Self {
        let mut chain = chain(failure);
        let causes = chain.split_off(1);
        let (mut problems, mut refusals) = (Vec::new(), Vec::new());
        match failure {
            Failure::Definition { path, text, problems: found } => {
                problems = found.reports(&path.display().to_string(), text);
            }
            Failure::Refused(found) => {
                let report = |refusal: &crate::desired::Refusal| RefusalReport {
                    refusal: refusal.clone(),
                    message: refusal.to_string(),
                };
                refusals = found.iter().map(report).collect();
            }
            Failure::Usage(_) | Failure::Lacks { .. } | Failure::Failed { .. } | Failure::NobodyReads => {}
        }
        Self { error: chain.remove(0), causes, help: failure.help(), problems, refusals }
    }
}

/// A table in the project's style: no frame, one rule under the heading.
pub(super) fn table(heading: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heading.iter().map(|word| word.to_uppercase()));
    table
}

/// A number of things: `1 network`, `2 networks`.
pub(super) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Text of a foreign origin, fit for a terminal.
pub(super) fn foreign(text: &str) -> String {
    text.escape_debug().to_string()
}

/// Whether progress can be drawn.
pub(super) fn on_terminal() -> bool {
    std::io::stderr().is_terminal()
}
