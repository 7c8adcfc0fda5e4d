//! rtnetlink messages from our own types. Pure: bytes to be, nothing is sent.

use std::net::IpAddr;
use std::os::fd::RawFd;

use ipnet::IpNet;
use rtnetlink::packet_core::DefaultNla;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoMacVlan, InfoPortData, InfoPortKind, InfoVeth,
    InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, MacVlanMode, Prop,
};
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType, RouteVia,
};
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::names::IfName;
use crate::plan::LinkChange;
use crate::rule::ROUTE_PROTOCOL;
use crate::state::{BridgeSettings, Knob, Link, Place, Route};

/// The attributes of a link that the kernel takes when it makes one: all but alias and state.
fn attributes(name: &IfName, link: &Link, master: Option<u32>, ns: Option<RawFd>) -> Vec<LinkAttribute> {
    let mut attributes = vec![
        LinkAttribute::IfName(name.to_string()),
        LinkAttribute::Address(link.mac.octets().to_vec()),
        LinkAttribute::Mtu(link.mtu),
        LinkAttribute::Group(link.group),
    ];
    attributes.extend(master.map(LinkAttribute::Controller));
    attributes.extend(ns.map(LinkAttribute::NetNsFd));
    attributes
}

fn new_link(mut attributes: Vec<LinkAttribute>, kind: InfoKind, data: Option<InfoData>) -> RouteNetlinkMessage {
    let mut info = vec![LinkInfo::Kind(kind)];
    info.extend(data.map(LinkInfo::Data));
    attributes.push(LinkAttribute::LinkInfo(info));
    let mut message = LinkMessage::default();
    message.attributes = attributes;
    RouteNetlinkMessage::NewLink(message)
}

/// A bridge.
pub(super) fn add_bridge(
    name: &IfName,
    link: &Link,
    settings: &BridgeSettings,
    master: Option<u32>,
) -> RouteNetlinkMessage {
    new_link(attributes(name, link, master, None), InfoKind::Bridge, Some(bridge_data(settings)))
}

fn bridge_data(settings: &BridgeSettings) -> InfoData {
    let BridgeSettings { stp, forward_delay, multicast_snooping } = *settings;
    InfoData::Bridge(vec![
        InfoBridge::StpState(if stp { BridgeStpState::KernelStp } else { BridgeStpState::Disabled }),
        InfoBridge::ForwardDelay(forward_delay),
        InfoBridge::MulticastSnooping(multicast_snooping),
    ])
}

/// A link that sits on `parent`, made straight in the namespace `ns` where that is not the parent's.
pub(super) fn add_on_parent(
    (name, link): (&IfName, &Link),
    data: Sits,
    parent: u32,
    (master, ns): (Option<u32>, Option<RawFd>),
) -> RouteNetlinkMessage {
    let mut attributes = attributes(name, link, master, ns);
    attributes.push(LinkAttribute::Link(parent));
    match data {
        Sits::Vlan(id) => new_link(attributes, InfoKind::Vlan, Some(InfoData::Vlan(vec![InfoVlan::Id(id)]))),
        Sits::Macvlan => {
            let data = InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Bridge)]);
            new_link(attributes, InfoKind::MacVlan, Some(data))
        }
    }
}

/// What sits on a parent device.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sits {
    /// An 802.1Q sub-interface of this VLAN.
    Vlan(u16),
    /// A macvlan in bridge mode.
    Macvlan,
}

/// Both ends of a veth pair; the far one straight in its own namespace.
///
/// Both say that they have one queue, which is what they would use anyway: unasked, the kernel makes one for each CPU
/// and then gives up all but the first, and waits for an RCU grace period each time (`veth_init_queues`), which is most
/// of the time that a pair takes.
pub(super) fn add_veth(
    (near, near_link, master): (&IfName, &Link, Option<u32>),
    (far, far_link, ns): (&IfName, &Link, RawFd),
) -> RouteNetlinkMessage {
    let one_queue = || [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];
    let mut peer = LinkMessage::default();
    peer.attributes = attributes(far, far_link, None, Some(ns));
    peer.attributes.extend(one_queue());
    let data = InfoData::Veth(InfoVeth::Peer(peer));
    let mut near = attributes(near, near_link, master, None);
    near.extend(one_queue());
    new_link(near, InfoKind::Veth, Some(data))
}

/// Changes to a link, found by its name. `master` is the index of the one in `change`, 0 for none.
pub(super) fn change_link(name: &str, change: &LinkChange, master: Option<u32>) -> RouteNetlinkMessage {
    let LinkChange { alias, mac, mtu, group, master: _, up, bridge, port } = change;
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec())));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(group.map(LinkAttribute::Group));
    message.attributes.extend(alias.clone().map(LinkAttribute::IfAlias));
    message.attributes.extend(master.map(LinkAttribute::Controller));
    if let Some(up) = up {
        message.header.flags.set(LinkFlags::Up, *up);
        message.header.change_mask = LinkFlags::Up;
    }
    let mut info = Vec::new();
    if let Some(settings) = bridge {
        info.extend([LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(bridge_data(settings))]);
    }
    let flags: Vec<InfoBridgePort> = port.iter().filter_map(port_flag).collect();
    if !flags.is_empty() {
        info.extend([LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(InfoPortData::BridgePort(flags))]);
    }
    // RTM_SETLINK does not look at IFLA_LINKINFO (`do_setlink`); RTM_NEWLINK without NLM_F_CREATE does both.
    if info.is_empty() {
        return RouteNetlinkMessage::SetLink(message);
    }
    message.attributes.push(LinkAttribute::LinkInfo(info));
    RouteNetlinkMessage::NewLink(message)
}

fn port_flag((knob, value): (&Knob, &u32)) -> Option<InfoBridgePort> {
    match knob.place() {
        Place::Port(attribute) => Some(InfoBridgePort::Other(DefaultNla::new(attribute, vec![u8::from(*value != 0)]))),
        Place::Ipv4(_) | Place::Ipv6(_) => None,
    }
}

/// Switches STP of a bridge off, and nothing else: while it is on, the kernel refuses a forward delay of 0, and of
/// both in one message it looks at the delay first (`br_changelink`).
pub(super) fn stp_off(name: &str) -> RouteNetlinkMessage {
    let data = InfoData::Bridge(vec![InfoBridge::StpState(BridgeStpState::Disabled)]);
    new_link(vec![LinkAttribute::IfName(name.to_owned())], InfoKind::Bridge, Some(data))
}

/// `lo` up and marked.
pub(super) fn mark_loopback(mark: &str) -> RouteNetlinkMessage {
    let change = LinkChange { alias: Some(mark.to_owned()), up: Some(true), ..LinkChange::default() };
    change_link("lo", &change, None)
}

/// A link up.
pub(super) fn up(name: &str) -> RouteNetlinkMessage {
    change_link(name, &LinkChange { up: Some(true), ..LinkChange::default() }, None)
}

/// One more name of a link.
pub(super) fn add_altname(name: &IfName, altname: &str) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    message.attributes.push(LinkAttribute::PropList(vec![Prop::AltIfName(altname.to_owned())]));
    RouteNetlinkMessage::NewLinkProp(message)
}

/// Removes one link.
pub(super) fn remove_link(name: &IfName) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    RouteNetlinkMessage::DelLink(message)
}

/// Removes every link of a group (`rtnl_group_dellink`).
pub(super) fn remove_group(group: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    RouteNetlinkMessage::DelLink(message)
}

/// An address as `ip address add` gives it, without broadcast; IPv6 without duplicate detection.
pub(super) fn address(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message.attributes.push(AddressAttribute::Address(net.addr()));
    message.header.family = match net {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => {
            message.header.flags = AddressHeaderFlags::Nodad;
            AddressFamily::Inet6
        }
    };
    message
}

/// A route of ours in the main table.
pub(super) fn route(index: u32, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.header.destination_prefix_length = route.to.prefix_len();
    message.header.address_family = family(route.to.addr());
    // ip-route(8): a route without next hop has scope link; IPv6 knows no scopes here.
    message.header.scope =
        if route.via.is_none() && route.to.addr().is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    if route.to.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(route.to.network().into()));
    }
    message.attributes.extend(route.via.map(|via| match (route.to, via) {
        (IpNet::V4(_), IpAddr::V6(via)) => RouteAttribute::Via(RouteVia::Inet6(via)),
        _ => RouteAttribute::Gateway(RouteAddress::from(via)),
    }));
    message.attributes.push(RouteAttribute::Oif(index));
    if route.metric > 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// A dump of all links, without statistics.
pub(super) fn dump_links() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.link_layer_type = 0.into();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// A dump of all addresses.
pub(super) fn dump_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// A dump of one family's routes in the main table, of one protocol or of all.
pub(super) fn dump_routes(family: AddressFamily, protocol: Option<u8>) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = protocol.unwrap_or_default().into();
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unspec;
    RouteNetlinkMessage::GetRoute(message)
}

/// A dump of all routing rules.
pub(super) fn dump_rules() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetRule(RuleMessage::default())
}

/// Asks by which number the socket's namespace knows the one behind `fd`.
pub(super) fn get_nsid(fd: RawFd) -> RouteNetlinkMessage {
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(fd.cast_unsigned()));
    RouteNetlinkMessage::GetNsId(message)
}

/// A request to change a link of this kind that does not exist, with a hardware address of impossible length: the
/// kernel refuses it with EINVAL when it knows the kind (`rtnl_link_ops.validate`), and with another error when it
/// does not. Nothing is made either way, since the message does not ask for creation.
pub(super) fn probe_kind(kind: InfoKind) -> RouteNetlinkMessage {
    new_link(vec![LinkAttribute::IfName("vmnet-probe".into()), LinkAttribute::Address(vec![2; 5])], kind, None)
}
