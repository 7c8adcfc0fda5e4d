//! What is in images that are the user's own files: found out by reading them once, and remembered as long as the file
//! is the same.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::content;
use crate::ledger::{files, write_atomically};
use crate::names::{Algorithm, FileDigest};
use crate::paths::Paths;

/// A file whose content was found out, as it was then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    path: PathBuf,
    identity: Identity,
    digest: FileDigest,
}

/// What changes with the content of a file: nobody sets back the time of the change of its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

fn read(paths: &Paths) -> Vec<Seen> {
    // What is damaged or was never there is found out anew.
    let bytes = std::fs::read(paths.digests()).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// What is in a file, as far as that is known without reading it.
pub fn known(paths: &Paths, path: &Path, algorithm: Algorithm) -> Option<FileDigest> {
    let identity = Identity::of(&std::fs::metadata(path).ok()?);
    let is_it = |seen: &Seen| seen.path == path && seen.identity == identity && seen.digest.algorithm() == algorithm;
    read(paths).into_iter().find(is_it).map(|seen| seen.digest)
}

/// What is in a file. `on_progress` gets how many bytes of how many were read, where it has to be.
///
/// # Errors
/// When it can't be read, is no plain file, or changes meanwhile.
pub fn digest_of(
    paths: &Paths,
    path: &Path,
    algorithm: Algorithm,
    mut on_progress: impl FnMut(u64, u64),
) -> io::Result<FileDigest> {
    if let Some(digest) = known(paths, path, algorithm) {
        return Ok(digest);
    }
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let before = file.metadata()?;
    if !before.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let size = before.len();
    let digest = content::digest(&mut file, algorithm, |done| on_progress(done, size))?;
    let identity = Identity::of(&before);
    if Identity::of(&file.metadata()?) != identity {
        return Err(io::Error::other("it changes while it is read"));
    }
    remember(paths, Seen { path: path.to_owned(), identity, digest: digest.clone() });
    Ok(digest)
}

/// Writes it down, without what is not so any more. Where that does not work it is found out again next time.
fn remember(paths: &Paths, new: Seen) {
    let mut all = read(paths);
    all.retain(|seen| {
        let now = std::fs::metadata(&seen.path).ok().map(|meta| Identity::of(&meta));
        let is_same = seen.path == new.path && seen.digest.algorithm() == new.digest.algorithm();
        now == Some(seen.identity) && !is_same
    });
    all.push(new);
    let text = serde_json::to_vec(&all).unwrap_or_default();
    let written = files::make_folder(paths).and_then(|()| write_atomically(&paths.digests(), &text, 0o600));
    if let Err(error) = written {
        tracing::debug!(%error, "what is in images could not be written down");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once_and_again_when_it_changed() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths { state: root.path().join("state"), run: root.path().join("run") };
        let file = root.path().join("image");
        std::fs::write(&file, "abc").unwrap();
        assert_eq!(known(&paths, &file, Algorithm::Sha256), None);
        let first = digest_of(&paths, &file, Algorithm::Sha256, |_, _| {}).unwrap();
        assert!(first.as_str().starts_with("ba7816bf"));
        assert_eq!(known(&paths, &file, Algorithm::Sha256), Some(first.clone()));
        assert_eq!(known(&paths, &file, Algorithm::Sha512), None);
        assert!(digest_of(&paths, &file, Algorithm::Sha512, |_, _| {}).unwrap().as_str().starts_with("ddaf35a1"));
        assert_eq!(known(&paths, &file, Algorithm::Sha256), Some(first));
        std::fs::write(&file, "abd").unwrap();
        assert_eq!(known(&paths, &file, Algorithm::Sha256), None);
        assert!(digest_of(&paths, root.path(), Algorithm::Sha256, |_, _| {}).is_err());
    }
}
