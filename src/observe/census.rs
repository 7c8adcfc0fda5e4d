//! What stands in each namespace, taken by one visit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

use super::{ObserveError, Scope, namespace_of, read_here};
use crate::kernel::dump::{AddressRow, Dumper, LinkRow, RouteRow};
use crate::kernel::ethtool::Control;
use crate::kernel::netns::{self, Standing};
use crate::kernel::nft::TableRow;
use crate::kernel::{KernelError, nftables};
use crate::mark::Mark;
use crate::names::{LabName, NsName};
use crate::rule;
use crate::state::{ForeignNamespace, Namespace, Ns, SettingKey};

/// What stands below `/run/netns`.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Namespaces that have a name of ours.
    pub candidates: BTreeMap<NsName, OwnedFd>,
    /// Files that say that they were to become namespaces of ours (see [`netns::make`]).
    pub unfinished: Vec<NsName>,
    /// Everything else, by its name, lossy.
    pub foreign: BTreeMap<String, ForeignNamespace>,
}

impl Place {
    /// Looks at every file below `/run/netns`, and enters none.
    pub(super) fn look(lab: &LabName) -> Result<Self, ObserveError> {
        let fail = |source| ObserveError::File { path: netns::DIR.into(), source };
        let mut place = Self::default();
        let folder = match fs::read_dir(netns::DIR) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(place),
            Err(error) => return Err(fail(error)),
        };
        for entry in folder {
            let name = entry.map_err(fail)?.file_name();
            let own = name.to_str().and_then(|name| name.parse().ok()).filter(|name| is_ours(name, lab));
            place.sort(
                &Path::new(netns::DIR).join(&name),
                own,
                String::from_utf8_lossy(name.as_bytes()).into_owned(),
                lab,
            );
        }
        Ok(place)
    }

    fn sort(&mut self, file: &Path, own: Option<NsName>, name: String, lab: &LabName) {
        match (netns::look(file), own) {
            (Ok(Standing::Namespace(fd)), Some(own)) => drop(self.candidates.insert(own, fd)),
            (Ok(Standing::File(text)), Some(own)) if Mark::is_of(&text, lab) => self.unfinished.push(own),
            // Entering foreign namespaces would cost a thread each, and their marks matter to nobody.
            (Ok(Standing::Namespace(_)), None) => {
                self.foreign.insert(name, ForeignNamespace::Namespace { mark: None });
            }
            // One that has just gone is nothing.
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => {}
            _ => drop(self.foreign.insert(name, ForeignNamespace::NotOne)),
        }
    }
}

/// `vmnet-<lab>` or `vmnet-<lab>.<vm>`.
fn is_ours(name: &NsName, lab: &LabName) -> bool {
    let router = rule::router_namespace(lab);
    let rest = name.as_str().strip_prefix(router.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// What was found in one namespace.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Its links by index.
    pub links: BTreeMap<u32, LinkRow>,
    /// Its addresses.
    pub addresses: Vec<AddressRow>,
    /// The routes of its main table.
    pub routes: Vec<RouteRow>,
    /// In the router's namespace: routing rules that the kernel did not make.
    pub rules: Vec<String>,
    /// By which number it knows other namespaces.
    pub nsids: BTreeMap<i32, Ns>,
    /// TX checksum offload by link index, where it was asked for.
    pub tx_checksum: BTreeMap<u32, bool>,
    /// nftables tables.
    pub tables: Vec<TableRow>,
    /// The number of the last commit to nftables, and the namespace's own: together they name a ruleset.
    pub generation: Option<(u64, u32)>,
    /// Settings that were asked for.
    pub settings: BTreeMap<SettingKey, String>,
}

/// All namespaces that matter: the host's, and those with a name of ours.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// What stands below `/run/netns`.
    pub place: Place,
    /// What was found in each.
    pub rows: BTreeMap<Ns, Rows>,
    /// The mark of each named one that is ours.
    pub marks: BTreeMap<NsName, String>,
    /// The alias of `lo` in those that have a name of ours and no mark of ours.
    pub strange_marks: BTreeMap<NsName, String>,
}

impl Census {
    /// The namespaces of the lab. One that was being made when vmnet was killed has no mark, so that a plan makes
    /// it anew.
    pub(super) fn namespaces(&self) -> BTreeMap<NsName, Namespace> {
        let marked = self.marks.iter().map(|(name, mark)| (name.clone(), Namespace { mark: mark.clone() }));
        let unfinished = self.place.unfinished.iter().map(|name| (name.clone(), Namespace { mark: String::new() }));
        marked.chain(unfinished).collect()
    }

    /// Routing rules in the router's namespace that the kernel did not make, in words.
    pub(super) fn rules(&self, scope: &Scope) -> BTreeSet<(NsName, String)> {
        let router = rule::router_namespace(&scope.lab);
        let rules = self.rows.get(&Ns::Named(router.clone())).map_or(&[][..], |rows| &rows.rules);
        rules.iter().map(|text| (router.clone(), text.clone())).collect()
    }

    /// The settings that were asked for, of all namespaces.
    pub(super) fn settings(&self) -> BTreeMap<SettingKey, String> {
        self.rows.values().flat_map(|rows| rows.settings.clone()).collect()
    }
}

/// Visits every namespace: the named ones on threads of their own, the host's meanwhile on this one.
pub(super) fn take(scope: &Scope) -> Result<Census, ObserveError> {
    let place = Place::look(&scope.lab)?;
    let host = netns::open(&Ns::Host)?;
    let queue = Mutex::new(place.candidates.iter());
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(place.candidates.len());
    let visits = std::thread::scope(|threads| {
        let work = || {
            let mut found = Vec::new();
            loop {
                let next = queue.lock().map_or(None, |mut queue| queue.next());
                let Some((name, fd)) = next else { return found };
                found.push((name, visit(scope, name, fd, &host)));
            }
        };
        // Fewer than wanted do it, too; but not this one, which has to stay where it is.
        let start = |_| std::thread::Builder::new().spawn_scoped(threads, work);
        let (threads, failed): (Vec<_>, Vec<_>) = (0..workers).map(start).partition(Result::is_ok);
        let threads: Vec<_> = threads.into_iter().filter_map(Result::ok).collect();
        let none = failed.into_iter().find_map(Result::err).filter(|_| threads.is_empty());
        let own = rows(scope, &Ns::Host, &host, place.candidates.iter());
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (own, threads.into_iter().flat_map(join).collect::<Vec<_>>(), none)
    });
    let mut census = Census::default();
    census.rows.insert(Ns::Host, visits.0?);
    if let Some(source) = visits.2 {
        let place = "the lab's namespaces".into();
        return Err(KernelError::Open { place, source }.into());
    }
    for (name, rows) in visits.1 {
        let rows = rows?;
        let mark = rows.links.values().find(|row| row.name == "lo").and_then(|row| row.alias.clone());
        match mark {
            Some(mark) if Mark::is_of(&mark, &scope.lab) => {
                census.marks.insert(name.clone(), mark);
                census.rows.insert(Ns::Named(name.clone()), rows);
            }
            mark => census.strange_marks.extend(mark.map(|mark| (name.clone(), mark))),
        }
    }
    census.place = place;
    Ok(census)
}

fn visit(scope: &Scope, name: &NsName, fd: &OwnedFd, host: &OwnedFd) -> Result<Rows, ObserveError> {
    nix::sched::setns(fd.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).map_err(|errno| KernelError::Enter {
        name: name.clone(),
        path: netns::path(name),
        source: errno.into(),
    })?;
    rows(scope, &Ns::Named(name.clone()), fd, std::iter::empty()).and_then(|mut rows| {
        // Every namespace of ours may hold links whose other half is on the host.
        if rows.links.values().any(|row| row.lower_nsid.is_some()) {
            let number = Dumper::open().and_then(|mut dumper| dumper.nsid(host.as_fd()));
            let fail = |source| ObserveError::Dump { what: "the numbers", ns: Ns::Named(name.clone()), source };
            rows.nsids.extend(number.map_err(fail)?.map(|number| (number, Ns::Host)));
        }
        Ok(rows)
    })
}

/// Everything about the calling thread's namespace, which is `ns`.
fn rows<'a>(
    scope: &Scope,
    ns: &Ns,
    own: &OwnedFd,
    others: impl Iterator<Item = (&'a NsName, &'a OwnedFd)>,
) -> Result<Rows, ObserveError> {
    let fail = |what| move |source| ObserveError::Dump { what, ns: ns.clone(), source };
    let mut dumper = Dumper::open().map_err(fail("the links"))?;
    let is_router = ns.name() == Some(&rule::router_namespace(&scope.lab));
    let links = if is_router { dumper.links_of_router() } else { dumper.links() };
    let links = links.map_err(fail("the links"))?;
    let mut rows = Rows {
        addresses: dumper.addresses().map_err(fail("the addresses"))?,
        routes: dumper.routes(None).map_err(fail("the routes"))?,
        ..Rows::default()
    };
    if links.iter().any(|row| row.lower_nsid.is_some()) {
        for (name, fd) in others {
            let number = dumper.nsid(fd.as_fd()).map_err(fail("the numbers"))?;
            rows.nsids.extend(number.map(|number| (number, Ns::Named(name.clone()))));
        }
    }
    if is_router {
        rows.tx_checksum = checksums(&links).map_err(fail("the offloads"))?;
        rows.rules = dumper.rules().map_err(fail("the rules"))?;
    }
    // A kernel without nftables has no tables.
    rows.tables = nftables::tables().unwrap_or_default();
    let inode = fs::File::from(own.try_clone().map_err(fail("the number"))?).metadata().map_err(fail("the number"))?;
    rows.generation = nftables::generation().ok().map(|generation| (inode.ino(), generation));
    let keys: Vec<&SettingKey> = scope.settings.iter().filter(|key| namespace_of(key) == ns).collect();
    rows.settings = read_here(&keys).map_err(fail("the settings"))?.into_iter().collect();
    rows.links = links.into_iter().map(|row| (row.index, row)).collect();
    Ok(rows)
}

/// TX checksum offload of the veth ends among `links`.
fn checksums(links: &[LinkRow]) -> io::Result<BTreeMap<u32, bool>> {
    let control = Control::open()?;
    let ends = links.iter().filter(|row| row.kind.as_deref() == Some("veth"));
    // One that has just gone has none.
    Ok(ends.filter_map(|row| Some((row.index, control.tx_checksum(&row.name).ok()?))).collect())
}
