//! What a guest wrote to its console, in files of a limited size in its folder.
//!
//! The log of the present start, or of the last one, and that of the start before, each in two files at most: when one is
//! full, what was in the older one goes.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::EngineError;
use super::folder::Folder;
use crate::rule;

/// Bytes of a file at most. A guest has four.
pub const LARGEST: u64 = 1 << 20;

/// What the guest wrote last.
const LOG: &str = "console.log";
/// What it wrote before.
const OLDER: &str = "console.log.1";
/// The same of the start before.
const PREVIOUS: &str = "console-previous.log";
const PREVIOUS_OLDER: &str = "console-previous.log.1";

/// A log that is written.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    /// `None` where it can't be written.
    file: Option<File>,
    size: u64,
}

impl Log {
    /// Begins the log of a start in this folder: what is there becomes the previous one. A start that wrote nothing, one
    /// that failed, takes nobody's place.
    pub fn begin(folder: &Path) -> Self {
        let mut log = Self { folder: folder.to_owned(), file: None, size: 0 };
        let is_empty = fs::metadata(folder.join(LOG)).map_or(true, |found| found.len() == 0);
        if !is_empty {
            // Where nothing can be renamed nothing can be written either: the guest goes on without.
            let _ = log.rename(OLDER, PREVIOUS_OLDER);
            let _ = log.rename(LOG, PREVIOUS);
        }
        log.anew();
        log
    }

    /// Adds what the guest wrote. What can't be written is dropped.
    pub fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.size >= LARGEST {
                let _ = self.rename(LOG, OLDER);
                self.anew();
            } else if self.file.is_none() {
                self.anew();
            }
            let room = usize::try_from(LARGEST - self.size).unwrap_or(usize::MAX).min(bytes.len());
            let Some(Ok(written)) = self.file.as_mut().map(|file| file.write(&bytes[..room])) else { return };
            if written == 0 {
                return;
            }
            self.size += written as u64;
            bytes = &bytes[written..];
        }
    }

    /// A file that is not there takes away the one that would have made way for it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match fs::rename(self.folder.join(from), self.folder.join(to)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::remove_file(self.folder.join(to)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            other => other,
        }
    }

    fn anew(&mut self) {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        self.file = options.open(self.folder.join(LOG)).ok();
        self.size = 0;
    }
}

/// Which of a guest's logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    newest: String,
    older: String,
}

impl Name {
    /// That of the present start, or of the last one, in the guest's folder.
    pub fn present() -> Self {
        Self { newest: LOG.to_owned(), older: OLDER.to_owned() }
    }

    /// That of the start before.
    pub fn previous() -> Self {
        Self { newest: PREVIOUS.to_owned(), older: PREVIOUS_OLDER.to_owned() }
    }

    /// The one that virtlogd keeps of a domain, over all its starts. Of its older files the latest is read.
    pub fn of_domain(domain: &str) -> Self {
        let newest = rule::console_log_of_domain(domain);
        Self { older: format!("{newest}.0"), newest }
    }
}

/// All files in which virtlogd may have logged a domain's console: as virtlogd.conf has it, three older ones
/// (`max_backups`), `.0` the latest.
pub fn files_of_domain(domain: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let log = Path::new(rule::LIBVIRT_LOGS).join(rule::console_log_of_domain(domain));
    ["", ".0", ".1", ".2"].into_iter().map(move |older| {
        let mut file = log.clone().into_os_string();
        file.push(older);
        file.into()
    })
}

/// A guest's log as it is now: its bytes, oldest first; `None` where there is none.
pub fn read(folder: &Folder, name: &Name) -> Result<Option<Vec<u8>>, EngineError> {
    let Name { newest: log, older } = name;
    let Some(newest) = folder.open_file(log)? else { return Ok(None) };
    let mut bytes = Vec::new();
    if let Some(file) = folder.open_file(older)?.filter(|file| !is_same(file, &newest)) {
        fill(folder, older, file, &mut bytes)?;
    }
    fill(folder, log, newest, &mut bytes)?;
    Ok(Some(bytes))
}

/// A guest's log that is read while it is written.
#[derive(Debug)]
pub struct Followed {
    name: String,
    file: Option<File>,
}

impl Followed {
    /// From here on.
    pub fn from_end(folder: &Folder, name: &Name) -> Result<Self, EngineError> {
        let name = name.newest.clone();
        let mut file = folder.open_file(&name)?;
        if let Some(file) = &mut file {
            file.seek(SeekFrom::End(0)).map_err(|source| failed(folder, &name, source))?;
        }
        Ok(Self { name, file })
    }

    /// What came since.
    pub fn more(&mut self, folder: &Folder) -> Result<Vec<u8>, EngineError> {
        let mut bytes = Vec::new();
        // The present one first: what is in it was written before anything in the next one.
        let next = folder.open_file(&self.name)?;
        if let Some(file) = &mut self.file {
            take(file, &mut bytes).map_err(|source| failed(folder, &self.name, source))?;
        }
        let is_new = match (&self.file, &next) {
            (Some(file), Some(next)) => !is_same(file, next),
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if is_new && let Some(mut next) = next {
            take(&mut next, &mut bytes).map_err(|source| failed(folder, &self.name, source))?;
            self.file = Some(next);
        }
        Ok(bytes)
    }
}

fn is_same(one: &File, other: &File) -> bool {
    let id = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    id(one) == id(other)
}

fn fill(folder: &Folder, name: &str, mut file: File, bytes: &mut Vec<u8>) -> Result<(), EngineError> {
    take(&mut file, bytes).map_err(|source| failed(folder, name, source))
}

/// No more than a log has: who broke out of a guest may have put anything there.
fn take(file: &mut File, bytes: &mut Vec<u8>) -> io::Result<()> {
    file.take(2 * LARGEST).read_to_end(bytes).map(drop)
}

fn failed(folder: &Folder, name: &str, source: io::Error) -> EngineError {
    EngineError::File { action: "read", path: folder.join(name), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(path: &Path) -> Folder {
        Folder::open(path).unwrap().unwrap()
    }

    fn total(path: &Path) -> u64 {
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }

    #[test]
    fn the_log_of_a_start_is_followed_by_that_of_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(read(&opened(path), &Name::present()).unwrap(), None);
        Log::begin(path).write(b"one\n");
        Log::begin(path).write(b"two\n");
        assert_eq!(read(&opened(path), &Name::previous()).unwrap(), Some(b"one\n".to_vec()));
        // Two that fail.
        Log::begin(path);
        Log::begin(path);
        assert_eq!(read(&opened(path), &Name::present()).unwrap(), Some(Vec::new()));
        assert_eq!(read(&opened(path), &Name::previous()).unwrap(), Some(b"two\n".to_vec()));
        Log::begin(path).write(b"three\n");
        assert_eq!(read(&opened(path), &Name::present()).unwrap(), Some(b"three\n".to_vec()));
        assert_eq!(read(&opened(path), &Name::previous()).unwrap(), Some(b"two\n".to_vec()));
    }

    #[test]
    fn a_guest_that_writes_without_end_fills_two_files_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut log = Log::begin(path);
        let line = [b'x'; 1000];
        for _ in 0..5000 {
            log.write(&line);
        }
        log.write(b"the end\n");
        assert!(total(path) <= 2 * LARGEST, "{}", total(path));
        let bytes = read(&opened(path), &Name::present()).unwrap().unwrap();
        assert!(bytes.ends_with(b"xthe end\n") && bytes.len() as u64 > LARGEST, "{}", bytes.len());
        for _ in 0..3 {
            let mut log = Log::begin(path);
            (0..5000).for_each(|_| log.write(&line));
        }
        assert!(total(path) <= 4 * LARGEST, "{}", total(path));
    }

    #[test]
    fn who_follows_a_log_sees_what_comes_over_its_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut log = Log::begin(path);
        log.write(b"before");
        let opened = opened(path);
        let mut followed = Followed::from_end(&opened, &Name::present()).unwrap();
        assert_eq!(followed.more(&opened).unwrap(), b"");
        log.write(b"after");
        assert_eq!(followed.more(&opened).unwrap(), b"after");
        log.write(&vec![b'.'; LARGEST as usize]);
        assert_eq!(followed.more(&opened).unwrap().len() as u64, LARGEST);
    }

    #[test]
    fn where_nothing_can_be_written_it_is_dropped() {
        let mut log = Log::begin(Path::new("/nonexistent"));
        log.write(b"lost");
        assert!(log.file.is_none());
    }
}
