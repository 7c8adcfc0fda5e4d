//! [`Part`]: a download that is not finished.
//!
//! Whoever goes on with it holds its lock, so two commands never write into one another. It stays when the connection
//! breaks, and the next run goes on from there; it goes when it can't become what was announced, or the disk is full.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use crate::ledger::files;
use crate::names::{FileDigest, Hasher};
use crate::paths::Paths;

/// It, open and locked.
pub(super) struct Part {
    file: File,
    path: PathBuf,
    digest: FileDigest,
    hash: Hasher,
    /// Bytes that are there and hashed.
    pub(super) length: u64,
    /// The first of them.
    pub(super) head: Vec<u8>,
}

/// As much of a file as tells a web page.
const HEAD: usize = 512;

impl Part {
    /// Opens the one that is there, or begins one. `on_wait` is called when another command is at it.
    pub(super) fn open(paths: &Paths, digest: &FileDigest, on_wait: impl FnOnce()) -> io::Result<Self> {
        let path = paths.part(digest);
        let mut on_wait = Some(on_wait);
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.custom_flags(libc::O_NOFOLLOW).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => {
                    if let Some(on_wait) = on_wait.take() {
                        on_wait();
                    }
                    file.lock()?;
                }
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
            // Whoever had the lock may have finished, and the name is another file's or nobody's.
            let (own, named) = (file.metadata()?, fs::symlink_metadata(&path));
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino())) {
                let hash = Hasher::of(digest.algorithm());
                return Ok(Self { file, path, digest: digest.clone(), hash, length: 0, head: Vec::new() });
            }
        }
    }

    /// Reads what is there already.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        self.file.rewind()?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match io::Read::read(&mut self.file, &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => self.count(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Begins anew.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.hash = Hasher::of(self.digest.algorithm());
        self.length = 0;
        self.head.clear();
        Ok(())
    }

    /// Takes room for all of it.
    pub(super) fn reserve(&self, size: u64) -> io::Result<()> {
        files::reserve(&self.file, size)
    }

    /// Takes the bytes that follow.
    pub(super) fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.count(bytes);
        Ok(())
    }

    fn count(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        let room = HEAD.saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// What is in it so far.
    pub(super) fn found(&self) -> FileDigest {
        self.hash.clone().finish()
    }

    /// Gives it its place. What is in it was compared.
    pub(super) fn settle(self, paths: &Paths) -> io::Result<()> {
        files::settle(paths, &self.digest, &self.file, &self.path)
    }

    /// Takes it away.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}
