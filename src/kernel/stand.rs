//! A place to stand on a network for a moment: a port on a bridge whose other end is in a namespace without a name.
//!
//! The namespace belongs to a thread, so it ends with the process at the latest, however that ends, and takes both
//! ends of the pair with it. The near end is marked like every link of a lab.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::packet_route::RouteNetlinkMessage;

use super::dump::Dumper;
use super::wire::Wire;
use super::{KernelError, message, netns, sysctl};
use crate::mark::Mark;
use crate::names::{IfName, LabName, Mac, NetName};
use crate::plan::LinkChange;
use crate::rule;
use crate::state::{Link, LinkKind, Ns, Route};

/// The far end's name, the same in each of the namespaces.
const FAR: &str = "probe";

/// How long the carrier of the pair is waited for.
const CARRIER: Duration = Duration::from_secs(2);

/// Counts the ports of this process, for their names.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The far end, for the one who stands there: on a thread inside the namespace.
pub struct Stand {
    wire: Wire,
    index: u32,
    far: IfName,
}

impl Stand {
    /// The name of the far end.
    pub fn link(&self) -> &str {
        self.far.as_str()
    }

    /// Takes an address.
    pub fn add_address(&mut self, net: IpNet) -> io::Result<()> {
        self.wire.create(RouteNetlinkMessage::NewAddress(message::address(self.index, net)))
    }

    /// Adds a default route.
    pub fn add_default(&mut self, via: std::net::IpAddr) -> io::Result<()> {
        self.add_route(if via.is_ipv4() { Ipv4Net::default().into() } else { Ipv6Net::default().into() }, via)
    }

    /// Adds a route.
    pub fn add_route(&mut self, to: IpNet, via: std::net::IpAddr) -> io::Result<()> {
        let route = Route { ns: Ns::Host, to, via: Some(via), dev: self.far.clone(), metric: 0 };
        self.wire.create(RouteNetlinkMessage::NewRoute(message::route(self.index, &route)))
    }
}

/// Runs `work` in a fresh namespace with a port on `bridge`, and removes the port. The far end has this `mac`.
///
/// # Errors
/// When there is no such bridge, or the kernel refuses the port; then `work` has not run.
pub fn on_bridge<T: Send>(
    lab: &LabName,
    (network, bridge): (&NetName, &IfName),
    mac: Mac,
    work: impl FnOnce(&mut Stand) -> io::Result<T> + Send,
) -> Result<T, KernelError> {
    let action = format!("add a probe port to {bridge}");
    let done = netns::on_thread(|| {
        let mut host = Dumper::open()?;
        let Some(found) = host.links()?.into_iter().find(|link| link.name == bridge.as_str()) else { return Ok(None) };
        let (near, near_link, far_link) = ends(lab, (network, bridge), mac, found.mtu);
        let mut here = Here::leave()?;
        let mut stand = here.add(&near, (&near_link, found.index), &far_link)?;
        let outcome = work(&mut stand);
        here.remove(&near)?;
        outcome.map(Some)
    });
    match done {
        Ok(Some(outcome)) => Ok(outcome),
        Ok(None) => Err(KernelError::NoLink { action, name: bridge.to_string() }),
        Err(source) => Err(KernelError::Refused { action, text: None, source }),
    }
}

/// Both ends as they shall be.
fn ends(lab: &LabName, (network, bridge): (&NetName, &IfName), mac: Mac, mtu: u32) -> (IfName, Link, Link) {
    let near = rule::probe_port_name(lab, std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let link = |role: &str, mac: Mac, master: Option<&IfName>| Link {
        kind: LinkKind::Veth { peer: None },
        mac,
        mtu,
        group: rule::link_group(lab),
        alias: Mark::new(lab, role, network).to_string(),
        master: master.map(ToString::to_string),
        up: true,
        ipv6: false,
        tx_checksum: None,
        odd: crate::state::Odd::new(),
    };
    let near_mac = rule::port_mac(lab, "probe", near.as_str());
    (near.clone(), link("probe", near_mac, Some(bridge)), link("probe-far", mac, None))
}

/// A thread that has left the namespace it came from, and can still act there.
struct Here {
    home: std::os::fd::OwnedFd,
    own: std::os::fd::OwnedFd,
    wire: Wire,
}

impl Here {
    fn leave() -> io::Result<Self> {
        let wire = Wire::open()?;
        let open = || netns::open(&Ns::Host).map_err(io::Error::other);
        let home = open()?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(Self { home, own: open()?, wire })
    }

    fn add(&mut self, near: &IfName, (link, bridge): (&Link, u32), far_link: &Link) -> io::Result<Stand> {
        let far: IfName = FAR.parse().expect("a short word is an interface name");
        let pair = message::add_veth((near, link, Some(bridge)), (&far, far_link, self.own.as_raw_fd()));
        self.wire.create(pair)?;
        if sysctl::has_ipv6() {
            // Before it comes up, or the host would answer on the segment by a link-local address.
            setns(self.home.as_fd(), CloneFlags::CLONE_NEWNET)?;
            let off = sysctl::write(&sysctl::disable_ipv6(near.as_str()), "1");
            setns(self.own.as_fd(), CloneFlags::CLONE_NEWNET)?;
            off?;
        }
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        let marked = LinkChange { alias: Some(link.alias.clone()), ..up.clone() };
        self.wire.request(message::change_link(near.as_str(), &marked, None))?;
        let mut wire = Wire::open()?;
        wire.request(message::change_link(FAR, &up, None))?;
        let index = carrier()?;
        Ok(Stand { wire, index, far })
    }

    fn remove(&mut self, near: &IfName) -> io::Result<()> {
        self.wire.request(message::remove_link(near))
    }
}

/// Waits for the far end's carrier and gives its index: before that nothing is sent.
fn carrier() -> io::Result<u32> {
    let mut dumper = Dumper::open()?;
    let start = Instant::now();
    loop {
        match dumper.links()?.into_iter().find(|link| link.name == FAR) {
            Some(link) if link.carrier || start.elapsed() >= CARRIER => return Ok(link.index),
            Some(_) => std::thread::sleep(Duration::from_millis(5)),
            None => return Err(io::Error::from_raw_os_error(libc::ENODEV)),
        }
    }
}
