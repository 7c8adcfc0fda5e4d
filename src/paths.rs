//! [`Paths`]: where things of a lab stand on disk. Pure: names only, nothing is opened.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::names::{FileDigest, LabName, NetName, VmName};

/// Where NetworkManager reads drop-ins that don't outlast a boot (NetworkManager.conf(5)).
pub const NETWORK_MANAGER_DROP_INS: &str = "/run/NetworkManager/conf.d";

/// Where systemd-networkd reads network files that don't outlast a boot (systemd.network(5)).
pub const NETWORKD_DROP_INS: &str = "/run/systemd/network";

/// What the names of unfinished downloads begin with.
pub const PART: &str = ".part-";

/// In a hook, what stands before the state folder that holds the lab's ledger.
pub const KEPT_IN: &str = "The lab is kept in the state folder ";

/// A lab's drop-in for NetworkManager.
pub fn network_manager_drop_in(lab: &LabName) -> PathBuf {
    Path::new(NETWORK_MANAGER_DROP_INS).join(format!("90-vmnet-{lab}.conf"))
}

/// A lab's drop-in for systemd-networkd.
pub fn networkd_drop_in(lab: &LabName) -> PathBuf {
    Path::new(NETWORKD_DROP_INS).join(format!("05-vmnet-{lab}.network"))
}

/// The name beside `path` under which a file is written before it takes its place. Always the same, so that what a
/// crash leaves is found by the next run.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".vmnet-new");
    path.with_file_name(name)
}

/// The two roots, `VMNET_STATE_DIR` and `VMNET_RUN_DIR`, and everything below them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// Survives a reboot: ledger, the record of a change, guests' disks. `/var/lib/vmnet`.
    pub state: PathBuf,
    /// Does not: hooks, sockets, pids. `/run/vmnet`.
    pub run: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { state: "/var/lib/vmnet".into(), run: "/run/vmnet".into() }
    }
}

impl Paths {
    /// Files that came from another machine or were downloaded, 0711: images, by what is in them. No lab's name begins
    /// with a dot.
    pub fn files(&self) -> PathBuf {
        self.state.join(".files")
    }

    /// One of them, 0644.
    pub fn file(&self, digest: &FileDigest) -> PathBuf {
        self.files().join(digest.as_str())
    }

    /// A download that is not finished, 0600 and locked by whoever goes on with it.
    pub fn part(&self, digest: &FileDigest) -> PathBuf {
        self.files().join(format!("{PART}{digest}"))
    }

    /// What is in images of the user's, as it was found out, 0600.
    pub fn digests(&self) -> PathBuf {
        self.files().join(".digests.json")
    }

    /// A lab's folder that survives a reboot, 0711.
    pub fn lab_state(&self, lab: &LabName) -> PathBuf {
        self.state.join(lab.as_str())
    }

    /// A lab's folder that does not, 0711.
    pub fn lab_run(&self, lab: &LabName) -> PathBuf {
        self.run.join(lab.as_str())
    }

    /// What became of a change that nobody confirmed.
    pub fn undone(&self, lab: &LabName) -> PathBuf {
        self.lab_run(lab).join("undone.json")
    }

    /// Ledger and the record of a change, 0700.
    pub fn ledger(&self, lab: &LabName) -> PathBuf {
        self.lab_state(lab).join("ledger")
    }

    /// A guest's disk, seed and keys, 0700 and its user's.
    pub fn guest_state(&self, lab: &LabName, vm: &VmName) -> PathBuf {
        self.lab_state(lab).join("guests").join(vm.as_str())
    }

    /// A guest's sockets and pid, 0700 and its user's.
    pub fn guest_run(&self, lab: &LabName, vm: &VmName) -> PathBuf {
        self.lab_run(lab).join("guests").join(vm.as_str())
    }

    /// The disk and seed of a guest that somebody else starts, 0700 and that user's.
    pub fn by_hand(&self, lab: &LabName, vm: &VmName, uid: u32) -> PathBuf {
        self.lab_state(lab).join("by-hand").join(format!("{vm}.{uid}"))
    }

    /// A lab's hooks, 0755: QEMU's user runs them.
    pub fn hooks(&self, lab: &LabName) -> PathBuf {
        self.lab_run(lab).join("hooks")
    }

    /// The hook pair of one network.
    pub fn hook_pair(&self, lab: &LabName, network: &NetName) -> (PathBuf, PathBuf) {
        let folder = self.hooks(lab).join(network.as_str());
        (folder.join("qemu-ifup"), folder.join("qemu-ifdown"))
    }

    /// Whether a path is below one of the two roots.
    pub fn owns(&self, path: &Path) -> bool {
        path.starts_with(&self.state) || path.starts_with(&self.run)
    }
}
