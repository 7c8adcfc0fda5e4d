//! What a plan would do to things that are not the lab's, and where one message may remove a whole link group. Pure.
//!
//! Links that die with a guest's process (its TAPs) are not looked at: the guest may end at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Op;
use crate::names::NsName;
use crate::state::{Device, Facts, HostState, LinkId, LinkKind, Ns};

/// Links in the lab's namespaces that are not the lab's.
pub type Strangers = BTreeMap<NsName, BTreeMap<String, Device>>;

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
    /// In a namespace that goes.
    Inside {
        /// The foreign device.
        device: String,
        /// The namespace.
        ns: NsName,
    },
}

impl Hurt {
    /// The foreign device.
    pub fn device(&self) -> &str {
        match self {
            Self::Port { device, .. } | Self::Stacked { device, .. } | Self::Inside { device, .. } => device,
        }
    }
}

/// Where it is, without its own name.
impl fmt::Display for Hurt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { of, .. } => write!(f, "a port of {of}"),
            Self::Stacked { on, .. } => write!(f, "stacked on {on}"),
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
) -> BTreeSet<Hurt> {
    let mut links = BTreeSet::<LinkId>::new();
    let mut namespaces = BTreeSet::<&NsName>::new();
    for op in ops {
        match op {
            Op::RemoveLink { id } => {
                links.insert(id.clone());
                if let Some(LinkKind::Veth { peer: Some(peer) }) = current.links.get(id).map(|link| &link.kind) {
                    links.insert(peer.clone());
                }
            }
            Op::RemoveGroup { ns, group, count: _ } => {
                let of_group = current.links.iter().filter(|(id, link)| id.ns == *ns && link.group == *group);
                links.extend(of_group.map(|(id, _)| id.clone()));
            }
            Op::RemoveNamespace { ns } => drop(namespaces.insert(ns)),
            _ => {}
        }
    }
    let mut all = BTreeSet::new();
    on_links(&Ns::Host, &facts.devices, &links, &mut all);
    for (ns, devices) in strangers {
        if namespaces.contains(ns) {
            all.extend(devices.keys().map(|device| Hurt::Inside { device: device.clone(), ns: ns.clone() }));
        } else {
            on_links(&Ns::Named(ns.clone()), devices, &links, &mut all);
        }
    }
    all
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
