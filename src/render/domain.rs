//! A guest as a libvirt domain, for `virsh define` and virt-manager.
//!
//! Serialized, never pasted together, so markup in a kernel command line stays text. What XML 1.0 can't hold at all
//! is an error. Pure.

mod more;

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::qemu::placed;
use super::{ETHERNET_MTU, GuestFiles, GuestView, element};
use crate::libvirt::xml::METADATA_NAMESPACE;
use crate::model::Accel;
use crate::rule;
use more::{CommandLine, Loader, Nvram, QEMU_NAMESPACE, add_devices, firmware};

/// A value that can't stand in a domain.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// A character that XML 1.0 has no way to write (section 2.2, production Char).
    #[error("the {what} of guest {vm} has the character {found:?}, which XML can't hold")]
    Character {
        /// The guest.
        vm: String,
        /// Which value it is in.
        what: &'static str,
        /// The character.
        found: char,
    },
    /// The serializer gave up.
    #[error("the domain of guest {vm} does not serialize")]
    Serialize {
        /// The guest.
        vm: String,
        /// Its reason.
        #[source]
        source: quick_xml::SeError,
    },
}

/// The domain of a guest of the `libvirt` engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its XML, with the digest in its metadata.
    pub xml: String,
    /// The digest of the XML without that.
    pub made: String,
}

/// The domain of a guest that vmnet has libvirt run: it says what it was made of, and which of its interfaces are
/// vmnet's own, whatever else is plugged in. The digest leaves that out: it follows from the rest.
pub fn made(view: &GuestView<'_>, files: &GuestFiles) -> Result<Made, DomainError> {
    let mut domain = Domain::of(view, files)?;
    let made = rule::digest(&text(view, &domain)?);
    domain.metadata.guest.made = Some(made.clone());
    let taps: Vec<&str> = domain.devices.interface.iter().map(|nic| nic.target.device.as_str()).collect();
    domain.metadata.guest.taps = Some(taps.join(" "));
    Ok(Made { xml: text(view, &domain)?, made })
}

/// The domain XML of a guest whose disk and seed are at `files`, for others to run.
pub fn xml(view: &GuestView<'_>, files: &GuestFiles) -> Result<String, DomainError> {
    text(view, &Domain::of(view, files)?)
}

fn text(view: &GuestView<'_>, domain: &Domain) -> Result<String, DomainError> {
    let failed = |source| DomainError::Serialize { vm: view.vm.name().to_string(), source };
    let mut text = element("domain", domain).map_err(failed)?;
    if let Some(snippet) = view.vm.libvirt_xml() {
        add_devices(&mut text, snippet);
    }
    Ok(text)
}

#[derive(Serialize)]
struct Domain {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@xmlns:qemu", skip_serializing_if = "Option::is_none")]
    qemu_namespace: Option<&'static str>,
    name: String,
    uuid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    metadata: Metadata,
    memory: Memory,
    vcpu: u32,
    os: Os,
    features: Features,
    cpu: Cpu,
    on_reboot: &'static str,
    on_crash: &'static str,
    devices: Devices,
    #[serde(rename = "qemu:commandline", skip_serializing_if = "Option::is_none")]
    qemu: Option<CommandLine>,
}

#[derive(Serialize)]
struct Metadata {
    #[serde(rename = "vmnet:guest")]
    guest: MetadataGuest,
}

#[derive(Serialize)]
struct MetadataGuest {
    #[serde(rename = "@xmlns:vmnet")]
    namespace: &'static str,
    #[serde(rename = "@lab")]
    lab: String,
    #[serde(rename = "@vm")]
    vm: String,
    /// Only the engine's own: a domain that others run is theirs.
    #[serde(rename = "@made", skip_serializing_if = "Option::is_none")]
    made: Option<String>,
    /// As `made`. A kernel's name of a device holds no space.
    #[serde(rename = "@taps", skip_serializing_if = "Option::is_none")]
    taps: Option<String>,
}

#[derive(Serialize)]
struct Memory {
    #[serde(rename = "@unit")]
    unit: &'static str,
    #[serde(rename = "$text")]
    bytes: u64,
}

#[derive(Serialize)]
struct Os {
    #[serde(rename = "type")]
    kind: OsType,
    #[serde(skip_serializing_if = "Option::is_none")]
    loader: Option<Loader>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nvram: Option<Nvram>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmdline: Option<String>,
}

#[derive(Serialize)]
struct OsType {
    #[serde(rename = "@arch")]
    arch: &'static str,
    #[serde(rename = "@machine")]
    machine: &'static str,
    #[serde(rename = "$text")]
    kind: &'static str,
}

#[derive(Serialize)]
struct Features {
    acpi: Empty,
    apic: Empty,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Cpu {
    #[serde(rename = "@mode")]
    mode: &'static str,
}

#[derive(Serialize)]
struct Devices {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    disk: Vec<Disk>,
    interface: Vec<Interface>,
    serial: Serial,
    console: Console,
    rng: Rng,
}

#[derive(Serialize)]
struct Disk {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@device")]
    device: &'static str,
    driver: DiskDriver,
    source: DiskSource,
    #[serde(rename = "backingStore", skip_serializing_if = "Option::is_none")]
    backing: Option<Backing>,
    /// Says that there is none, so that nobody looks for one in the file.
    #[serde(rename = "backingStore", skip_serializing_if = "Option::is_none")]
    no_backing: Option<Empty>,
    target: DiskTarget,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    readonly: Option<Empty>,
}

#[derive(Serialize)]
struct DiskDriver {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "@type")]
    format: &'static str,
    #[serde(rename = "@discard", skip_serializing_if = "Option::is_none")]
    discard: Option<&'static str>,
}

#[derive(Serialize)]
struct DiskSource {
    #[serde(rename = "@file")]
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seclabel: Option<SecLabel>,
}

/// The base image. Without this, libvirt looks for it in the overlay and gives it to the user that QEMU runs as,
/// for good; it is the user's own and stays as it is.
#[derive(Serialize)]
struct Backing {
    #[serde(rename = "@type")]
    kind: &'static str,
    format: BackingFormat,
    source: DiskSource,
    #[serde(rename = "backingStore")]
    end: Empty,
}

#[derive(Serialize)]
struct BackingFormat {
    #[serde(rename = "@type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct SecLabel {
    #[serde(rename = "@model")]
    model: &'static str,
    #[serde(rename = "@relabel")]
    relabel: &'static str,
}

#[derive(Serialize)]
struct DiskTarget {
    #[serde(rename = "@dev")]
    device: String,
    #[serde(rename = "@bus")]
    bus: &'static str,
}

#[derive(Serialize)]
struct Interface {
    #[serde(rename = "@type")]
    kind: &'static str,
    mac: MacElement,
    source: BridgeElement,
    target: DeviceElement,
    model: ModelElement,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<Mtu>,
    rom: Rom,
}

#[derive(Serialize)]
pub(super) struct MacElement {
    #[serde(rename = "@address")]
    pub(super) address: String,
}

#[derive(Serialize)]
struct BridgeElement {
    #[serde(rename = "@bridge")]
    bridge: String,
}

#[derive(Serialize)]
struct DeviceElement {
    #[serde(rename = "@dev")]
    device: String,
}

#[derive(Serialize)]
pub(super) struct ModelElement {
    #[serde(rename = "@type")]
    pub(super) kind: &'static str,
}

#[derive(Serialize)]
pub(super) struct Mtu {
    #[serde(rename = "@size")]
    pub(super) size: u32,
}

#[derive(Serialize)]
struct Rom {
    #[serde(rename = "@enabled")]
    enabled: &'static str,
}

#[derive(Serialize)]
struct Serial {
    #[serde(rename = "@type")]
    kind: &'static str,
    log: ConsoleLog,
    target: SerialTarget,
}

/// What is written to it is kept, by libvirt's virtlogd, in files of a limited size.
#[derive(Serialize)]
struct ConsoleLog {
    #[serde(rename = "@file")]
    file: String,
    #[serde(rename = "@append")]
    append: &'static str,
}

#[derive(Serialize)]
struct SerialTarget {
    #[serde(rename = "@port")]
    port: u8,
}

#[derive(Serialize)]
struct Console {
    #[serde(rename = "@type")]
    kind: &'static str,
    target: ConsoleTarget,
}

#[derive(Serialize)]
struct ConsoleTarget {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@port")]
    port: u8,
}

#[derive(Serialize)]
struct Rng {
    #[serde(rename = "@model")]
    model: &'static str,
    backend: RngBackend,
}

#[derive(Serialize)]
struct RngBackend {
    #[serde(rename = "@model")]
    model: &'static str,
    #[serde(rename = "$text")]
    device: &'static str,
}

impl Domain {
    fn of(view: &GuestView<'_>, files: &GuestFiles) -> Result<Self, DomainError> {
        let (lab, vm) = (view.model.lab(), view.vm.name());
        let (kind, cpu) = match view.vm.accel() {
            Accel::Kvm => ("kvm", "host-passthrough"),
            Accel::Tcg => ("qemu", "maximum"),
        };
        let text = |what, value: String| holdable(view, what, value);
        let image = view.vm.image().as_ref();
        let boot_file = |what, path: Option<&PathBuf>| {
            path.map(|path| text(what, view.absolute(path).to_string_lossy().into_owned())).transpose()
        };
        let (loader, nvram) = firmware(view, files)?;
        let qemu = CommandLine::of(view)?;
        let os = Os {
            kind: OsType { arch: "x86_64", machine: "q35", kind: "hvm" },
            loader,
            nvram,
            kernel: boot_file("kernel", image.and_then(|image| image.kernel().as_ref()))?,
            initrd: boot_file("initrd", image.and_then(|image| image.initrd().as_ref()))?,
            cmdline: image.and_then(|i| i.cmdline().clone()).map(|line| text("cmdline", line)).transpose()?,
        };
        Ok(Self {
            kind,
            qemu_namespace: qemu.is_some().then_some(QEMU_NAMESPACE),
            name: view.full_name(),
            uuid: rule::guest_uuid(lab, vm),
            description: view.vm.description().clone().map(|line| text("description", line)).transpose()?,
            metadata: Metadata {
                guest: MetadataGuest {
                    namespace: METADATA_NAMESPACE,
                    lab: lab.to_string(),
                    vm: vm.to_string(),
                    made: None,
                    taps: None,
                },
            },
            memory: Memory { unit: "b", bytes: *view.vm.memory() },
            vcpu: *view.vm.cpus(),
            os,
            features: Features { acpi: Empty {}, apic: Empty {} },
            cpu: Cpu { mode: cpu },
            on_reboot: "restart",
            on_crash: "destroy",
            devices: Devices::of(view, files)?,
            qemu,
        })
    }
}

impl Disk {
    /// The overlay when it is writable, the seed when it is not.
    fn new(view: &GuestView<'_>, path: &Path, target: &str, writable: bool) -> Result<Self, DomainError> {
        let image = view.vm.image().as_ref().filter(|_| writable);
        let base = image.and_then(|image| Some((view.files.base(image)?, image.format().word())));
        let backing = match base {
            Some((base, format)) => Some(Backing {
                kind: "file",
                format: BackingFormat { kind: format },
                source: DiskSource {
                    file: holdable(view, "image's path", base.to_string_lossy().into_owned())?,
                    seclabel: Some(SecLabel { model: "dac", relabel: "no" }),
                },
                end: Empty {},
            }),
            None => None,
        };
        let format = if writable { "qcow2" } else { "raw" };
        Ok(Self {
            kind: "file",
            device: "disk",
            driver: DiskDriver { name: "qemu", format, discard: writable.then_some("unmap") },
            source: DiskSource {
                file: holdable(view, "disk's path", path.to_string_lossy().into_owned())?,
                seclabel: None,
            },
            backing,
            no_backing: None,
            target: DiskTarget { device: target.to_owned(), bus: "virtio" },
            serial: None,
            readonly: (!writable).then_some(Empty {}),
        })
    }
}

impl Devices {
    fn of(view: &GuestView<'_>, files: &GuestFiles) -> Result<Self, DomainError> {
        let mut disk = Vec::new();
        if let Some(path) = &files.disk {
            disk.push(Disk::new(view, path, "vda", true)?);
        }
        if let Some(seed) = &files.seed {
            disk.push(Disk::new(view, seed, if disk.is_empty() { "vda" } else { "vdb" }, false)?);
        }
        for further in &placed(view, &files.kept) {
            // At most 24 of them, so one letter does.
            let letter = char::from(b'a' + u8::try_from(disk.len()).unwrap_or(25).min(25));
            disk.push(Disk::further(view, further, format!("vd{letter}"))?);
        }
        let interface = view.model.nics(view.vm).map(|(number, nic, network)| Interface {
            kind: "bridge",
            mac: MacElement { address: nic.mac().to_string() },
            source: BridgeElement { bridge: network.bridge().name().to_string() },
            target: DeviceElement { device: nic.tap().to_string() },
            model: ModelElement { kind: nic.model().word() },
            mtu: Some(view.mtu(number)).filter(|mtu| *mtu != ETHERNET_MTU).map(|size| Mtu { size }),
            rom: Rom { enabled: "no" },
        });
        Ok(Self {
            disk,
            interface: interface.collect(),
            serial: Serial {
                kind: "pty",
                log: ConsoleLog {
                    file: format!("{}/{}", rule::LIBVIRT_LOGS, rule::console_log_of_domain(&view.full_name())),
                    append: "on",
                },
                target: SerialTarget { port: 0 },
            },
            console: Console { kind: "pty", target: ConsoleTarget { kind: "serial", port: 0 } },
            rng: Rng { model: "virtio", backend: RngBackend { model: "random", device: "/dev/urandom" } },
        })
    }
}

/// `value`, unless XML has no way to write a character of it.
fn holdable(view: &GuestView<'_>, what: &'static str, value: String) -> Result<String, DomainError> {
    let unholdable = |c: &char| (*c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{fffe}' | '\u{ffff}');
    match value.chars().find(unholdable) {
        Some(found) => Err(DomainError::Character { vm: view.vm.name().to_string(), what, found }),
        None => Ok(value),
    }
}
