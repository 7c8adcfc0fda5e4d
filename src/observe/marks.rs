//! [`marks`]: what on this host says by its mark that it is a lab's, whichever lab.
//!
//! A link is a lab's by alias and group together, or as a TAP by its alias; a route on a foreign device by its metric; a
//! namespace by the alias of its `lo`; a table by its comment; a file by the mark in its text; a domain or network of libvirt by
//! its metadata; a folder below our own roots by its name. What only looks like ours is told apart: it is listed and never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::{ObserveError, domains, files, networks};
use crate::kernel::dump::{Dumper, KindData, LinkRow};
use crate::kernel::netns::{self, Standing};
use crate::kernel::nftables;
use crate::mark::Mark;
use crate::names::{LabName, NsName};
use crate::paths::{self, Paths};
use crate::rule;
use crate::state::{File, Ns};

/// Something that is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Thing {
    /// `link`, `namespace`, `table`, `file`, `domain`, `libvirt network`, `folder` or `route`.
    pub what: &'static str,
    /// Its name; untrusted.
    pub name: String,
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.name.escape_debug())
    }
}

/// What one lab has here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marked {
    /// Everything but disks.
    pub things: BTreeSet<Thing>,
    /// How many bridges are among them.
    pub bridges: usize,
    /// Folders with guests' disks: data, which outlives a lab on purpose.
    pub disks: BTreeSet<String>,
}

/// What carries marks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// By lab.
    pub labs: BTreeMap<LabName, Marked>,
    /// What looks like vmnet's and can't be proven to be.
    pub unproven: Vec<Doubt>,
}

/// Something that looks like vmnet's and can't be proven to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Doubt {
    /// What it is.
    #[serde(flatten)]
    pub thing: Thing,
    /// Why it is not proven; untrusted.
    pub why: String,
    /// The lab that it would be of, where it says so.
    #[serde(skip)]
    pub lab: Option<LabName>,
}

impl Marks {
    fn add(&mut self, lab: &LabName, what: &'static str, name: impl Into<String>) {
        self.labs.entry(lab.clone()).or_default().things.insert(Thing { what, name: name.into() });
    }

    fn doubt(&mut self, lab: Option<&LabName>, what: &'static str, name: impl Into<String>, why: impl Into<String>) {
        let thing = Thing { what, name: name.into() };
        self.unproven.push(Doubt { thing, why: why.into(), lab: lab.cloned() });
    }
}

/// Looks for marks. `known` are labs that are known otherwise: a link may carry the group of one and no mark yet.
///
/// # Errors
/// When links or folders can't be read.
pub fn marks(paths: &Paths, known: &[LabName]) -> Result<Marks, ObserveError> {
    let mut marks = Marks::default();
    folders(paths, &mut marks)?;
    namespaces(&mut marks)?;
    drop_ins(&mut marks);
    for domain in domains::domains() {
        marks.add(&domain.lab, "domain", domain.name);
    }
    for (lab, name) in networks::networks() {
        marks.add(&lab, "libvirt network", name);
    }
    tables(&mut marks);
    links(known, &mut marks)?;
    Ok(marks)
}

fn folders(paths: &Paths, marks: &mut Marks) -> Result<(), ObserveError> {
    for (lab, folder) in labs_below(&paths.run)? {
        // A word about a change that was undone is nothing that is left over, nor are the files of others.
        let words = [paths.hooks(&lab), paths.undone(&lab)];
        let mut entries: Vec<_> = fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        entries.sort();
        let (made, others) = files::below_hooks(paths, &lab)?;
        match entries.iter().all(|entry| words.contains(entry)) {
            true if entries == words[1..] => {}
            true if made.is_empty() && !others.is_empty() => {
                for path in others {
                    let why = "it is not of vmnet, and keeps the lab's folder";
                    marks.doubt(Some(&lab), "file", path.display().to_string(), why);
                }
            }
            _ => marks.add(&lab, "folder", folder),
        }
    }
    for (lab, folder) in labs_below(&paths.state)? {
        let disks = ["guests", "by-hand"].map(|part| Path::new(&folder).join(part));
        let disks = disks.iter().filter(|path| path.is_dir()).map(|path| path.display().to_string());
        let disks: BTreeSet<String> = disks.collect();
        if !disks.is_empty() {
            marks.labs.entry(lab).or_default().disks = disks;
        }
    }
    Ok(())
}

fn labs_below(root: &Path) -> Result<Vec<(LabName, String)>, ObserveError> {
    let fail = |source| ObserveError::File { path: root.to_owned(), source };
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let lab = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // `file_type` follows no link.
        if let (Some(lab), true) = (lab, entry.file_type().map_err(fail)?.is_dir()) {
            found.push((lab, entry.path().display().to_string()));
        }
    }
    Ok(found)
}

fn namespaces(marks: &mut Marks) -> Result<(), ObserveError> {
    let fail = |source| ObserveError::File { path: netns::DIR.into(), source };
    let entries = match fs::read_dir(netns::DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
    };
    for entry in entries.map_while(Result::ok) {
        let name = entry.file_name();
        let name = name.to_str().filter(|name| name.starts_with("vmnet-")).and_then(|name| name.parse::<NsName>().ok());
        let Some(name) = name else { continue };
        let mark = match netns::look(&entry.path()) {
            Ok(Standing::Namespace(_)) => mark_of(&name),
            Ok(Standing::File(text)) => text.parse::<Mark>().ok(),
            Ok(Standing::Other) | Err(_) => None,
        };
        let of = |lab: &LabName| {
            let rest = name.as_str().strip_prefix(rule::router_namespace(lab).as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        match mark {
            Some(mark) if of(&mark.lab) => marks.add(&mark.lab, "namespace", name.as_str()),
            Some(mark) => {
                marks.doubt(Some(&mark.lab), "namespace", name.as_str(), format!("its mark names lab {}", mark.lab));
            }
            None => {
                let lab = name.as_str().trim_start_matches("vmnet-").split('.').next().and_then(|lab| lab.parse().ok());
                marks.doubt(lab.as_ref(), "namespace", name.as_str(), "it has no mark");
            }
        }
    }
    Ok(())
}

fn mark_of(name: &NsName) -> Option<Mark> {
    let read = || Dumper::open().and_then(|mut dumper| dumper.links());
    let rows = netns::run_in(&Ns::Named(name.clone()), read).ok()?.ok()?;
    rows.into_iter().find(|row| row.name == "lo")?.alias?.parse().ok()
}

fn drop_ins(marks: &mut Marks) {
    for folder in [paths::NETWORK_MANAGER_DROP_INS, paths::NETWORKD_DROP_INS] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(Some(File { mode: _, content, access: _ })) = files::one(&path) else { continue };
            let mark = content.split_whitespace().find_map(|word| word.parse::<Mark>().ok());
            if let Some(Mark { lab, .. }) = mark
                && (path == paths::network_manager_drop_in(&lab) || path == paths::networkd_drop_in(&lab))
            {
                marks.add(&lab, "file", path.display().to_string());
            }
        }
    }
}

fn tables(marks: &mut Marks) {
    // A kernel without nftables has no tables.
    for row in nftables::tables().unwrap_or_default() {
        let family = crate::kernel::nft::family_word(row.family);
        let name = format!("{family} {}", row.name);
        match row.comment.as_deref().and_then(|comment| comment.parse::<Mark>().ok()) {
            Some(mark) if row.name == rule::router_namespace(&mark.lab).as_str() => marks.add(&mark.lab, "table", name),
            Some(mark) => {
                marks.doubt(Some(&mark.lab), "table", name, format!("its comment names lab {}", mark.lab));
            }
            None => {
                if let Some(lab) = row.name.strip_prefix("vmnet-") {
                    marks.doubt(lab.parse().ok().as_ref(), "table", name, "it has no comment with a mark");
                }
            }
        }
    }
}

fn links(known: &[LabName], marks: &mut Marks) -> Result<(), ObserveError> {
    let fail = |what| move |source| ObserveError::Dump { what, ns: Ns::Host, source };
    let mut dumper = Dumper::open().map_err(fail("the links"))?;
    let rows = dumper.links().map_err(fail("the links"))?;
    let mark = |row: &LinkRow| row.alias.as_deref().and_then(|alias| alias.parse::<Mark>().ok());
    let mut groups: BTreeMap<u32, LabName> = BTreeMap::new();
    let marked = rows.iter().filter_map(mark).map(|mark| mark.lab);
    for lab in marked.chain(known.iter().cloned()).chain(marks.labs.keys().cloned()) {
        groups.insert(rule::link_group(&lab), lab);
    }
    let mut ours = BTreeSet::new();
    for row in rows.iter().filter(|row| row.name != "lo") {
        let own_group = |mark: &Mark| row.group == rule::link_group(&mark.lab);
        match (mark(row), groups.get(&row.group)) {
            (Some(mark), _) if own_group(&mark) || row.data == (KindData::Tun { tap: true }) => {
                marks.add(&mark.lab, "link", row.name.as_str());
                ours.insert(row.index);
                let marked = marks.labs.entry(mark.lab).or_default();
                marked.bridges += usize::from(mark.role == "bridge");
            }
            (Some(mark), _) => {
                let why = format!("its alias names lab {}, and its link group is not that lab's", mark.lab);
                marks.doubt(Some(&mark.lab), "link", row.name.as_str(), why);
            }
            // vmnet was killed between its creation and its mark; with another alias it is somebody's.
            (None, Some(lab)) if row.alias.is_none() => {
                let lab = lab.clone();
                marks.add(&lab, "link", row.name.as_str());
                ours.insert(row.index);
            }
            (None, Some(lab)) => {
                let why = format!("its link group is lab {lab}'s, and its alias is not");
                marks.doubt(Some(lab), "link", row.name.as_str(), why);
            }
            (None, None) if rule::is_link_group(row.group) => {
                marks.doubt(
                    None,
                    "link",
                    row.name.as_str(),
                    "its link group may be that of a lab of which nothing is known",
                );
            }
            (None, None) => {}
        }
    }
    for row in dumper.routes(Some(rule::ROUTE_PROTOCOL)).map_err(fail("the routes"))? {
        if row.refuses.is_none()
            && row.protocol == rule::ROUTE_PROTOCOL
            && row.index.is_none_or(|index| !ours.contains(&index))
        {
            if let Some(lab) = groups.get(&row.metric) {
                let lab = lab.clone();
                marks.add(&lab, "route", row.to.to_string());
                continue;
            }
            let dev = rows.iter().find(|link| Some(link.index) == row.index).map_or("nothing", |link| &link.name);
            let why = format!("it has vmnet's protocol number and leads out of {}", dev.escape_debug());
            marks.doubt(None, "route", row.to.to_string(), why);
        }
    }
    Ok(())
}
