//! What is in the store: whole files, and downloads that are not finished.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::names::FileDigest;
use crate::paths::{PART, Paths};

/// A file of the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// What is in it, or will be.
    pub digest: FileDigest,
    /// Its download is not finished.
    pub is_part: bool,
    /// Bytes.
    pub size: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// A file that could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("{} can't be removed", path.display())]
pub struct PruneError {
    /// The file.
    path: PathBuf,
    /// Why.
    #[source]
    source: io::Error,
}

/// All of them, in order.
///
/// # Errors
/// When the folder can't be read.
pub fn entries(paths: &Paths) -> io::Result<Vec<Entry>> {
    let folder = match fs::read_dir(paths.files()) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut all = Vec::new();
    for entry in folder {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let (is_part, digest) = match name.strip_prefix(PART) {
            Some(digest) => (true, digest),
            None => (false, name.as_str()),
        };
        let Ok(digest) = digest.parse() else { continue };
        // It may have got its place meanwhile.
        let Ok(meta) = entry.metadata() else { continue };
        all.push(Entry { digest, is_part, size: meta.len(), path: entry.path() });
    }
    all.sort();
    Ok(all)
}

/// Removes one; says whether it did: a download that somebody is at stays.
///
/// # Errors
/// When the disk refuses.
pub fn remove(entry: &Entry) -> Result<bool, PruneError> {
    let fail = |source| PruneError { path: entry.path.clone(), source };
    if entry.is_part {
        let opened = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(&entry.path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(fail(error)),
        };
        if file.try_lock().is_err() {
            return Ok(false);
        }
        fs::remove_file(&entry.path).map_err(fail)?;
        return Ok(true);
    }
    match fs::remove_file(&entry.path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(fail(error)),
    }
}
