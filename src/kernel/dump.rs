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
use crate::state::BridgeSettings;

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

/// A unicast route of the main table; one for each of its next hops.
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
        self.0.dump(message::dump_links(), link)
    }

    /// All addresses.
    pub fn addresses(&mut self) -> io::Result<Vec<AddressRow>> {
        self.0.dump(message::dump_addresses(), address)
    }

    /// Unicast routes of the main table: of one protocol, or all.
    pub fn routes(&mut self, protocol: Option<u8>) -> io::Result<Vec<RouteRow>> {
        let mut rows = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let found = self.0.dump(message::dump_routes(family, protocol), |body| Some(routes(body)))?;
            rows.extend(found.into_iter().flatten());
        }
        Ok(rows)
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
fn link(body: &[u8]) -> Option<LinkRow> {
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
            libc::IFLA_AF_SPEC => row.ipv6 = ipv6(value),
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
    for nla in nlas(value) {
        match nla.kind() {
            libc::IFLA_INFO_KIND => row.kind = Some(text(nla.value())),
            // The kind comes first (`rtnl_link_info_fill`).
            libc::IFLA_INFO_DATA => row.data = kind_data(row.kind.as_deref(), nla.value()),
            _ => {}
        }
    }
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

/// `IFLA_AF_SPEC` > AF_INET6 > `IFLA_INET6_CONF`, an array of 32-bit settings by `DEVCONF_*` (linux/ipv6.h).
fn ipv6(value: &[u8]) -> bool {
    const IFLA_INET6_CONF: u16 = 2;
    const DEVCONF_DISABLE_IPV6: usize = 26;
    let inet6 = nlas(value).find(|nla| i32::from(nla.kind()) == libc::AF_INET6);
    let Some(inet6) = inet6 else { return false };
    let conf = nlas(inet6.value()).find(|nla| nla.kind() == IFLA_INET6_CONF).map(|nla| nla.value().to_vec());
    conf.and_then(|conf| u32_of(conf.get(DEVCONF_DISABLE_IPV6 * 4..)?)) == Some(0)
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
    if kind != libc::RTN_UNICAST {
        return Some(Vec::new());
    }
    let zero = match i32::from(family) {
        libc::AF_INET => IpAddr::from([0; 4]),
        libc::AF_INET6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let (mut to, mut number) = (zero, u32::from(table));
    let (mut hop, mut metric) = (Hop::default(), 0);
    let mut hops = Vec::new();
    for nla in nlas(&body[12..]) {
        match nla.kind() {
            libc::RTA_DST => to = ip(family, nla.value())?,
            libc::RTA_TABLE => number = u32_of(nla.value())?,
            libc::RTA_OIF => hop.index = u32_of(nla.value()),
            libc::RTA_PRIORITY => metric = u32_of(nla.value())?,
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
    Some(hops.into_iter().map(|Hop { via, index }| RouteRow { to, via, index, protocol, metric }).collect())
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
