//! Progress of a plan: a line that changes on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{Output, on_terminal};
use crate::apply::Event;

/// Shows what a plan is doing.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// Where lines go that don't change; those of a bar stand in the bar.
    plain: Option<Output>,
    /// How much is done, and how much there is.
    done: u64,
    total: u64,
    begun: Instant,
}

impl Progress {
    /// Progress of `total` operations.
    pub(super) fn of(total: usize, output: &Output) -> Self {
        let bar = (on_terminal() && output.is_text()).then(|| {
            let style = ProgressStyle::with_template("{spinner} {bar:24} {pos}/{len} {msg}");
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(100));
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        let plain = bar.is_none().then_some(*output);
        Self { bar, plain, done: 0, total: total as u64, begun: Instant::now() }
    }

    /// Shows one event.
    pub(super) fn event(&mut self, event: &Event) {
        let (message, more) = match event {
            Event::WaveStarted { phase, ops } => (format!("{} ({ops})", phase.title()), 0),
            Event::WaveDone { phase, done, .. } => (phase.title().to_owned(), *done),
            Event::Verifying => ("reading back".to_owned(), 0),
            Event::Repairing { ops } => (format!("repairing ({ops})"), 0),
            Event::RollingBack => ("rolling back".to_owned(), 0),
        };
        self.done += more as u64;
        if let Some(output) = &self.plain {
            output.progress(&message, self.done, self.total);
        }
        if let Some(bar) = &self.bar {
            bar.inc(more as u64);
            bar.set_message(message);
        } else if let (Some(output), Event::RollingBack | Event::Repairing { .. }) = (&self.plain, event) {
            output.say(message);
        }
    }

    /// Clears the line; how long it took.
    pub(super) fn done(self) -> Duration {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.begun.elapsed()
    }
}
