//! What this process must be allowed to do, asked before anything else is tried.

use std::io;

use super::failure::Failure;
use crate::desired::{Lack, Refusal};
use crate::kernel::caps;
use crate::observe::ObserveError;

/// What every change and most looks need: links, rules and routes; entering namespaces and mounting their names.
const NEEDED: [&str; 2] = ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"];

/// Refuses to go on without the capabilities that a change needs: half of one would be worse than none.
pub(super) fn check() -> Result<(), Failure> {
    // Without /proc nothing works, and the first thing that is tried says so.
    let found = caps::effective().unwrap_or_default();
    let missing = NEEDED.into_iter().filter(|name| !found.contains(*name));
    let lacks: Vec<Refusal> =
        missing.map(|name| Refusal::Lacks(Lack::Capability { capability: name.to_owned() })).collect();
    if lacks.is_empty() { Ok(()) } else { Err(Failure::Refused(lacks)) }
}

/// Why a host can't be observed: a capability that is missing, by its name, where that is the reason.
pub(super) fn unobservable(error: ObserveError) -> Failure {
    match (is_refused(&error), check()) {
        (true, Err(lack)) => lack,
        _ => Failure::failed("this host can't be observed", error),
    }
}

/// Whether the kernel said that this is not allowed.
fn is_refused(error: &ObserveError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return true;
        }
        next = error.source();
    }
    false
}
