//! What is remembered of a running guest: its process, and what it was started from.
//!
//! The record stands beside the guest's folder and belongs to root: a guest that broke out of QEMU can't make vmnet
//! signal another process.

use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::EngineError;
use super::keeper::Keeper;
use super::process::{self, Process};
use crate::names::{LabName, VmName};
use crate::paths::Paths;
use crate::state::QemuGuest;

/// The form that this program writes, and the only one it reads.
const VERSION: u32 = 1;

/// The longest record, in bytes: a guest's arguments and seed are a part of it.
const LARGEST: u64 = 64 << 20;

/// A record on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<R> {
    version: u32,
    running: R,
}

/// Why a text is no record.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not what vmnet writes.
    #[error("it is damaged")]
    Damaged(#[source] serde_json::Error),
    /// Another version of vmnet wrote it.
    #[error("it has version {0}, this vmnet reads {VERSION}")]
    Version(u64),
}

/// A record from the bytes of its file. It is never guessed at: a wrong guess would signal the wrong process.
///
/// # Errors
/// [`Unreadable`].
pub fn parse(bytes: &[u8]) -> Result<Running, Unreadable> {
    // The version comes first: a newer form need not parse.
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(Unreadable::Damaged)?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(found) if found != u64::from(VERSION) => Err(Unreadable::Version(found)),
        _ => serde_json::from_value(value).map(|Form { version: _, running }| running).map_err(Unreadable::Damaged),
    }
}

/// A guest that runs, as recorded at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The guest.
    pub vm: VmName,
    /// QEMU's process.
    pub pid: i32,
    /// When that process was started, in clock ticks since boot.
    pub started: u64,
    /// What it was started from; equal to what a plan wants unless the definition changed.
    pub guest: QemuGuest,
    /// What keeps its console's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<Keeper>,
}

impl Running {
    /// Its process; `None` when it has ended.
    pub fn process(&self) -> Option<Process> {
        Process::open(self.pid, self.started)
    }

    /// How long it has been running.
    pub fn age(&self) -> Duration {
        process::age(self.started)
    }
}

/// The record of the guest whose run folder is `run_dir`.
fn place(run_dir: &Path) -> PathBuf {
    // Guest names have no dots, so no folder of another guest can have this name.
    run_dir.with_extension("json")
}

/// The guests of a lab that run, by name. Records of guests that have ended are passed over.
pub fn running(paths: &Paths, lab: &LabName) -> Result<Vec<Running>, EngineError> {
    let folder = paths.lab_run(lab).join("guests");
    let fail = |source| EngineError::File { action: "list", path: folder.clone(), source };
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            all.extend(read(&path)?.filter(|record| record.process().is_some()));
        }
    }
    all.sort_by(|a, b| a.vm.cmp(&b.vm));
    Ok(all)
}

/// The record of the guest whose run folder is `run_dir`, when it runs.
pub fn running_in(run_dir: &Path) -> Result<Option<Running>, EngineError> {
    Ok(read(&place(run_dir))?.filter(|record| record.process().is_some()))
}

fn read(path: &Path) -> Result<Option<Running>, EngineError> {
    let fail = |source| EngineError::File { action: "read", path: path.to_owned(), source };
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match std::fs::File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(fail(source)),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(fail)?;
    parse(&bytes).map(Some).map_err(|source| EngineError::Record { path: path.to_owned(), source })
}

/// Writes the record of a guest that has just been started. Its folders are there.
pub(super) fn write(record: &Running) -> Result<(), EngineError> {
    let path = place(&record.guest.run_dir);
    let put = || -> io::Result<()> {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600))?;
        // In one piece: the file has no buffer.
        file.write_all(&serde_json::to_vec(&Form { version: VERSION, running: record })?)?;
        file.flush()?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(())
    };
    put().map_err(|source| EngineError::File { action: "write", path: path.clone(), source })
}

/// Removes the record of a guest that has ended.
pub(super) fn remove(run_dir: &Path) -> Result<(), EngineError> {
    let path = place(run_dir);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(EngineError::File { action: "remove", path, source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_a_version_and_another_one_is_not_guessed_at() {
        let guest = serde_json::json!({ "version": 2, "running": "something new" }).to_string();
        assert!(matches!(parse(guest.as_bytes()), Err(Unreadable::Version(2))));
        for damaged in ["", "{}", "{\"version\": 1}", "{\"version\": \"1\", \"running\": {}}"] {
            assert!(matches!(parse(damaged.as_bytes()), Err(Unreadable::Damaged(_))), "{damaged}");
        }
    }
}
