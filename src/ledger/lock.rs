//! [`ChangeLock`]: one change at a time on a host.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::paths::Paths;

/// The lock while it is held; dropping it gives it back, and so does the end of the process however it comes.
///
/// One for all labs of a host: they share the host's settings. Children don't inherit it (close-on-exec).
#[derive(Debug)]
pub struct ChangeLock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("{holder} is changing this host's labs and holds {}; try again when it is done", path.display())]
    Held {
        /// Process and command, as the holder wrote them.
        holder: String,
        /// The lock's file.
        path: PathBuf,
    },
    /// The file can't be opened.
    #[error("the lock {} can't be taken", path.display())]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LockError {
    /// Whether the reason is a missing permission.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// How long nobody asks what is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

impl ChangeLock {
    /// Takes the lock, waiting at most `limit`; `verb` tells others what the holder is doing. Where it takes longer than a
    /// second, `on_wait` gets the holder, once.
    ///
    /// # Errors
    /// [`LockError`], naming the holder.
    pub fn take(paths: &Paths, verb: &str, limit: Duration, on_wait: impl FnOnce(&str)) -> Result<Self, LockError> {
        let path = paths.run.join("lock");
        let failed = |source| LockError::Io { path: path.clone(), source };
        let mut file = open(&paths.run, &path).map_err(failed)?;
        let begun = Instant::now();
        let mut on_wait = Some(on_wait);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if begun.elapsed() < limit => {
                    if begun.elapsed() > PATIENCE
                        && let Some(on_wait) = on_wait.take()
                    {
                        on_wait(&holder(&file));
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(LockError::Held { holder: holder(&file), path });
                }
                Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        match writeln!(file, "vmnet {verb} (process {})", std::process::id()) {
            // Nobody is named then; the lock is held all the same. A full disk must not keep anybody from removing.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            written => written.map_err(failed)?,
        }
        Ok(Self { _file: file })
    }
}

/// Who holds it, as they wrote it.
fn holder(file: &File) -> String {
    use std::os::unix::fs::FileExt;
    let mut bytes = [0; 200];
    let length = file.read_at(&mut bytes, 0).unwrap_or_default();
    let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).trim().escape_default().to_string();
    if text.is_empty() { "another vmnet".to_owned() } else { text }
}

fn open(folder: &Path, path: &Path) -> io::Result<File> {
    match fs::DirBuilder::new().mode(0o711).recursive(true).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        // Whoever can open it, for reading even, can hold the lock: nobody but its owner.
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}
