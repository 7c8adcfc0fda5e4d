//! What `status` shows of objects that are not as they should be, and of devices that are not the lab's.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use crate::commands::output::{foreign, shown};
use crate::observe::{Beside, Observation};
use crate::plan::{Difference, Remote, Tie};
use crate::state::{Facts, File, ForeignNic, HostState, LinkId, Ns};

/// A difference, and the line for people.
#[derive(Serialize)]
pub(super) struct DifferenceReport {
    #[serde(flatten)]
    difference: Difference,
    pub(super) text: String,
}

impl From<Difference> for DifferenceReport {
    fn from(difference: Difference) -> Self {
        let text = difference.to_string();
        Self { difference, text }
    }
}

/// A device that is not the lab's and hangs on something that is. Names are escaped.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Foreign {
    device: String,
    /// The bridge that it is a port of.
    bridge: Option<String>,
    /// `port`, `stacked` or `inside`.
    how: &'static str,
    /// The link that it hangs on.
    on: Option<String>,
    /// The namespace of the lab's that both are in; `None`: the host's own.
    namespace: Option<String>,
    /// Where it is, when that is neither the host nor a namespace of the lab's; for a port, where its other end is.
    elsewhere: Option<String>,
    /// The domain of libvirt's whose device it is, where that is known.
    domain: Option<String>,
    /// The line for people.
    pub(super) text: String,
}

/// The devices that are not the lab's: ports of its bridges, what is stacked on its links, what is in its namespaces.
pub(super) fn foreign_devices(observation: &Observation, remotes: &[Remote]) -> Vec<Foreign> {
    let links: BTreeSet<&LinkId> = observation.state.links.keys().collect();
    let ours = |ns: &Ns, name: Option<&String>| {
        let id = LinkId { ns: ns.clone(), name: name?.parse().ok()? };
        links.contains(&id).then_some(id)
    };
    let mut all = Vec::new();
    let own_places = observation.strangers.iter().map(|(ns, devices)| (Ns::Named(ns.clone()), devices));
    for (ns, devices) in std::iter::once((Ns::Host, &observation.facts.devices)).chain(own_places) {
        for (name, device) in devices {
            let (master, lower) = (ours(&ns, device.master.as_ref()), ours(&ns, device.lower.as_ref()));
            let name = foreign(name);
            let (how, on, text) = match (master, lower, &ns) {
                (Some(on), _, _) => ("port", Some(on.name.to_string()), format!("{name} is a port of {on}")),
                // The two ends of a veth pair name each other; one of ours is known by both its ends.
                (None, Some(on), _) if device.kind.as_deref() != Some("veth") => {
                    ("stacked", Some(on.name.to_string()), format!("{name} is stacked on {on}"))
                }
                (None, _, Ns::Host) => continue,
                (None, _, Ns::Named(ns)) => ("inside", None, format!("{name} is in namespace {ns}")),
            };
            let other_end =
                remotes.iter().find(|remote| matches!(&remote.how, Tie::PeerOf { port } if foreign(port) == name));
            let elsewhere = other_end.filter(|_| how == "port" && ns == Ns::Host);
            let elsewhere =
                elsewhere.map(|remote| format!("{} in {}", foreign(&remote.device), foreign(&remote.place)));
            let domain = domain_of(&observation.facts, &name);
            let text = match &domain {
                Some(domain) => format!("{text}, for libvirt domain {domain}"),
                None => text,
            };
            all.push(Foreign {
                domain,
                device: name,
                bridge: on.clone().filter(|_| how == "port"),
                how,
                on,
                namespace: ns.name().map(ToString::to_string),
                text: match &elsewhere {
                    Some(end) => format!("{text}; its other end is {end}"),
                    None => text,
                },
                elsewhere,
            });
        }
    }
    for Remote { device, place, how } in remotes {
        let Tie::Stacked { on } = how else { continue };
        let (device, place) = (foreign(device), foreign(place));
        all.push(Foreign {
            text: format!("{device} in {place} is stacked on {on}"),
            device,
            bridge: None,
            how: "stacked",
            on: Some(on.name.to_string()),
            namespace: None,
            elsewhere: Some(place),
            domain: None,
        });
    }
    all
}

/// The foreign domain that a device on the host is plugged into, escaped.
fn domain_of(facts: &Facts, device: &str) -> Option<String> {
    let has = |nic: &ForeignNic| nic.live && nic.tap.as_deref().is_some_and(|tap| foreign(tap) == device);
    facts.foreign_domains.iter().find(|domain| domain.nics.iter().any(has)).map(|domain| foreign(&domain.name))
}

/// A domain of libvirt's that is not a guest of the lab's, and one of the lab's networks that it is on. Names are
/// escaped.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct ForeignUser {
    domain: String,
    uuid: String,
    /// libvirt's network, or the bridge.
    on: String,
    /// Whether it runs and is plugged in; else it is defined with it.
    pub(super) live: bool,
    /// The line for people.
    pub(super) text: String,
}

/// The foreign domains on the lab's networks, as far as libvirt was asked.
pub(super) fn foreign_users(observation: &Observation, bridges: &BTreeSet<&str>) -> Vec<ForeignUser> {
    let mut all = BTreeSet::new();
    for domain in &observation.facts.foreign_domains {
        for nic in &domain.nics {
            let network = nic.network.as_deref().filter(|name| observation.state.libvirt_networks.contains_key(*name));
            let bridge = nic.bridge.as_deref().filter(|name| nic.network.is_none() && bridges.contains(name));
            let Some(on) = network.or(bridge) else { continue };
            let (name, on) = (foreign(&domain.name), foreign(on));
            let what = if nic.live { "runs on" } else { "is defined to be on" };
            let text = format!("libvirt domain {name} {what} {on}");
            all.insert(ForeignUser { domain: name, uuid: domain.uuid.clone(), on, live: nic.live, text });
        }
    }
    all.into_iter().collect()
}

/// Something else that is not the lab's, in a place that is. It is left alone.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Other {
    /// A file's path, or what it is in words. Escaped.
    thing: String,
    /// The namespace of the lab's that it is in.
    namespace: Option<String>,
    /// The line for people.
    pub(super) text: String,
}

/// What others put into the hooks folder and the router's namespace.
pub(super) fn beside(observation: &Observation, wanted: &HostState) -> Vec<Other> {
    let Beside { files, inside } = &observation.beside;
    // What has a hook's name and no mark of vmnet's is nothing that vmnet wrote.
    let is_strange = |(path, file): &(&PathBuf, &File)| !wanted.files.contains_key(*path) && !file.is_made(path);
    let strange = observation.state.files.iter().filter(is_strange).map(|(path, _)| path);
    let file = |path: &PathBuf| {
        let thing = shown(path);
        Other { text: format!("{thing} stands below the hooks"), thing, namespace: None }
    };
    let inside = inside.iter().map(|(ns, thing)| {
        let text = format!("{thing} is in namespace {ns}");
        Other { thing: thing.clone(), namespace: Some(ns.to_string()), text }
    });
    files.iter().chain(strange).map(file).chain(inside).collect()
}
