//! libvirt's networks: one for each network of the lab, for machines that others start. Pure.

use super::Refusal;
use super::context::Context;
use crate::rule;
use crate::state::{Libvirt, LibvirtNetwork};

pub(super) fn networks(context: &mut Context<'_>) {
    // Before libvirt runs, at the start of the host, there is nothing to be done: it starts them by itself.
    if !context.model.has_libvirt_networks() || context.facts().libvirt != Libvirt::Answers {
        return;
    }
    let lab = context.lab();
    for network in context.model.networks().values() {
        let (name, uuid) =
            (rule::libvirt_network_name(lab, network.name()), rule::libvirt_network_uuid(lab, network.name()));
        for found in context.facts().foreign_networks.iter().filter(|found| found.name == name || found.uuid == uuid) {
            let theirs = found.name.escape_default();
            let has = if found.name == name { String::new() } else { format!(", with the UUID {uuid},") };
            // A copy of one of the lab's own names the lab, too, and is none of it.
            let other = found.lab.as_deref().filter(|other| *other != lab.as_str());
            context.refuse(Refusal::NameTaken {
                what: "libvirt network",
                name: format!("{theirs}{has}"),
                wanted: format!("network {}", network.name()),
                owner: other.map_or_else(String::new, |lab| format!(" (lab {}'s)", lab.escape_default())),
                remedy: match other {
                    Some(_) => "rename one of the two labs or networks".to_owned(),
                    None => format!(
                        "remove it (virsh net-destroy {theirs}; virsh net-undefine {theirs}), rename the network, or say \
                         libvirt = false"
                    ),
                },
            });
        }
        let own = LibvirtNetwork {
            uuid,
            network: network.name().to_string(),
            bridge: network.bridge().name().to_string(),
            active: true,
            autostart: true,
        };
        context.state.libvirt_networks.insert(name, own);
    }
}
