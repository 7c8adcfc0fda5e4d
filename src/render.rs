//! Texts from data: cloud-init seeds, QEMU arguments, libvirt domains, hooks.
//!
//! Each function takes a part of the model and gives a text or a list of arguments. Anything with quoting (JSON,
//! XML) comes from a serializer; a template serves plain text and gets validated names only. Pure: nothing is
//! written or started here.

pub mod domain;
pub mod hooks;
pub mod libvirt;
pub mod network;
pub mod qemu;
pub mod seed;
pub mod shell;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use quick_xml::se::{SeError, Serializer};
use serde::Serialize;

use crate::model::{Base, Image, Model, Vm};
use crate::names::FileDigest;
use crate::rule;
use crate::state::Kept;
use seed::raw::RawUserData;

/// The usual MTU of Ethernet in bytes; where a segment has it, nobody is told about it.
pub const ETHERNET_MTU: u32 = 1500;

/// Where downloaded files are unless `VMNET_STATE_DIR` says otherwise.
const STORE: &str = "/var/lib/vmnet/.files";

/// Where the files are that a definition names.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// The definition's folder, absolute: relative paths start there.
    pub folder: &'a Path,
    /// Those that stand elsewhere, by what the definition says: on hosts that got the definition from another one.
    pub elsewhere: &'a BTreeMap<String, PathBuf>,
    /// The folder that holds what was downloaded, each file under what is in it.
    pub store: &'a Path,
}

impl<'a> Files<'a> {
    /// All where the definition says.
    pub fn beside(folder: &'a Path) -> Self {
        static NONE: BTreeMap<String, PathBuf> = BTreeMap::new();
        Self { folder, elsewhere: &NONE, store: Path::new(STORE) }
    }

    /// An absolute path from one that may be relative to the definition.
    pub fn find(&self, path: &Path) -> PathBuf {
        let moved = path.to_str().and_then(|path| self.elsewhere.get(path));
        moved.cloned().unwrap_or_else(|| self.folder.join(path))
    }

    /// Where the base disk of an image is, or will be once it is downloaded.
    pub fn base(&self, image: &Image) -> Option<PathBuf> {
        image.base().as_ref().map(|base| match base {
            Base::File { file, .. } => self.find(file),
            Base::Url { url, digest } => {
                let moved = self.elsewhere.get(url.as_str());
                moved.cloned().unwrap_or_else(|| self.store.join(digest.as_str()))
            }
        })
    }

    /// What is in a file that stands in the store.
    pub fn stored(&self, path: &Path) -> Option<FileDigest> {
        path.strip_prefix(self.store).ok()?.to_str()?.parse().ok()
    }
}

/// What the files hold that a definition names for a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// The public keys that may log in, one line each.
    pub keys: Vec<String>,
    /// Those of its further users, by their names.
    pub keys_of: BTreeMap<String, Vec<String>>,
    /// Its own user-data.
    pub user_data: Option<RawUserData>,
}

/// A guest of a lab, with what the definition's surroundings add to it.
#[derive(Debug, Clone, Copy)]
pub struct GuestView<'a> {
    /// The lab.
    pub model: &'a Model,
    /// The guest.
    pub vm: &'a Vm,
    /// Where the files are that the definition names.
    pub files: Files<'a>,
    /// What the files hold that the definition names for it.
    pub given: &'a Given,
    /// The number of the guest's disk, counted from 1 and new after each `reset`.
    pub instance: u32,
    /// The MTU of each nic's segment in bytes, in nic order.
    pub mtus: &'a [u32],
}

impl GuestView<'_> {
    /// The MTU of a nic's segment in bytes.
    fn mtu(&self, nic: usize) -> u32 {
        self.mtus.get(nic).copied().unwrap_or(ETHERNET_MTU)
    }

    /// What hypervisors call the guest: unique on a host, since labs are.
    fn full_name(&self) -> String {
        rule::domain_name(self.model.lab(), self.vm.name())
    }

    /// An absolute path from one that may be relative to the definition.
    fn absolute(&self, path: &Path) -> PathBuf {
        self.files.find(path)
    }
}

/// The disk and the seed of a guest that something other than vmnet starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFiles {
    /// The qcow2 overlay; `None` for a guest without a disk.
    pub disk: Option<PathBuf>,
    /// The NoCloud seed, a FAT volume; `None` for a guest without cloud-init.
    pub seed: Option<PathBuf>,
    /// UEFI variables and further disks.
    pub kept: Kept,
}

/// An element as libvirt reads it, in lines for people.
fn element(name: &str, value: &impl Serialize) -> Result<String, SeError> {
    let mut text = String::new();
    let mut serializer = Serializer::with_root(&mut text, Some(name))?;
    serializer.indent(' ', 2);
    value.serialize(serializer)?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests;
