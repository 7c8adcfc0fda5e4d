//! Guests that run and of which there is no record: what still shows them is a TAP of the lab's.
//!
//! A TAP of vmnet's is there as long as a process holds it. Where no guest is known to, its record is gone, or it stands
//! in the run folder of somebody who keeps a lab apart. Either way a machine would lose its network with it.

use super::failure::Failure;
use crate::mark::Mark;
use crate::names::{IfName, LabName};
use crate::plan::{Op, Plan};
use crate::state::{HostState, LinkKind, Ns};

/// The TAPs that no known guest has, each with the guest's name as its mark says it.
pub(super) fn taps(state: &HostState) -> Vec<(&IfName, String)> {
    let held = |name: &IfName| state.guests.values().any(|guest| guest.taps().iter().any(|(tap, _)| tap == name));
    let taps = state.links.iter().filter(|(id, link)| id.ns == Ns::Host && link.kind == LinkKind::Tap);
    let vm = |alias: &str| {
        let nic = alias.parse::<Mark>().ok().filter(|mark| mark.role == "nic")?.name;
        nic.rsplit_once('.').map(|(vm, _)| vm.to_owned())
    };
    taps.filter(|(id, _)| !held(&id.name)).map(|(id, link)| (&id.name, vm(&link.alias).unwrap_or_default())).collect()
}

/// Refuses a plan that would take such a TAP away, or start a guest that needs it.
pub(super) fn refuse(lab: &LabName, state: &HostState, plan: &Plan) -> Result<(), Failure> {
    let mut taps = taps(state);
    taps.retain(|(tap, _)| {
        plan.ops().any(|op| match op {
            Op::RemoveLink { id } => id.ns == Ns::Host && id.name == **tap,
            Op::StartGuest { guest, .. } => guest.taps().iter().any(|(name, _)| name == *tap),
            _ => false,
        })
    });
    if taps.is_empty() { Ok(()) } else { Err(refusal(lab, &taps)) }
}

/// Why nothing is changed, and what to do.
fn refusal(lab: &LabName, taps: &[(&IfName, String)]) -> Failure {
    let help = format!(
        "end them first (pgrep -af guest={lab}-{} finds a guest of vmnet's), or say --force (destroy, gc and stop)",
        taps.first().map(|(_, vm)| vm.as_str()).unwrap_or_default()
    );
    Failure::advised(format!("{}; nothing was changed", text(lab, taps)), help)
}

/// What is the case.
pub(super) fn text(lab: &LabName, taps: &[(&IfName, String)]) -> String {
    let names = taps.iter().map(|(tap, _)| tap.as_str()).collect::<Vec<_>>().join(", ");
    format!(
        "processes hold TAPs of lab {lab} ({names}), and vmnet has no record of them: guests run, or the lab belongs to \
         another VMNET_STATE_DIR"
    )
}
