//! What `plan` and `create` say of guests that are there already: what counts at once, at the next boot, and on a fresh
//! disk alone.

use std::collections::BTreeSet;

use super::session::Session;
use super::source::Source;
use crate::desired::Note;
use crate::engine;
use crate::model::{Effects, Vm};
use crate::names::VmName;
use crate::observe::Observation;
use crate::render::qemu::disk_name;

/// One for each guest to which something applies later than the rest. `outdated` are those that would be started in
/// another way now.
pub(super) fn notes(session: &Session, source: &Source, observation: &Observation, outdated: &[VmName]) -> Vec<Note> {
    let is_other = session.ledger.definition != source.text || session.ledger.lock != source.lock.to_string();
    // One that this vmnet can't read any more has nothing to be compared with, and is no reason not to be replaced.
    let applied = (session.is_known && is_other).then(|| session.applied().ok()).flatten();
    let outdated: BTreeSet<&VmName> = outdated.iter().collect();
    let note = |(name, vm): (&VmName, &Vm)| {
        let old = applied.as_ref().and_then(|applied| Some((&*applied.model, applied.model.vms().get(name)?)));
        let effects = old.map(|old| Effects::between(old, (&source.model, vm))).unwrap_or_default();
        let text = if observation.state.guests.contains_key(name) {
            of_running(&effects, outdated.contains(name))?
        } else if !effects.fresh_disk.is_empty() && has_disk(session, name) {
            format!("has a disk already: {}", on_fresh(&effects))
        } else {
            return None;
        };
        Some(Note { about: name.to_string(), text })
    };
    source.model.vms().iter().filter_map(note).collect()
}

/// Where that can't be found out it is said as if it had none: `boot` says what is wrong.
fn has_disk(session: &Session, vm: &VmName) -> bool {
    let folder = session.paths.guest_state(&session.lab, vm);
    engine::instance(&folder).is_ok_and(|number| folder.join(disk_name(number)).exists())
}

fn of_running(effects: &Effects, is_outdated: bool) -> Option<String> {
    let mut parts = Vec::new();
    if !effects.live.is_empty() {
        parts.push(format!("what counts as soon as it is applied: {}", effects.live.join(", ")));
    }
    if !effects.next_boot.is_empty() {
        parts.push(format!("what takes effect at its next boot: {}", effects.next_boot.join(", ")));
    }
    if !effects.fresh_disk.is_empty() {
        parts.push(on_fresh(effects));
    }
    match (is_outdated, parts.is_empty()) {
        // By an earlier change, or one of what its files hold.
        (true, true) => Some(
            "runs as it was started; what the definition says of it since takes effect at its next boot (what \
             cloud-init does only once: after vmnet reset)"
                .to_owned(),
        ),
        (true, false) => Some(format!("runs as it was started; {}", parts.join("; "))),
        (false, true) => None,
        (false, false) => Some(format!("runs; {}", parts.join("; "))),
    }
}

/// What its disk never gets to know.
fn on_fresh(effects: &Effects) -> String {
    format!("what only a fresh disk gets (vmnet reset): {}", effects.fresh_disk.join(", "))
}
