//! Files that came from another machine or were downloaded (images), each under the name of what is in it.
//!
//! A file is there whole or not at all: it is written under another name, compared, and takes its place by rename.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::{LedgerError, ground};
use crate::names::{FileDigest, Hasher};
use crate::paths::Paths;

/// What unfinished files begin with.
const UNFINISHED: &str = ".taking-";

/// After so many bytes it is said how many there are.
const STEP: u64 = 8 << 20;

/// Why a file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Its folder.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The disk refuses.
    #[error("the file can't be written below {}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Where it comes from broke off.
    #[error("only {got} of {size} bytes came; nothing was kept")]
    Short {
        /// What came.
        got: u64,
        /// What was announced.
        size: u64,
    },
    /// The bytes are others.
    #[error(
        "what came is {found}, and {wanted} was announced: it was changed meanwhile, or damaged on the way; nothing was kept"
    )]
    Other {
        /// What came.
        found: FileDigest,
        /// What was announced.
        wanted: FileDigest,
    },
}

/// Whether a file is there, whole and ours.
///
/// # Errors
/// When somebody else could have put it there.
pub fn has(paths: &Paths, digest: &FileDigest) -> Result<bool, LedgerError> {
    ground::check(&paths.files(), fs::symlink_metadata(paths.files()))?;
    let path = paths.file(digest);
    match fs::symlink_metadata(&path) {
        // Put there by whoever may write to a folder that is root's alone, and yet not as we do it.
        Ok(meta) if !meta.is_file() || meta.mode() & 0o022 != 0 => {
            Err(LedgerError::Untrusted { path, problem: "it is no file of vmnet's" })
        }
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(LedgerError::Io { what: "reached", path, source }),
    }
}

/// Takes `size` bytes from `from` as the file `digest`; says on the way how many have come. What is there already is
/// not read again.
///
/// # Errors
/// [`TakeError`]; nothing of it stays then.
pub fn take(
    paths: &Paths,
    digest: &FileDigest,
    size: u64,
    from: impl Read,
    on_progress: impl FnMut(u64),
) -> Result<bool, TakeError> {
    let folder = paths.files();
    let failed = |source| TakeError::Io { folder: folder.clone(), source };
    make_folder(paths).map_err(failed)?;
    if has(paths, digest)? {
        return Ok(false);
    }
    sweep(&folder);
    let unfinished = Unfinished::begin(&folder).map_err(failed)?;
    reserve(&unfinished.file, size).map_err(failed)?;
    let hash = Hasher::of(digest.algorithm());
    let found = copy(&unfinished.file, hash, size, from, on_progress, &failed)?;
    if found != *digest {
        return Err(TakeError::Other { found, wanted: digest.clone() });
    }
    settle(paths, digest, &unfinished.file, &unfinished.path).map_err(failed)?;
    Ok(true)
}

/// Gives a file that is whole its place.
pub(crate) fn settle(paths: &Paths, digest: &FileDigest, file: &File, path: &Path) -> io::Result<()> {
    // Not by the mode of the opening call: the umask would narrow it.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.sync_all()?;
    fs::rename(path, paths.file(digest))?;
    File::open(paths.files())?.sync_all()
}

/// Makes the folder where it is missing.
pub(crate) fn make_folder(paths: &Paths) -> io::Result<()> {
    make(&paths.state, 0o711).and_then(|()| make(&paths.files(), 0o711))
}

/// Takes room for all of a file.
pub(crate) fn reserve(file: &File, size: u64) -> io::Result<()> {
    // fallocate(2) knows no length of nothing.
    let size = libc::off_t::try_from(size.max(1)).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, size) {
        // Some file systems can't; then it shows on the way.
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENODEV) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Copies, and gives the digest of what came.
fn copy(
    mut to: &File,
    mut hash: Hasher,
    size: u64,
    mut from: impl Read,
    mut on_progress: impl FnMut(u64),
    failed: &impl Fn(io::Error) -> TakeError,
) -> Result<FileDigest, TakeError> {
    let mut buffer = vec![0; 1 << 20];
    let (mut got, mut told) = (0, 0);
    while got < size {
        let room = usize::try_from(size - got).map_or(buffer.len(), |left| left.min(buffer.len()));
        let length = match from.read(&mut buffer[..room]) {
            Ok(0) => return Err(TakeError::Short { got, size }),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        to.write_all(&buffer[..length]).map_err(failed)?;
        hash.update(&buffer[..length]);
        got += length as u64;
        if got - told >= STEP || got == size {
            told = got;
            on_progress(got);
        }
    }
    Ok(hash.finish())
}

fn make(folder: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).recursive(folder.parent().is_some_and(|above| !above.exists())).create(folder) {
        Ok(()) => fs::set_permissions(folder, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// A file that is not finished, locked by whoever writes it. It goes with this.
struct Unfinished {
    file: File,
    path: PathBuf,
}

impl Unfinished {
    fn begin(folder: &Path) -> io::Result<Self> {
        loop {
            let (file, path) = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?.keep()?;
            let unfinished = Self { file, path };
            unfinished.file.lock()?;
            // Between the two calls above somebody may have swept it away.
            if unfinished.file.metadata()?.nlink() > 0 {
                return Ok(unfinished);
            }
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Once it has its place there is none under this name.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes what those left who were killed.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            continue;
        }
        let opened = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(entry.path());
        if opened.is_ok_and(|file| file.try_lock().is_ok()) {
            // One that stays takes room, and nothing else.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of `abc`.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn place() -> (tempfile::TempDir, Paths, FileDigest) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths { state: root.path().join("a/state"), run: root.path().join("run") };
        (root, paths, ABC.parse().unwrap())
    }

    fn names(paths: &Paths) -> Vec<String> {
        let entries = fs::read_dir(paths.files()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_comes_whole_is_there_once() {
        let (_root, paths, digest) = place();
        assert!(!has(&paths, &digest).unwrap());
        let mut told = Vec::new();
        // More than was announced is not read.
        assert!(take(&paths, &digest, 3, &b"abcdef"[..], |got| told.push(got)).unwrap());
        assert_eq!(told, [3]);
        assert!(has(&paths, &digest).unwrap());
        assert_eq!(fs::read(paths.file(&digest)).unwrap(), b"abc");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&paths.file(&digest)), mode(&paths.files())), (0o644, 0o711));
        assert!(!take(&paths, &digest, 3, io::empty(), |_| panic!()).unwrap());
        assert_eq!(names(&paths), [ABC]);
    }

    #[test]
    fn what_is_damaged_or_short_does_not_stay() {
        let (_root, paths, digest) = place();
        let error = take(&paths, &digest, 3, &b"abd"[..], |_| {}).unwrap_err();
        assert!(matches!(error, TakeError::Other { .. }), "{error}");
        let error = take(&paths, &digest, 4, &b"abc"[..], |_| {}).unwrap_err();
        assert!(matches!(error, TakeError::Short { got: 3, size: 4 }), "{error}");
        let error = take(&paths, &digest, 2, &b"abc"[..], |_| {}).unwrap_err();
        assert!(matches!(error, TakeError::Other { .. }), "{error}");
        assert!(take(&paths, &digest, u64::MAX, io::empty(), |_| {}).is_err());
        assert!(names(&paths).is_empty());
    }

    #[test]
    fn what_a_crash_left_goes_and_what_is_being_written_stays() {
        let (_root, paths, digest) = place();
        take(&paths, &digest, 3, &b"abc"[..], |_| {}).unwrap();
        fs::remove_file(paths.file(&digest)).unwrap();
        fs::write(paths.files().join(".taking-crash"), "half").unwrap();
        let busy = Unfinished::begin(&paths.files()).unwrap();
        take(&paths, &digest, 3, &b"abc"[..], |_| {}).unwrap();
        let mut left = names(&paths);
        left.sort();
        assert_eq!(left, [busy.path.file_name().unwrap().to_str().unwrap(), ABC]);
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let (_root, paths, digest) = place();
        fs::create_dir_all(paths.files()).unwrap();
        fs::set_permissions(paths.files(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(has(&paths, &digest).is_err());
        assert!(take(&paths, &digest, 3, &b"abc"[..], |_| {}).is_err());
        fs::remove_dir(paths.files()).unwrap();
        std::os::unix::fs::symlink("/tmp", paths.files()).unwrap();
        assert!(take(&paths, &digest, 3, &b"abc"[..], |_| {}).is_err());
    }
}
