//! Guests that shall run: their ports, and for the netns engine the guest itself. Pure.

use ipnet::IpNet;

use super::context::Context;
use super::{Host, Refusal};
use crate::mark::Mark;
use crate::model::{Engine, Network, Nic, Vm};
use crate::names::{IfName, NsName};
use crate::rule;
use crate::state::{Address, Domain, Guest, Link, LinkId, LinkKind, Namespace, Ns, Route};

pub(super) fn guests(context: &mut Context<'_>) {
    macs_are_free(context);
    for (name, guest) in context.host.guests {
        let Some(vm) = context.model.vms().get(name) else {
            let problem = "is not in the definition any more".to_owned();
            let lab = context.model.lab().clone();
            context.refuse(Refusal::GuestInTheWay { lab, vm: name.clone(), problem });
            continue;
        };
        match guest {
            Guest::Qemu(_) | Guest::Libvirt(_) => taps(context, vm, guest.taps()),
            Guest::Netns { ns } => namespace(context, vm, ns),
        }
        context.state.guests.insert(name.clone(), guest.clone());
    }
    domains(context);
}

/// What libvirt shall have defined: for guests that run there, or are to, what they are made of; for others that it has
/// defined, the same, as long as it is libvirt that runs them. Whether one starts with the host is the definition's to
/// say at any time, everything else counts from its next start.
fn domains(context: &mut Context<'_>) {
    domains_are_free(context);
    let Host { guests, domains, .. } = *context.host;
    for vm in context.model.vms().values() {
        let name = vm.name();
        let domain = match guests.get(name) {
            Some(Guest::Libvirt(guest)) => guest.domain.as_ref(),
            Some(Guest::Qemu(_) | Guest::Netns { .. }) | None => {
                domains.get(name).filter(|_| *vm.engine() == Engine::Libvirt)
            }
        };
        if let Some(domain) = domain {
            let autostart = *vm.autostart() && *vm.engine() == Engine::Libvirt;
            context.state.domains.insert(name.clone(), Domain { autostart, ..domain.clone() });
        }
    }
}

/// Nobody else's domain has the name or the UUID of a guest that libvirt runs.
fn domains_are_free(context: &mut Context<'_>) {
    let lab = context.lab();
    for vm in context.model.vms().values().filter(|vm| *vm.engine() == Engine::Libvirt) {
        let (name, uuid) = (rule::domain_name(lab, vm.name()), rule::guest_uuid(lab, vm.name()));
        for found in context.facts().foreign_domains.iter().filter(|found| found.name == name || found.uuid == uuid) {
            let (domain, by_hand) = (found.name.escape_debug().to_string(), found.by_hand);
            let what = if found.name == name { "name" } else { "UUID" };
            context.refuse(Refusal::DomainTaken { vm: vm.name().clone(), domain, what, by_hand });
        }
    }
}

fn macs_are_free(context: &mut Context<'_>) {
    for vm in context.model.vms().values() {
        for nic in vm.nics() {
            if let Some(domain) = context.facts().foreign_macs.get(nic.mac()) {
                let holder = format!("libvirt domain {}", domain.escape_default());
                context.refuse(Refusal::MacTaken { vm: vm.name().clone(), mac: *nic.mac(), holder });
            }
        }
    }
}

/// A guest's port on its network's bridge, as `LinkKind` says what it is.
fn port(context: &Context<'_>, vm: &Vm, number: usize, network: &Network, kind: LinkKind) -> Link {
    let full_name = format!("{}.{number}", vm.name());
    let mac = rule::port_mac(context.lab(), "nic", &full_name);
    let mut link = context.link(kind, mac, context.mtu_of(network), "nic", &full_name);
    link.master = Some(network.bridge().name().to_string());
    link
}

/// The TAPs of a running machine: as the model wants them now where it still knows them, else as they were made.
fn taps(context: &mut Context<'_>, vm: &Vm, taps: &[(IfName, Link)]) {
    for (name, made) in taps {
        let nics: Vec<(usize, &Nic, &Network)> = context.model.nics(vm).collect();
        let wanted = nics.into_iter().find(|(_, nic, _)| nic.tap() == name);
        let link = match wanted {
            Some((number, _, network)) => port(context, vm, number, network, LinkKind::Tap),
            None => made.clone(),
        };
        let bridge = link.master.clone().unwrap_or_default();
        let bridge_stays = bridge.parse::<IfName>().is_ok_and(|bridge| {
            context.state.links.contains_key(&LinkId::host(bridge.clone()))
                || context.model.networks().values().any(|network| *network.bridge().name() == bridge)
        });
        if !bridge_stays {
            let problem = format!("its bridge {} would go", bridge.escape_default());
            let lab = context.model.lab().clone();
            context.refuse(Refusal::GuestInTheWay { lab, vm: vm.name().clone(), problem });
        }
        context.add_link(LinkId::host(name.clone()), link);
    }
}

fn namespace(context: &mut Context<'_>, vm: &Vm, ns: &NsName) {
    let mark = Mark::new(context.lab(), "namespace", vm.name().as_str()).to_string();
    context.state.namespaces.insert(ns.clone(), Namespace { mark });
    let inside = Ns::Named(ns.clone());
    let has_ipv6 = vm.nics().iter().flat_map(|nic| nic.addresses()).any(|net| net.addr().is_ipv6());
    context.set(&inside, "ipv6/conf/default/disable_ipv6", u8::from(!has_ipv6));
    context.set(&inside, "ipv4/ip_forward", 0);
    let model = context.model;
    for (number, nic, network) in model.nics(vm) {
        let outer = LinkId::host(nic.tap().clone());
        let inner = LinkId::inside(ns, guest_ifname(number));
        let kind = LinkKind::Veth { peer: Some(inner.clone()) };
        let outer_link = port(context, vm, number, network, kind);
        let kind = LinkKind::Veth { peer: Some(outer.clone()) };
        let full_name = format!("{}.{number}", vm.name());
        let mut inner_link = context.link(kind, *nic.mac(), context.mtu_of(network), "guest", &full_name);
        inner_link.ipv6 = has_ipv6;
        context.add_link(outer, outer_link);
        context.add_link(inner.clone(), inner_link);
        for net in nic.addresses() {
            context.state.addresses.insert(Address { link: inner.clone(), net: *net });
        }
    }
    let defaults = model.default_routes(vm).into_iter().map(|(number, gateway)| {
        let to: IpNet = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" }.parse().expect("a network");
        (number, to, gateway)
    });
    let further = vm.nics().iter().enumerate();
    let further =
        further.flat_map(|(number, nic)| nic.further_routes().map(move |route| (number, route.to, route.via)));
    for (number, to, via) in defaults.chain(further) {
        // A namespace asks no DHCP server: what would be on that link is on none.
        if vm.nics()[number].is_on_link(via) {
            let route = Route { ns: inside.clone(), to, via: Some(via), dev: guest_ifname(number), metric: 0 };
            context.state.routes.insert(route);
        }
    }
}

/// The name that a guest's nic has inside, here as in the cloud-init seed: `eth0`, `eth1`, …
fn guest_ifname(number: usize) -> IfName {
    format!("eth{number}").parse().expect("eth and a number is an interface name")
}
