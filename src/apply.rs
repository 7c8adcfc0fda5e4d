//! Runs a plan: waves in order, a way back, and the proof that the host is what was wanted.
//!
//! Nothing is decided here that a plan could say. A wave's failure or a cancellation leads back to what was found
//! before, by a plan like any other; after the last wave the host is observed again and compared. Generic over
//! [`Host`], so that all of it is tested against a host in memory.

mod error;
pub mod files;
mod host;
mod tables;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::Serialize;

pub use error::{ApplyError, Failure, OpError, Restored};
pub use host::{KernelHost, Step, Told};

use crate::names::VmName;
use crate::observe::ObserveError;
use crate::plan::{Apart, Found, Op, Phase, Plan, diff};
use crate::state::HostState;

/// A host that operations can be run on.
pub trait Host {
    /// Runs the operations of one wave, which don't depend on each other: all of them, whatever becomes of the
    /// others. One answer each, in their order. An operation that removes what is not there has done its work.
    fn run(&mut self, ops: &[Op]) -> impl Future<Output = Vec<Result<(), OpError>>>;

    /// What the lab owns there now.
    fn observe(&mut self) -> impl Future<Output = Result<HostState, ObserveError>>;
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
    /// Guests of the plan whose start stands or falls alone: one that fails is undone alone, and the rest goes on.
    pub apart: &'a BTreeSet<VmName>,
}

impl Work<'_> {
    /// What leads back when it fails.
    pub fn way_back(&self) -> WayBack<'_> {
        WayBack { to: self.before, found: self.found, guests: guests_of(self.plan) }
    }
}

/// The guests that a plan starts or stops.
pub fn guests_of(plan: &Plan) -> BTreeSet<VmName> {
    let of = |op: &Op| match op {
        Op::StartGuest { vm, .. } | Op::StopGuest { vm, .. } => Some(vm.clone()),
        _ => None,
    };
    plan.ops().filter_map(of).collect()
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
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Waves that ran.
    pub waves: usize,
    /// Operations that ran.
    pub ops: usize,
    /// How many of them a repair added.
    pub repaired: usize,
    /// Guests apart that did not start, each with the first thing that failed. Nothing of their start is left.
    #[serde(skip)]
    pub failed: BTreeMap<VmName, Failure>,
}

/// Runs a plan. An empty one does nothing at all.
///
/// # Errors
/// When an operation fails or the run is cancelled: then the host is what it was before, except for what the error
/// lists. When the host is not what was wanted in the end, which the error lists too.
pub async fn run(host: &mut impl Host, work: &Work<'_>, events: &mut dyn FnMut(Event)) -> Result<Report, ApplyError> {
    if work.plan.is_empty() {
        return Ok(Report::default());
    }
    let apart = Apart::new(work.desired, work.apart);
    let mut run = Run { host, events, report: Report::default(), apart };
    let stopped = match run.waves(work.plan, Some(work.cancel)).await {
        Ok(()) => match run.verify(work).await {
            Ok(()) => return Ok(run.report),
            Err(Stopped::Final(error)) => return Err(error),
            Err(stopped) => stopped,
        },
        Err(stopped) => stopped,
    };
    let restored = run.back(&work.way_back()).await;
    Err(match stopped {
        Stopped::Final(error) => error,
        Stopped::Failed(phase, Failure { op, source }, others) => {
            ApplyError::Failed { phase, op: Box::new(op), source, others, restored }
        }
        Stopped::Cancelled => ApplyError::Cancelled { restored },
    })
}

/// Why the waves did not all run.
enum Stopped {
    Failed(Phase, Failure, Vec<Failure>),
    Cancelled,
    Final(ApplyError),
}

struct Run<'a, H> {
    host: &'a mut H,
    events: &'a mut dyn FnMut(Event),
    report: Report,
    apart: Apart,
}

impl<H: Host> Run<'_, H> {
    async fn waves(&mut self, plan: &Plan, cancel: Option<&AtomicBool>) -> Result<(), Stopped> {
        for wave in &plan.waves {
            if cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
                return Err(Stopped::Cancelled);
            }
            let ops = self.going_on(&wave.ops);
            if ops.is_empty() {
                continue;
            }
            let failures = self.wave(wave.phase, &ops).await;
            let mut failures = self.set_apart(failures).into_iter();
            if let Some(first) = failures.next() {
                return Err(Stopped::Failed(wave.phase, first, failures.collect()));
            }
        }
        Ok(())
    }

    /// Without what belongs to a guest that has failed.
    fn going_on<'o>(&self, ops: &'o [Op]) -> Cow<'o, [Op]> {
        if self.report.failed.is_empty() {
            return Cow::Borrowed(ops);
        }
        let fails = |op: &&Op| self.apart.guest_of(op).is_some_and(|vm| self.report.failed.contains_key(vm));
        let is_way_out = |op: &&Op| op.removes();
        ops.iter().filter(|op| is_way_out(op) || !fails(op)).cloned().collect()
    }

    /// Writes down what failed of guests apart, and gives the rest.
    fn set_apart(&mut self, failures: Vec<Failure>) -> Vec<Failure> {
        let mut others = Vec::new();
        for failure in failures {
            match self.apart.guest_of(&failure.op) {
                // What can't be removed is nobody's failure to start.
                Some(vm) if !failure.op.removes() => {
                    self.report.failed.entry(vm.clone()).or_insert(failure);
                }
                _ => others.push(failure),
            }
        }
        others
    }

    async fn wave(&mut self, phase: Phase, ops: &[Op]) -> Vec<Failure> {
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
        failures
    }

    /// The host has to be what was wanted; one round sets right what changed meanwhile, and takes away what was begun of
    /// guests that failed. Where another one fails in that round, one more does the same for it.
    async fn verify(&mut self, work: &Work<'_>) -> Result<(), Stopped> {
        let mut rest = self.rest(work).await?;
        while !rest.is_empty() {
            let failed = self.report.failed.len();
            (self.events)(Event::Repairing { ops: rest.len() });
            self.report.repaired += rest.len();
            self.waves(&rest, Some(work.cancel)).await?;
            rest = self.rest(work).await?;
            if self.ended(&rest) {
                rest = self.rest(work).await?;
            }
            if failed == self.report.failed.len() {
                break;
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(Stopped::Final(ApplyError::Differs { rest })) }
    }

    /// Guests apart that were started twice and are not there: they have failed. Says whether there are any.
    fn ended(&mut self, rest: &Plan) -> bool {
        let failed = self.report.failed.len();
        for op in rest.ops() {
            if let (Op::StartGuest { vm, .. }, Some(_)) = (op, self.apart.guest_of(op)) {
                let source = OpError::Ended { vm: vm.clone() };
                self.report.failed.entry(vm.clone()).or_insert(Failure { op: op.clone(), source });
            }
        }
        self.report.failed.len() > failed
    }

    async fn rest(&mut self, work: &Work<'_>) -> Result<Plan, Stopped> {
        (self.events)(Event::Verifying);
        let now = self.observe().await;
        let now = now.map_err(|source| Stopped::Final(ApplyError::Observe { source }))?;
        let mut desired = Cow::Borrowed(work.desired);
        for vm in self.report.failed.keys() {
            let desired = desired.to_mut();
            desired.remove_guest(vm);
            // One that libvirt did not know before is forgotten; another stays defined, as it is or as it shall be.
            desired.domains.remove(vm);
            let known = work.before.domains.contains_key(vm).then(|| now.domains.get(vm)).flatten();
            desired.domains.extend(known.map(|domain| (vm.clone(), domain.clone())));
        }
        Ok(WayBack { to: &desired, ..work.way_back() }.from(&now))
    }

    /// Back to what was there before. What fails on the way does not end it: every wave is tried.
    async fn back(&mut self, way: &WayBack<'_>) -> Restored {
        (self.events)(Event::RollingBack);
        let now = match self.observe().await {
            Ok(now) => now,
            Err(source) => return Restored::Unknown(source),
        };
        let mut rest = way.from(&now);
        let mut failures = Vec::new();
        // Once more for what only shows when the rest is there, and for what failed once.
        for _ in 0..2 {
            if rest.is_empty() {
                break;
            }
            failures = Vec::new();
            for wave in rest.waves {
                failures.extend(self.wave(wave.phase, &wave.ops).await);
            }
            rest = match self.observe().await {
                Ok(now) => way.from(&now),
                Err(source) => return Restored::Unknown(source),
            };
        }
        if rest.is_empty() { Restored::Completely } else { Restored::Except { rest, failures } }
    }

    /// What is there now. What can't be read is read once more: much depends on it.
    async fn observe(&mut self) -> Result<HostState, ObserveError> {
        match self.host.observe().await {
            Ok(now) => Ok(now),
            Err(_) => self.host.observe().await,
        }
    }
}

/// Leads back to what was there before a change of an earlier process, as [`run`] does after a failure.
pub async fn back(host: &mut impl Host, way: &WayBack<'_>, events: &mut dyn FnMut(Event)) -> Restored {
    Run { host, events, report: Report::default(), apart: Apart::default() }.back(way).await
}

/// Where a way back leads.
#[derive(Debug, Clone)]
pub struct WayBack<'a> {
    /// What was there before.
    pub to: &'a HostState,
    /// What settings go back to that were not named then.
    pub found: &'a Found,
    /// The guests that the change itself starts or stops.
    pub guests: BTreeSet<VmName>,
}

impl WayBack<'_> {
    /// What leads back from here, by names alone: an observation on the way says nothing of foreign links, one of
    /// which might carry our link group.
    ///
    /// A guest that ended by itself meanwhile is not started again: nobody asked for it.
    pub fn from(&self, now: &HostState) -> Plan {
        // A namespace does not end by itself.
        let machines = self.to.guests.iter().filter(|(_, guest)| guest.is_machine()).map(|(vm, _)| vm);
        let ended: Vec<&VmName> =
            machines.filter(|vm| !now.guests.contains_key(*vm) && !self.guests.contains(*vm)).collect();
        let mut to = Cow::Borrowed(self.to);
        for vm in ended {
            to.to_mut().remove_guest(vm);
        }
        diff(now, &to, self.found, &BTreeSet::new())
    }
}
