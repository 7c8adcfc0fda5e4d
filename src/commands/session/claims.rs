//! The plan toward what a lab shall be, once it is known that nobody has the addresses that its router would take.

use std::collections::BTreeMap;
use std::io;

use super::Session;
use crate::commands::failure::Failure;
use crate::desired::{self, Desired, Note};
use crate::model::Model;
use crate::names::VmName;
use crate::observe::Observation;
use crate::plan::Plan;
use crate::probe;
use crate::state::{Guest, HostState};

impl Session {
    /// What shall be, with these guests running, and the plan that leads there. Asks on the wires for addresses of the
    /// router that are new there, which takes half a second; refuses where somebody answers.
    pub(in crate::commands) fn planned(
        &mut self,
        model: &Model,
        observation: &mut Observation,
        guests: &BTreeMap<VmName, Guest>,
    ) -> Result<(Desired, Plan), Failure> {
        let mut wanted = self.wanted(model, observation, guests)?;
        wanted.notes.extend(unclaimed(observation, &wanted.state)?);
        let plan = self.plan(observation, &wanted.state);
        Ok((wanted, plan))
    }
}

/// Refuses where somebody has an address that the router would take; else says where nobody could be asked.
fn unclaimed(observation: &Observation, wanted: &HostState) -> Result<Vec<Note>, Failure> {
    let claims = desired::claims(&observation.state, wanted, &observation.facts);
    let asked = probe::ask(&claims.ask);
    let refusals = claims.refusals(&asked.answers);
    if !refusals.is_empty() {
        return Err(Failure::Refused(refusals));
    }
    let failed = asked.failed.iter().map(|(device, error)| desired::unasked(device, &why(error)));
    Ok(claims.notes.into_iter().chain(failed).collect())
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "that needs CAP_NET_RAW".to_owned(),
        _ => error.to_string(),
    }
}
