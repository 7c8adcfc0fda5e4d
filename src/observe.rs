//! Looks at this machine: what a lab owns here, and the facts that its plan depends on.
//!
//! Reads only. Each namespace is visited once, by a thread inside it, which takes everything that is to be known
//! there; the host's is looked at meanwhile. What carries our mark is ours, whatever any file says.

mod census;
mod domains;
mod elsewhere;
mod facts;
mod files;
mod firewall;
mod guests;
mod libvirt;
mod links;
mod marks;
mod networks;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use census::Census;
use serde::Serialize;

pub use domains::{OnDisk, domains as domains_on_disk, domains_of};
pub use elsewhere::{hidden_vlans, remotes, used_elsewhere};
pub use facts::find_tool;
pub use files::{below_hooks, kept_in};
pub use libvirt::runs as libvirt_runs;
pub use marks::{Doubt, Marked, Marks, Thing, marks};
pub use networks::networks_of;
pub use tables::{Commit, Recorded};

use crate::engine::EngineError;
use crate::engine::libvirt::Doors;
use crate::kernel::ethtool::Control;
use crate::kernel::{KernelError, netns, sysctl};
use crate::names::{IfName, LabName, NsName};
use crate::paths::Paths;
use crate::plan::Strangers;
use crate::rule;
use crate::state::{Facts, Guest, HostState, Libvirt, Ns, SettingKey, TableId};

/// What an observation looks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    /// The lab.
    pub lab: LabName,
    /// Its link group.
    pub group: u32,
    /// Where its files stand.
    pub paths: Paths,
    /// The settings of [`HostState::settings`].
    pub settings: BTreeSet<SettingKey>,
    /// The settings of [`Facts::sysctls`], by path below `/proc/sys/net`.
    pub sysctls: BTreeSet<String>,
    /// What is known of tables that were written before.
    pub tables: BTreeMap<TableId, Recorded>,
    /// Files outside of our own folders that a plan may write.
    pub drop_ins: BTreeSet<PathBuf>,
    /// Devices whose traffic the host's forward chains must let pass; none: they are not looked at.
    pub forwards: BTreeSet<IfName>,
    /// Whether to look for what only guests need, `/dev/kvm` and `/dev/vhost-net`.
    pub guest_devices: bool,
    /// The user that QEMU runs as.
    pub qemu_user: String,
    /// Whether libvirt is asked: the lab has guests or networks there, or had some.
    pub libvirt: bool,
}

impl Scope {
    /// The scope of a lab of which nothing more is known.
    pub fn new(lab: &LabName, paths: Paths) -> Self {
        Self {
            lab: lab.clone(),
            group: rule::link_group(lab),
            paths,
            settings: BTreeSet::new(),
            sysctls: BTreeSet::new(),
            tables: BTreeMap::new(),
            drop_ins: BTreeSet::new(),
            forwards: BTreeSet::new(),
            guest_devices: false,
            qemu_user: "vmnet-qemu".into(),
            libvirt: false,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Observation {
    /// What the lab owns.
    pub state: HostState,
    /// What is true beside it.
    pub facts: Facts,
    /// Links in the lab's namespaces that are not the lab's, the kernel's own aside: they would go down with the
    /// namespace.
    pub strangers: Strangers,
    /// What others put beside it.
    pub beside: Beside,
    /// What is known of the tables that are as they were written, for the next observation.
    #[serde(skip)]
    pub recorded: BTreeMap<TableId, Recorded>,
}

/// What others put into places of the lab's, and what nothing of the lab's stands on: it is shown, and left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Beside {
    /// Files below the hooks folder.
    pub files: BTreeSet<PathBuf>,
    /// Tables, rules and routes in the router's namespace, each in words.
    pub inside: BTreeSet<(NsName, String)>,
}

/// Why a host could not be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A dump failed.
    #[error("cannot read {what} of the namespace {ns}")]
    Dump {
        /// What was read.
        what: &'static str,
        /// Where.
        ns: Ns,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A namespace could not be entered.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A file or folder could not be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The records of running guests can't be read.
    #[error(transparent)]
    Guests(Box<EngineError>),
    /// libvirt does not say what it has.
    #[error("libvirt can't be asked what it has of the lab: {why}")]
    Libvirt {
        /// Why.
        why: String,
    },
}

/// Looks at the host. That libvirt does not answer is a fact.
pub fn observe(scope: &Scope, doors: &Doors) -> Result<Observation, ObserveError> {
    let begun = Instant::now();
    let (census, mut observation) = look(scope, doors)?;
    let seen = std::mem::take(&mut observation.facts);
    observation.facts = facts::read(scope, &census, seen);
    tracing::debug!(elapsed = ?begun.elapsed(), "observed the host");
    Ok(observation)
}

/// Looks at what the lab owns on the host, and at no facts.
///
/// # Errors
/// Also where libvirt was to be asked and does not answer.
pub fn state(scope: &Scope, doors: &Doors) -> Result<(HostState, BTreeMap<TableId, Recorded>), ObserveError> {
    let begun = Instant::now();
    let (_, observation) = look(scope, doors)?;
    if let Libvirt::Silent { why, help: _ } = observation.facts.libvirt {
        return Err(ObserveError::Libvirt { why });
    }
    tracing::debug!(elapsed = ?begun.elapsed(), "observed the lab");
    Ok((observation.state, observation.recorded))
}

/// Everything that one visit to each namespace shows, and the lab's files.
fn look(scope: &Scope, doors: &Doors) -> Result<(Census, Observation), ObserveError> {
    let (census, files, domains) = std::thread::scope(|threads| {
        let files = beside(threads, || files::read(scope));
        let domains = beside(threads, || libvirt::ask(scope, doors));
        (census::take(scope), files(), domains())
    });
    let (census, files) = (census?, files?);
    let sorted = links::sort(scope, &census, &domains.taps());
    let mut guests = guests::read(scope, &census)?;
    guests.extend(domains.guests.into_iter().map(|(vm, guest)| (vm, Guest::Libvirt(Box::new(guest)))));
    let found = tables::read(scope, &census);
    let state = HostState {
        namespaces: census.namespaces(),
        links: sorted.links,
        addresses: sorted.addresses,
        routes: sorted.routes,
        settings: census.settings(),
        tables: found.tables,
        files: files.ours,
        guests,
        domains: domains.domains,
        libvirt_networks: domains.networks,
    };
    let facts = Facts {
        devices: sorted.devices,
        routes: sorted.foreign_routes,
        routes_inside: sorted.routes_inside,
        tables: found.foreign,
        libvirt: domains.libvirt,
        foreign_domains: domains.foreign,
        foreign_networks: domains.foreign_networks,
        ..Facts::default()
    };
    let mut inside = sorted.inside;
    inside.extend(found.inside);
    inside.extend(census.rules(scope));
    let beside = Beside { files: files.foreign, inside };
    Ok((census, Observation { state, facts, strangers: sorted.strangers, beside, recorded: found.recorded }))
}

/// Begins something on a thread of its own, and gives what waits for it. Where there can be no thread, that does it.
fn beside<'scope, T: Send + 'scope>(
    threads: &'scope std::thread::Scope<'scope, '_>,
    work: impl Fn() -> T + Copy + Send + 'scope,
) -> impl FnOnce() -> T {
    let begun = std::thread::Builder::new().spawn_scoped(threads, work);
    move || match begun {
        Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(_) => work(),
    }
}

/// The present values of settings; those of things that are not there are left out.
pub fn settings(keys: &BTreeSet<SettingKey>) -> Result<BTreeMap<SettingKey, String>, ObserveError> {
    let mut by_ns = BTreeMap::<&Ns, Vec<&SettingKey>>::new();
    for key in keys {
        by_ns.entry(namespace_of(key)).or_default().push(key);
    }
    let mut found = BTreeMap::new();
    for (ns, keys) in by_ns {
        match netns::run_in(ns, || read_here(&keys)) {
            Ok(values) => found.extend(values.map_err(|source| ObserveError::Dump {
                what: "the settings",
                ns: ns.clone(),
                source,
            })?),
            // A file that was to become a namespace when vmnet was killed has none either.
            Err(error) if error.is_gone() || matches!(error, KernelError::NotANamespace { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

fn namespace_of(key: &SettingKey) -> &Ns {
    match key {
        SettingKey::Sysctl { ns, key: _ } => ns,
        SettingKey::DeviceState { device: _ } => &Ns::Host,
    }
}

/// Settings of the calling thread's namespace.
fn read_here(keys: &[&SettingKey]) -> io::Result<Vec<(SettingKey, String)>> {
    let mut found = Vec::new();
    for key in keys {
        let value = match key {
            SettingKey::Sysctl { ns: _, key } => sysctl::read(key)?,
            SettingKey::DeviceState { device } => {
                Control::open()?.is_up(device.as_str())?.map(|up| if up { "up" } else { "down" }.to_owned())
            }
        };
        found.extend(value.map(|value| ((*key).clone(), value)));
    }
    Ok(found)
}
