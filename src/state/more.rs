//! [`More`]: what a guest in QEMU has beside the usual. Most have nothing of it. Pure: data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What most guests have nothing of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct More {
    /// The user's own arguments, behind all others; nothing is ever put into them.
    pub args: Vec<String>,
    /// The user's files that are disks: opened and handed over; in the arguments `{disk:N}`, N counting from 0.
    pub files: Vec<DiskFile>,
    /// What is made in its folder when it is missing.
    pub kept: Kept,
}

/// A file of the user's that is a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFile {
    /// It, absolute.
    pub path: PathBuf,
    /// QEMU's word for its format.
    pub format: String,
    /// It is never written to.
    pub readonly: bool,
}

/// What a guest keeps in its folder beside its disk and seed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// UEFI, where it has that.
    pub uefi: Option<Uefi>,
    /// Its own further disks.
    pub disks: Vec<OwnDisk>,
}

/// UEFI for one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uefi {
    /// Its program and what its variables are at first.
    pub firmware: FirmwareFiles,
    /// The guest's own copy of the variables.
    pub variables: PathBuf,
}

/// UEFI as the host's package brings it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareFiles {
    /// The program, which nobody writes to.
    pub code: PathBuf,
    /// What the variables are at first.
    pub variables: PathBuf,
}

/// A disk that is empty at first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnDisk {
    /// Its qcow2 file.
    pub path: PathBuf,
    /// Virtual size in bytes, as it is made.
    pub size: u64,
}
