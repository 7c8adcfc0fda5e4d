//! Runs a plan: waves in order, a journal, a way back, and the proof that the host is what was wanted.
//!
//! Nothing is decided here that a plan could say. A wave's failure or a cancellation leads back to what was found
//! before, by a plan like any other; after the last wave the host is observed again and compared. Generic over
//! [`Host`], so that all of it is tested against a host in memory.

mod error;
pub mod files;
mod host;
mod tables;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use error::{ApplyError, Failure, OpError, Restored};
pub use host::KernelHost;

use crate::names::VmName;
use crate::observe::ObserveError;
use crate::plan::{Found, Op, Phase, Plan, diff};
use crate::state::{Guest, HostState};

/// A host that operations can be run on.
pub trait Host {
    /// Runs the operations of one wave, which don't depend on each other: all of them, whatever becomes of the
    /// others. One answer each, in their order. An operation that removes what is not there has done its work.
    fn run(&mut self, ops: &[Op]) -> impl Future<Output = Vec<Result<(), OpError>>>;

    /// What the lab owns there now.
    fn observe(&mut self) -> impl Future<Output = Result<HostState, ObserveError>>;
}

/// Where a wave is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaveState {
    /// About to run: any part of it may have happened.
    Started,
    /// All of it has happened.
    Done,
}

/// Writes down what is about to happen and what has.
pub trait Journal {
    /// A wave begins or is done. `index` counts from 0 over the whole run, waves of a way back included.
    ///
    /// # Errors
    /// Nothing of a wave is run that could not be written down.
    fn wave(&mut self, index: usize, phase: Phase, ops: &[Op], state: WaveState) -> io::Result<()>;
}

/// What is to be done, and what was there.
#[derive(Debug)]
pub struct Work<'a> {
    /// What was observed before, and what a failure leads back to.
    pub before: &'a HostState,
    /// What shall be.
    pub desired: &'a HostState,
    /// The `diff` from `before` to `desired`, as it was shown.
    pub plan: &'a Plan,
    /// What settings go back to.
    pub found: &'a Found,
    /// Set by a signal: stop before the next wave and go back.
    pub cancel: &'a AtomicBool,
}

/// What happens, for a progress line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A wave of so many operations begins.
    WaveStarted {
        /// What it is about.
        phase: Phase,
        /// How many operations it has.
        ops: usize,
    },
    /// It is over.
    WaveDone {
        /// What it was about.
        phase: Phase,
        /// How many operations worked.
        done: usize,
        /// How many did not.
        failed: usize,
    },
    /// The host is observed and compared.
    Verifying,
    /// Something changed meanwhile; so many operations set it right.
    Repairing {
        /// How many.
        ops: usize,
    },
    /// The way back begins.
    RollingBack,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Waves that ran.
    pub waves: usize,
    /// Operations that ran.
    pub ops: usize,
    /// How many of them a repair added.
    pub repaired: usize,
}

/// Runs a plan. An empty one does nothing at all.
///
/// # Errors
/// When an operation fails or the run is cancelled: then the host is what it was before, except for what the error
/// lists. When the host is not what was wanted in the end, which the error lists too.
pub async fn run(
    host: &mut impl Host,
    work: &Work<'_>,
    journal: &mut dyn Journal,
    events: &mut dyn FnMut(Event),
) -> Result<Report, ApplyError> {
    if work.plan.is_empty() {
        return Ok(Report::default());
    }
    let mut run = Run { host, journal, events, report: Report::default() };
    let stopped = match run.waves(work.plan, Some(work.cancel)).await {
        Ok(()) => match run.verify(work).await {
            Ok(()) => return Ok(run.report),
            Err(Stopped::Final(error)) => return Err(error),
            Err(stopped) => stopped,
        },
        Err(stopped) => stopped,
    };
    let restored = run.back(work).await;
    Err(match stopped {
        Stopped::Final(error) => error,
        Stopped::Failed(phase, Failure { op, source }, others) => {
            ApplyError::Failed { phase, op: Box::new(op), source, others, restored }
        }
        Stopped::Cancelled => ApplyError::Cancelled { restored },
        Stopped::Journal(source) => ApplyError::Journal { source, restored },
    })
}

/// Leads back to what was there before a plan that was carried out, as [`run`] does when it fails.
pub async fn back(
    host: &mut impl Host,
    work: &Work<'_>,
    journal: &mut dyn Journal,
    events: &mut dyn FnMut(Event),
) -> Restored {
    Run { host, journal, events, report: Report::default() }.back(work).await
}

/// Why the waves did not all run.
enum Stopped {
    Failed(Phase, Failure, Vec<Failure>),
    Cancelled,
    Journal(io::Error),
    Final(ApplyError),
}

struct Run<'a, H> {
    host: &'a mut H,
    journal: &'a mut dyn Journal,
    events: &'a mut dyn FnMut(Event),
    report: Report,
}

impl<H: Host> Run<'_, H> {
    async fn waves(&mut self, plan: &Plan, cancel: Option<&AtomicBool>) -> Result<(), Stopped> {
        for wave in &plan.waves {
            if cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
                return Err(Stopped::Cancelled);
            }
            let mut failures = self.wave(wave.phase, &wave.ops).await.map_err(Stopped::Journal)?.into_iter();
            if let Some(first) = failures.next() {
                return Err(Stopped::Failed(wave.phase, first, failures.collect()));
            }
        }
        Ok(())
    }

    async fn wave(&mut self, phase: Phase, ops: &[Op]) -> io::Result<Vec<Failure>> {
        let index = self.report.waves;
        self.journal.wave(index, phase, ops, WaveState::Started)?;
        (self.events)(Event::WaveStarted { phase, ops: ops.len() });
        let begun = Instant::now();
        let answers = self.host.run(ops).await;
        tracing::debug!(ops = ops.len(), elapsed = ?begun.elapsed(), "{}", phase.title());
        debug_assert_eq!(answers.len(), ops.len(), "one answer for each operation");
        let failures: Vec<Failure> = std::iter::zip(ops, answers)
            .filter_map(|(op, answer)| answer.err().map(|source| Failure { op: op.clone(), source }))
            .collect();
        self.report.waves += 1;
        self.report.ops += ops.len();
        (self.events)(Event::WaveDone { phase, done: ops.len() - failures.len(), failed: failures.len() });
        if failures.is_empty() {
            self.journal.wave(index, phase, ops, WaveState::Done)?;
        }
        Ok(failures)
    }

    /// The host has to be what was wanted; one round sets right what changed meanwhile.
    async fn verify(&mut self, work: &Work<'_>) -> Result<(), Stopped> {
        let rest = self.rest(work).await?;
        if rest.is_empty() {
            return Ok(());
        }
        (self.events)(Event::Repairing { ops: rest.len() });
        self.report.repaired = rest.len();
        self.waves(&rest, Some(work.cancel)).await?;
        let rest = self.rest(work).await?;
        if rest.is_empty() { Ok(()) } else { Err(Stopped::Final(ApplyError::Differs { rest })) }
    }

    async fn rest(&mut self, work: &Work<'_>) -> Result<Plan, Stopped> {
        (self.events)(Event::Verifying);
        let now = self.host.observe().await;
        let now = now.map_err(|source| Stopped::Final(ApplyError::Observe { source }))?;
        Ok(rest_to(&now, work.desired, work))
    }

    /// Back to what was there before. What fails on the way does not end it: every wave is tried.
    async fn back(&mut self, work: &Work<'_>) -> Restored {
        (self.events)(Event::RollingBack);
        let now = match self.host.observe().await {
            Ok(now) => now,
            Err(source) => return Restored::Unknown(source),
        };
        let mut rest = rest_to(&now, work.before, work);
        let mut failures = Vec::new();
        // Once more for what only shows when the rest is there, and for what failed once.
        for _ in 0..2 {
            if rest.is_empty() {
                break;
            }
            failures = Vec::new();
            for wave in rest.waves {
                match self.wave(wave.phase, &wave.ops).await {
                    Ok(failed) => failures.extend(failed),
                    // The journal is full or gone. The way back is worth more than its record: go on without.
                    Err(_) => drop(self.host.run(&wave.ops).await),
                }
            }
            rest = match self.host.observe().await {
                Ok(now) => rest_to(&now, work.before, work),
                Err(source) => return Restored::Unknown(source),
            };
        }
        if rest.is_empty() { Restored::Completely } else { Restored::Except { rest, failures } }
    }
}

/// What leads from here to there by names alone: an observation on the way says nothing of foreign links, one of which
/// might carry our link group.
///
/// A guest that ended by itself meanwhile is not started again: nobody asked for it.
fn rest_to(now: &HostState, there: &HostState, work: &Work<'_>) -> Plan {
    let asked_for = |vm: &VmName| {
        work.plan.ops().any(|op| matches!(op, Op::StartGuest { vm: of, .. } | Op::StopGuest { vm: of, .. } if of == vm))
    };
    // A namespace does not end by itself.
    let machines = there.guests.iter().filter(|(_, guest)| matches!(guest, Guest::Qemu(_))).map(|(vm, _)| vm);
    let ended: Vec<&VmName> = machines.filter(|vm| !now.guests.contains_key(*vm) && !asked_for(vm)).collect();
    let mut there = Cow::Borrowed(there);
    for vm in ended {
        there.to_mut().remove_guest(vm);
    }
    diff(now, &there, work.found, &BTreeSet::new())
}
