//! Guests that are started by one plan, each standing or falling alone.

use std::collections::BTreeMap;

use super::report::Failed;
use super::{gone, startable};
use crate::commands::failure::Failure;
use crate::commands::output::Output;
use crate::commands::session::Session;
use crate::commands::source::Source;
use crate::names::VmName;
use crate::observe::Observation;
use crate::plan::Plan;
use crate::state::Guest;

/// What became of them.
#[derive(Debug, Default)]
pub(in crate::commands) struct Batch {
    /// They run.
    pub(in crate::commands) started: Vec<VmName>,
    /// They don't, and nothing of their start is left.
    pub(in crate::commands) failed: BTreeMap<VmName, Failed>,
    /// Operations on the network that had to come first.
    pub(super) repaired: usize,
}

type Guests = BTreeMap<VmName, Guest>;

/// Starts guests that don't run. The network is put right first, all of it or nothing. Where they are not `alone`, one
/// that can't be started keeps none of the others from it.
pub(in crate::commands) async fn start(
    session: &mut Session,
    source: &Source,
    observation: &mut Observation,
    vms: &[VmName],
    alone: bool,
    output: &Output,
) -> Result<Batch, Failure> {
    let running = observation.state.guests.clone();
    let before = session.wanted(&source.model, observation, &running)?;
    let mut batch = Batch { repaired: session.plan(observation, &before.state).len(), ..Batch::default() };
    let mut new = Guests::new();
    for name in vms {
        let vm = source.model.vms().get(name).ok_or_else(|| gone(source, name));
        match vm.and_then(|vm| startable(session, source, &observation.facts, &before.mtu, vm)) {
            Ok(guest) => drop(new.insert(name.clone(), guest)),
            Err(failure) if alone => return Err(failure),
            Err(failure) => drop(batch.failed.insert(name.clone(), Failed::of(&failure))),
        }
    }
    let all = |new: &Guests| running.iter().chain(new).map(|(vm, guest)| (vm.clone(), guest.clone())).collect();
    let planned = session.planned(&source.model, observation, &all(&new));
    let (wanted, plan) = match planned {
        Err(Failure::Refused(_)) if !alone => {
            refused_alone(session, source, observation, &running, &mut new, &mut batch)?;
            session.planned(&source.model, observation, &all(&new))?
        }
        planned => planned?,
    };
    if !plan.is_empty() {
        carry_out(session, observation, &wanted.state, &plan, (&new, alone), &mut batch, output).await?;
    }
    batch.started = new.into_keys().filter(|vm| !batch.failed.contains_key(vm)).collect();
    Ok(batch)
}

async fn carry_out(
    session: &mut Session,
    observation: &Observation,
    wanted: &crate::state::HostState,
    plan: &Plan,
    (new, alone): (&Guests, bool),
    batch: &mut Batch,
    output: &Output,
) -> Result<(), Failure> {
    if !alone {
        session.apart = new.keys().cloned().collect();
    }
    let report = session.carry_out(None, observation, wanted, plan, output, true).await?;
    batch.failed.extend(report.failed.into_iter().map(|(vm, failure)| (vm, Failed::of_op(&failure))));
    Ok(())
}

/// Takes out the guests that something on the host stands in the way of, a link with the name of a port for example.
fn refused_alone(
    session: &mut Session,
    source: &Source,
    observation: &mut Observation,
    running: &Guests,
    new: &mut Guests,
    batch: &mut Batch,
) -> Result<(), Failure> {
    for (vm, guest) in std::mem::take(new) {
        let mut with = running.clone();
        with.insert(vm.clone(), guest.clone());
        let (_, refusals) = session.sketch(&source.model, observation, &with)?;
        match refusals.is_empty() {
            true => drop(new.insert(vm, guest)),
            false => drop(batch.failed.insert(vm, Failed::of(&Failure::Refused(refusals)))),
        }
    }
    Ok(())
}
