//! Guests that run on as they were started although the definition says something else by now.

use std::collections::BTreeMap;

use super::boot::{domain, machine};
use super::session::Session;
use super::source::Source;
use crate::names::{NetName, VmName};
use crate::observe::Observation;
use crate::state::{Feature, Guest};

/// The running guests that would be started in another way now. A namespace is changed in place, so it never is one.
/// `mtu` is that of each network's segment.
pub(super) fn outdated(
    session: &Session,
    source: &Source,
    observation: &Observation,
    mtu: &BTreeMap<NetName, u32>,
) -> Vec<VmName> {
    let mut outdated = Vec::new();
    let mut facts = None;
    for (name, guest) in &observation.state.guests {
        let Some(vm) = source.model.vms().get(name).filter(|_| guest.is_machine()) else { continue };
        let facts = facts.get_or_insert_with(|| observation.facts.clone());
        // What the host has for guests is not looked for when none is to be started: opening the device nodes loads
        // modules. The guest shows what it was given.
        facts.features.insert(Feature::Kvm);
        // What can't be started as it is now is found out at the next boot.
        let differs = match guest {
            Guest::Qemu(running) => {
                match running.vhost {
                    true => facts.features.insert(Feature::VhostNet),
                    false => facts.features.remove(&Feature::VhostNet),
                };
                let mut running = running.clone();
                if let Some(disk) = &mut running.disk {
                    // What was in the base is not looked for when nothing is to be started.
                    disk.digest = None;
                }
                machine(session, source, facts, mtu, vm).is_ok_and(|now| now != *running)
            }
            Guest::Libvirt(running) => domain(session, source, facts, mtu, vm).is_ok_and(|now| now != **running),
            Guest::Netns { .. } => false,
        };
        if differs || guest.engine() != vm.engine().word() {
            outdated.push(name.clone());
        }
    }
    outdated
}
