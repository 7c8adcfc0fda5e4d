//! Guests that run: QEMU processes by what their start wrote down, namespace guests by their namespace.

use std::collections::BTreeMap;

use super::census::Census;
use super::{ObserveError, Scope};
use crate::engine;
use crate::names::VmName;
use crate::rule;
use crate::state::Guest;

/// The guests of the lab that run.
pub(super) fn read(scope: &Scope, census: &Census) -> Result<BTreeMap<VmName, Guest>, ObserveError> {
    let mut guests = BTreeMap::new();
    for ns in census.marks.keys() {
        let vm = ns.as_str().strip_prefix(rule::router_namespace(&scope.lab).as_str());
        if let Some(Ok(vm)) = vm.and_then(|rest| rest.strip_prefix('.')).map(str::parse) {
            guests.insert(vm, Guest::Netns { ns: ns.clone() });
        }
    }
    let running = engine::running(&scope.paths, &scope.lab).map_err(|source| ObserveError::Guests(Box::new(source)))?;
    guests.extend(running.into_iter().map(|running| (running.vm, Guest::Qemu(Box::new(running.guest)))));
    Ok(guests)
}
