//! [`FileJournal`]: one line before and after each wave, so that a crash can be told from a change that never began.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use serde::Serialize;

use crate::names::LabName;
use crate::paths::Paths;
use crate::plan::Phase;

/// The journal of the change that is under way, `journal.jsonl` beside the ledger.
#[derive(Debug)]
pub struct FileJournal {
    file: File,
    path: PathBuf,
}

/// More than the lines of a change, and what the ledger may grow by, in bytes.
const RESERVE: u64 = 16 << 10;

#[derive(Serialize)]
struct Line {
    wave: usize,
    phase: Phase,
    operations: usize,
    state: &'static str,
}

impl FileJournal {
    /// Begins a journal; the ledger's folder is there by then.
    ///
    /// # Errors
    /// What the disk says.
    pub fn begin(paths: &Paths, lab: &LabName) -> io::Result<Self> {
        let path = paths.ledger(lab).join("journal.jsonl");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path)?;
        // Room for itself and for the ledger at the end, which is written beside the present one: better to know now.
        let ledger = fs::metadata(path.with_file_name("ledger.json")).map_or(0, |meta| meta.len());
        let length = (ledger + RESERVE).cast_signed();
        match fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
            // Some file systems can't promise any room.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(Self { file, path }),
            Err(errno) => {
                fs::remove_file(&path)?;
                Err(errno.into())
            }
        }
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

    /// Ends the journal, which gives its room to the ledger that says so.
    ///
    /// # Errors
    /// What the disk says.
    pub fn end(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}
