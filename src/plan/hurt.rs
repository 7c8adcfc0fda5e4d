//! What a plan would do to things that are not the lab's, and where one message may remove a whole link group. Pure.
//!
//! Links that die with a guest's process (its TAPs) are not looked at: the guest may end at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Op;
use crate::names::NsName;
use crate::state::{Device, Facts, ForeignNic, HostState, LinkId, LinkKind, Ns};

/// Links in the lab's namespaces that are not the lab's.
pub type Strangers = BTreeMap<NsName, BTreeMap<String, Device>>;

/// A foreign device in a namespace that is not the lab's, whose other half is on the host. Names are untrusted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remote {
    /// Its name there.
    pub device: String,
    /// Where it is, for people: a namespace's name, or a process in it.
    pub place: String,
    /// What it is to that link.
    pub how: Tie,
}

/// How a device in another namespace hangs on a link of the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tie {
    /// A macvlan, a VLAN or the like on a link of the lab's.
    Stacked {
        /// That link.
        on: LinkId,
    },
    /// The other end of a veth pair whose one end is a foreign port on the host.
    PeerOf {
        /// That port.
        port: String,
    },
}

/// A foreign device that would lose something by a plan. Its name is untrusted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hurt {
    /// A port of a link that goes.
    Port {
        /// The foreign device.
        device: String,
        /// What it is a port of.
        of: LinkId,
    },
    /// A macvlan, a VLAN or the like on a link that goes: it goes too.
    Stacked {
        /// The foreign device.
        device: String,
        /// What it sits on.
        on: LinkId,
    },
    /// In a namespace that is not the lab's, and stacked on a link that goes: it goes too.
    Elsewhere {
        /// The foreign device.
        device: String,
        /// Where it is, for people.
        place: String,
        /// What it sits on.
        on: LinkId,
    },
    /// A domain of libvirt's, of which this is an interface.
    Domain {
        /// The domain.
        device: String,
        /// What it is plugged into, for people.
        on: String,
        /// Whether it runs; else it could not start any more.
        live: bool,
    },
    /// In a namespace that goes.
    Inside {
        /// The foreign device.
        device: String,
        /// The namespace.
        ns: NsName,
    },
}

impl Hurt {
    /// The foreign device, or domain.
    pub fn device(&self) -> &str {
        match self {
            Self::Port { device, .. }
            | Self::Stacked { device, .. }
            | Self::Elsewhere { device, .. }
            | Self::Domain { device, .. }
            | Self::Inside { device, .. } => device,
        }
    }
}

/// Where it is, without its own name.
impl fmt::Display for Hurt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { of, .. } => write!(f, "a port of {of}"),
            Self::Stacked { on, .. } => write!(f, "stacked on {on}"),
            Self::Elsewhere { place, on, .. } => write!(f, "in {}, stacked on {on}", place.escape_debug()),
            Self::Domain { on, live: true, .. } => write!(f, "a libvirt domain that runs on {}", on.escape_debug()),
            Self::Domain { on, live: false, .. } => {
                write!(f, "a libvirt domain that is defined to be on {}", on.escape_debug())
            }
            Self::Inside { ns, .. } => write!(f, "in namespace {ns}"),
        }
    }
}

/// The foreign devices that lose their network, or are gone, when these operations are carried out.
pub fn hurt<'a>(
    ops: impl IntoIterator<Item = &'a Op>,
    current: &HostState,
    facts: &Facts,
    strangers: &Strangers,
    remotes: &[Remote],
) -> BTreeSet<Hurt> {
    let ops: Vec<&Op> = ops.into_iter().collect();
    let mut links = BTreeSet::<LinkId>::new();
    let mut namespaces = BTreeSet::<&NsName>::new();
    for op in &ops {
        match op {
            Op::RemoveLink { id } => drop(links.insert(id.clone())),
            Op::RemoveGroup { ns, group, count: _ } => {
                let of_group = current.links.iter().filter(|(id, link)| id.ns == *ns && link.group == *group);
                links.extend(of_group.map(|(id, _)| id.clone()));
            }
            Op::RemoveNamespace { ns } => drop(namespaces.insert(ns)),
            _ => {}
        }
    }
    // One end of a veth pair takes the other along, wherever that is.
    let peers = links.iter().filter_map(|id| match &current.links.get(id)?.kind {
        LinkKind::Veth { peer } => peer.clone(),
        _ => None,
    });
    links.extend(peers.collect::<Vec<_>>());
    let mut all = BTreeSet::new();
    for Remote { device, place, how } in remotes {
        if let Tie::Stacked { on } = how
            && links.contains(on)
        {
            all.insert(Hurt::Elsewhere { device: device.clone(), place: place.clone(), on: on.clone() });
        }
    }
    on_links(&Ns::Host, &facts.devices, &links, &mut all);
    let (domains, taps) = domains(&ops, facts, &links);
    // Said once, by the name that people know.
    all.retain(|hurt| !matches!(hurt, Hurt::Port { device, .. } if taps.contains(device.as_str())));
    all.extend(domains);
    for (ns, devices) in strangers {
        if namespaces.contains(ns) {
            all.extend(devices.keys().map(|device| Hurt::Inside { device: device.clone(), ns: ns.clone() }));
        } else {
            on_links(&Ns::Named(ns.clone()), devices, &links, &mut all);
        }
    }
    all
}

/// The domains of libvirt's that use a network or bridge that goes, and the devices of those that run.
fn domains<'f>(ops: &[&Op], facts: &'f Facts, gone: &BTreeSet<LinkId>) -> (BTreeSet<Hurt>, BTreeSet<&'f str>) {
    let (mut networks, mut comes) = (BTreeSet::new(), BTreeSet::new());
    for op in ops {
        match op {
            Op::RemoveLibvirtNetwork { name, .. } => drop(networks.insert(name.as_str())),
            Op::AddLibvirtNetwork { name, .. } => drop(comes.insert(name.as_str())),
            _ => {}
        }
    }
    let on = |nic: &ForeignNic| {
        let goes = |name: &&String| networks.contains(name.as_str()) && !comes.contains(name.as_str());
        let network = nic.network.as_ref().filter(goes).map(|name| format!("libvirt network {name}"));
        let is_link = |name: &&String| name.parse().is_ok_and(|name| gone.contains(&LinkId::host(name)));
        // One that does not run gets its bridge from its network, whatever that is by then.
        let by_bridge = nic.bridge.as_ref().filter(|_| nic.live || nic.network.is_none());
        network.or_else(|| by_bridge.filter(is_link).cloned())
    };
    let (mut all, mut taps) = (BTreeSet::new(), BTreeSet::new());
    // One made of what `vmnet xml` printed is the lab's own guest; while it runs, its ports count.
    for domain in facts.foreign_domains.iter().filter(|domain| !domain.by_hand) {
        for nic in &domain.nics {
            let Some(on) = on(nic) else { continue };
            if nic.live {
                taps.extend(nic.tap.as_deref());
            }
            all.insert(Hurt::Domain { device: domain.name.clone(), on, live: nic.live });
        }
    }
    let runs: BTreeSet<(String, String)> = all.iter().filter_map(running).collect();
    all.retain(|hurt| match hurt {
        Hurt::Domain { device, on, live: false } => !runs.contains(&(device.clone(), on.clone())),
        _ => true,
    });
    (all, taps)
}

fn running(hurt: &Hurt) -> Option<(String, String)> {
    match hurt {
        Hurt::Domain { device, on, live: true } => Some((device.clone(), on.clone())),
        _ => None,
    }
}

fn on_links(ns: &Ns, devices: &BTreeMap<String, Device>, gone: &BTreeSet<LinkId>, all: &mut BTreeSet<Hurt>) {
    let find = |name: &Option<String>| {
        let id = LinkId { ns: ns.clone(), name: name.as_ref()?.parse().ok()? };
        gone.contains(&id).then_some(id)
    };
    for (name, device) in devices {
        all.extend(find(&device.master).map(|of| Hurt::Port { device: name.clone(), of }));
        all.extend(find(&device.lower).map(|on| Hurt::Stacked { device: name.clone(), on }));
    }
}

/// The namespaces in which nothing foreign carries the link group of the lab's links: there, and only there, one
/// message may remove the whole group.
pub fn own_groups(current: &HostState, facts: &Facts, strangers: &Strangers) -> BTreeSet<Ns> {
    let mut groups = BTreeMap::<&Ns, BTreeSet<u32>>::new();
    for (id, link) in &current.links {
        groups.entry(&id.ns).or_default().insert(link.group);
    }
    let nobody = BTreeMap::new();
    let is_own = |(ns, groups): &(&Ns, BTreeSet<u32>)| {
        let foreign = ns.name().map_or(&facts.devices, |name| strangers.get(name).unwrap_or(&nobody));
        !foreign.values().any(|device| groups.contains(&device.group))
    };
    groups.into_iter().filter(is_own).map(|(ns, _)| ns.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Mac;
    use crate::state::{BridgeSettings, Link};

    const GROUP: u32 = 4711;

    fn id(ns: &Ns, name: &str) -> LinkId {
        LinkId { ns: ns.clone(), name: name.parse().unwrap() }
    }

    fn router() -> NsName {
        "vmnet-campus".parse().unwrap()
    }

    fn link(kind: LinkKind) -> Link {
        Link {
            kind,
            mac: Mac::try_from([2, 0, 0, 0, 0, 1]).unwrap(),
            mtu: 1500,
            group: GROUP,
            alias: String::new(),
            master: None,
            up: true,
            ipv6: false,
            tx_checksum: None,
            odd: crate::state::Odd::new(),
        }
    }

    /// A bridge, and the router's port on it.
    fn state() -> HostState {
        let (near, far) = (id(&Ns::Host, "rt-web"), id(&Ns::Named(router()), "web"));
        let bridge = link(LinkKind::Bridge(BridgeSettings::OURS));
        let mut state = HostState::default();
        state.links.insert(id(&Ns::Host, "br-web"), bridge);
        state.links.insert(near.clone(), link(LinkKind::Veth { peer: Some(far.clone()) }));
        state.links.insert(far, link(LinkKind::Veth { peer: Some(near) }));
        state
    }

    fn port(of: &str) -> Device {
        Device { master: Some(of.into()), ..Device::default() }
    }

    fn stacked(on: &str) -> Device {
        Device { lower: Some(on.into()), ..Device::default() }
    }

    fn facts(devices: &[(&str, Device)]) -> Facts {
        let devices = devices.iter().map(|(name, device)| ((*name).to_owned(), device.clone()));
        Facts { devices: devices.collect(), ..Facts::default() }
    }

    fn inside(name: &str, device: Device) -> Strangers {
        [(router(), [(name.to_owned(), device)].into())].into()
    }

    fn texts(ops: &[Op], facts: &Facts, strangers: &Strangers) -> Vec<String> {
        let remotes = [
            Remote {
                device: "eth0".into(),
                place: "namespace web1".into(),
                how: Tie::Stacked { on: id(&Ns::Host, "br-else") },
            },
            Remote { device: "eth1".into(), place: "x".into(), how: Tie::PeerOf { port: "br-web".into() } },
        ];
        let all = hurt(ops, &state(), facts, strangers, &remotes);
        all.iter().map(|hurt| format!("{}: {hurt}", hurt.device())).collect()
    }

    #[test]
    fn ports_of_and_devices_on_what_goes_are_hurt() {
        let facts = facts(&[("vnet0", port("br-web")), ("macvtap0", stacked("br-web")), ("vnet1", port("br-else"))]);
        let wanted = ["vnet0: a port of br-web", "macvtap0: stacked on br-web"];
        let one = [Op::RemoveLink { id: id(&Ns::Host, "br-web") }];
        assert_eq!(texts(&one, &facts, &Strangers::new()), wanted);
        let group = [Op::RemoveGroup { ns: Ns::Host, group: GROUP, count: 2 }];
        assert_eq!(texts(&group, &facts, &Strangers::new()), wanted);
        let other = [Op::RemoveLink { id: id(&Ns::Host, "rt-web") }];
        assert_eq!(texts(&other, &facts, &Strangers::new()), [""; 0]);
    }

    #[test]
    fn the_far_end_of_a_pair_goes_with_the_near_one() {
        let one = [Op::RemoveLink { id: id(&Ns::Host, "rt-web") }];
        let all = texts(&one, &Facts::default(), &inside("mv0", stacked("web")));
        assert_eq!(all, ["mv0: stacked on web in vmnet-campus"]);
    }

    #[test]
    fn a_device_of_another_namespace_goes_with_what_it_sits_on() {
        let one = [Op::RemoveLink { id: id(&Ns::Host, "br-else") }];
        let all = texts(&one, &Facts::default(), &Strangers::new());
        assert_eq!(all, ["eth0: in namespace web1, stacked on br-else"]);
    }

    #[test]
    fn what_is_inside_a_namespace_goes_with_it() {
        let one = [Op::RemoveNamespace { ns: router() }];
        let all = texts(&one, &Facts::default(), &inside("wg0", Device::default()));
        assert_eq!(all, ["wg0: in namespace vmnet-campus"]);
    }

    #[test]
    fn domains_on_what_goes_are_hurt() {
        let nic = |live, network: Option<&str>, bridge: Option<&str>| ForeignNic {
            live,
            network: network.map(str::to_owned),
            bridge: bridge.map(str::to_owned),
            tap: live.then(|| "vnet0".to_owned()),
        };
        let domain = |name: &str, by_hand, nics| crate::state::ForeignDomain {
            name: name.to_owned(),
            uuid: String::new(),
            by_hand,
            nics,
        };
        let mut facts = facts(&[("vnet0", port("br-web")), ("vnet1", port("br-web"))]);
        facts.foreign_domains = vec![
            // What runs is said once, although it is defined, too.
            domain("runs", false, vec![nic(true, Some("n"), Some("br-web")), nic(false, Some("n"), None)]),
            domain("off", false, vec![nic(false, Some("n"), None)]),
            domain("by-bridge", false, vec![nic(false, None, Some("br-web"))]),
            domain("elsewhere", false, vec![nic(true, Some("m"), Some("br-m")), nic(false, None, Some("br-m"))]),
            domain("own", true, vec![nic(false, Some("n"), Some("br-web"))]),
        ];
        let remove = Op::RemoveLibvirtNetwork { name: "n".into(), uuid: String::new() };
        let bridge = Op::RemoveLink { id: id(&Ns::Host, "br-web") };
        let told = |ops: &[Op]| texts(ops, &facts, &Strangers::new());
        let runs = "runs: a libvirt domain that runs on libvirt network n";
        let off = "off: a libvirt domain that is defined to be on libvirt network n";
        assert_eq!(told(std::slice::from_ref(&remove)), [off, runs]);
        let by_bridge = "by-bridge: a libvirt domain that is defined to be on br-web";
        assert_eq!(told(&[remove.clone(), bridge.clone()]), ["vnet1: a port of br-web", by_bridge, off, runs]);
        assert_eq!(
            told(&[bridge]),
            ["vnet1: a port of br-web", by_bridge, "runs: a libvirt domain that runs on br-web"]
        );
        let network = crate::state::LibvirtNetwork {
            uuid: "other".into(),
            network: "web".into(),
            bridge: "br-web".into(),
            active: true,
            autostart: true,
        };
        assert_eq!(told(&[remove, Op::AddLibvirtNetwork { name: "n".into(), network }]), [""; 0]);
    }

    #[test]
    fn a_group_is_ours_where_nothing_foreign_carries_it() {
        let foreign = Device { group: GROUP, ..Device::default() };
        let both: BTreeSet<Ns> = [Ns::Host, Ns::Named(router())].into();
        assert_eq!(own_groups(&state(), &facts(&[("eth0", Device::default())]), &Strangers::new()), both);
        assert_eq!(
            own_groups(&state(), &facts(&[("x", foreign.clone())]), &Strangers::new()),
            [Ns::Named(router())].into()
        );
        assert_eq!(own_groups(&state(), &Facts::default(), &inside("x", foreign)), [Ns::Host].into());
    }
}
