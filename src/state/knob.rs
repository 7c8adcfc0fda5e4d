//! [`Knob`]: what another tool can turn on a link of ours to undo what the lab is, and how it should stand. Pure.
//!
//! Every one of them comes with the dump of links, so looking at them costs no file.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The knobs of a link that do not stand as they should, with what they are. Nothing wanted has any.
pub type Odd = BTreeMap<Knob, u32>;

/// Something of a link that stands right when the link is made, and that vmnet never turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the manuals' words: bridge(8), ip-sysctl")]
pub enum Knob {
    Hairpin,
    Guard,
    RootBlock,
    FastLeave,
    Learning,
    Flood,
    ProxyArp,
    ProxyArpWifi,
    McastFlood,
    McastToUnicast,
    VlanTunnel,
    BcastFlood,
    NeighSuppress,
    Isolated,
    Locked,
    Forwarding,
    AcceptRedirects,
    SendRedirects,
    RpFilter,
    ArpIgnore,
    Ipv6Forwarding,
    Ipv6AcceptRa,
}

/// Where the kernel keeps a knob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An attribute of a bridge's port (`IFLA_BRPORT_*` of linux/if_link.h), one byte.
    Port(u16),
    /// An IPv4 setting of the link: its place in `IFLA_INET_CONF` (`IPV4_DEVCONF_*` of linux/ip.h, less 1).
    Ipv4(usize),
    /// An IPv6 setting of the link: its place in `IFLA_INET6_CONF` (`DEVCONF_*` of linux/ipv6.h).
    Ipv6(usize),
}

struct Spec {
    knob: Knob,
    place: Place,
    /// As bridge(8) or `/proc/sys/net` call it.
    word: &'static str,
    right: u32,
}

const fn spec(knob: Knob, place: Place, word: &'static str, right: u32) -> Spec {
    Spec { knob, place, word, right }
}

/// In the order of [`Knob`]. What is right for a port is what `new_nbp` of the kernel's bridge gives it; for a setting,
/// what the router's namespace gives its links.
const SPECS: [Spec; 22] = [
    spec(Knob::Hairpin, Place::Port(4), "hairpin", 0),
    spec(Knob::Guard, Place::Port(5), "guard", 0),
    spec(Knob::RootBlock, Place::Port(6), "root_block", 0),
    spec(Knob::FastLeave, Place::Port(7), "fastleave", 0),
    spec(Knob::Learning, Place::Port(8), "learning", 1),
    spec(Knob::Flood, Place::Port(9), "flood", 1),
    spec(Knob::ProxyArp, Place::Port(10), "proxy_arp", 0),
    spec(Knob::ProxyArpWifi, Place::Port(11), "proxy_arp_wifi", 0),
    spec(Knob::McastFlood, Place::Port(27), "mcast_flood", 1),
    spec(Knob::McastToUnicast, Place::Port(28), "mcast_to_unicast", 0),
    spec(Knob::VlanTunnel, Place::Port(29), "vlan_tunnel", 0),
    spec(Knob::BcastFlood, Place::Port(30), "bcast_flood", 1),
    spec(Knob::NeighSuppress, Place::Port(32), "neigh_suppress", 0),
    spec(Knob::Isolated, Place::Port(33), "isolated", 0),
    spec(Knob::Locked, Place::Port(39), "locked", 0),
    spec(Knob::Forwarding, Place::Ipv4(0), "forwarding", 1),
    spec(Knob::AcceptRedirects, Place::Ipv4(3), "accept_redirects", 0),
    spec(Knob::SendRedirects, Place::Ipv4(5), "send_redirects", 0),
    spec(Knob::RpFilter, Place::Ipv4(7), "rp_filter", 0),
    spec(Knob::ArpIgnore, Place::Ipv4(18), "arp_ignore", 1),
    spec(Knob::Ipv6Forwarding, Place::Ipv6(0), "forwarding", 1),
    spec(Knob::Ipv6AcceptRa, Place::Ipv6(3), "accept_ra", 0),
];

impl Knob {
    /// Every one, with its place.
    pub fn all() -> impl Iterator<Item = (Self, Place)> {
        SPECS.iter().map(|spec| (spec.knob, spec.place))
    }

    fn spec(self) -> &'static Spec {
        &SPECS[self as usize]
    }

    /// Where the kernel keeps it.
    pub fn place(self) -> Place {
        self.spec().place
    }

    /// How it should stand.
    pub fn right(self) -> u32 {
        self.spec().right
    }

    /// Whether it stands in a way that changes nothing. The larger one of the link's and the namespace's own `arp_ignore`
    /// counts, and the latter is 1.
    pub fn is_right(self, value: u32) -> bool {
        value == self.right() || (self == Self::ArpIgnore && value == 0)
    }

    /// The path of its file below `/proc/sys/net`; `None` for a port's.
    pub fn sysctl(self, link: &str) -> Option<String> {
        let Spec { place, word, .. } = self.spec();
        match place {
            Place::Port(_) => None,
            Place::Ipv4(_) => Some(format!("ipv4/conf/{link}/{word}")),
            Place::Ipv6(_) => Some(format!("ipv6/conf/{link}/{word}")),
        }
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.spec().word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_knob_has_a_place_of_its_own() {
        let mut places = Vec::new();
        for (at, spec) in SPECS.iter().enumerate() {
            assert_eq!(spec.knob as usize, at);
            assert!(!places.contains(&spec.place), "{:?}", spec.knob);
            places.push(spec.place);
        }
        assert!(Knob::ArpIgnore.is_right(0) && !Knob::ArpIgnore.is_right(2) && !Knob::Forwarding.is_right(0));
    }
}
