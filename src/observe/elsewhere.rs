//! Devices in namespaces of others that hang on links of the host, whose own list of links does not show them: a
//! container's macvlan on one of our bridges goes with the bridge, and a sub-interface that was moved into a router
//! keeps its VLAN's number on the NIC taken.
//!
//! Seen are the namespaces below `/run/netns` and those of processes. Each is entered for one dump, by one thread for
//! all; nothing is changed there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::links::is_ours;
use super::{ObserveError, Scope};
use crate::kernel::dump::{Dumper, KindData, LinkRow};
use crate::kernel::netns::{self, Standing};
use crate::names::VlanId;
use crate::plan::{Remote, Tie};
use crate::rule;
use crate::state::{HiddenVlan, LinkId, Ns};

/// The devices elsewhere that hang on links of the lab on the host, and the other ends of foreign ports on them.
pub fn remotes(scope: &Scope) -> Result<Vec<Remote>, ObserveError> {
    let host = netns::open(&Ns::Host)?;
    let rows = links_of_host()?;
    let ties = Ties::of(scope, &rows);
    if ties.own.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = of_others(scope, &host, |place, row| ties.remote(place, row))?;
    found.sort();
    Ok(found)
}

/// The sub-interfaces elsewhere of the host's devices. The kernel has one of a device for each VLAN, wherever it is.
pub fn hidden_vlans(scope: &Scope) -> Result<Vec<HiddenVlan>, ObserveError> {
    let host = netns::open(&Ns::Host)?;
    let names: BTreeMap<u32, String> = links_of_host()?.into_iter().map(|row| (row.index, row.name)).collect();
    let vlan = |place: &str, row: LinkRow| {
        let KindData::Vlan { id, dot1q: true } = row.data else { return None };
        let vlan = VlanId::try_from(i64::from(id)).ok()?;
        let device = names.get(&row.lower?)?.clone();
        Some(HiddenVlan { device, vlan, name: row.name, place: place.to_owned(), alias: row.alias })
    };
    let mut found = of_others(scope, &host, vlan)?;
    found.sort();
    Ok(found)
}

/// The devices of the host on which something sits in a namespace of others: a container's macvlan on the NIC.
pub fn used_elsewhere(scope: &Scope) -> Result<BTreeSet<String>, ObserveError> {
    let host = netns::open(&Ns::Host)?;
    let names: BTreeMap<u32, String> = links_of_host()?.into_iter().map(|row| (row.index, row.name)).collect();
    // The other end of a veth pair, which may be a NIC of the host, sits on nothing.
    let sits = |_: &str, row: LinkRow| names.get(&row.lower.filter(|_| row.kind.as_deref() != Some("veth"))?).cloned();
    Ok(of_others(scope, &host, sits)?.into_iter().collect())
}

fn unreadable(source: io::Error) -> ObserveError {
    ObserveError::Dump { what: "the links", ns: Ns::Host, source }
}

fn links_of_host() -> Result<Vec<LinkRow>, ObserveError> {
    Dumper::open().and_then(|mut dumper| dumper.links()).map_err(unreadable)
}

/// What `pick` takes of the links in namespaces of others that hang on links of the host. It is told where they are.
fn of_others<T: Send>(
    scope: &Scope,
    host: &OwnedFd,
    pick: impl Fn(&str, LinkRow) -> Option<T> + Sync,
) -> Result<Vec<T>, ObserveError> {
    let places = places(scope, inode(host).map_err(unreadable)?);
    let look = || -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        for (place, fd) in &places {
            // One that has just gone holds nothing.
            let rows = visit(fd, host).unwrap_or_default();
            found.extend(rows.into_iter().filter_map(|row| pick(place, row)));
        }
        Ok(found)
    };
    netns::on_thread(look).map_err(unreadable)
}

/// What a device elsewhere could hang on, by index.
struct Ties {
    own: BTreeMap<u32, LinkId>,
    ports: BTreeMap<u32, String>,
}

impl Ties {
    fn of(scope: &Scope, rows: &[LinkRow]) -> Self {
        let (mut own, mut ports) = (BTreeMap::new(), BTreeMap::new());
        for row in rows.iter().filter(|row| is_ours(scope, row)) {
            own.extend(row.name.parse().ok().map(|name| (row.index, LinkId::host(name))));
        }
        for row in rows {
            let on_ours = row.master.is_some_and(|master| own.contains_key(&master));
            if on_ours && !own.contains_key(&row.index) {
                ports.insert(row.index, row.name.clone());
            }
        }
        Self { own, ports }
    }

    /// What a link elsewhere is to those here.
    fn remote(&self, place: &str, row: LinkRow) -> Option<Remote> {
        let index = row.lower?;
        let how = match (row.kind.as_deref(), self.own.get(&index), self.ports.get(&index)) {
            (Some("veth"), _, Some(port)) => Tie::PeerOf { port: port.clone() },
            // The other end of a pair of ours that somebody took along: it is ours, and goes with it.
            (Some("veth"), _, None) => return None,
            (_, Some(own), _) => Tie::Stacked { on: own.clone() },
            (_, None, _) => return None,
        };
        Some(Remote { device: row.name, place: place.to_owned(), how })
    }
}

fn inode(fd: &OwnedFd) -> io::Result<u64> {
    Ok(fs::File::from(fd.try_clone()?).metadata()?.ino())
}

/// The namespaces that are neither the host's nor the lab's, each once, by name where it has one.
fn places(scope: &Scope, host: u64) -> Vec<(String, OwnedFd)> {
    let router = rule::router_namespace(&scope.lab);
    let mut seen = BTreeSet::from([host]);
    let mut places = Vec::new();
    for entry in fs::read_dir(netns::DIR).into_iter().flatten().flatten() {
        let name = String::from_utf8_lossy(entry.file_name().as_bytes()).into_owned();
        let rest = name.strip_prefix(router.as_str());
        let ours = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if let Ok(Standing::Namespace(fd)) = netns::look(&entry.path())
            && let Ok(inode) = inode(&fd)
            && seen.insert(inode)
            && !ours
        {
            places.push((format!("namespace {name}"), fd));
        }
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
        let file = Path::new("/proc").join(pid).join("ns/net");
        // Kernel threads have none that can be opened, and a process may end at any time.
        let Ok(metadata) = fs::metadata(&file) else { continue };
        if seen.insert(metadata.ino())
            && let Ok(opened) = fs::File::open(&file)
        {
            let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            places.push((format!("the namespace of process {pid} ({})", command.trim_end()), opened.into()));
        }
    }
    places
}

/// Moves the calling thread into a namespace, and reads the links there that hang on links of the host.
fn visit(fd: &OwnedFd, host: &OwnedFd) -> io::Result<Vec<LinkRow>> {
    nix::sched::setns(fd.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET)?;
    let mut dumper = Dumper::open()?;
    let mut rows = dumper.links()?;
    if rows.iter().all(|row| row.lower_nsid.is_none()) {
        return Ok(Vec::new());
    }
    let Some(number) = dumper.nsid(host.as_fd())? else { return Ok(Vec::new()) };
    rows.retain(|row| row.lower_nsid == Some(number));
    Ok(rows)
}
