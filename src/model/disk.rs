//! The further disks of guests. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::image::{image_format, named};
use super::{ImageFormat, Vm};
use crate::definition::{At, Definition, DiskDef, DiskDefs, Key, Problem, Problems};
use crate::names::{DiskName, VmName};

/// A disk of a guest beside the one that it boots from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disk {
    /// Empty at first, kept with the guest.
    Own {
        /// Bytes.
        size: u64,
    },
    /// A file or block device of the user's.
    File {
        /// Relative to the definition's folder or absolute.
        file: PathBuf,
        /// `qcow2` or `raw`.
        format: ImageFormat,
        /// Never written to.
        readonly: bool,
    },
}

impl Vm {
    /// The files that its further disks are, and whether they are for reading alone.
    pub fn disk_files(&self) -> impl Iterator<Item = (&PathBuf, bool)> {
        self.disks.values().filter_map(|disk| match disk {
            Disk::Own { .. } => None,
            Disk::File { file, readonly, .. } => Some((file, *readonly)),
        })
    }
}

/// Those of one guest.
pub(super) fn disks(vm: &VmName, defs: &Key<DiskDefs>, problems: &mut Problems) -> BTreeMap<DiskName, Disk> {
    let defs = defs.value().map(|defs| &defs.0).into_iter().flatten();
    defs.filter_map(|(name, def)| Some((name.clone(), disk(vm, name, def, problems)?))).collect()
}

fn disk(vm: &VmName, name: &DiskName, at: &At<DiskDef>, problems: &mut Problems) -> Option<Disk> {
    let DiskDef { size, file, format, readonly } = at.get_ref();
    let mut refuse = |span, text: &str, help: &str| {
        problems.push(Problem::new(span, format!("disk {name} of vm {vm} {text}")).help(help));
    };
    match (size, file) {
        (Key::Missing, Key::Missing) => {
            refuse(at.span(), "has neither a size nor a file", "write \"10GiB\" for an empty one, or { file = \"…\" }");
        }
        (Key::Is(size), Key::Is(_)) => {
            refuse(size.span(), "has a size and a file", "remove one of them: a file has the size that it has");
        }
        _ => {}
    }
    if let (Key::Is(_), Key::Missing) = (size, file) {
        if let Key::Is(format) = format {
            refuse(format.span(), "has a format and no file", "remove format: an empty disk is qcow2");
        }
        if let Key::Is(readonly) = readonly {
            refuse(readonly.span(), "is empty, and readonly", "remove readonly: nobody could write to it");
        }
    }
    match (size.value(), file.value()) {
        (_, Some(path)) => Some(Disk::File {
            file: PathBuf::from(&path.0),
            format: image_format(format, named(file), problems)?,
            readonly: readonly.value().is_some_and(|readonly| *readonly),
        }),
        (Some(size), None) => Some(Disk::Own { size: size.0 }),
        (None, None) => None,
    }
}

/// Refuses a file that two guests of a host would write to, or that one writes to and another reads.
pub(super) fn shared(vms: &BTreeMap<VmName, Vm>, definition: &Definition, problems: &mut Problems) {
    let mut users = BTreeMap::<_, Vec<(&VmName, &DiskName, bool)>>::new();
    for vm in vms.values() {
        for (name, disk) in vm.disks() {
            if let Disk::File { file, readonly, .. } = disk {
                users.entry((vm.host(), file)).or_default().push((vm.name(), name, *readonly));
            }
        }
    }
    for ((_, file), users) in users {
        let [(vm, disk, first), (other, _, second), ..] = users.as_slice() else { continue };
        if users.iter().all(|(_, _, readonly)| *readonly) {
            continue;
        }
        let own = definition.vms.get(vm.as_str()).and_then(|def| def.get_ref().disks.value());
        let defs = own.or(definition.defaults.disks.value());
        let Some(span) = defs.and_then(|defs| defs.0.get(*disk)).map(At::span) else { continue };
        let who = if vm == other { format!("vm {vm} twice") } else { format!("vm {vm} and vm {other}") };
        let and = if *first || *second { ", and one of them writes to it" } else { "" };
        let problem = Problem::new(span, format!("{} is a disk of {who}{and}", file.display()));
        problems.push(problem.help("give each a file of its own, or write readonly = true everywhere"));
    }
}
