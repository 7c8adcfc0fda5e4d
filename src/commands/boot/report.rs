//! What became of a `boot`, for people and programs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::apply;
use crate::commands::failure::Failure;
use crate::commands::output::{BAD, GOOD, chain, count, in_words, visible};
use crate::names::{LabName, VmName};

/// What became of the guests.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Were started, and run.
    pub(super) started: Vec<VmName>,
    /// Were not, or did not answer.
    pub(super) failed: BTreeMap<VmName, Failed>,
    /// Seconds until each answered on the network, where that was waited for.
    pub(super) answered: BTreeMap<VmName, f64>,
    /// Operations on the network that had to come first, since it was not as applied.
    pub(super) repaired: usize,
}

/// Why a guest is not as it was asked for.
#[derive(Debug, Clone, Serialize)]
pub(in crate::commands) struct Failed {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    /// It was started, and does not answer.
    runs: bool,
}

impl Failed {
    /// It does not run.
    pub(super) fn of(failure: &Failure) -> Self {
        Self { error: in_words(failure), help: failure.help(), runs: false }
    }

    /// An operation of its start failed.
    pub(super) fn of_op(failure: &apply::Failure) -> Self {
        let error = match &failure.source {
            guest @ (apply::OpError::Guest { .. } | apply::OpError::Ended { .. }) => chain(guest).join(": "),
            _ => chain(failure).join(": "),
        };
        Self { error, help: failure.source.help(), runs: false }
    }

    /// It does not answer.
    pub(super) fn to_answer(failure: &Failure) -> Self {
        Self { runs: true, ..Self::of(failure) }
    }

    /// In a line.
    pub(in crate::commands) fn line(&self) -> String {
        let help = self.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
        self.error.clone() + &help
    }
}

#[derive(Serialize)]
pub(super) struct Report<'a> {
    lab: &'a str,
    started: Vec<VmName>,
    /// They ran already.
    running: &'a [VmName],
    repaired: usize,
    answered: BTreeMap<VmName, f64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failed: BTreeMap<VmName, Failed>,
    seconds: f64,
}

impl<'a> Report<'a> {
    pub(super) fn new(lab: &'a LabName, done: Done, running: &'a [VmName], took: Duration) -> Self {
        let Done { started, failed, answered, repaired } = done;
        Self { lab: lab.as_str(), started, running, repaired, answered, failed, seconds: took.as_secs_f64() }
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    pub(super) fn text(&self, waited: bool) -> String {
        let mut text = match self.repaired {
            0 => String::new(),
            repaired => format!("repaired the network first ({})\n", count(repaired, "change")),
        };
        let well = |vms: &[VmName]| -> Vec<VmName> {
            vms.iter().filter(|vm| !self.failed.contains_key(*vm)).cloned().collect()
        };
        let (started, running, seconds) = (well(&self.started), well(self.running), self.seconds);
        let lab = self.lab;
        let ready = if waited { " and on the network" } else { "" };
        text += &match (started.is_empty(), waited && !running.is_empty()) {
            (false, _) => format!("lab {lab}: {GOOD}started{GOOD:#}{ready} in {seconds:.1} s: {}\n", list(&started)),
            (true, true) => {
                format!("lab {lab}: {GOOD}on the network{GOOD:#} after {seconds:.1} s: {}\n", list(&running))
            }
            (true, false) if self.running.is_empty() && self.failed.is_empty() => format!("lab {lab} has no guests\n"),
            (true, false) if self.failed.is_empty() => format!("lab {lab}: all guests run already\n"),
            (true, false) => String::new(),
        };
        for (vm, failed) in &self.failed {
            let what = match (failed.runs, self.running.contains(vm)) {
                (true, true) => "runs, and is not on the network",
                (true, false) => "started, not on the network",
                (false, _) => "not started",
            };
            text.push_str(&format!("{BAD}{vm} {what}{BAD:#}: {}\n", visible(&failed.line())));
        }
        if !self.failed.is_empty() {
            let all = self.started.len() + self.running.len() + self.failed.values().filter(|f| !f.runs).count();
            text.push_str(&format!("{BAD}failed{BAD:#}: {} of {}\n", self.failed.len(), count(all, "guest")));
        }
        text
    }
}

pub(super) fn list(vms: &[VmName]) -> String {
    vms.iter().map(VmName::as_str).collect::<Vec<_>>().join(", ")
}

pub(super) fn run_already(running: &[VmName]) -> String {
    match running {
        [only] => format!("vm {only} runs already"),
        several => format!("{} run already", list(several)),
    }
}
