//! The router: its namespace, its port in every network, its external interface. Pure.

use ipnet::IpNet;

use super::Refusal;
use super::context::Context;
use super::devices::Devices;
use super::segments::vlan_is_free;
use crate::mark::Mark;
use crate::model::{DeviceRef, External, Network, OUTSIDE, OwnExternal, Router, RouterPort, Tagged};
use crate::names::{IfName, NsName};
use crate::render::ETHERNET_MTU;
use crate::state::{Address, LinkId, LinkKind, Namespace, Ns, Route};

pub(super) fn router(context: &mut Context<'_>, devices: &Devices) {
    let Some(router) = context.model.router() else { return };
    let mark = Mark::new(context.lab(), "namespace", "router").to_string();
    context.state.namespaces.insert(router.namespace().clone(), Namespace { mark });
    let has_ipv6 = has_ipv6(router);
    sysctls(context, router.namespace(), has_ipv6);
    for (name, port) in router.ports() {
        let network = &context.model.networks()[name];
        add_port(context, router.namespace(), network, port, has_ipv6);
    }
    match router.external() {
        External::None | External::Host(_) => {}
        External::Macvlan(own) => macvlan(context, router, own, devices, has_ipv6),
        External::Vlan { vlan, external } => {
            let tagged = Tagged { uplink: external.uplink.clone(), vlan: *vlan };
            external_vlan(context, router, external, &tagged, devices, has_ipv6);
        }
    }
}

/// Whether the router has any IPv6 address; without one IPv6 is off in its namespace.
pub(super) fn has_ipv6(router: &Router) -> bool {
    let mut inside = router.ports().values().flat_map(|port| port.addresses());
    let mut outside = match router.external() {
        External::Macvlan(own) | External::Vlan { external: own, .. } => own.addresses.iter(),
        External::None | External::Host(_) => [].iter(),
    };
    inside.any(|net| net.addr().is_ipv6()) || outside.any(|net| net.addr().is_ipv6())
}

/// A new namespace takes its settings from the host's or from the kernel's defaults, by a sysctl of the host
/// (net.core.devconf_inherit_init_net): everything that matters is said.
fn sysctls(context: &mut Context<'_>, ns: &NsName, has_ipv6: bool) {
    let ns = Ns::Named(ns.clone());
    context.set(&ns, "ipv4/ip_forward", 1);
    // One address is answered by one port only (ARP flux), and questions come from the segment's own address.
    context.set(&ns, "ipv4/conf/all/arp_ignore", 1);
    context.set(&ns, "ipv4/conf/all/arp_announce", 2);
    for which in ["all", "default"] {
        // The firewall checks sources by interface and subnet, which is stricter than the kernel's filter.
        context.set(&ns, format!("ipv4/conf/{which}/rp_filter"), 0);
        // Two subnets of one bridge talk through the router on purpose.
        context.set(&ns, format!("ipv4/conf/{which}/send_redirects"), 0);
        context.set(&ns, format!("ipv4/conf/{which}/accept_redirects"), 0);
    }
    context.set(&ns, "ipv6/conf/default/disable_ipv6", u8::from(!has_ipv6));
    if has_ipv6 {
        context.set(&ns, "ipv6/conf/all/forwarding", 1);
        context.set(&ns, "ipv6/conf/default/accept_ra", 0);
    }
}

fn add_port(context: &mut Context<'_>, ns: &NsName, network: &Network, port: &RouterPort, has_ipv6: bool) {
    let (outer, inner) = (LinkId::host(port.outer().clone()), LinkId::inside(ns, port.inner().clone()));
    let (mtu, name) = (context.mtu_of(network), network.name().as_str());
    let kind = LinkKind::Veth { peer: Some(inner.clone()) };
    let mut outer_link = context.link(kind, *port.outer_mac(), mtu, "router-port", name);
    outer_link.master = Some(network.bridge().name().to_string());
    let kind = LinkKind::Veth { peer: Some(outer.clone()) };
    let mut inner_link = context.link(kind, *port.inner_mac(), mtu, "gateway", name);
    inner_link.ipv6 = has_ipv6;
    inner_link.tx_checksum = Some(false);
    context.add_link(outer, outer_link);
    context.add_link(inner.clone(), inner_link);
    for net in port.addresses() {
        context.state.addresses.insert(Address { link: inner.clone(), net: *net });
    }
}

fn macvlan(context: &mut Context<'_>, router: &Router, own: &OwnExternal, devices: &Devices, has_ipv6: bool) {
    let Some(parent) = devices.get(&own.uplink) else {
        return without_device(context, router, own, has_ipv6, |parent| LinkKind::Macvlan { parent });
    };
    let device = context.facts().devices.get(parent.as_str());
    if let Some(master) = device.and_then(|device| device.master.as_ref()) {
        let (device, master) = (parent.to_string(), master.escape_default().to_string());
        context.refuse(Refusal::MacvlanOnPort { device, master });
    }
    let kind = LinkKind::Macvlan { parent: parent.clone() };
    own_external(context, router, own, parent, kind, has_ipv6);
}

fn external_vlan(
    context: &mut Context<'_>,
    router: &Router,
    own: &OwnExternal,
    tagged: &Tagged,
    devices: &Devices,
    has_ipv6: bool,
) {
    let Some(parent) = devices.get(&own.uplink) else {
        return without_device(context, router, own, has_ipv6, |parent| LinkKind::Vlan { parent, id: tagged.vlan });
    };
    let remedy = |holder: &str| format!("remove it (ip link delete {holder}), or choose another VLAN");
    vlan_is_free(context, "router.external", parent, tagged, remedy);
    let kind = LinkKind::Vlan { parent: parent.clone(), id: tagged.vlan };
    own_external(context, router, own, parent, kind, has_ipv6);
}

/// Without the device there is a refusal already; what went with it is told all the same, as far as its name is known.
fn without_device(
    context: &mut Context<'_>,
    router: &Router,
    own: &OwnExternal,
    has_ipv6: bool,
    kind: impl Fn(IfName) -> LinkKind,
) {
    let device = context.model.uplinks().get(&own.uplink).map(|uplink| uplink.device());
    let name = device.and_then(|device| match device {
        DeviceRef::Name(name) => name.as_str().parse::<IfName>().ok(),
        DeviceRef::Mac(_) => None,
    });
    if let Some(parent) = name {
        own_external(context, router, own, &parent, kind(parent.clone()), has_ipv6);
    }
}

fn own_external(
    context: &mut Context<'_>,
    router: &Router,
    own: &OwnExternal,
    parent: &IfName,
    kind: LinkKind,
    has_ipv6: bool,
) {
    let mtu = context.facts().devices.get(parent.as_str()).map_or(ETHERNET_MTU, |device| device.mtu);
    let id = LinkId::inside(router.namespace(), outside());
    let mut link = context.link(kind, own.mac, mtu, "outside", "router");
    link.ipv6 = has_ipv6;
    context.add_link(id.clone(), link);
    for net in &own.addresses {
        context.state.addresses.insert(Address { link: id.clone(), net: *net });
    }
    for gateway in &own.gateways {
        context.state.routes.insert(default_route(&id.ns, *gateway));
    }
}

/// The external interface's name in the router.
pub(super) fn outside() -> IfName {
    OUTSIDE.parse().expect("outside is an interface name")
}

/// A router's default route through its external interface.
pub(super) fn default_route(ns: &Ns, via: std::net::IpAddr) -> Route {
    let to = if via.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    let to: IpNet = to.parse().expect("the default destination is a network");
    Route { ns: ns.clone(), to, via: Some(via), dev: outside(), metric: 0 }
}
