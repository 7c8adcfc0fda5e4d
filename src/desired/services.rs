//! Files: the hooks of each network, and drop-ins that keep network managers off our devices. Pure.

use super::Refusal;
use super::context::Context;
use crate::mark::Mark;
use crate::paths::{network_manager_drop_in, networkd_drop_in};
use crate::render::hooks;
use crate::state::{File, Ns, Tool};

pub(super) fn files(context: &mut Context<'_>) {
    hook_pairs(context);
    drop_ins(context);
}

fn hook_pairs(context: &mut Context<'_>) {
    // Without `ip` there is a refusal already.
    let Some(ip) = context.facts().tools.get(&Tool::Ip) else { return };
    for network in context.model.networks().values() {
        match hooks::pair(context.host.paths, context.lab(), network, context.mtu_of(network), ip) {
            Ok(pair) => context.state.files.extend(pair),
            Err(error) => {
                let (network, problem) = (network.name().clone(), error.to_string());
                context.refuse(Refusal::NoHooks { network, problem });
            }
        }
    }
}

/// NetworkManager detaches TAPs from bridges, systemd-networkd takes devices and deletes foreign routes: both are
/// told to leave exactly our devices alone. In `/run`, where the devices live too: nothing outlasts them.
fn drop_ins(context: &mut Context<'_>) {
    let facts = context.facts();
    if !facts.network_manager && !facts.networkd {
        return;
    }
    let model = context.model;
    let links = context.state.links.keys().filter(|id| id.ns == Ns::Host).map(|id| id.name.to_string());
    let taps = model.vms().values().flat_map(|vm| vm.nics()).map(|nic| nic.tap().to_string());
    let names: std::collections::BTreeSet<String> = links.chain(taps).collect();
    let mark = Mark::new(context.lab(), "file", "unmanaged");
    if facts.network_manager {
        let list: Vec<String> = names.iter().map(|name| format!("interface-name:={name}")).collect();
        let content = format!("# {mark}\n[keyfile]\nunmanaged-devices+={}\n", list.join(";"));
        context.state.files.insert(network_manager_drop_in(context.lab()), File::new(0o644, content));
    }
    if facts.networkd {
        let list: Vec<&str> = names.iter().map(String::as_str).collect();
        let content = format!("# {mark}\n[Match]\nName={}\n\n[Link]\nUnmanaged=yes\n", list.join(" "));
        context.state.files.insert(networkd_drop_in(context.lab()), File::new(0o644, content));
    }
}
