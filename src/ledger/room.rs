//! [`Room`]: space on the disk that is kept free for the ledger at the end of a change.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::store::make_folders;
use super::{Ledger, LedgerError};
use crate::names::LabName;
use crate::paths::Paths;

/// What a ledger may grow by in a change, in bytes: fingerprints of tables.
const GROWTH: usize = 16 << 10;

/// Room for one more copy of the ledger. It is written beside the present one, at the end, when it is too late to
/// find out that the disk is full. Dropping this gives the room to it.
#[derive(Debug)]
pub struct Room {
    path: PathBuf,
}

impl Room {
    /// Takes as much room as this ledger may need.
    ///
    /// # Errors
    /// [`LedgerError::Io`] when there is not that much.
    pub fn take(paths: &Paths, ledger: &Ledger) -> Result<Self, LedgerError> {
        let path = file(paths, &ledger.lab);
        let failed = |source| LedgerError::Io { what: "written", path: path.clone(), source };
        make_folders(paths, &ledger.lab).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(failed)?;
        let room = Self { path: path.clone() };
        let length = serde_json::to_vec_pretty(ledger).map_err(|error| failed(error.into()))?.len() + GROWTH;
        let length = libc::off_t::try_from(length).map_err(|_| failed(io::ErrorKind::FileTooLarge.into()))?;
        match fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
            // Some file systems can't promise any room.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(room),
            Err(errno) => Err(failed(errno.into())),
        }
    }
}

impl Room {
    /// Leaves it there for another process.
    pub fn keep(self) {
        std::mem::forget(self);
    }

    /// Gives the room that was kept for a lab, or left by a process that was killed, to whoever writes its ledger now.
    pub fn give_up(paths: &Paths, lab: &LabName) {
        drop(Self { path: file(paths, lab) });
    }
}

fn file(paths: &Paths, lab: &LabName) -> PathBuf {
    paths.ledger(lab).join("room")
}

impl Drop for Room {
    fn drop(&mut self) {
        // One that stays is taken by the next change, and goes with the ledger.
        let _ = fs::remove_file(&self.path);
    }
}
