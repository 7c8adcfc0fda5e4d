//! What of this host's images is used: by labs as they were applied, and by guests' disks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::commands::failure::Failure;
use crate::commands::session::boot_id;
use crate::commands::source::Source;
use crate::engine;
use crate::ledger::{self, Ledger, change};
use crate::names::{FileDigest, LabName};
use crate::paths::Paths;

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Bases of images by their place.
    pub(super) images: BTreeMap<PathBuf, Vec<Use>>,
    /// Files of the store that a lab's definition needs otherwise: kernels, keys.
    pub(super) others: BTreeMap<PathBuf, BTreeSet<LabName>>,
    /// What disks were made of: the guests whose they are, by lab and folder; `lab/by-hand/…` what was made by hand.
    pub(super) disks: BTreeMap<FileDigest, BTreeSet<String>>,
    /// Labs whose ledger can't be used, so that what they need is not known.
    pub(super) unknown: Vec<LabName>,
}

/// An image of a lab.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Use {
    pub(super) lab: LabName,
    pub(super) image: String,
    pub(super) url: Option<String>,
    /// Guests that boot it.
    pub(super) guests: Vec<String>,
}

impl Usage {
    /// Looks at every ledger and every guest's folder.
    pub(super) fn look(paths: &Paths) -> Result<Self, Failure> {
        let mut usage = Self::default();
        let boot_id = boot_id()?;
        for lab in ledger::labs(paths)? {
            let Ok(found) = ledger::read(paths, &lab) else {
                usage.unknown.push(lab);
                continue;
            };
            // A way back may lead to what is not in force now.
            let before = change::read(paths, &lab, found.as_ref(), &boot_id);
            let Ok(before) = before else {
                usage.unknown.push(lab);
                continue;
            };
            let old = before.and_then(|(_, change)| change.old);
            let ledgers = found.into_iter().chain(old).filter(|ledger| !ledger.is_of_leftovers());
            if !ledgers.map(|ledger| usage.add(&ledger)).fold(true, |all, one| all & one) {
                usage.unknown.push(lab);
            }
        }
        for users in usage.images.values_mut() {
            users.sort();
            users.dedup();
        }
        usage.disks = disks(paths)?;
        Ok(usage)
    }

    /// What a lab's definition names; says whether that could be read.
    fn add(&mut self, ledger: &Ledger) -> bool {
        for file in ledger.origin.files.values() {
            self.others.entry(file.clone()).or_default().insert(ledger.lab.clone());
        }
        let Ok(source) = Source::applied(ledger) else { return false };
        let mut images = BTreeMap::<_, Use>::new();
        for vm in source.model.vms().values() {
            let Some((image, path)) = vm.image().as_ref().and_then(|image| Some((image, source.files().base(image)?)))
            else {
                continue;
            };
            let used = images.entry((path, image.name().clone())).or_insert_with(|| Use {
                lab: ledger.lab.clone(),
                image: image.name().to_string(),
                url: image.url().map(ToString::to_string),
                guests: Vec::new(),
            });
            used.guests.push(vm.name().to_string());
        }
        for ((path, _), used) in images {
            self.images.entry(path).or_default().push(used);
        }
        true
    }

    /// Whether anything needs a file of the store.
    pub(super) fn needs(&self, path: &Path, digest: &FileDigest) -> bool {
        self.images.contains_key(path) || self.others.contains_key(path) || self.disks.contains_key(digest)
    }
}

/// What every guest's disk was made of, those of labs that are gone among them.
fn disks(paths: &Paths) -> Result<BTreeMap<FileDigest, BTreeSet<String>>, Failure> {
    let mut all = BTreeMap::<_, BTreeSet<String>>::new();
    for lab in folders(&paths.state) {
        // The second holds those that `xml` and `qemu-args` made, for people who start the guest themselves.
        for (part, shown) in [("guests", ""), ("by-hand", "by-hand/")] {
            for guest in folders(&lab.join(part)) {
                let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let failed = |error| Failure::failed(format!("{} can't be looked at", guest.display()), error);
                if let Some(digest) = engine::base_of(&guest).map_err(failed)? {
                    all.entry(digest).or_default().insert(format!("{}/{shown}{}", name(&lab), name(&guest)));
                }
            }
        }
    }
    Ok(all)
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}
