//! [`Lines`]: a line for each guest that starts; elsewhere than on a terminal, a line when one has come to its end.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::many::Order;
use crate::commands::output::{BAD, GOOD, Output, on_terminal, visible};
use crate::model::Model;
use crate::names::VmName;

/// How far a guest is.
pub(super) enum State {
    /// Its disk and seed are made.
    Disk,
    /// Its QEMU has not answered yet.
    Starting,
    /// It runs.
    Started,
    /// It runs, and boots.
    Waiting,
    /// It answered after so many seconds.
    Up(f64),
    /// It came to nothing.
    Failed(String),
}

/// The lines of all guests.
pub(super) struct Lines {
    /// On a terminal, those of machines: namespaces are there at once.
    bars: Option<(MultiProgress, BTreeMap<VmName, ProgressBar>)>,
    /// For whom is not on a terminal; `None`: there is one guest, and what it says is said by the plan's progress.
    plain: Option<Output>,
    /// They are waited for, so it takes a while.
    waits: bool,
    ended: Cell<u64>,
    total: u64,
}

impl Lines {
    pub(super) fn new(order: &Order<'_>, model: &Model, vms: &[VmName]) -> Self {
        let is_machine = |vm: &&VmName| model.vms().get(*vm).is_some_and(|vm| vm.engine().is_machine());
        let machines: Vec<&VmName> = vms.iter().filter(is_machine).collect();
        let width = machines.iter().map(|vm| vm.as_str().len()).max().unwrap_or_default();
        let drawn = !order.alone && !machines.is_empty() && on_terminal() && order.output.is_text();
        let bars = drawn.then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let bars = machines.iter().map(|vm| ((*vm).clone(), bar(&all, vm, width))).collect();
            (all, bars)
        });
        let plain = (!order.alone).then_some(*order.output);
        Self { bars, plain, waits: order.wait.is_some(), ended: Cell::new(0), total: vms.len() as u64 }
    }

    /// Whether the progress of a plan would be in their way.
    pub(super) fn are_shown(&self) -> bool {
        self.bars.is_some() || self.plain.is_some_and(|output| !output.is_text())
    }

    /// Shows how far a guest is.
    pub(super) fn show(&self, vm: &VmName, state: State) {
        let Some(output) = &self.plain else { return };
        let (text, is_end) = match state {
            State::Disk => ("disk and seed".to_owned(), false),
            State::Starting => ("starting".to_owned(), false),
            State::Waiting => ("waiting for the network".to_owned(), false),
            State::Started => ("started".to_owned(), true),
            State::Up(after) => (format!("{GOOD}up{GOOD:#} after {after:.1} s"), true),
            State::Failed(why) => (format!("{BAD}failed{BAD:#}: {}", visible(&why)), true),
        };
        self.ended.set(self.ended.get() + u64::from(is_end));
        let plain = anstream::adapter::strip_str(&text).to_string();
        output.progress(&format!("{vm}: {plain}"), self.ended.get().min(self.total), self.total);
        match &self.bars {
            Some((_, bars)) => {
                if let Some(bar) = bars.get(vm) {
                    if is_end { bar.finish_with_message(text) } else { bar.set_message(text) }
                }
            }
            // Who waits wants to know how it goes on; else the summary comes at once.
            None if is_end && self.waits => output.say(format_args!("{vm}: {text}")),
            None => {}
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some((all, _)) = &self.bars {
            // A terminal that is gone shows nothing.
            let _ = all.clear();
        }
    }
}

fn bar(all: &MultiProgress, vm: &VmName, width: usize) -> ProgressBar {
    let bar = all.add(ProgressBar::new_spinner());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(format!("{vm:width$}"));
    bar.set_message("queued");
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
