//! What a guest may have beside one disk and a seed: UEFI, and further disks. Pure.
//!
//! The first disk and the seed keep their places; further ones come behind them, in the order of their names, which the
//! guest sees as serial numbers (`/dev/disk/by-id/virtio-NAME`).

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{LOG_SET, LackError, option_value};
use crate::kinds::Firmware;
use crate::model::{Disk, ImageFormat};
use crate::names::DiskName;
use crate::render::GuestView;
use crate::state::{DiskFile, Facts, Kept, OwnDisk, Uefi};

/// The UEFI variables in a guest's folder.
pub const VARIABLES: &str = "uefi-vars.fd";

/// Where the numbers of descriptor sets for disks begin: the image's own count from 0, and the console's log has one.
const DISK_SETS: usize = LOG_SET + 1;

/// The file name of a guest's own further disk.
pub fn own_disk_name(name: &DiskName) -> String {
    format!("extra-{name}.qcow2")
}

/// What the guest keeps in `folder`.
pub fn kept(view: &GuestView<'_>, facts: &Facts, folder: &Path) -> Result<Kept, LackError> {
    let uefi = match view.vm.firmware() {
        Firmware::Bios => None,
        Firmware::Uefi => {
            let lack = || LackError::Uefi { vm: view.vm.name().to_string() };
            let firmware = facts.firmware.clone().ok_or_else(lack)?;
            Some(Uefi { firmware, variables: folder.join(VARIABLES) })
        }
    };
    let own = |(name, disk): (&DiskName, &Disk)| match disk {
        Disk::Own { size } => Some(OwnDisk { path: folder.join(own_disk_name(name)), size: *size }),
        Disk::File { .. } => None,
    };
    Ok(Kept { uefi, disks: view.vm.disks().iter().filter_map(own).collect() })
}

/// The machine with its firmware.
pub(super) fn machine(uefi: Option<&Uefi>) -> &'static str {
    match uefi {
        None => "q35",
        Some(_) => "q35,pflash0=firmware,pflash1=variables",
    }
}

/// Firmware and further disks of a guest that vmnet starts, and the user's files among these.
pub(super) fn storage(view: &GuestView<'_>, kept: &Kept, folder: &Path, args: &mut Vec<String>) -> Vec<DiskFile> {
    let block = |node: Value| ["-blockdev".to_owned(), node.to_string()];
    if let Some(uefi) = &kept.uefi {
        args.extend(block(json!({
            "node-name": "firmware", "driver": "raw", "read-only": true,
            "file": { "driver": "file", "filename": uefi.firmware.code.to_string_lossy(), "read-only": true },
        })));
        args.extend(block(json!({
            "node-name": "variables", "driver": "raw",
            "file": { "driver": "file", "filename": uefi.variables.to_string_lossy() },
        })));
    }
    let mut files = Vec::new();
    for (name, disk) in view.vm.disks() {
        // A backing file there is none, whatever a header says.
        match disk {
            Disk::Own { .. } => args.extend(block(json!({
                "node-name": node(name), "driver": "qcow2", "discard": "unmap", "detect-zeroes": "unmap",
                "backing": null,
                "file": {
                    "driver": "file", "filename": folder.join(own_disk_name(name)).to_string_lossy(),
                    "discard": "unmap",
                },
            }))),
            Disk::File { file, format, readonly } => {
                let (number, set) = (files.len(), DISK_SETS + files.len());
                let mut described = json!({
                    "node-name": node(name), "driver": format.word(), "read-only": readonly,
                    "file": { "driver": "file", "filename": format!("/dev/fdset/{set}"), "read-only": readonly },
                });
                if *format == ImageFormat::Qcow2 {
                    described["backing"] = Value::Null;
                }
                args.extend(block(described));
                args.extend(["-add-fd".into(), format!("fd={{disk:{number}}},set={set}")]);
                let (path, format, readonly) = (view.absolute(file), format.word().to_owned(), *readonly);
                files.push(DiskFile { path, format, readonly });
            }
        }
        args.extend(["-device".into(), device(name)]);
    }
    files
}

/// QEMU's name for what is in a disk.
fn node(name: &DiskName) -> String {
    format!("extra-{name}")
}

fn device(name: &DiskName) -> String {
    format!("virtio-blk-pci,drive={},serial={name}", node(name))
}

/// The same for people who start QEMU by hand.
pub(super) fn by_hand(view: &GuestView<'_>, kept: &Kept, args: &mut Vec<String>) {
    if let Some(uefi) = &kept.uefi {
        let code = option_value(&uefi.firmware.code);
        args.extend(["-drive".into(), format!("if=pflash,format=raw,readonly=on,file={code}")]);
        args.extend(["-drive".into(), format!("if=pflash,format=raw,file={}", option_value(&uefi.variables))]);
    }
    for (name, path, format, readonly) in placed(view, kept) {
        let readonly = if readonly { ",readonly=on" } else { "" };
        let path = option_value(&path);
        args.extend(["-drive".into(), format!("file={path},format={format},if=none,id={}{readonly}", node(name))]);
        args.extend(["-device".into(), device(name)]);
    }
}

/// The further disks with their files, formats, and whether they are for reading alone.
pub(in crate::render) fn placed<'v>(
    view: &'v GuestView<'_>,
    kept: &Kept,
) -> Vec<(&'v DiskName, PathBuf, &'static str, bool)> {
    let own = |name| kept.disks.iter().find(|disk| disk.path.ends_with(own_disk_name(name)));
    let place = |(name, disk): (&'v DiskName, &Disk)| match disk {
        Disk::Own { .. } => Some((name, own(name)?.path.clone(), "qcow2", false)),
        Disk::File { file, format, readonly } => Some((name, view.absolute(file), format.word(), *readonly)),
    };
    view.vm.disks().iter().filter_map(place).collect()
}
