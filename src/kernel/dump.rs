//! Dumps of links, addresses and routes in the calling thread's namespace.
//!
//! Only attributes that an observation needs are read; names of others are untrusted bytes and come out as lossy
//! text.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use rtnetlink::packet_core::{NlaBuffer, NlasIterator};
use rtnetlink::packet_route::AddressFamily;

use super::message;
use super::wire::Wire;
use crate::names::Mac;
use crate::state::{BridgeSettings, Knob, Odd, Place};

/// A link as the kernel shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkRow {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name, lossy.
    pub name: String,
    /// `IFLA_INFO_KIND`; `None` for hardware and `lo`.
    pub kind: Option<String>,
    /// `IFF_UP`.
    pub up: bool,
    /// `IFLA_CARRIER`.
    pub carrier: bool,
    /// `IFLA_ADDRESS`, where it is a usable Ethernet address.
    pub mac: Option<Mac>,
    /// `IFLA_PERM_ADDRESS`.
    pub permanent_mac: Option<Mac>,
    /// In bytes.
    pub mtu: u32,
    /// `IFLA_GROUP`.
    pub group: u32,
    /// `IFLA_MASTER`: an index in the same namespace.
    pub master: Option<u32>,
    /// `IFLA_IFALIAS`, lossy.
    pub alias: Option<String>,
    /// Alternative names, lossy.
    pub altnames: Vec<String>,
    /// `IFLA_LINK`: the index of the veth peer or of the parent.
    pub lower: Option<u32>,
    /// `IFLA_LINK_NETNSID`: the namespace of `lower` where that is another one; -1 when it has no number here.
    pub lower_nsid: Option<i32>,
    /// IPv6 works on it. Off where the kernel has none.
    pub ipv6: bool,
    /// As a bridge's port: what does not stand as the bridge set it.
    pub port: Odd,
    /// Its settings that are not those of a router's link, where they were asked for. IPv6's only where that works on it.
    pub conf: Odd,
    /// What its kind says of it.
    pub data: KindData,
}

/// Attributes of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KindData {
    /// Nothing that matters here.
    #[default]
    None,
    /// A bridge.
    Bridge(BridgeSettings),
    /// A sub-interface.
    Vlan {
        /// Its VLAN.
        id: u16,
        /// 802.1Q, not 802.1ad.
        dot1q: bool,
    },
    /// A macvlan.
    Macvlan {
        /// In bridge mode.
        bridge: bool,
    },
    /// A TUN device: layer 2, that is, a TAP.
    Tun {
        /// Frames, not packets.
        tap: bool,
    },
}

/// An address as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRow {
    /// The link.
    pub index: u32,
    /// Address and prefix length.
    pub net: IpNet,
    /// The kernel made it: link-local, or from a router advertisement (`IFA_PROTO`, since Linux 5.18).
    pub automatic: bool,
}

/// A route of the main table; a unicast one for each of its next hops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRow {
    /// Destination.
    pub to: IpNet,
    /// Next hop.
    pub via: Option<IpAddr>,
    /// Outgoing link.
    pub index: Option<u32>,
    /// `rtm_protocol`.
    pub protocol: u8,
    /// `RTA_PRIORITY`; 0 where there is none.
    pub metric: u32,
    /// What becomes of the packets, where they are not sent on: ip-route(8)'s word.
    pub refuses: Option<&'static str>,
}

/// A connection for dumps of the namespace that it was opened in.
pub struct Dumper(Wire);

impl Dumper {
    /// Opens one in the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        Wire::open().map(Self)
    }

    /// All links.
    pub fn links(&mut self) -> io::Result<Vec<LinkRow>> {
        self.0.dump(message::dump_links(), |body| link(body, false))
    }

    /// All links, with their settings that are not those of a router's.
    pub fn links_of_router(&mut self) -> io::Result<Vec<LinkRow>> {
        self.0.dump(message::dump_links(), |body| link(body, true))
    }

    /// All addresses.
    pub fn addresses(&mut self) -> io::Result<Vec<AddressRow>> {
        self.0.dump(message::dump_addresses(), address)
    }

    /// Routes of the main table that send packets on, or refuse them: of one protocol, or all.
    pub fn routes(&mut self, protocol: Option<u8>) -> io::Result<Vec<RouteRow>> {
        let mut rows = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let found = self.0.dump(message::dump_routes(family, protocol), |body| Some(routes(body)))?;
            rows.extend(found.into_iter().flatten());
        }
        Ok(rows)
    }

    /// Routing rules that the kernel did not make, as ip-rule(8) would say them in short.
    pub fn rules(&mut self) -> io::Result<Vec<String>> {
        self.0.dump(message::dump_rules(), rule)
    }

    /// The number by which this namespace knows another one; `None` when it has none.
    pub fn nsid(&mut self, of: BorrowedFd<'_>) -> io::Result<Option<i32>> {
        const NETNSA_NSID: u16 = 1;
        let number = |body: &[u8]| {
            // struct rtgenmsg, padded
            let nla = nlas(body.get(4..)?).find(|nla| nla.kind() == NETNSA_NSID)?;
            Some(u32_of(nla.value())?.cast_signed())
        };
        Ok(self.0.ask(message::get_nsid(of.as_raw_fd()), number)?.filter(|id| *id >= 0))
    }
}

fn nlas(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    // What is malformed ends the list: the kernel writes none, so nothing is lost.
    NlasIterator::new(bytes).map_while(Result::ok)
}

fn u32_of(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn mac(value: &[u8]) -> Option<Mac> {
    Mac::try_from(<[u8; 6]>::try_from(value).ok()?).ok()
}

/// `struct ifinfomsg` and its attributes (linux/if_link.h).
fn link(body: &[u8], with_settings: bool) -> Option<LinkRow> {
    let header = body.get(..16)?;
    let mut row = LinkRow {
        index: u32_of(&header[4..8])?,
        up: u32_of(&header[8..12])? & libc::IFF_UP.cast_unsigned() != 0,
        ..LinkRow::default()
    };
    for nla in nlas(&body[16..]) {
        let value = nla.value();
        match nla.kind() {
            libc::IFLA_ADDRESS => row.mac = mac(value),
            libc::IFLA_IFNAME => row.name = text(value),
            libc::IFLA_MTU => row.mtu = u32_of(value)?,
            libc::IFLA_LINK => row.lower = u32_of(value).filter(|index| *index != 0),
            libc::IFLA_MASTER => row.master = u32_of(value).filter(|index| *index != 0),
            libc::IFLA_LINKINFO => info(value, &mut row),
            libc::IFLA_IFALIAS => row.alias = Some(text(value)).filter(|alias| !alias.is_empty()),
            libc::IFLA_AF_SPEC => settings(value, with_settings, &mut row),
            libc::IFLA_GROUP => row.group = u32_of(value)?,
            libc::IFLA_CARRIER => row.carrier = value.first() == Some(&1),
            libc::IFLA_LINK_NETNSID => row.lower_nsid = u32_of(value).map(u32::cast_signed),
            libc::IFLA_PROP_LIST => row.altnames = nlas(value).map(|name| text(name.value())).collect(),
            libc::IFLA_PERM_ADDRESS => row.permanent_mac = mac(value),
            _ => {}
        }
    }
    Some(row)
}

fn info(value: &[u8], row: &mut LinkRow) {
    let mut of_bridge = false;
    for nla in nlas(value) {
        match nla.kind() {
            libc::IFLA_INFO_KIND => row.kind = Some(text(nla.value())),
            // The kind comes first (`rtnl_link_info_fill`).
            libc::IFLA_INFO_DATA => row.data = kind_data(row.kind.as_deref(), nla.value()),
            libc::IFLA_INFO_SLAVE_KIND => of_bridge = text(nla.value()) == "bridge",
            // After its kind (`rtnl_link_slave_info_fill`).
            libc::IFLA_INFO_SLAVE_DATA if of_bridge => row.port = port(nla.value()),
            _ => {}
        }
    }
}

/// What another tool turned of a port. What the kernel does not name, it does not have.
fn port(value: &[u8]) -> Odd {
    let of = |nla: NlaBuffer<&[u8]>| {
        let (knob, _) = Knob::all().find(|(_, place)| *place == Place::Port(nla.kind()))?;
        let value = u32::from(*nla.value().first()?);
        (!knob.is_right(value)).then_some((knob, value))
    };
    nlas(value).filter_map(of).collect()
}

fn kind_data(kind: Option<&str>, value: &[u8]) -> KindData {
    // linux/if_link.h
    const IFLA_BR_FORWARD_DELAY: u16 = 1;
    const IFLA_BR_STP_STATE: u16 = 5;
    const IFLA_BR_MCAST_SNOOPING: u16 = 23;
    const IFLA_VLAN_ID: u16 = 1;
    const IFLA_VLAN_PROTOCOL: u16 = 5;
    const IFLA_MACVLAN_MODE: u16 = 1;
    const MACVLAN_MODE_BRIDGE: u32 = 4;
    const IFLA_TUN_TYPE: u16 = 3;
    const IFF_TAP: u8 = 2;
    let find = |kind| nlas(value).find(|nla| nla.kind() == kind).map(|nla| nla.value().to_vec()).unwrap_or_default();
    match kind {
        Some("bridge") => KindData::Bridge(BridgeSettings {
            stp: u32_of(&find(IFLA_BR_STP_STATE)).unwrap_or_default() != 0,
            forward_delay: u32_of(&find(IFLA_BR_FORWARD_DELAY)).unwrap_or_default(),
            multicast_snooping: find(IFLA_BR_MCAST_SNOOPING) != [0],
        }),
        Some("vlan") => KindData::Vlan {
            id: find(IFLA_VLAN_ID).try_into().map(u16::from_ne_bytes).unwrap_or_default(),
            // ETH_P_8021Q in network byte order
            dot1q: find(IFLA_VLAN_PROTOCOL) == [0x81, 0x00],
        },
        Some("macvlan") => KindData::Macvlan { bridge: u32_of(&find(IFLA_MACVLAN_MODE)) == Some(MACVLAN_MODE_BRIDGE) },
        Some("tun") => KindData::Tun { tap: find(IFLA_TUN_TYPE) == [IFF_TAP] },
        _ => KindData::None,
    }
}

/// `IFLA_AF_SPEC` > AF_INET > `IFLA_INET_CONF` and AF_INET6 > `IFLA_INET6_CONF`: arrays of 32-bit settings.
fn settings(value: &[u8], all: bool, row: &mut LinkRow) {
    const IFLA_INET_CONF: u16 = 1;
    const IFLA_INET6_CONF: u16 = 2;
    const DEVCONF_DISABLE_IPV6: usize = 26;
    let conf = |family: i32, kind: u16| {
        let family = nlas(value).find(|nla| i32::from(nla.kind()) == family)?;
        Some(nlas(family.value()).find(|nla| nla.kind() == kind)?.value().to_vec())
    };
    let at = |conf: &Option<Vec<u8>>, at: usize| u32_of(conf.as_ref()?.get(at * 4..)?);
    let inet6 = conf(libc::AF_INET6, IFLA_INET6_CONF);
    row.ipv6 = at(&inet6, DEVCONF_DISABLE_IPV6) == Some(0);
    if !all {
        return;
    }
    let inet = conf(libc::AF_INET, IFLA_INET_CONF);
    let now = |place| match place {
        Place::Ipv4(number) => at(&inet, number),
        Place::Ipv6(number) if row.ipv6 => at(&inet6, number),
        Place::Ipv6(_) | Place::Port(_) => None,
    };
    let odd = |(knob, place): (Knob, Place)| now(place).filter(|now| !knob.is_right(*now)).map(|now| (knob, now));
    row.conf = Knob::all().filter_map(odd).collect();
}

/// `struct ifaddrmsg` and its attributes (linux/if_addr.h).
fn address(body: &[u8]) -> Option<AddressRow> {
    const IFA_PROTO: u16 = 11;
    let header = body.get(..8)?;
    let (family, length) = (header[0], header[1]);
    let (mut local, mut peer, mut automatic) = (None, None, false);
    for nla in nlas(&body[8..]) {
        match nla.kind() {
            libc::IFA_LOCAL => local = ip(family, nla.value()),
            libc::IFA_ADDRESS => peer = ip(family, nla.value()),
            // IFAPROT_KERNEL_LO, _RA, _LL
            IFA_PROTO => automatic = matches!(nla.value(), [1..=3]),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end's; IPv6 without peer has no IFA_LOCAL.
    let net = IpNet::new(local.or(peer)?, length).ok()?;
    Some(AddressRow { index: u32_of(&header[4..8])?, net, automatic })
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => Some(<[u8; 4]>::try_from(value).ok()?.into()),
        libc::AF_INET6 => Some(<[u8; 16]>::try_from(value).ok()?.into()),
        _ => None,
    }
}

/// `struct rtmsg` and its attributes (linux/rtnetlink.h).
fn routes(body: &[u8]) -> Vec<RouteRow> {
    route(body).unwrap_or_default()
}

fn route(body: &[u8]) -> Option<Vec<RouteRow>> {
    let header = body.get(..12)?;
    let (family, length, table, protocol, kind) = (header[0], header[1], header[4], header[5], header[7]);
    let refuses = match kind {
        libc::RTN_UNICAST => None,
        libc::RTN_BLACKHOLE => Some("blackhole"),
        libc::RTN_UNREACHABLE => Some("unreachable"),
        libc::RTN_PROHIBIT => Some("prohibit"),
        libc::RTN_THROW => Some("throw"),
        _ => return Some(Vec::new()),
    };
    let zero = match i32::from(family) {
        libc::AF_INET => IpAddr::from([0; 4]),
        libc::AF_INET6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let (mut to, mut number, mut metric) = (zero, u32::from(table), 0);
    let mut hop = Hop::default();
    let mut hops = Vec::new();
    for nla in nlas(&body[12..]) {
        match nla.kind() {
            libc::RTA_DST => to = ip(family, nla.value())?,
            libc::RTA_TABLE => number = u32_of(nla.value())?,
            libc::RTA_PRIORITY => metric = u32_of(nla.value())?,
            libc::RTA_OIF => hop.index = u32_of(nla.value()),
            libc::RTA_MULTIPATH => hops = multipath(family, nla.value()),
            kind => hop.via = via(family, kind, nla.value()).or(hop.via),
        }
    }
    // A kernel that does not filter sends other tables too.
    if number != u32::from(libc::RT_TABLE_MAIN) {
        return Some(Vec::new());
    }
    let to = IpNet::new(to, length).ok()?;
    if hops.is_empty() {
        hops.push(hop);
    }
    Some(hops.into_iter().map(|Hop { via, index }| RouteRow { to, via, index, protocol, metric, refuses }).collect())
}

#[derive(Debug, Clone, Copy, Default)]
struct Hop {
    via: Option<IpAddr>,
    index: Option<u32>,
}

fn via(family: u8, kind: u16, value: &[u8]) -> Option<IpAddr> {
    match kind {
        libc::RTA_GATEWAY => ip(family, value),
        // struct rtvia: a family of 16 bits, then the address
        libc::RTA_VIA => ip(u16::from_ne_bytes(value.get(..2)?.try_into().ok()?).try_into().ok()?, value.get(2..)?),
        _ => None,
    }
}

/// `struct fib_rule_hdr` and its attributes (linux/fib_rules.h). `None` for one that the kernel made.
fn rule(body: &[u8]) -> Option<String> {
    const FRA_DST: u16 = 1;
    const FRA_SRC: u16 = 2;
    const FRA_IIFNAME: u16 = 3;
    const FRA_PRIORITY: u16 = 6;
    const FRA_FWMARK: u16 = 10;
    const FRA_TABLE: u16 = 15;
    const FRA_OIFNAME: u16 = 17;
    const FRA_PROTOCOL: u16 = 21;
    let header = body.get(..12)?;
    let (family, to_length, from_length, action) = (header[0], header[1], header[2], header[7]);
    // Those of multicast routing have families of their own.
    let word = match i32::from(family) {
        libc::AF_INET => "rule",
        libc::AF_INET6 => "IPv6 rule",
        _ => return None,
    };
    let find = |kind| nlas(&body[12..]).find(|nla| nla.kind() == kind).map(|nla| nla.value().to_vec());
    if find(FRA_PROTOCOL).is_some_and(|protocol| protocol == [libc::RTPROT_KERNEL]) {
        return None;
    }
    let number = |kind| find(kind).and_then(|value| u32_of(&value));
    let mut text = format!("{word} {}:", number(FRA_PRIORITY).unwrap_or_default());
    let net = |kind| find(kind).and_then(|value| ip(family, &value));
    for (word, net, length) in [("from", net(FRA_SRC), from_length), ("to", net(FRA_DST), to_length)] {
        text.extend(net.map(|net| format!(" {word} {net}/{length}")));
    }
    for (word, name) in [("iif", find(FRA_IIFNAME)), ("oif", find(FRA_OIFNAME))] {
        text.extend(name.map(|name| format!(" {word} {}", self::text(&name).escape_debug())));
    }
    text.extend(number(FRA_FWMARK).map(|mark| format!(" fwmark {mark:#x}")));
    // FR_ACT_TO_TBL
    text.push_str(&match action {
        1 => format!(" lookup {}", number(FRA_TABLE).unwrap_or_default()),
        6 => " blackhole".to_owned(),
        7 => " unreachable".to_owned(),
        8 => " prohibit".to_owned(),
        other => format!(" action {other}"),
    });
    Some(text)
}

/// `struct rtnexthop`, each with attributes of its own.
fn multipath(family: u8, mut value: &[u8]) -> Vec<Hop> {
    let mut hops = Vec::new();
    while let Some(header) = value.get(..8) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let Some(inner) = value.get(8..length) else { break };
        let via = nlas(inner).find_map(|nla| via(family, nla.kind(), nla.value()));
        hops.push(Hop { via, index: u32_of(&header[4..8]) });
        value = value.get((length + 3) & !3..).unwrap_or_default();
    }
    hops
}
