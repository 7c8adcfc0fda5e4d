//! [`Undone`]: what became of a change that nobody confirmed, for whoever asks later.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use serde::{Deserialize, Serialize};

use super::write_atomically;
use crate::names::LabName;
use crate::paths::Paths;

/// No word about a change is longer; errors name objects of a lab.
const LONGEST: u64 = 4 << 20;

/// A change that was to be undone since its time had passed. Below the run directory: it does not outlast a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// The change's id.
    pub id: String,
    /// What it was: `create`.
    pub verb: String,
    /// When it was undone, in seconds since 1970.
    pub at: u64,
    /// Why it could not be undone completely; `None`: it was.
    pub error: Option<String>,
}

impl Undone {
    /// What is known of a lab. Only told to people, so one that can't be read counts as none.
    pub fn read(paths: &Paths, lab: &LabName) -> Option<Self> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = fs::File::options().read(true).custom_flags(flags).open(paths.undone(lab)).ok()?;
        let mut text = Vec::new();
        file.take(LONGEST).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self, paths: &Paths, lab: &LabName) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o755).recursive(true).create(paths.lab_run(lab))?;
        write_atomically(&paths.undone(lab), &serde_json::to_vec(self)?, 0o600)
    }

    /// Forgets it: a change came after it.
    pub fn forget(paths: &Paths, lab: &LabName) {
        // What stays would only be told once more.
        let _ = fs::remove_file(paths.undone(lab));
    }
}
