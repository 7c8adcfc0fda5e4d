//! [`Output`]: what people read and what programs read.
//!
//! With `--json` every command prints one JSON document on standard output, failures too; everything else goes to
//! standard error. Colours and tables are for terminals.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::failure::Failure;
use crate::desired::Note;
use crate::remote::Event;

/// Where a command's results go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    form: Form,
    verbose: bool,
}

/// Who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// People.
    Text,
    /// A program, at the end.
    Json,
    /// A vmnet on another host, line by line.
    Events,
}

impl Form {
    pub(super) fn of(json: bool, events: bool) -> Self {
        match (json, events) {
            (_, true) => Self::Events,
            (true, false) => Self::Json,
            (false, false) => Self::Text,
        }
    }
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
    pub(super) fn new(form: Form, verbose: bool) -> Self {
        Self { form, verbose }
    }

    /// Whether people asked for more.
    pub(super) fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Whether people read it.
    pub(super) fn is_text(&self) -> bool {
        self.form == Form::Text
    }

    /// Tells a vmnet on another host how far this one is.
    pub(super) fn progress(&self, phase: &str, done: u64, total: u64) {
        self.event(&Event::Progress { phase: phase.to_owned(), done, total });
    }

    fn event(&self, event: &Event) {
        if self.form == Form::Events {
            // Whoever asked may be gone: what was begun is finished all the same.
            let _ = write_event(event);
        }
    }

    /// Prints a result: `value` for programs, `text` for people.
    pub(super) fn result(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let fail = |error: serde_json::Error| Failure::output(error.into());
        match self.form {
            Form::Json => {
                let text = serde_json::to_string_pretty(value).map(plain).map_err(fail)?;
                writeln!(anstream::stdout(), "{text}").map_err(Failure::output)
            }
            Form::Events => {
                let value = serde_json::to_value(value).map_err(fail)?;
                self.event(&Event::Text { text: text() });
                write_event(&Event::Result { value }).map_err(Failure::output)
            }
            Form::Text => {
                let text = text();
                let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
                write!(anstream::stdout(), "{text}{end}").map_err(Failure::output)
            }
        }
    }

    /// Says something to people while a command runs.
    pub(super) fn say(&self, text: impl std::fmt::Display) {
        match self.form {
            // Whoever closed standard error does not want to know.
            Form::Text => drop(writeln!(anstream::stderr(), "{text}")),
            Form::Events => {
                let text = anstream::adapter::strip_str(&text.to_string()).to_string();
                self.event(&Event::Note { text });
            }
            Form::Json => {}
        }
    }

    /// Says who keeps this command from its work.
    pub(super) fn waits_for(&self, holder: &str) {
        self.say(format_args!("waiting for {holder}, which is changing this host's labs"));
    }

    /// Says what an administrator wants to know although it is no error.
    pub(super) fn notes(&self, notes: &[Note]) {
        for note in notes {
            let (about, text) = (foreign(&note.about), visible(&note.text));
            self.say(format_args!("{WARN}note{WARN:#}: {about}: {text}"));
        }
    }

    /// Tells how a command failed: each problem once, with its causes.
    pub(super) fn failure(&self, failure: &Failure) {
        if matches!(failure, Failure::NobodyReads) {
            return;
        }
        // A report of strings serializes; where standard output is gone, the exit code still tells.
        match self.form {
            Form::Json => {
                let text = serde_json::to_string_pretty(&FailureReport::of(failure)).map(plain).unwrap_or_default();
                let _ = writeln!(anstream::stdout(), "{text}");
                return;
            }
            Form::Events => {
                let value = serde_json::to_value(FailureReport::of(failure)).unwrap_or_default();
                return self.event(&Event::Failure { value });
            }
            Form::Text => {}
        }
        let mut stderr = anstream::stderr().lock();
        let _ = match failure {
            Failure::Definition { path, text, problems } => {
                write!(stderr, "{}", problems.render(&shown(path), text, true))
            }
            Failure::Refused(refusals) => {
                let lines = refusals.iter().map(|refusal| visible(&refusal.to_string()));
                lines.into_iter().try_for_each(|line| writeln!(stderr, "{BAD}error{BAD:#}: {line}"))
            }
            other => {
                let chain = chain(other);
                let hosts = match other {
                    Failure::Hosts { hosts, .. } => super::hosts::told(hosts),
                    _ => String::new(),
                };
                let result = writeln!(stderr, "{BAD}error{BAD:#}: {}", visible(&chain.join(": ")))
                    .and_then(|()| write!(stderr, "{hosts}"));
                match other.help() {
                    Some(help) => result.and_then(|()| writeln!(stderr, "{GOOD}help{GOOD:#}: {}", visible(&help))),
                    None => result,
                }
            }
        };
    }
}

/// JSON in which no character is left that a terminal would obey: serde_json writes those above 0x7e as they are.
fn plain(text: String) -> String {
    let plain = |c: char| (c.is_ascii() && c != '\u{7f}') || c.escape_debug().len() == 1;
    if text.chars().all(plain) {
        return text;
    }
    let mut all = String::with_capacity(text.len());
    for c in text.chars() {
        match plain(c) {
            true => all.push(c),
            false => c.encode_utf16(&mut [0; 2]).iter().for_each(|half| all.push_str(&format!("\\u{half:04x}"))),
        }
    }
    all
}

/// One line, and on its way.
fn write_event(event: &Event) -> std::io::Result<()> {
    let mut line = plain(serde_json::to_string(event)?);
    line.push('\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.flush()
}

/// What failed and why, from the near to the far.
pub(super) fn chain(error: &dyn std::error::Error) -> Vec<String> {
    let mut parts = vec![error.to_string()];
    let mut source = error.source();
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

/// What failed and why, and what to do, in one text.
pub(super) fn in_one(failure: &Failure) -> String {
    let help = failure.help().map(|help| format!("; {help}")).unwrap_or_default();
    chain(failure).join(": ") + &help
}

/// As [`in_one`] without what to do; definitions and refusals say more than their error.
pub(super) fn in_words(failure: &Failure) -> String {
    match failure {
        Failure::Refused(refusals) => refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        Failure::Definition { path, text, problems } => problems.render(&path.display().to_string(), text, false),
        other => chain(other).join(": "),
    }
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
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    hosts: BTreeMap<String, serde_json::Value>,
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
        let (mut problems, mut refusals, mut of_hosts) = (Vec::new(), Vec::new(), BTreeMap::new());
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
            Failure::Hosts { hosts, .. } => of_hosts.clone_from(hosts),
            Failure::Usage(_)
            | Failure::Lacks { .. }
            | Failure::Advised { .. }
            | Failure::Failed { .. }
            | Failure::NobodyReads => {}
        }
        Self { error: chain.remove(0), causes, help: failure.help(), problems, refusals, hosts: of_hosts }
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
    text.escape_debug().to_string().replace("\\'", "'")
}

/// A path, fit for a terminal.
pub(super) fn shown(path: &Path) -> String {
    visible(&path.to_string_lossy())
}

/// As [`shown`]; a path below the working directory as it is called from there.
pub(super) fn near(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    shown(here.and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path))
}

/// A message with what a terminal would obey in it made visible: paths, and what other programs said, are anybody's
/// text. Lines stay lines.
pub(super) fn visible(message: &str) -> String {
    let fit = |c: char| c == '\n' || c == '\'' || c == '"' || c == '\\';
    let mut text = String::with_capacity(message.len());
    for c in message.chars() {
        match fit(c) {
            true => text.push(c),
            false => text.extend(c.escape_debug()),
        }
    }
    text
}

/// Whether progress can be drawn.
pub(super) fn on_terminal() -> bool {
    std::io::stderr().is_terminal()
}
