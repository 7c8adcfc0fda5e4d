//! A definition from its file: read with care, resolved with its lock file.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use sha2::{Digest, Sha256};

use super::bundle::Bundle;
use super::failure::Failure;
use super::keys;
use super::output::shown;
use super::session::{folders, paths};
use crate::definition::Definition;
use crate::desired::Note;
use crate::ledger::{self, Origin};
use crate::model::{Lock, Model, Resolved, resolve, slice};
use crate::names::{HostName, LabName};
use crate::render::Files;

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
    pub(super) whole: Rc<Model>,
    /// This host's part of that; all of it where the definition names no hosts.
    pub(super) model: Rc<Model>,
    /// What came with it.
    pub(super) origin: Origin,
    /// The folder that holds what was downloaded.
    store: PathBuf,
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
    /// Reads `net.toml` and the `net.lock` beside it, or what another host sent, and takes one host's part. `lab` is the
    /// name that it gets instead of its own.
    pub(super) fn read(path: &Path, lab: Option<&LabName>, here: Option<&HostName>) -> Result<Self, Failure> {
        let mut source = Self::read_whole(path, lab)?;
        let hosts = source.whole.hosts();
        let known = || hosts.keys().map(HostName::as_str).collect::<Vec<_>>().join(", ");
        match here {
            None if hosts.is_empty() => {}
            None => {
                let help = format!("say which part is meant: --here with one of {}", known());
                return Err(Failure::advised(format!("{} names hosts", shown(path)), help));
            }
            Some(here) => {
                let Some(part) = slice(&source.whole, here) else {
                    return Err(Failure::Usage(match hosts.is_empty() {
                        true => format!("{} names no hosts: leave out --here", shown(path)),
                        false => format!("{} has no host {here}; it has {}", shown(path), known()),
                    }));
                };
                source.model = Rc::new(part);
                source.origin.here = Some(here.clone());
            }
        }
        Ok(source)
    }

    /// Reads all of it; `-` is what another host sent, on standard input.
    pub(super) fn read_whole(path: &Path, lab: Option<&LabName>) -> Result<Self, Failure> {
        if path == Path::new(Bundle::ARGUMENT) {
            return Self::sent(Bundle::read()?);
        }
        let text = read_text(path)?;
        let path =
            std::path::absolute(path).map_err(|error| Failure::failed("the working directory is gone", error))?;
        let lock_path = path.with_extension("lock");
        let old_lock_text = lock_path.exists().then(|| read_text(&lock_path)).transpose()?;
        let old_lock = match &old_lock_text {
            Some(text) => parse_lock(&lock_path, text)?,
            None => Lock::default(),
        };
        let origin = Origin { alias: lab.cloned(), ..Origin::default() };
        let mut source = Self { old_lock_text, ..Self::resolve(path, text, old_lock, origin)? };
        source.origin.home = keys::home(&source.whole);
        Ok(source)
    }

    /// Reads all of it as a rehearsal has it: every guest is a namespace.
    pub(super) fn read_rehearsed(path: &Path, lab: Option<&LabName>) -> Result<Self, Failure> {
        let source = Self::read_whole(path, lab)?;
        let origin = Origin { rehearsed: true, ..source.origin };
        let old_lock_text = source.old_lock_text;
        Ok(Self { old_lock_text, ..Self::resolve(source.path, source.text, source.old_lock, origin)? })
    }

    /// Whether a definition is worth reading for the hosts that it names. No table of hosts goes without the word.
    pub(super) fn may_name_hosts(path: &Path) -> bool {
        path != Path::new(Bundle::ARGUMENT) && read_text(path).is_ok_and(|text| text.contains("host"))
    }

    fn sent(bundle: Bundle) -> Result<Self, Failure> {
        let Bundle { version: _, path, definition, lock, files, rehearsed, alias } = bundle;
        let lock = if lock.is_empty() { Lock::default() } else { parse_lock(&path.with_extension("lock"), &lock)? };
        let store = paths()?;
        let files = files.into_iter().map(|(entry, digest)| (entry, store.file(&digest))).collect();
        Self::resolve(path, definition, lock, Origin { here: None, sent: true, files, rehearsed, alias, home: None })
    }

    /// The lab that a definition is of. What its lock file says does not matter for that.
    pub(super) fn lab_in(path: &Path) -> Result<LabName, Failure> {
        let source = Self::resolve(path.to_owned(), read_text(path)?, Lock::default(), Origin::default())?;
        Ok(source.model.lab().clone())
    }

    /// The definition and lock file that a ledger holds.
    pub(super) fn applied(ledger: &ledger::Ledger) -> Result<Self, Failure> {
        let damaged =
            |error| Failure::failed(format!("the ledger of lab {} holds a damaged lock file", ledger.lab), error);
        let lock = if ledger.lock.is_empty() { Lock::default() } else { Lock::parse(&ledger.lock).map_err(damaged)? };
        let mut source = Self::resolve(ledger.path.clone(), ledger.definition.clone(), lock, ledger.origin.clone())?;
        if let Some(part) = ledger.origin.here.as_ref().and_then(|here| slice(&source.whole, here)) {
            source.model = Rc::new(part);
        }
        Ok(source)
    }

    fn resolve(path: PathBuf, text: String, old_lock: Lock, mut origin: Origin) -> Result<Self, Failure> {
        let resolved = Definition::parse(&text).and_then(|definition| {
            let definition = if origin.rehearsed { definition.rehearsed() } else { definition };
            let definition = match origin.alias.take() {
                Some(lab) => definition.called(lab),
                None => definition,
            };
            origin.alias.clone_from(&definition.alias);
            let says_router = !definition.router.is_missing();
            resolve(&definition, &old_lock).map(|resolved| (resolved, says_router))
        });
        match resolved {
            Ok((Resolved { model, lock }, says_router)) => {
                let router_is_idle = says_router && model.router().is_none();
                let model = Rc::new(model);
                let (whole, old_lock_text) = (Rc::clone(&model), None);
                let store = folders()?.files();
                Ok(Self { path, text, whole, model, origin, store, old_lock, old_lock_text, lock, router_is_idle })
            }
            Err(problems) => Err(Failure::Definition { path, text, problems }),
        }
    }

    /// What tells this definition from any other, on every host the same: the whole model and the lock file in one
    /// SHA-256. Where the file stands and how it is written does not count.
    pub(super) fn fingerprint(&self) -> Result<String, Failure> {
        let model = serde_json::to_vec(&*self.whole)
            .map_err(|error| Failure::failed("the definition can't be written as JSON", error))?;
        let mut hash = Sha256::new();
        hash.update(model);
        hash.update(self.lock.of(self.origin.alias.as_ref()).to_string());
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What the definition says to no effect.
    pub(super) fn remarks(&self) -> Option<Note> {
        let text = "no network has a router (mode \"nat\" or \"routed\"), so [router] makes nothing";
        self.router_is_idle.then(|| Note { about: "router".to_owned(), text: text.to_owned() })
    }

    /// Whether the definition's file says something else by now.
    pub(super) fn file_changed(&self) -> bool {
        // By now it may be anything, a FIFO that nobody writes to for one.
        !self.origin.sent && read_text(&self.path).is_ok_and(|text| text != self.text)
    }

    /// Where the files are that the definition names.
    pub(super) fn files(&self) -> Files<'_> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        Files { folder, elsewhere: &self.origin.files, store: &self.store }
    }

    /// Where the lock file is.
    pub(super) fn lock_path(&self) -> PathBuf {
        self.path.with_extension("lock")
    }

    /// Writes the lock file where it differs; nothing is written for a lab that needs none.
    pub(super) fn write_lock(&self) -> Result<bool, Failure> {
        if self.lock == self.old_lock || self.origin.sent {
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

    /// Whether the lock file is word for word this.
    pub(super) fn lock_says(&self, text: &str) -> bool {
        read_text(&self.lock_path()).is_ok_and(|found| found == text)
    }

    /// Gives the lock file the text that it had; `None`: there was none.
    pub(super) fn put_lock_back(&self, text: Option<&str>) -> Result<(), Failure> {
        let path = self.lock_path();
        let done = text.map_or_else(|| remove_if_there(&path), |text| self.write_lock_text(text.as_bytes()));
        done.map_err(|error| Failure::failed(format!("{} can't be put back", path.display()), error))
    }

    /// Makes the lock file what it was before [`Source::write_lock`].
    pub(super) fn restore_lock(&self) -> Result<(), Failure> {
        match &self.old_lock_text {
            _ if self.lock == self.old_lock || self.origin.sent => Ok(()),
            text => self.put_lock_back(text.as_deref()),
        }
    }
}

fn parse_lock(path: &Path, text: &str) -> Result<Lock, Failure> {
    Lock::parse(text).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
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
