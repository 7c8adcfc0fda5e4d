//! The folders that a lab's files stand in: refused where somebody else could change them, or led elsewhere.
//!
//! What leads to them is `kernel::trust`'s.
//! Asked once, before a change. Afterwards nobody but root can put anything else there; the guests' own folders, which
//! belong to QEMU's user, are entered with more care (`engine::folder`).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::Uid;

use super::LedgerError;
use crate::names::LabName;
use crate::paths::Paths;

/// Looks at every folder of vmnet's that a change of this lab writes to.
///
/// # Errors
/// [`LedgerError::Untrusted`] for a link, for what is no folder, for one of another user's and for one that others
/// may write to. One that is not there yet is made by us.
pub fn check_folders(paths: &Paths, lab: &LabName) -> Result<(), LedgerError> {
    for root in [&paths.state, &paths.run] {
        // Whose it is, and who may write to it, was asked before (`kernel::trust`), by whatever link it is reached.
        if fs::metadata(root).is_ok_and(|meta| !meta.is_dir()) {
            return Err(LedgerError::Untrusted { path: root.clone(), problem: "it is no folder" });
        }
    }
    let (state, run) = (paths.lab_state(lab), paths.lab_run(lab));
    let below = [paths.ledger(lab), state.join("guests"), state.join("by-hand"), run.join("guests"), paths.hooks(lab)];
    for folder in [state, run].iter().chain(&below) {
        check(folder, fs::symlink_metadata(folder))?;
    }
    Ok(())
}

pub(super) fn check(folder: &Path, found: io::Result<fs::Metadata>) -> Result<(), LedgerError> {
    let fail = |problem| Err(LedgerError::Untrusted { path: folder.to_owned(), problem });
    let meta = match found {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(LedgerError::Io { what: "reached", path: folder.to_owned(), source }),
    };
    match () {
        () if meta.is_symlink() => fail("it is a link"),
        () if !meta.is_dir() => fail("it is no folder"),
        () if meta.uid() != Uid::effective().as_raw() => fail("it belongs to another user"),
        () if meta.mode() & 0o022 != 0 => fail("others may write to it"),
        () => Ok(()),
    }
}
