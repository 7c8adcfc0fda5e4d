//! Whether a lab has libvirt do anything, and what is said where it does not answer.

use crate::commands::failure::Failure;
use crate::commands::source::Source;
use crate::ledger::{Ledger, Progress};
use crate::names::LabName;
use crate::observe;

/// Whether libvirt may have something of a lab, by what was applied; by libvirt's own files where that is not known.
pub(super) fn may_be_used(ledger: &Ledger, is_known: bool) -> bool {
    let kept = || !kept(&ledger.lab).is_empty();
    if !is_known || ledger.is_of_leftovers() {
        return kept();
    }
    // Of a change that was interrupted, what was there before may be there still.
    if ledger.progress == Progress::Changing && kept() {
        return true;
    }
    // Hardly any definition that does not use it has the word.
    ledger.definition.contains("libvirt") && Source::applied(ledger).map_or(true, |source| source.model.uses_libvirt())
}

/// What libvirt keeps of a lab, by its own files: names of domains and networks.
pub(in crate::commands) fn kept(lab: &LabName) -> Vec<String> {
    let domains = observe::domains_of(lab).into_iter().map(|domain| domain.name);
    domains.chain(observe::networks_of(lab)).collect()
}

/// That libvirt is needed, and does not answer.
pub(in crate::commands) fn silent(lab: &LabName, silence: &str) -> Failure {
    Failure::lacks(format!("libvirt can't be asked what it has of lab {lab}, nothing was changed: {silence}"))
}
