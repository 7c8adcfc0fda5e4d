//! Facts of the host beside its links: features, tools, users, services, settings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::census::Census;
use super::domains::{self, FOLDERS_OF_DOMAINS};
use super::{Scope, files, firewall};
use crate::kernel::{caps, child, modules, sysctl};
use crate::state::{Facts, FirmwareFiles, ForeignNamespace, ServiceUser, Tool};

/// Reads everything but what was `seen` already: devices, routes, tables and domains.
pub(super) fn read(scope: &Scope, census: &Census, seen: Facts) -> Facts {
    let features = modules::find(scope.guest_devices);
    Facts {
        namespaces: namespaces(census),
        features: features.present,
        missing: features.missing,
        tools: Tool::ALL.into_iter().filter_map(|tool| Some((tool, find_tool(tool)?))).collect(),
        // Without /proc nothing works, and the first thing that is tried says so.
        capabilities: caps::effective().unwrap_or_default(),
        network_manager: is_running("/run/NetworkManager", "NetworkManager.service"),
        networkd: is_running("/run/systemd/netif", "systemd-networkd.service"),
        forward_drops: firewall::forward_drops(scope),
        without_ipv6: !sysctl::has_ipv6(),
        bridge_netfilter: sysctl::read("bridge/bridge-nf-call-iptables").ok().flatten().as_deref() == Some("1"),
        sysctls: sysctls(&scope.sysctls),
        firmware: firmware(),
        qemu_user: user(&scope.qemu_user),
        foreign_files: files::foreign(scope),
        foreign_macs: domains::macs(scope, FOLDERS_OF_DOMAINS),
        ..seen
    }
}

/// What stands below `/run/netns` without being the lab's.
fn namespaces(census: &Census) -> BTreeMap<String, ForeignNamespace> {
    let mut foreign = census.place.foreign.clone();
    for name in census.place.candidates.keys().filter(|name| !census.marks.contains_key(*name)) {
        let mark = census.strange_marks.get(name).cloned();
        foreign.insert(name.to_string(), ForeignNamespace::Namespace { mark });
    }
    foreign
}

/// A program on the fixed search path.
pub fn find_tool(tool: Tool) -> Option<PathBuf> {
    child::find(tool.program())
}

/// Where distributions put UEFI for x86-64 guests, without secure boot, with the variables that belong to it: Debian and
/// Ubuntu, the same before they had 4 MiB of it, Fedora, Arch Linux.
const FIRMWARE: [(&str, &str); 4] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
];

fn firmware() -> Option<FirmwareFiles> {
    let found = FIRMWARE.iter().find(|(code, variables)| Path::new(code).is_file() && Path::new(variables).is_file());
    found.map(|(code, variables)| FirmwareFiles { code: code.into(), variables: variables.into() })
}

/// Whether a service runs: its folder is there, and its control group has a process (cgroups(7)). Without systemd,
/// the folder's pid file names one.
fn is_running(folder: &str, unit: &str) -> bool {
    let folder = Path::new(folder);
    let groups = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
    let group = |root: &&str| Path::new(root).join("system.slice").join(unit).join("cgroup.procs");
    let in_group = groups.iter().map(group).any(|file| fs::read(file).is_ok_and(|pids| !pids.is_empty()));
    let by_pid = || {
        let name = unit.trim_end_matches(".service");
        let pid = fs::read_to_string(folder.join(format!("{name}.pid"))).ok()?;
        let command = fs::read_to_string(format!("/proc/{}/comm", pid.trim().parse::<u32>().ok()?)).ok()?;
        // proc_pid_comm(5): at most 15 bytes
        Some(name.starts_with(command.trim()) && !command.trim().is_empty())
    };
    folder.is_dir() && (in_group || by_pid() == Some(true))
}

fn sysctls(keys: &BTreeSet<String>) -> BTreeMap<String, String> {
    keys.iter().filter_map(|key| Some((key.clone(), sysctl::read(key).ok()??))).collect()
}

fn user(name: &str) -> Option<ServiceUser> {
    let user = nix::unistd::User::from_name(name).ok()??;
    // Only where the group may open it: a device of mode 0600 or 0666 asks for no group.
    let kvm = fs::metadata("/dev/kvm").ok().filter(|meta| meta.permissions().mode() & 0o066 == 0o060);
    Some(ServiceUser {
        name: name.to_owned(),
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        kvm_gid: kvm.map(|meta| meta.gid()),
    })
}
