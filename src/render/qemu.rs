//! QEMU's arguments: for guests that vmnet starts, and for people who start QEMU themselves.
//!
//! vmnet's own guests get everything that needs a privilege as an open descriptor (`{tap:0}`, `{vhost:0}`,
//! `{file:0}` stand for the numbers) and run in the sandbox. By hand QEMU opens its TAP itself and runs the hook
//! pair of the network. Pure: nothing is started here.

mod by_hand;
mod disks;

use std::path::{Path, PathBuf};

use serde_json::json;

pub use by_hand::{ByHand, Privilege, by_hand};
pub(super) use disks::placed;
pub use disks::{VARIABLES, kept, own_disk_name};

use super::{ETHERNET_MTU, GuestView, seed};
use crate::mark::Mark;
use crate::model::{Accel, NicModel};
use crate::names::IfName;
use crate::paths::Paths;
use crate::rule;
use crate::state::{Facts, Feature, Link, LinkKind, More, Overlay, QemuGuest, Tool};

/// The socket of the QEMU monitor protocol in a guest's run folder.
pub const QMP_SOCKET: &str = "qmp.sock";
/// The socket of the serial console in a guest's run folder.
pub const CONSOLE_SOCKET: &str = "console.sock";
/// The set of descriptors that the console's log is in; those of files count from 0.
const LOG_SET: usize = 1000;
/// The seed in a guest's state folder.
pub const SEED_IMAGE: &str = "seed.img";
/// The user that guests run as.
pub const QEMU_USER: &str = "vmnet-qemu";

/// What the host lacks for a guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LackError {
    /// A program.
    #[error("guest {vm} needs the program {}, which this host does not have", tool.program())]
    Program {
        /// The guest.
        vm: String,
        /// The program.
        tool: Tool,
    },
    /// Hardware virtualization.
    #[error("guest {vm} has accel = \"kvm\", which this host does not offer: {reason}")]
    Kvm {
        /// The guest.
        vm: String,
        /// Why, as far as it is known.
        reason: String,
    },
    /// Firmware.
    #[error("guest {vm} has firmware = \"uefi\", which this host does not have")]
    Uefi {
        /// The guest.
        vm: String,
    },
    /// The unprivileged user.
    #[error("guest {vm} would run as the user {QEMU_USER}, which this host does not have")]
    User {
        /// The guest.
        vm: String,
    },
}

impl LackError {
    /// What to do about it, as a sentence without a full stop.
    pub fn help(&self) -> String {
        match self {
            LackError::Program { tool, .. } => format!("install the package {}", tool.package()),
            LackError::Kvm { .. } => {
                "switch on virtualization in the firmware and load kvm_intel or kvm_amd, or write accel = \"tcg\" for \
                 slow emulation"
                    .into()
            }
            LackError::Uefi { .. } => "install the package ovmf (edk2-ovmf elsewhere than on Debian and Ubuntu)".into(),
            LackError::User { .. } => format!(
                "run: useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin --groups kvm {QEMU_USER}"
            ),
        }
    }
}

/// Everything that the start of a guest needs. `view.vm` is one of the `qemu` engine.
pub fn guest(view: &GuestView<'_>, paths: &Paths, facts: &Facts) -> Result<QemuGuest, LackError> {
    let (lab, vm) = (view.model.lab(), view.vm.name());
    let program = program(view, facts)?;
    let user = facts.qemu_user.as_ref().ok_or_else(|| LackError::User { vm: vm.to_string() })?;
    let vhost = facts.features.contains(&Feature::VhostNet);
    let state_dir = paths.guest_state(lab, vm);
    let disk = overlay(view, &state_dir.join(disk_name(view.instance)));
    let kept = kept(view, facts, &state_dir)?;
    let mut files = Vec::new();
    let mut args = common(view, disks::machine(kept.uefi.as_ref()));
    args.extend(strings(&["-display", "none"]));
    let seed = seed::files(view);
    let seed_image = (!seed.is_empty()).then(|| state_dir.join(SEED_IMAGE));
    storage(disk.as_ref(), seed_image.as_deref(), &mut files, &mut args);
    let disk_files = disks::storage(view, &kept, &state_dir, &mut args);
    for (number, nic, _) in view.model.nics(view.vm) {
        let mut netdev = format!("tap,id=net{number},fd={{tap:{number}}}");
        if vhost && *nic.model() == NicModel::Virtio {
            netdev.push_str(&format!(",vhost=on,vhostfd={{vhost:{number}}}"));
        }
        args.extend(["-netdev".into(), netdev, "-device".into(), nic_device(view, number)]);
    }
    args.extend(direct_boot(view, |path| {
        files.push(path);
        // QEMU opens these by name, and nothing but the file's own permission counts on this way.
        format!("/proc/self/fd/{{file:{}}}", files.len() - 1)
    }));
    // Beside the socket a pipe, which whoever starts QEMU reads: QEMU's own log would grow without end.
    args.extend(["-add-fd".into(), format!("fd={{log:0}},set={LOG_SET}")]);
    for (id, socket) in [("console", CONSOLE_SOCKET), ("qmp", QMP_SOCKET)] {
        let mut chardev = format!("socket,id={id},path={socket},server=on,wait=off");
        if id == "console" {
            // Without the second QEMU would try to truncate it.
            chardev.push_str(&format!(",logfile=/dev/fdset/{LOG_SET},logappend=on"));
        }
        args.extend(["-chardev".into(), chardev]);
    }
    args.extend(strings(&["-serial", "chardev:console", "-mon", "chardev=qmp,mode=control", "-sandbox"]));
    args.push("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into());
    Ok(QemuGuest {
        program,
        args,
        kvm: *view.vm.accel() == Accel::Kvm,
        user: user.name.clone(),
        taps: taps(view),
        vhost,
        files,
        run_dir: paths.guest_run(lab, vm),
        state_dir,
        disk,
        seed,
        more: More { args: view.vm.qemu_args().clone(), files: disk_files, kept },
    })
}

/// The file name of a guest's disk of that number.
pub fn disk_name(instance: u32) -> String {
    format!("disk-{instance}.qcow2")
}

/// The overlay at `path` over the guest's image; `None` where the image has no disk.
pub fn overlay(view: &GuestView<'_>, path: &Path) -> Option<Overlay> {
    let image = view.vm.image().as_ref()?;
    let base = view.files.base(image)?;
    let (base_format, size) = (image.format().word().to_owned(), *view.vm.disk());
    Some(Overlay { path: path.to_owned(), base, base_format, size, digest: None })
}

/// The TAPs of a guest in nic order, as its start makes them.
pub fn taps(view: &GuestView<'_>) -> Vec<(IfName, Link)> {
    let (lab, vm) = (view.model.lab(), view.vm.name());
    let nics = view.model.nics(view.vm).map(|(number, nic, network)| {
        let full_name = format!("{vm}.{number}");
        let link = Link {
            kind: LinkKind::Tap,
            mac: rule::port_mac(lab, "nic", &full_name),
            mtu: view.mtu(number),
            group: rule::link_group(lab),
            alias: Mark::new(lab, "nic", &full_name).to_string(),
            master: Some(network.bridge().name().to_string()),
            up: true,
            ipv6: false,
            tx_checksum: None,
            odd: crate::state::Odd::new(),
        };
        (nic.tap().clone(), link)
    });
    nics.collect()
}

fn program(view: &GuestView<'_>, facts: &Facts) -> Result<PathBuf, LackError> {
    has_what_machines_need(view, facts)?;
    tool(view, facts, Tool::Qemu)
}

fn tool(view: &GuestView<'_>, facts: &Facts, tool: Tool) -> Result<PathBuf, LackError> {
    facts.tools.get(&tool).cloned().ok_or_else(|| LackError::Program { vm: view.vm.name().to_string(), tool })
}

/// What a machine needs whatever starts it: hardware virtualization where it asks for it, and the makers of its disk
/// and of its seed's host key. Better to know before anything is changed.
pub(super) fn has_what_machines_need(view: &GuestView<'_>, facts: &Facts) -> Result<(), LackError> {
    if *view.vm.accel() == Accel::Kvm && !facts.features.contains(&Feature::Kvm) {
        let reason = facts.missing.get(&Feature::Kvm).cloned().unwrap_or_else(|| "/dev/kvm does not open".into());
        return Err(LackError::Kvm { vm: view.vm.name().to_string(), reason });
    }
    if *view.vm.cloud_init() {
        tool(view, facts, Tool::SshKeygen)?;
    }
    tool(view, facts, Tool::QemuImg)?;
    Ok(())
}

/// What every guest has, however it is started.
fn common(view: &GuestView<'_>, machine: &str) -> Vec<String> {
    let (accel, cpu) = match view.vm.accel() {
        Accel::Kvm => ("kvm", "host"),
        Accel::Tcg => ("tcg,thread=multi", "max"),
    };
    // Names are of [a-z0-9-], so no comma can begin another option.
    let mut args = vec!["-name".into(), format!("guest={}", view.full_name())];
    args.extend(strings(&["-nodefaults", "-no-user-config", "-machine", machine, "-accel", accel, "-cpu", cpu]));
    args.extend(["-smp".into(), view.vm.cpus().to_string(), "-m".into(), memory(*view.vm.memory())]);
    args.extend(["-uuid".into(), rule::guest_uuid(view.model.lab(), view.vm.name())]);
    args.extend(strings(&["-object", "rng-random,id=rng0,filename=/dev/urandom"]));
    args.extend(strings(&["-device", "virtio-rng-pci,rng=rng0"]));
    args
}

/// Memory as QEMU reads it: a bare number would be MiB.
fn memory(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes.is_multiple_of(MIB) { format!("{}M", bytes / MIB) } else { format!("{bytes}B") }
}

/// The memory that QEMU's arguments give to a guest, in bytes; `None` where they are not of this program.
pub fn memory_in(args: &[String]) -> Option<u64> {
    let value = args.iter().skip_while(|arg| *arg != "-m").nth(1)?;
    let (number, factor) = match (value.strip_suffix('M'), value.strip_suffix('B')) {
        (Some(number), _) => (number, 1 << 20),
        (_, Some(number)) => (number, 1),
        (None, None) => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The overlay with its base by descriptor, and the seed where there is one, as JSON: a file name with a
/// comma is a file name.
fn storage(disk: Option<&Overlay>, seed: Option<&Path>, files: &mut Vec<PathBuf>, args: &mut Vec<String>) {
    let mut block = |node: serde_json::Value| args.extend(["-blockdev".into(), node.to_string()]);
    if let Some(disk) = disk {
        let set = files.len();
        files.push(disk.base.clone());
        // The base stands here with its format, so QEMU neither probes it nor opens what the overlay's header says.
        block(json!({
            "node-name": "base", "driver": disk.base_format, "read-only": true,
            "file": { "driver": "file", "filename": format!("/dev/fdset/{set}"), "read-only": true },
        }));
        block(json!({
            "node-name": "disk", "driver": "qcow2", "discard": "unmap", "detect-zeroes": "unmap", "backing": "base",
            "file": { "driver": "file", "filename": disk.path.to_string_lossy(), "discard": "unmap" },
        }));
        args.extend(["-add-fd".into(), format!("fd={{file:{set}}},set={set}")]);
        args.extend(strings(&["-device", "virtio-blk-pci,drive=disk"]));
    }
    let Some(seed) = seed else { return };
    let mut block = |node: serde_json::Value| args.extend(["-blockdev".into(), node.to_string()]);
    block(json!({
        "node-name": "seed", "driver": "raw", "read-only": true,
        "file": { "driver": "file", "filename": seed.to_string_lossy(), "read-only": true },
    }));
    args.extend(strings(&["-device", "virtio-blk-pci,drive=seed"]));
}

/// A nic without a boot ROM: guests boot from their disk or kernel, and ROM files are a package of their own.
fn nic_device(view: &GuestView<'_>, number: usize) -> String {
    let nic = &view.vm.nics()[number];
    let (device, can_tell_mtu) = match nic.model() {
        NicModel::Virtio => ("virtio-net-pci", true),
        NicModel::E1000 => ("e1000", false),
        NicModel::E1000e => ("e1000e", false),
    };
    let mut text = format!("{device},netdev=net{number},mac={},romfile=", nic.mac());
    let mtu = view.mtu(number);
    if can_tell_mtu && mtu != ETHERNET_MTU {
        text.push_str(&format!(",host_mtu={mtu}"));
    }
    text
}

/// `-kernel`, `-initrd` and `-append`; `name` says how QEMU is to call a file.
fn direct_boot(view: &GuestView<'_>, mut name: impl FnMut(PathBuf) -> String) -> Vec<String> {
    let mut args = Vec::new();
    let Some(image) = view.vm.image() else { return args };
    for (option, path) in [("-kernel", image.kernel()), ("-initrd", image.initrd())] {
        if let Some(path) = path {
            args.extend([option.into(), name(view.absolute(path))]);
        }
    }
    if let Some(cmdline) = image.cmdline() {
        args.extend(["-append".into(), cmdline.clone()]);
    }
    args
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A value inside a `key=value,…` option of QEMU, where a comma is written twice.
fn option_value(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_it_is_written() {
        for bytes in [64 << 20, 1 << 30, (64 << 20) + 512] {
            assert_eq!(memory_in(&["-smp".into(), "1".into(), "-m".into(), memory(bytes)]), Some(bytes));
        }
        assert_eq!(memory_in(&["-m".into()]), None);
        assert_eq!(memory_in(&strings(&["-m", "99999999999999999999M"])), None);
    }
}
