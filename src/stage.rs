//! [`Stage`]: what a rehearsal puts in the place of the world around a lab. Pure.
//!
//! Every host becomes namespaces of one machine. What the definition names and vmnet does not make itself gets a
//! stand-in: a NIC is one end of a veth pair whose other end is a port of a switch, a foreign bridge is a bridge with
//! such a port. Uplinks of one name are one trunk, so there is one switch for each; one for each network on foreign
//! bridges; and one for the underlay, on which every host has an address. What lies beyond all that is one machine,
//! the outside: it has the gateways that the definition names, the hosts' default route leads to it, and it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::model::{Bridge, DeviceRef, External, HostExternal, Mode, Model, Network, OwnExternal, slice};
use crate::names::{HostName, IfName, LabName, Mac, NetName, UplinkName, VlanId};
use crate::render::ETHERNET_MTU;
use crate::rule;

#[cfg(test)]
mod tests;

/// What a switch stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// What the devices of this uplink are plugged into, on all hosts.
    Uplink(UplinkName),
    /// What the foreign bridges of this network are joined to.
    Network(NetName),
    /// What carries the hosts' own traffic.
    Underlay,
}

impl std::fmt::Display for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Segment::Uplink(name) => write!(f, "uplink {name}"),
            Segment::Network(name) => write!(f, "network {name}"),
            Segment::Underlay => f.write_str("the underlay"),
        }
    }
}

/// A plain bridge: it forwards every frame, tagged or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Its name where the switches are.
    pub name: IfName,
    /// Its MAC.
    pub mac: Mac,
    /// In bytes, of it and everything that is plugged in.
    pub mtu: u32,
}

/// A cable: one end is a port of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cable {
    /// The switch.
    pub segment: Segment,
    /// The port of the switch.
    pub port: IfName,
    /// The end that is no port.
    pub name: IfName,
    /// Its alternative name.
    pub altname: Option<String>,
    /// Its MAC.
    pub mac: Mac,
}

/// A device that the definition names and a host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandIn {
    /// A NIC. It is down, as one that nobody uses.
    Nic(Cable),
    /// A bridge, with a port that leads to a switch.
    Bridge {
        /// Its name.
        name: IfName,
        /// Its MAC.
        mac: Mac,
        /// Its port.
        cable: Cable,
    },
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageHost {
    /// Its devices.
    pub devices: Vec<StandIn>,
    /// Its way to the other hosts and the outside.
    pub underlay: Cable,
    /// Its own addresses; those of other machines are on the link.
    pub addresses: Vec<IpAddr>,
}

/// A leg of the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Where it is plugged in.
    pub cable: Cable,
    /// Addresses without a tag.
    pub untagged: BTreeSet<IpNet>,
    /// Addresses by VLAN.
    pub tagged: BTreeMap<VlanId, BTreeSet<IpNet>>,
}

/// Everything that a rehearsal makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The lab.
    pub lab: LabName,
    /// The hosts. The one of a file that names none is called [`HERE`].
    pub hosts: BTreeMap<HostName, StageHost>,
    /// The switches.
    pub switches: BTreeMap<Segment, Switch>,
    /// The legs of the outside; the one on the underlay among them.
    pub outside: Vec<Leg>,
    /// Where the outside answers, whoever asks: its addresses on the underlay.
    pub answers: Vec<IpAddr>,
}

/// The host of a file that names none.
pub const HERE: &str = "here";

/// What has to stand around a lab for it to be rehearsed. `only`: these hosts; none: all.
pub fn stage(whole: &Model, only: &BTreeSet<HostName>) -> Stage {
    let parts = parts(whole, only);
    let mut setting = Setting { lab: whole.lab(), switches: BTreeMap::new(), ports: 0, outside: BTreeMap::new() };
    let range = free_range(&parts);
    let number = |number: u32| IpAddr::V4(Ipv4Addr::from(u32::from(range.network()) + number));
    let mut hosts = BTreeMap::new();
    for (at, (name, part)) in (10..).zip(&parts) {
        hosts.insert(name.clone(), setting.host(name, part, || number(at)));
        setting.surroundings(part);
    }
    let mut answers = vec![number(1)];
    let mut addresses = hosts.values().flat_map(|host| &host.addresses);
    let gateways = setting.outside.values().flat_map(|leg| leg.values().flatten().map(IpNet::addr));
    if addresses.any(IpAddr::is_ipv6) || gateways.into_iter().any(|address| address.is_ipv6()) {
        // RFC 5180: for tests between devices.
        answers.push(IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1)));
    }
    let own = answers.iter().copied().map(IpNet::from);
    setting.outside.entry(Segment::Underlay).or_default().entry(None).or_default().extend(own);
    let outside = std::mem::take(&mut setting.outside);
    let outside = (0..).zip(outside).map(|(number, (segment, addresses))| setting.leg(number, segment, addresses));
    let outside = outside.collect();
    Stage { lab: whole.lab().clone(), hosts, switches: setting.switches, outside, answers }
}

impl Stage {
    /// The addresses of all machines on the underlay.
    pub fn on_underlay(&self) -> impl Iterator<Item = IpAddr> {
        self.hosts.values().flat_map(|host| &host.addresses).chain(&self.answers).copied()
    }
}

/// Each host's part of the lab.
fn parts(whole: &Model, only: &BTreeSet<HostName>) -> BTreeMap<HostName, Model> {
    if whole.hosts().is_empty() {
        let here = HERE.parse().expect("a short word is a host's name");
        return [(here, whole.clone())].into();
    }
    let chosen = whole.hosts().keys().filter(|host| only.is_empty() || only.contains(*host));
    chosen.filter_map(|host| Some((host.clone(), slice(whole, host)?))).collect()
}

/// Addresses for hosts that have none, and for the outside: none that the lab knows.
fn free_range(parts: &BTreeMap<HostName, Model>) -> Ipv4Net {
    let mut taken: Vec<IpNet> = Vec::new();
    for part in parts.values() {
        taken.extend(part.networks().values().flat_map(|network| network.subnets().iter().map(|subnet| *subnet.net())));
        taken.extend(part.hosts().values().filter_map(|host| *host.underlay()).map(IpNet::from));
        match part.router().as_ref().map(|router| router.external()) {
            Some(External::Host(host)) => {
                taken.push(host.transit.into());
                taken.extend(host.snat.map(|snat| IpNet::from(IpAddr::V4(snat))));
            }
            Some(External::Macvlan(own) | External::Vlan { external: own, .. }) => taken.extend(&own.addresses),
            Some(External::None) | None => {}
        }
    }
    // RFC 2544: for tests between devices. After them what is nobody's, either.
    let candidates = [[198, 18], [198, 19], [100, 127], [100, 126], [10, 255], [10, 254]];
    let range = |[a, b]: [u8; 2]| Ipv4Net::new(Ipv4Addr::new(a, b, 0, 0), 16).expect("16 is a prefix length");
    let free = |range: &Ipv4Net| {
        let range = IpNet::V4(*range);
        !taken.iter().any(|net| net.contains(&range) || range.contains(net))
    };
    candidates.into_iter().map(range).find(free).unwrap_or(range(candidates[0]))
}

/// The stage while it is being set.
struct Setting<'a> {
    lab: &'a LabName,
    switches: BTreeMap<Segment, Switch>,
    ports: usize,
    /// The outside's addresses, by segment and VLAN.
    outside: BTreeMap<Segment, BTreeMap<Option<VlanId>, BTreeSet<IpNet>>>,
}

impl Setting<'_> {
    fn mac(&self, name: &str) -> Mac {
        // No device of the lab's own has this role.
        rule::device_mac(self.lab, "stand-in", name)
    }

    /// A port of a switch, which is there then, and carries frames of this size.
    fn port(&mut self, segment: &Segment, mtu: u32) -> IfName {
        let count = self.switches.len();
        let mac = self.mac(&segment.to_string());
        let switch = self.switches.entry(segment.clone());
        let switch = switch.or_insert_with(|| Switch { name: numbered("switch", count), mac, mtu: ETHERNET_MTU });
        switch.mtu = switch.mtu.max(mtu);
        self.ports += 1;
        numbered("port", self.ports)
    }

    fn cable(&mut self, of: &str, segment: Segment, name: IfName, mtu: u32) -> Cable {
        let port = self.port(&segment, mtu);
        let mac = self.mac(&format!("{of}/{name}"));
        Cable { segment, port, name, altname: None, mac }
    }

    fn host(&mut self, host: &HostName, part: &Model, free: impl Fn() -> IpAddr) -> StageHost {
        let mut taken = names(part);
        let mut devices = Vec::new();
        for uplink in part.uplinks().values() {
            let mtu = carried(part, |network| {
                network.tagged().as_ref().is_some_and(|tagged| tagged.uplink == *uplink.name())
            });
            let segment = Segment::Uplink(uplink.name().clone());
            devices.push(StandIn::Nic(self.nic(host, segment, uplink.device(), mtu, &mut taken)));
        }
        let mut bridges: BTreeMap<&IfName, &Network> = BTreeMap::new();
        for network in part.networks().values() {
            if let Bridge::Foreign { name } = network.bridge() {
                bridges.entry(name).or_insert(network);
            }
        }
        for (name, network) in bridges {
            let mtu = carried(part, |other| other.bridge().name() == name);
            let wire = unused("wire", &mut taken);
            let cable = self.cable(host.as_str(), Segment::Network(network.name().clone()), wire, mtu);
            let mac = self.mac(&format!("{host}/{name}"));
            devices.push(StandIn::Bridge { name: name.clone(), mac, cable });
        }
        let underlay = unused("underlay", &mut taken);
        let underlay = self.cable(host.as_str(), Segment::Underlay, underlay, ETHERNET_MTU);
        let said = part.hosts().get(host).and_then(|host| *host.underlay());
        let mut addresses: Vec<IpAddr> = said.into_iter().collect();
        if !addresses.iter().any(IpAddr::is_ipv4) {
            addresses.push(free());
        }
        if let Some(External::Host(HostExternal { snat: Some(snat), .. })) =
            part.router().as_ref().map(|router| router.external())
            && !addresses.contains(&IpAddr::V4(*snat))
        {
            addresses.push(IpAddr::V4(*snat));
        }
        StageHost { devices, underlay, addresses }
    }

    /// A NIC that is found by what the definition says: by its name, an alternative one, or its MAC.
    fn nic(
        &mut self,
        host: &HostName,
        segment: Segment,
        device: &DeviceRef,
        mtu: u32,
        taken: &mut BTreeSet<IfName>,
    ) -> Cable {
        match device {
            DeviceRef::Name(said) => match said.as_str().parse::<IfName>() {
                Ok(name) => self.cable(host.as_str(), segment, name, mtu),
                Err(_) => {
                    let cable = self.cable(host.as_str(), segment, unused("nic", taken), mtu);
                    Cable { altname: Some(said.to_string()), ..cable }
                }
            },
            DeviceRef::Mac(mac) => {
                let cable = self.cable(host.as_str(), segment, unused("nic", taken), mtu);
                Cable { mac: *mac, ..cable }
            }
        }
    }

    /// What the outside has to be for one host's part: the router's next hops, and the gateways of segments that are
    /// not the lab's.
    fn surroundings(&mut self, part: &Model) {
        match part.router().as_ref().map(|router| router.external()) {
            Some(External::Macvlan(own)) => self.next_hops(own, None),
            Some(External::Vlan { vlan, external }) => self.next_hops(external, Some(*vlan)),
            Some(External::Host(_) | External::None) | None => {}
        }
        for network in part.networks().values().filter(|network| *network.mode() == Mode::Bridged) {
            let (segment, vlan) = match (network.bridge(), network.tagged()) {
                (Bridge::Foreign { .. }, _) => (Segment::Network(network.name().clone()), None),
                (Bridge::Own { .. }, Some(tagged)) => (Segment::Uplink(tagged.uplink.clone()), Some(tagged.vlan)),
                (Bridge::Own { .. }, None) => continue,
            };
            for subnet in network.subnets() {
                let Some(gateway) = *subnet.gateway() else { continue };
                self.outside(&segment, vlan, gateway, subnet.net());
            }
        }
    }

    fn next_hops(&mut self, own: &OwnExternal, vlan: Option<VlanId>) {
        let segment = Segment::Uplink(own.uplink.clone());
        for gateway in &own.gateways {
            let net = own.addresses.iter().find(|net| net.contains(gateway));
            self.outside(&segment, vlan, *gateway, net.unwrap_or(&IpNet::from(*gateway)));
        }
    }

    fn outside(&mut self, segment: &Segment, vlan: Option<VlanId>, address: IpAddr, net: &IpNet) {
        let leg = self.outside.entry(segment.clone()).or_default().entry(vlan).or_default();
        // The prefix length was one of this family before.
        leg.extend(IpNet::new(address, net.prefix_len()));
    }

    fn leg(
        &mut self,
        number: usize,
        segment: Segment,
        mut addresses: BTreeMap<Option<VlanId>, BTreeSet<IpNet>>,
    ) -> Leg {
        let untagged = addresses.remove(&None).unwrap_or_default();
        let tagged = addresses.into_iter().filter_map(|(vlan, addresses)| Some((vlan?, addresses))).collect();
        let mtu = self.switches.get(&segment).map_or(ETHERNET_MTU, |switch| switch.mtu);
        let cable = self.cable("outside", segment, numbered("leg", number), mtu);
        Leg { cable, untagged, tagged }
    }
}

/// The MTU of the largest of some networks of a host, in bytes.
fn carried(part: &Model, which: impl Fn(&Network) -> bool) -> u32 {
    let networks = part.networks().values().filter(|network| which(network));
    networks.filter_map(|network| *network.mtu()).max().unwrap_or(ETHERNET_MTU).max(ETHERNET_MTU)
}

/// The names that links of a host have or will have.
fn names(part: &Model) -> BTreeSet<IfName> {
    let devices = part.uplinks().values().filter_map(|uplink| match uplink.device() {
        DeviceRef::Name(name) => name.as_str().parse().ok(),
        DeviceRef::Mac(_) => None,
    });
    let bridges = part.networks().values().map(|network| network.bridge().name().clone());
    let taps = part.vms().values().flat_map(|vm| vm.nics().iter().map(|nic| nic.tap().clone()));
    devices.chain(bridges).chain(taps).collect()
}

/// The first of `word0`, `word1`, … that is free; it is taken then.
fn unused(word: &str, taken: &mut BTreeSet<IfName>) -> IfName {
    let name = (0..).map(|number| numbered(word, number)).find(|name| !taken.contains(name));
    let name = name.expect("there are more numbers than names");
    taken.insert(name.clone());
    name
}

fn numbered(word: &str, number: usize) -> IfName {
    format!("{word}{number}").parse().expect("a short word and a number is an interface name")
}
