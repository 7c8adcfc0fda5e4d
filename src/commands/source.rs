//! A definition from its file: read with care, resolved with its lock file.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::definition::Definition;
use crate::desired::Note;
use crate::ledger;
use crate::model::{Lock, Model, Resolved, resolve};
use crate::names::LabName;

/// A definition of this size has more than a hundred thousand lines.
const LARGEST: u64 = 8 << 20;

/// A definition that was read and resolved.
#[derive(Debug)]
pub(super) struct Source {
    /// The file, absolute.
    pub(super) path: PathBuf,
    /// Its text.
    pub(super) text: String,
    /// What it means.
    pub(super) model: Model,
    /// The lock file as it was.
    pub(super) old_lock: Lock,
    /// Its text, where there is one.
    old_lock_text: Option<String>,
    /// The lock file as it has to be.
    pub(super) lock: Lock,
    /// There is a router in the definition, and no network for it.
    router_is_idle: bool,
}

impl Source {
    /// Reads `net.toml` and the `net.lock` beside it.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let text = read_text(path)?;
        let path =
            std::path::absolute(path).map_err(|error| Failure::failed("the working directory is gone", error))?;
        let lock_path = path.with_extension("lock");
        let old_lock_text = lock_path.exists().then(|| read_text(&lock_path)).transpose()?;
        let old_lock = match &old_lock_text {
            Some(text) => {
                Lock::parse(text).map_err(|error| Failure::Usage(format!("{}: {error}", lock_path.display())))?
            }
            None => Lock::default(),
        };
        Ok(Self { old_lock_text, ..Self::resolve(path, text, old_lock)? })
    }

    /// The lab that a definition is of. What its lock file says does not matter for that.
    pub(super) fn lab_in(path: &Path) -> Result<LabName, Failure> {
        let source = Self::resolve(path.to_owned(), read_text(path)?, Lock::default())?;
        Ok(source.model.lab().clone())
    }

    /// The definition and lock file that a ledger holds.
    pub(super) fn applied(ledger: &ledger::Ledger) -> Result<Self, Failure> {
        let damaged =
            |error| Failure::failed(format!("the ledger of lab {} holds a damaged lock file", ledger.lab), error);
        let lock = if ledger.lock.is_empty() { Lock::default() } else { Lock::parse(&ledger.lock).map_err(damaged)? };
        Self::resolve(ledger.path.clone(), ledger.definition.clone(), lock)
    }

    fn resolve(path: PathBuf, text: String, old_lock: Lock) -> Result<Self, Failure> {
        let resolved = Definition::parse(&text).and_then(|definition| {
            let says_router = !definition.router.is_missing();
            resolve(&definition, &old_lock).map(|resolved| (resolved, says_router))
        });
        match resolved {
            Ok((Resolved { model, lock }, says_router)) => {
                let router_is_idle = says_router && model.router().is_none();
                Ok(Self { path, text, model, old_lock, old_lock_text: None, lock, router_is_idle })
            }
            Err(problems) => Err(Failure::Definition { path, text, problems }),
        }
    }

    /// What the definition says to no effect.
    pub(super) fn remarks(&self) -> Option<Note> {
        let text = "no network has a router (mode \"nat\" or \"routed\"), so [router] makes nothing";
        self.router_is_idle.then(|| Note { about: "router".to_owned(), text: text.to_owned() })
    }

    /// Whether the definition's file says something else by now.
    pub(super) fn file_changed(&self) -> bool {
        // By now it may be anything, a FIFO that nobody writes to for one.
        read_text(&self.path).is_ok_and(|text| text != self.text)
    }

    /// The definition's folder, where relative paths start.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Where the lock file is.
    pub(super) fn lock_path(&self) -> PathBuf {
        self.path.with_extension("lock")
    }

    /// Writes the lock file where it differs; nothing is written for a lab that needs none.
    pub(super) fn write_lock(&self) -> Result<bool, Failure> {
        if self.lock == self.old_lock {
            return Ok(false);
        }
        let path = self.lock_path();
        self.write_lock_text(self.lock.to_string().as_bytes())
            .map_err(|error| Failure::failed(format!("{} can't be written", path.display()), error))?;
        Ok(true)
    }

    /// It belongs to whom the definition belongs to: root writes beside other people's files.
    fn write_lock_text(&self, text: &[u8]) -> std::io::Result<()> {
        let owner = std::fs::metadata(&self.path).ok().map(|definition| (definition.uid(), definition.gid()));
        ledger::write_atomically_for(&self.lock_path(), text, 0o644, owner)
    }

    /// Makes the lock file what it was before [`Source::write_lock`].
    pub(super) fn restore_lock(&self) -> Result<(), Failure> {
        let path = self.lock_path();
        let done = match &self.old_lock_text {
            _ if self.lock == self.old_lock => Ok(()),
            Some(text) => self.write_lock_text(text.as_bytes()),
            None => remove_if_there(&path),
        };
        done.map_err(|error| Failure::failed(format!("{} can't be put back", path.display()), error))
    }
}

/// Removes a file, there or not.
pub(super) fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A text file that a user named: no device, no pipe, not endless.
fn read_text(path: &Path) -> Result<String, Failure> {
    let place = path.display();
    let usage = |problem: String| Failure::Usage(format!("{place}: {problem}"));
    // Without O_NONBLOCK opening a FIFO waits for a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|error| match error
        .kind()
    {
        std::io::ErrorKind::NotFound => {
            usage("there is no such file; name the definition of a lab, for example net.toml".into())
        }
        _ => usage(format!("can't be opened: {error}")),
    })?;
    let metadata = file.metadata().map_err(|error| usage(format!("can't be read: {error}")))?;
    if !metadata.is_file() {
        return Err(usage("is not a regular file".into()));
    }
    if metadata.len() > LARGEST {
        return Err(usage(format!("has {} bytes; a definition has at most {LARGEST}", metadata.len())));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(|error| usage(format!("can't be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        usage(format!("line {line} is not UTF-8"))
    })
}
