//! [`FileJournal`]: one line before and after each wave, so that a crash can be told from a change that never began.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde::Serialize;

use super::LedgerError;
use crate::names::LabName;
use crate::paths::Paths;
use crate::plan::Phase;

/// The journal of the change that is under way, `journal.jsonl` beside the ledger.
#[derive(Debug)]
pub struct FileJournal {
    file: File,
}

#[derive(Serialize)]
struct Line {
    wave: usize,
    phase: Phase,
    operations: usize,
    state: &'static str,
}

fn file(paths: &Paths, lab: &LabName) -> PathBuf {
    paths.ledger(lab).join("journal.jsonl")
}

impl FileJournal {
    /// Begins a journal; the ledger's folder is there by then.
    ///
    /// # Errors
    /// What the disk says.
    pub fn begin(paths: &Paths, lab: &LabName) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        Ok(Self { file: options.open(file(paths, lab))? })
    }

    /// Notes that a wave begins or is done. Not synced: what a power cut loses, the kernel has lost too.
    ///
    /// # Errors
    /// What the disk says.
    pub fn wave(&mut self, wave: usize, phase: Phase, operations: usize, done: bool) -> io::Result<()> {
        let state = if done { "done" } else { "started" };
        let mut line = serde_json::to_vec(&Line { wave, phase, operations, state })?;
        line.push(b'\n');
        self.file.write_all(&line)
    }

    /// Removes a lab's journal, there or not: the change is in the ledger, or is undone.
    ///
    /// # Errors
    /// [`LedgerError::Io`].
    pub fn remove(paths: &Paths, lab: &LabName) -> Result<(), LedgerError> {
        let path = file(paths, lab);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(LedgerError::Io { what: "ended", path, source })
            }
            _ => Ok(()),
        }
    }
}
