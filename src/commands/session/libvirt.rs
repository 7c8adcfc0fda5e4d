//! Whether a lab has libvirt do anything, and what is said where it does not answer.

use crate::commands::failure::Failure;
use crate::commands::source::Source;
use crate::ledger::Ledger;
use crate::names::LabName;
use crate::observe;

/// Whether libvirt may have something of a lab: by its own files, or by what was applied.
pub(super) fn may_be_used(ledger: &Ledger, is_known: bool) -> bool {
    // What an earlier definition made may be there still: a guest runs on under the engine that started it, and a change
    // may have been interrupted.
    if !kept(&ledger.lab).is_empty() {
        return true;
    }
    // Hardly any definition that does not use it has the word.
    let may_say = is_known && !ledger.is_of_leftovers() && ledger.definition.contains("libvirt");
    may_say && Source::applied(ledger).map_or(true, |source| source.model.uses_libvirt())
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
