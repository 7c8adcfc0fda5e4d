//! Devices in namespaces of others that hang on the lab's links: a container's macvlan on one of our bridges goes with
//! the bridge, and the host's own list of links does not show it.
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
use crate::kernel::dump::{Dumper, LinkRow};
use crate::kernel::netns::{self, Standing};
use crate::plan::{Remote, Tie};
use crate::rule;
use crate::state::{LinkId, Ns};

/// The devices elsewhere that hang on links of the lab on the host, and the other ends of foreign ports on them.
pub fn remotes(scope: &Scope) -> Result<Vec<Remote>, ObserveError> {
    let fail = |source| ObserveError::Dump { what: "the links", ns: Ns::Host, source };
    let host = netns::open(&Ns::Host)?;
    let rows = Dumper::open().and_then(|mut dumper| dumper.links()).map_err(fail)?;
    let ties = Ties::of(scope, &rows);
    if ties.own.is_empty() {
        return Ok(Vec::new());
    }
    let places = places(scope, inode(&host).map_err(fail)?);
    let look = || -> io::Result<Vec<Remote>> {
        let mut found = Vec::new();
        for (place, fd) in &places {
            // One that has just gone holds nothing.
            found.extend(visit(place, fd, &host, &ties).unwrap_or_default());
        }
        Ok(found)
    };
    let mut found = netns::on_thread(look).map_err(fail)?;
    found.sort();
    Ok(found)
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

/// Moves the calling thread into a namespace and looks.
fn visit(place: &str, fd: &OwnedFd, host: &OwnedFd, ties: &Ties) -> io::Result<Vec<Remote>> {
    nix::sched::setns(fd.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET)?;
    let mut dumper = Dumper::open()?;
    let rows = dumper.links()?;
    if rows.iter().all(|row| row.lower_nsid.is_none()) {
        return Ok(Vec::new());
    }
    let Some(number) = dumper.nsid(host.as_fd())? else { return Ok(Vec::new()) };
    let of_host = rows.into_iter().filter(|row| row.lower_nsid == Some(number));
    let remote = |row: LinkRow| {
        let index = row.lower?;
        let how = match (row.kind.as_deref(), ties.own.get(&index), ties.ports.get(&index)) {
            (Some("veth"), _, Some(port)) => Tie::PeerOf { port: port.clone() },
            // The other end of a pair of ours that somebody took along: it is ours, and goes with it.
            (Some("veth"), _, None) => return None,
            (_, Some(own), _) => Tie::Stacked { on: own.clone() },
            (_, None, _) => return None,
        };
        Some(Remote { device: row.name, place: place.to_owned(), how })
    };
    Ok(of_host.filter_map(remote).collect())
}
