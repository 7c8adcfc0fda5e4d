//! Whether a lab has libvirt do anything, and what is said where it does not answer.

use crate::commands::failure::Failure;
use crate::commands::source::Source;
use crate::ledger::Ledger;
use crate::names::LabName;
use crate::observe;

/// Whether libvirt may have something of a lab, by what was applied; by libvirt's own files where that is not known.
pub(super) fn may_be_used(ledger: &Ledger, is_known: bool) -> bool {
    if !is_known || ledger.is_of_leftovers() {
        return !observe::domains_of(&ledger.lab).is_empty();
    }
    // Hardly any definition that does not use it has the word.
    ledger.definition.contains("libvirt") && Source::applied(ledger).map_or(true, |source| source.model.uses_libvirt())
}

/// That libvirt is needed, and does not answer.
pub(in crate::commands) fn silent(lab: &LabName, silence: &str) -> Failure {
    Failure::lacks(format!("libvirt can't be asked what it has of lab {lab}, nothing was changed: {silence}"))
}
