//! [`Meter`]: how many bytes of a file have come; a line that changes on a terminal, a few plain lines elsewhere.

use std::cell::Cell;
use std::time::Duration;

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::commands::output::{Output, on_terminal};
use crate::images::Step;

/// Shows bytes. Nothing appears before the first of them.
pub(super) struct Meter {
    what: String,
    output: Output,
    bar: Option<ProgressBar>,
    /// Quarters that were told in plain lines; the beginning counts.
    told: Cell<u64>,
}

impl Meter {
    /// `what` is done, for example `downloading debian`.
    pub(super) fn new(what: &str, output: &Output) -> Self {
        let bar = (on_terminal() && output.is_text())
            .then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        Self { what: what.to_owned(), output: *output, bar, told: Cell::new(0) }
    }

    /// So many bytes of so many.
    pub(super) fn at(&self, done: u64, size: Option<u64>) {
        self.output.progress(&self.what, done, size.unwrap_or(done));
        if let Some(bar) = &self.bar {
            let template = match size {
                Some(_) => "{spinner} {bar:24} {binary_bytes}/{binary_total_bytes} {msg} ({binary_bytes_per_sec})",
                None => "{spinner} {binary_bytes} {msg}",
            };
            if let (Some(size), true) = (size, bar.length() != size) {
                bar.set_length(size);
            }
            if bar.message().is_empty() {
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                bar.set_message(self.what.clone());
                bar.enable_steady_tick(Duration::from_millis(100));
            }
            bar.set_position(done);
            return;
        }
        let quarter = size.filter(|size| *size > 0).map_or(1, |size| 1 + done.saturating_mul(4) / size);
        if quarter > self.told.replace(quarter.max(self.told.get())) {
            let of = size.map_or_else(String::new, |size| format!(" of {}", BinaryBytes(size)));
            self.output.say(format_args!("{}: {}{of}", self.what, BinaryBytes(done)));
        }
    }

    /// How far a download is.
    pub(super) fn step(&self, step: Step) {
        let say = |text: &str| {
            let line = || self.output.say(format_args!("{}: {text}", self.what));
            match &self.bar {
                Some(bar) => bar.suspend(line),
                None => line(),
            }
        };
        match step {
            Step::Waiting => say("another vmnet is at it; waiting"),
            Step::Receiving(done, size) => self.at(done, size),
            Step::Again => say("the connection broke; going on"),
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
