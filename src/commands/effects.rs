//! What `plan` and `create` say of guests that are there already: what counts at once, at the next boot, and on a fresh
//! disk alone.

use std::path::Path;

use super::destroy;
use super::failure::Failure;
use super::session::Session;
use super::source::Source;
use crate::desired::Note;
use crate::model::Effects;
use crate::names::VmName;
use crate::observe::Observation;

/// One for each guest to which something applies later than the rest. `outdated` are those that would be started in
/// another way now.
pub(super) fn notes(
    session: &Session,
    source: &Source,
    observation: &Observation,
    outdated: &[VmName],
) -> Result<Vec<Note>, Failure> {
    let is_other = session.ledger.definition != source.text || session.ledger.lock != source.lock.to_string();
    let applied = (session.is_known && is_other).then(|| session.applied()).transpose()?;
    let disks = if applied.is_some() { destroy::disks(&session.paths, &session.lab) } else { Vec::new() };
    let notes = source.model.vms().iter().filter_map(|(name, vm)| {
        let old = applied.as_ref().and_then(|applied| Some((&*applied.model, applied.model.vms().get(name)?)));
        let effects = old.map(|old| Effects::between(old, (&source.model, vm))).unwrap_or_default();
        let is_running = observation.state.guests.contains_key(name);
        let has_disk = is_running || disks.iter().any(|disk| is_disk_of(name, disk));
        let text = match is_running {
            true => of_running(&effects, name, outdated.contains(name))?,
            false if has_disk && !effects.fresh_disk.is_empty() => {
                format!("has a disk already: {}", on_fresh(&effects, name))
            }
            false => return None,
        };
        Some(Note { about: name.to_string(), text })
    });
    Ok(notes.collect())
}

/// Its further disks are none of cloud-init's.
fn is_disk_of(vm: &VmName, path: &Path) -> bool {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    path.parent().and_then(name).as_deref() == Some(vm.as_str())
        && name(path).is_some_and(|name| name.starts_with("disk-"))
}

fn of_running(effects: &Effects, name: &VmName, is_outdated: bool) -> Option<String> {
    let mut parts = Vec::new();
    if !effects.live.is_empty() {
        parts.push(format!("what counts as soon as it is applied: {}", effects.live.join(", ")));
    }
    if !effects.next_boot.is_empty() {
        parts.push(format!("what takes effect at its next boot: {}", effects.next_boot.join(", ")));
    }
    if !effects.fresh_disk.is_empty() {
        parts.push(on_fresh(effects, name));
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
fn on_fresh(effects: &Effects, name: &VmName) -> String {
    format!("what only a fresh disk gets (vmnet reset {name}): {}", effects.fresh_disk.join(", "))
}
