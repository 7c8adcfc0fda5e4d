//! Stand-ins: the links, addresses and routes of a [`Stage`], made in the networks of its machines.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::RouteProtocol;

use super::dump::Dumper;
use super::message::{self, Sits};
use super::wire::Wire;
use super::{KernelError, hold, sysctl};
use crate::names::{HostName, IfName, Mac};
use crate::plan::LinkChange;
use crate::stage::{Cable, Leg, Stage, StageHost, StandIn};
use crate::state::{BridgeSettings, Link, LinkKind, Ns, Route};

/// The networks of a rehearsal's machines.
#[derive(Debug)]
pub struct Networks {
    /// Where the switches are.
    pub switches: OwnedFd,
    /// The outside's.
    pub outside: OwnedFd,
    /// Each host's.
    pub hosts: BTreeMap<HostName, OwnedFd>,
}

/// Makes everything of a stage.
///
/// # Errors
/// What the kernel refused, and where.
pub fn build(stage: &Stage, networks: &Networks) -> Result<(), KernelError> {
    let Networks { switches, outside, hosts } = networks;
    let fail = |place: &str| {
        let action = format!("set up {place}");
        move |source| KernelError::Refused { action, text: None, source }
    };
    let plugged = cables(stage, networks);
    if stage.answers.iter().all(IpAddr::is_ipv4) {
        // Links have to be made after that.
        hold::run_in(outside, hold::without_ipv6).map_err(fail("the outside"))?;
    }
    hold::run_in(switches, || make_switches(stage, &plugged)).map_err(fail("the switches"))?;
    hold::run_in(outside, || make_outside(stage)).map_err(fail("the outside"))?;
    for (name, host) in &stage.hosts {
        if let Some(network) = hosts.get(name) {
            hold::run_in(network, || make_host(stage, host)).map_err(fail(&format!("host {name}")))?;
        }
    }
    Ok(())
}

/// Every cable, and the network that its end is in.
fn cables<'a>(stage: &'a Stage, networks: &'a Networks) -> Vec<(&'a Cable, &'a OwnedFd)> {
    let mut all: Vec<(&Cable, &OwnedFd)> = Vec::new();
    for (name, host) in &stage.hosts {
        let Some(network) = networks.hosts.get(name) else { continue };
        let devices = host.devices.iter().map(|device| match device {
            StandIn::Nic(cable) | StandIn::Bridge { cable, .. } => cable,
        });
        all.extend(devices.chain([&host.underlay]).map(|cable| (cable, network)));
    }
    all.extend(stage.outside.iter().map(|leg| (&leg.cable, &networks.outside)));
    all
}

fn make_switches(stage: &Stage, cables: &[(&Cable, &OwnedFd)]) -> io::Result<()> {
    hold::without_ipv6()?;
    let mut here = Here::open()?;
    for switch in stage.switches.values() {
        here.bridge(&switch.name, switch.mac, switch.mtu)?;
    }
    let index = here.indexes()?;
    for (cable, network) in cables {
        let Some(switch) = stage.switches.get(&cable.segment) else { continue };
        let master = index.get(switch.name.as_str()).copied();
        let near = link(crate::rule::port_mac(&stage.lab, "stand-in", cable.port.as_str()), switch.mtu);
        let far = link(cable.mac, switch.mtu);
        here.wire.create(message::add_veth((&cable.port, &near, master), (&cable.name, &far, network.as_raw_fd())))?;
        here.up(&cable.port)?;
    }
    Ok(())
}

fn make_outside(stage: &Stage) -> io::Result<()> {
    // It has several legs on one segment's behalf: each answers for its own addresses.
    sysctl::write("ipv4/conf/all/arp_ignore", "1")?;
    let mut here = Here::open()?;
    for Leg { cable, untagged, tagged } in &stage.outside {
        here.up(&cable.name)?;
        for net in untagged {
            here.address(&cable.name, *net)?;
        }
        for (vlan, addresses) in tagged {
            // A short name, a dot and four digits.
            let name: IfName = format!("{}.{vlan}", cable.name).parse().map_err(io::Error::other)?;
            let parent = here.index(&cable.name)?;
            let mtu = stage.switches.get(&cable.segment).map_or(crate::render::ETHERNET_MTU, |switch| switch.mtu);
            let sub = link(cable.mac, mtu);
            here.wire.create(message::add_on_parent((&name, &sub), Sits::Vlan(vlan.get()), parent, (None, None)))?;
            here.up(&name)?;
            for net in addresses {
                here.address(&name, *net)?;
            }
        }
        if cable.segment == crate::stage::Segment::Underlay {
            for address in stage.hosts.values().flat_map(|host| &host.addresses) {
                here.route(&cable.name, (*address).into(), None)?;
            }
        }
    }
    Ok(())
}

fn make_host(stage: &Stage, host: &StageHost) -> io::Result<()> {
    let StageHost { devices, underlay, addresses } = host;
    let mut here = Here::open()?;
    for device in devices {
        match device {
            StandIn::Nic(Cable { name, altname, .. }) => {
                if let Some(altname) = altname {
                    here.wire.create(message::add_altname(name, altname))?;
                }
            }
            StandIn::Bridge { name, mac, cable } => {
                let mtu = stage.switches.get(&cable.segment).map_or(crate::render::ETHERNET_MTU, |switch| switch.mtu);
                here.bridge(name, *mac, mtu)?;
                let master = here.index(name)?;
                let change = LinkChange { up: Some(true), ..LinkChange::default() };
                here.wire.request(message::change_link(cable.name.as_str(), &change, Some(master)))?;
            }
        }
    }
    let name = &underlay.name;
    here.up(name)?;
    for address in addresses {
        here.address(name, (*address).into())?;
    }
    // No prefix is known, so every other machine has a route of its own.
    for other in stage.on_underlay().filter(|other| !addresses.contains(other)) {
        if addresses.iter().any(|own| own.is_ipv4() == other.is_ipv4()) {
            here.route(name, other.into(), None)?;
        }
    }
    for outside in &stage.answers {
        let to = if outside.is_ipv4() { Ipv4Net::default().into() } else { Ipv6Net::default().into() };
        if addresses.iter().any(|own| own.is_ipv4() == outside.is_ipv4()) {
            here.route(name, to, Some(*outside))?;
        }
    }
    Ok(())
}

/// The network of the calling thread.
struct Here {
    wire: Wire,
    dumper: Dumper,
}

impl Here {
    fn open() -> io::Result<Self> {
        Ok(Self { wire: Wire::open()?, dumper: Dumper::open()? })
    }

    fn indexes(&mut self) -> io::Result<BTreeMap<String, u32>> {
        Ok(self.dumper.links()?.into_iter().map(|row| (row.name, row.index)).collect())
    }

    fn index(&mut self, name: &IfName) -> io::Result<u32> {
        let missing = || io::Error::from_raw_os_error(libc::ENODEV);
        self.indexes()?.get(name.as_str()).copied().ok_or_else(missing)
    }

    fn bridge(&mut self, name: &IfName, mac: Mac, mtu: u32) -> io::Result<()> {
        let bridge = link(mac, mtu);
        self.wire.create(message::add_bridge(name, &bridge, &BridgeSettings::OURS, None))?;
        // One that is said afterwards stays, whatever the ports have.
        let change = LinkChange { up: Some(true), mtu: Some(mtu), ..LinkChange::default() };
        self.wire.request(message::change_link(name.as_str(), &change, None))
    }

    fn up(&mut self, name: &IfName) -> io::Result<()> {
        self.wire.request(message::up(name.as_str()))
    }

    fn address(&mut self, name: &IfName, net: IpNet) -> io::Result<()> {
        let index = self.index(name)?;
        self.wire.create(RouteNetlinkMessage::NewAddress(message::address(index, net)))
    }

    /// A route of an administrator's, not of vmnet's.
    fn route(&mut self, name: &IfName, to: IpNet, via: Option<IpAddr>) -> io::Result<()> {
        let index = self.index(name)?;
        let mut route = message::route(index, &Route { ns: Ns::Host, to, via, dev: name.clone(), metric: 0 });
        route.header.protocol = RouteProtocol::Static;
        self.wire.create(RouteNetlinkMessage::NewRoute(route))
    }
}

/// A link that is nobody's: neither group nor mark.
fn link(mac: Mac, mtu: u32) -> Link {
    Link {
        kind: LinkKind::Veth { peer: None },
        mac,
        mtu,
        group: 0,
        alias: String::new(),
        master: None,
        up: false,
        ipv6: false,
        tx_checksum: None,
        odd: crate::state::Odd::new(),
    }
}
