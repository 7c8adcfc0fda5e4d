//! What most domains have nothing of: UEFI, further disks, arguments for QEMU, elements of the user's own. Pure.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Disk, DiskDriver, DiskSource, DiskTarget, DomainError, Empty, SecLabel, holdable};
use crate::kinds::Snippet;
use crate::names::DiskName;
use crate::render::{GuestFiles, GuestView};

/// The XML namespace of arguments that libvirt hands to QEMU as they are.
pub(super) const QEMU_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

#[derive(Serialize)]
pub(super) struct CommandLine {
    #[serde(rename = "qemu:arg")]
    args: Vec<QemuArg>,
}

#[derive(Serialize)]
pub(super) struct QemuArg {
    #[serde(rename = "@value")]
    value: String,
}

#[derive(Serialize)]
pub(super) struct Loader {
    #[serde(rename = "@readonly")]
    readonly: &'static str,
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "$text")]
    path: String,
}

#[derive(Serialize)]
pub(super) struct Nvram {
    #[serde(rename = "@template")]
    template: String,
    #[serde(rename = "$text")]
    path: String,
}

impl CommandLine {
    /// The user's own arguments; `None` where there are none.
    pub(super) fn of(view: &GuestView<'_>) -> Result<Option<Self>, DomainError> {
        let arg = |arg: &String| Ok(QemuArg { value: holdable(view, "qemu_args", arg.clone())? });
        let args: Vec<QemuArg> = view.vm.qemu_args().iter().map(arg).collect::<Result<_, _>>()?;
        Ok((!args.is_empty()).then_some(Self { args }))
    }
}

/// UEFI; nothing where the guest has a BIOS.
pub(super) fn firmware(
    view: &GuestView<'_>,
    files: &GuestFiles,
) -> Result<(Option<Loader>, Option<Nvram>), DomainError> {
    let Some(uefi) = &files.kept.uefi else { return Ok((None, None)) };
    let text = |path: &Path| holdable(view, "firmware's path", path.to_string_lossy().into_owned());
    let loader = Loader { readonly: "yes", kind: "pflash", path: text(&uefi.firmware.code)? };
    let nvram = Nvram { template: text(&uefi.firmware.variables)?, path: text(&uefi.variables)? };
    Ok((Some(loader), Some(nvram)))
}

/// Puts whole elements behind the other devices. No value of the domain can hold the end of an element as such, so there
/// is one place; and the elements are closed, so they can't lead out of it.
pub(super) fn add_devices(text: &mut String, snippet: &Snippet) {
    if let Some(place) = text.rfind("  </devices>") {
        let lines: String = snippet.as_str().lines().map(|line| format!("    {}\n", line.trim_end())).collect();
        text.insert_str(place, &lines);
    }
}

impl Disk {
    /// A further one. A file that is only read is the user's own and stays so.
    pub(super) fn further(
        view: &GuestView<'_>,
        (name, path, format, readonly): &(&DiskName, PathBuf, &'static str, bool),
        target: String,
    ) -> Result<Self, DomainError> {
        Ok(Self {
            kind: "file",
            device: "disk",
            driver: DiskDriver { name: "qemu", format, discard: (!readonly).then_some("unmap") },
            source: DiskSource {
                file: holdable(view, "disk's path", path.to_string_lossy().into_owned())?,
                seclabel: readonly.then_some(SecLabel { model: "dac", relabel: "no" }),
            },
            backing: None,
            no_backing: Some(Empty {}),
            target: DiskTarget { device: target, bus: "virtio" },
            serial: Some(name.to_string()),
            readonly: readonly.then_some(Empty {}),
        })
    }
}
