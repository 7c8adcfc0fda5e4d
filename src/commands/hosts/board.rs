//! [`Board`]: a line for each host while all of them work; elsewhere than on a terminal, a line when one is done.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::commands::output::{Output, on_terminal, visible};
use crate::remote::Event;

/// The lines of one phase.
pub(super) struct Board {
    phase: String,
    lines: Option<MultiProgress>,
    /// Names stand below each other.
    width: usize,
    output: Output,
}

/// A host's.
pub(super) struct Line {
    name: String,
    phase: String,
    bar: Option<ProgressBar>,
    lines: Option<MultiProgress>,
    output: Option<Output>,
}

impl Board {
    pub(super) fn new(phase: &str, names: &[impl ToString], output: &Output) -> Self {
        let lines =
            (on_terminal() && output.is_text()).then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        let width = names.iter().map(|name| name.to_string().len()).max().unwrap_or_default();
        Self { phase: phase.to_owned(), lines, width, output: *output }
    }

    /// The line of a host.
    pub(super) fn line(&self, name: &str) -> Line {
        let bar = self.lines.as_ref().map(|lines| {
            let bar = lines.add(ProgressBar::new(1));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {bar:24} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(format!("{name:0$}", self.width));
            bar.set_message(self.phase.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Line {
            name: name.to_owned(),
            phase: self.phase.clone(),
            bar,
            lines: self.lines.clone(),
            output: Some(self.output),
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Some(lines) = &self.lines {
            // A terminal that is gone shows nothing.
            let _ = lines.clear();
        }
    }
}

impl Line {
    /// One that shows nothing.
    pub(super) fn silent() -> Self {
        Self { name: String::new(), phase: String::new(), bar: None, lines: None, output: None }
    }

    /// Shows what a host said.
    pub(super) fn event(&self, event: &Event) {
        match event {
            Event::Progress { phase, done, total } => {
                if let Some(bar) = &self.bar {
                    bar.set_length(*total);
                    bar.set_position(*done);
                    bar.set_message(visible(phase));
                }
            }
            Event::Note { text } => {
                let Some(output) = &self.output else { return };
                let say = || output.say(format_args!("{}: {}", self.name, visible(text)));
                match &self.lines {
                    Some(lines) => lines.suspend(say),
                    None => say(),
                }
            }
            Event::Text { .. } | Event::Result { .. } | Event::Failure { .. } | Event::Unknown => {}
        }
    }

    /// Shows what is done now.
    pub(super) fn says(&self, what: &str) {
        match (&self.bar, &self.output) {
            (Some(bar), _) => bar.set_message(what.to_owned()),
            (None, Some(output)) => output.say(format_args!("{}: {what}", self.name)),
            (None, None) => {}
        }
    }

    /// Shows bytes of a file on their way.
    pub(super) fn sends(&self, file: &str, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(format!("sending {}", visible(file)));
        }
    }

    /// It came to an end.
    pub(super) fn end(&self, well: bool) {
        let word = if well { "done" } else { "failed" };
        match (&self.bar, &self.output) {
            (Some(bar), _) => bar.finish_with_message(format!("{}: {word}", self.phase)),
            (None, Some(output)) => output.say(format_args!("{}: {}: {word}", self.name, self.phase)),
            (None, None) => {}
        }
    }
}
