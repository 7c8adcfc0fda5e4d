//! What the definition says by `[[expect]]`, beside and instead of what follows from it. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::path::World;
use super::{Endpoint, Expect, Expectation, How, Target, by_routes};
use crate::kinds::Wanted;
use crate::model::Assertion;

const WHY: &str = "the definition says so";

/// Adds the assertions of this host's guests; one of an echo request replaces what follows from the model for the pair.
pub(super) fn add(world: &World<'_>, all: &mut Vec<Expectation>) {
    let model = world.model;
    let here = |assertion: &&Assertion| model.vms().get(assertion.from()).is_some_and(|vm| vm.host() == model.here());
    let key = |e: &Expectation| (e.from.clone(), e.to.clone(), e.address);
    let derived = all.iter().enumerate().filter(|(_, e)| e.how == How::L3);
    let places: BTreeMap<(Endpoint, Endpoint, IpAddr), usize> =
        derived.map(|(place, expectation)| (key(expectation), place)).collect();
    for assertion in model.expects().iter().filter(here) {
        let (from, to) = (Endpoint::Guest(assertion.from().clone()), Endpoint::from(assertion.to()));
        let how = How::from(*assertion.service());
        let expect = match assertion.wanted() {
            Wanted::Reach => Expect::Reach,
            Wanted::Deny => Expect::Deny,
        };
        for address in assertion.addresses() {
            let place = places.get(&(from.clone(), to.clone(), *address)).filter(|_| how == How::L3);
            if let Some(expectation) = place.and_then(|place| all.get_mut(*place)) {
                (expectation.expect, expectation.why) = (expect, WHY);
                continue;
            }
            let target = Target { endpoint: to.clone(), address: *address, network: None, macs: Vec::new() };
            let tried = by_routes(world, &model.vms()[assertion.from()], &target);
            all.extend(tried.map(|tried| Expectation { how, expect, why: WHY, ..tried }));
        }
    }
}
