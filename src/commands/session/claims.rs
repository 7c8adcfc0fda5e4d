//! The plan toward what a lab shall be, once it is known that nobody has the addresses that its router would take.

use std::collections::BTreeMap;
use std::io;

use super::Session;
use crate::commands::failure::Failure;
use crate::commands::source::Source;
use crate::desired::{self, Claims, Desired, Note};
use crate::ledger;
use crate::model::Model;
use crate::names::VmName;
use crate::observe::Observation;
use crate::plan::Plan;
use crate::probe;
use crate::state::Guest;

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
        let claims = desired::claims(&observation.state, &wanted.state, &observation.facts);
        self.unclaimed_here(&claims, observation)?;
        wanted.notes.extend(unclaimed(claims)?);
        let plan = self.plan(observation, &wanted.state);
        Ok((wanted, plan))
    }
}

impl Session {
    /// Refuses where another lab of this host has such an address: nobody on the wire answers for it here.
    fn unclaimed_here(&self, claims: &Claims, observation: &Observation) -> Result<(), Failure> {
        let mut refusals = Vec::new();
        let asks = claims.ask.iter().any(|claim| claim.network.is_none());
        for lab in if asks { ledger::labs(&self.paths)? } else { Vec::new() } {
            // What one says that can't be read is told elsewhere.
            let read = ledger::read(&self.paths, &lab).ok().flatten();
            let other = read.filter(|other| lab != self.lab && other.boot_id == self.ledger.boot_id);
            if let Some(source) = other.and_then(|other| Source::applied(&other).ok()) {
                let outside = desired::outside_of(&source.model, &observation.facts);
                refusals.extend(claims.refusals_for(&lab, &outside));
            }
        }
        if refusals.is_empty() { Ok(()) } else { Err(Failure::Refused(refusals)) }
    }
}

/// Refuses where somebody has an address that the router would take; else says where nobody could be asked.
fn unclaimed(claims: Claims) -> Result<Vec<Note>, Failure> {
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
