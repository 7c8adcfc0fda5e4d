//! Reading, writing and removing a lab's ledger.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::{Ledger, VERSION};
use crate::names::LabName;
use crate::paths::{Paths, unfinished};

/// A ledger is a definition and a few lines; one beyond this is not ours.
const LARGEST: u64 = 64 << 20;

/// Why a ledger can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The disk refuses.
    #[error("the ledger {} can't be {what}", path.display())]
    Io {
        /// `read`, `written`, `removed` or `reached`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what vmnet writes. It is never guessed at: a wrong guess would remove the wrong things.
    #[error(
        "the ledger {} is damaged; move it away, then `vmnet destroy {}` works from the marks on the objects",
        path.display(),
        lab_of(path)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A folder of vmnet's that somebody else could change, or that leads elsewhere.
    #[error(
        "{} is not a folder that vmnet can trust: {problem}; look at it and move it away, or make it root's own (chown root:root, chmod go-w)",
        path.display()
    )]
    Untrusted {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The record of a change is not what vmnet writes: where its way back leads is not known.
    #[error(
        "the record of a change {} is damaged, so where its way back leads is not known; move it away, then \
         `vmnet create` makes the lab as its definition says, or `vmnet destroy` removes it",
        path.display()
    )]
    DamagedChange {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Another version of vmnet wrote it.
    #[error("the ledger {} has version {found}, this vmnet reads {VERSION}; use the vmnet that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u64,
    },
}

impl LedgerError {
    /// Whether the reason is a missing permission.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Whether the disk has no room, or the user's share of it has none.
    pub fn is_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Io { source, .. } if full.contains(&source.kind()))
    }
}

/// Why a file of JSON can't be used.
#[derive(Debug)]
pub enum Unreadable {
    /// It can't be read.
    Io(io::Error),
    /// It is not what vmnet writes.
    Damaged(serde_json::Error),
    /// Another version of vmnet wrote it.
    Version(u64),
}

/// Reads a file that has a version; `None` where there is none. No link is followed.
pub(super) fn read_versioned<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Unreadable> {
    let opened = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Unreadable::Io(error)),
    };
    let mut text = Vec::new();
    opened.take(LARGEST).read_to_end(&mut text).map_err(Unreadable::Io)?;
    parse_versioned(&text).map(Some)
}

/// What the bytes of such a file say.
pub(super) fn parse_versioned<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    // The version comes first: a newer form need not parse.
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(Unreadable::Damaged)?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(found) if found != u64::from(VERSION) => Err(Unreadable::Version(found)),
        _ => serde_json::from_value(value).map_err(Unreadable::Damaged),
    }
}

/// The lab whose ledger stands at a path, for a message.
fn lab_of(path: &Path) -> String {
    let folder = path.parent().and_then(Path::parent).and_then(Path::file_name).unwrap_or_default();
    folder.to_string_lossy().escape_debug().to_string()
}

/// A ledger from the bytes of its file.
///
/// # Errors
/// [`Unreadable`].
pub fn parse(bytes: &[u8]) -> Result<Ledger, Unreadable> {
    parse_versioned(bytes)
}

pub(super) fn file(paths: &Paths, lab: &LabName) -> PathBuf {
    paths.ledger(lab).join("ledger.json")
}

/// The ledger of a lab; `None` where there is none.
///
/// # Errors
/// [`LedgerError`] when it is there and can't be used.
pub fn read(paths: &Paths, lab: &LabName) -> Result<Option<Ledger>, LedgerError> {
    let path = file(paths, lab);
    read_versioned(&path).map_err(|error| match error {
        Unreadable::Io(source) => LedgerError::Io { what: "read", path, source },
        Unreadable::Damaged(source) => LedgerError::Damaged { path, source },
        Unreadable::Version(found) => LedgerError::Version { path, found },
    })
}

/// Writes a lab's ledger: the old one or the new one is there at any moment.
///
/// # Errors
/// [`LedgerError::Io`].
pub fn write(paths: &Paths, ledger: &Ledger) -> Result<(), LedgerError> {
    let path = file(paths, &ledger.lab);
    let failed = |source| LedgerError::Io { what: "written", path: path.clone(), source };
    make_folders(paths, &ledger.lab).map_err(failed)?;
    let mut text = serde_json::to_vec_pretty(ledger).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    write_atomically(&path, &text, 0o600).map_err(failed)
}

/// Removes a lab's ledger, and its folder where nothing else (no disk) is in it.
///
/// # Errors
/// [`LedgerError::Io`].
pub fn remove(paths: &Paths, lab: &LabName) -> Result<(), LedgerError> {
    let folder = paths.ledger(lab);
    let failed = |source| LedgerError::Io { what: "removed", path: folder.clone(), source };
    // The ledger goes first: a record of a change without it leads back, a ledger without its record would count.
    for gone in [fs::remove_file(file(paths, lab)), fs::remove_dir_all(&folder)] {
        match gone {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    for folder in [paths.lab_state(lab).join("guests"), paths.lab_state(lab)] {
        // Disks are in it.
        let _ = fs::remove_dir(folder);
    }
    if has_no_lab(paths) {
        // What is known of images is found out again for the next lab. Downloads stay, for `image prune`.
        let _ = fs::remove_file(paths.digests());
        let _ = fs::remove_dir(paths.files());
    }
    // There are other labs; or a private root that the caller made, which may be a mount point or in a folder that is
    // not ours.
    let _ = fs::remove_dir(&paths.state);
    Ok(())
}

/// Nothing of any lab is here, not even disks.
fn has_no_lab(paths: &Paths) -> bool {
    let files = paths.files();
    fs::read_dir(&paths.state)
        .is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|entry| entry.path() == files)))
}

/// The labs that have a ledger here.
///
/// # Errors
/// [`LedgerError::Io`] when the state folder can't be read.
pub fn labs(paths: &Paths) -> Result<Vec<LabName>, LedgerError> {
    let failed = |source| LedgerError::Io { what: "read", path: paths.state.clone(), source };
    let entries = match fs::read_dir(&paths.state) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut labs = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let lab = name.to_str().and_then(|name| name.parse::<LabName>().ok());
        labs.extend(lab.filter(|lab| file(paths, lab).exists()));
    }
    labs.sort();
    Ok(labs)
}

/// This boot's identity.
///
/// # Errors
/// When `/proc` is not there.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The folder of a lab's ledger, and those above it.
pub(super) fn make_folders(paths: &Paths, lab: &LabName) -> io::Result<()> {
    make_folder(&paths.state, 0o711)?;
    make_folder(&paths.lab_state(lab), 0o711)?;
    make_folder(&paths.ledger(lab), 0o700)
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().mode(0o755).recursive(true).create(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
        }
        Err(error) => Err(error),
    }
}

/// Replaces a file by rename, after its text has reached the disk.
///
/// # Errors
/// What the disk says; the old file is untouched then, and nothing half-written stays. Only when the folder can't be
/// synced is the new one there already.
pub fn write_atomically(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    write_atomically_for(path, text, mode, None)
}

/// As [`write_atomically`]; the file is given to a user and a group by number, where that is allowed.
///
/// # Errors
/// When any of it fails but the giving.
pub fn write_atomically_for(path: &Path, text: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = unfinished(path);
    let written = write_beside(&beside, text, mode, owner).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        // If this fails too, the next one to write replaces it.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

/// The file under its name while it is not finished; what a crash left there goes.
fn write_beside(beside: &Path, text: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
    file.write_all(text)?;
    // Not by the mode of the opening call: the umask would narrow it.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    let is_other = |metadata: fs::Metadata, (uid, gid)| (metadata.uid(), metadata.gid()) != (uid, gid);
    if let Some((uid, gid)) = owner.filter(|owner| file.metadata().is_ok_and(|metadata| is_other(metadata, *owner))) {
        // By the descriptor: nobody else's file is ever given away. Some file systems know no owners.
        let _ = std::os::unix::fs::fchown(&file, Some(uid), Some(gid));
    }
    file.sync_all()
}
