//! [`Change`]: the record of a change while it is under way, or not confirmed: where a way back leads.
//!
//! It stands beside the ledger before the first thing is changed, and goes when the change is done, confirmed, or
//! fully undone. So where it stays, a change was interrupted, or waits to be confirmed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::store::{Unreadable, make_folders, parse_versioned, read_versioned};
use super::{Ledger, LedgerError, Progress, Room, VERSION, write_atomically};
use crate::names::{LabName, VmName};
use crate::paths::Paths;
use crate::state::HostState;

/// A change of a lab, and what was there before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    version: u32,
    /// By chance, so that no other change is taken for it.
    pub id: String,
    /// The lab.
    pub lab: LabName,
    /// What the user asked for: `create`, `boot`, …
    pub verb: String,
    /// The boot in which it began. After another one nothing of `before` is there any more.
    pub boot_id: String,
    /// When it began, in seconds since 1970.
    pub begun: u64,
    /// What the lab owned on the host.
    pub before: HostState,
    /// The guests that the change itself starts or stops.
    pub guests: BTreeSet<VmName>,
    /// The ledger as it was; `None`: there was none.
    pub old: Option<Ledger>,
    /// Until when it has to be confirmed; `None`: it need not be.
    pub confirm: Option<Deadline>,
}

/// Until when a change has to be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// How long that was, in seconds.
    pub seconds: u64,
    /// In seconds since 1970, for people.
    pub until: u64,
    /// In nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`): a clock that is set does not move it, and
    /// it means the time that people were told also where the machine slept.
    boottime: u64,
}

impl Deadline {
    /// So long from now.
    pub fn after(limit: Duration) -> Self {
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let boottime = now().saturating_add(nanos);
        Self { seconds: limit.as_secs(), until: unix_now().saturating_add(limit.as_secs()), boottime }
    }

    /// How long from now; zero when it has passed.
    pub fn left(&self) -> Duration {
        Duration::from_nanos(self.boottime.saturating_sub(now()))
    }

    /// Whether it has passed.
    pub fn has_passed(&self) -> bool {
        self.left().is_zero()
    }
}

/// Nanoseconds since boot.
fn now() -> u64 {
    // The clock is there since Linux 2.6.39 and can't be refused.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    time.ok().and_then(|time| u64::try_from(time.as_nanos()).ok()).unwrap_or_default()
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "told to people; what is decided by is the time since boot")]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// How a record that stands there is to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The change is under way, or was interrupted.
    Open,
    /// It waits to be confirmed, or for its time to pass.
    Unconfirmed,
    /// It was open or unconfirmed when the machine went down. All that counts of it is the old ledger.
    BeforeBoot,
}

impl Change {
    /// A change that begins now.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn begin(lab: &LabName, verb: &str, boot_id: &str, before: HostState) -> io::Result<Self> {
        Ok(Self {
            version: VERSION,
            id: fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned(),
            lab: lab.clone(),
            verb: verb.to_owned(),
            boot_id: boot_id.to_owned(),
            begun: unix_now(),
            before,
            guests: BTreeSet::new(),
            old: None,
            confirm: None,
        })
    }
}

/// A record from the bytes of its file.
///
/// # Errors
/// [`Unreadable`].
pub fn parse(bytes: &[u8]) -> Result<Change, Unreadable> {
    parse_versioned(bytes)
}

/// Where the record of a lab's change stands.
pub fn file(paths: &Paths, lab: &LabName) -> PathBuf {
    paths.ledger(lab).join("change.json")
}

/// The record of a lab's change, where one counts. One that stands beside a ledger that is applied has done its work,
/// unless it waits to be confirmed.
///
/// # Errors
/// [`LedgerError`] when it is there and can't be used.
pub fn read(
    paths: &Paths,
    lab: &LabName,
    ledger: Option<&Ledger>,
    boot_id: &str,
) -> Result<Option<(Standing, Change)>, LedgerError> {
    let path = file(paths, lab);
    let change = read_versioned::<Change>(&path).map_err(|error| match error {
        Unreadable::Io(source) => LedgerError::Io { what: "read", path, source },
        Unreadable::Damaged(source) => LedgerError::DamagedChange { path, source },
        Unreadable::Version(found) => LedgerError::Version { path, found },
    })?;
    let is_open = ledger.is_some_and(|ledger| ledger.progress == Progress::Changing);
    Ok(change.filter(|change| change.confirm.is_some() || is_open).map(|change| {
        let standing = match &change.confirm {
            _ if change.boot_id != boot_id => Standing::BeforeBoot,
            Some(_) => Standing::Unconfirmed,
            None => Standing::Open,
        };
        (standing, change)
    }))
}

/// Writes the record of a change that is about to begin; on disk when this returns.
///
/// # Errors
/// [`LedgerError::Io`].
pub fn write(paths: &Paths, change: &Change) -> Result<(), LedgerError> {
    let path = file(paths, &change.lab);
    let failed = |source| LedgerError::Io { what: "written", path: path.clone(), source };
    make_folders(paths, &change.lab).map_err(failed)?;
    let mut text = serde_json::to_vec(change).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    write_atomically(&path, &text, 0o600).map_err(failed)
}

/// Removes the record, there or not: the change is done, confirmed or undone.
///
/// # Errors
/// [`LedgerError::Io`].
pub fn end(paths: &Paths, lab: &LabName) -> Result<(), LedgerError> {
    let path = file(paths, lab);
    Room::give_up(paths, lab);
    let removed = match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // What was confirmed must not be undone after a power cut.
        Ok(()) => File::open(paths.ledger(lab)).and_then(|folder| folder.sync_all()),
        Err(error) => Err(error),
    };
    removed.map_err(|source| LedgerError::Io { what: "removed", path, source })
}

/// After a reboot: the ledger is again what it was before a change that was open or unconfirmed then.
///
/// # Errors
/// [`LedgerError::Io`].
pub fn settle(paths: &Paths, change: &Change) -> Result<(), LedgerError> {
    match &change.old {
        Some(old) => {
            super::write(paths, old)?;
            end(paths, &change.lab)
        }
        None => super::remove(paths, &change.lab),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(confirm: Option<Deadline>) -> (tempfile::TempDir, Paths, Change) {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths { state: folder.path().join("state"), run: folder.path().join("run") };
        let lab = "campus".parse().unwrap();
        let change = Change::begin(&lab, "create", "this boot", HostState::default()).unwrap();
        let change = Change { confirm, ..change };
        write(&paths, &change).unwrap();
        (folder, paths, change)
    }

    fn ledger(progress: Progress) -> Ledger {
        Ledger { progress, ..Ledger::new("campus".parse().unwrap(), "this boot".into()) }
    }

    fn standing(paths: &Paths, ledger: Option<&Ledger>, boot: &str) -> Option<Standing> {
        read(paths, &"campus".parse().unwrap(), ledger, boot).unwrap().map(|(standing, _)| standing)
    }

    #[test]
    fn a_record_counts_while_its_change_is_open_or_unconfirmed() {
        let (changing, applied) = (ledger(Progress::Changing), ledger(Progress::Applied));
        let (_folder, paths, _) = begun(None);
        assert_eq!(standing(&paths, None, "this boot"), None);
        assert_eq!(standing(&paths, Some(&applied), "this boot"), None);
        assert_eq!(standing(&paths, Some(&changing), "this boot"), Some(Standing::Open));
        assert_eq!(standing(&paths, Some(&changing), "another"), Some(Standing::BeforeBoot));
        let (_folder, paths, change) = begun(Some(Deadline::after(Duration::from_secs(60))));
        assert_eq!(standing(&paths, None, "this boot"), Some(Standing::Unconfirmed));
        assert_eq!(standing(&paths, Some(&applied), "this boot"), Some(Standing::Unconfirmed));
        assert_eq!(standing(&paths, Some(&applied), "another"), Some(Standing::BeforeBoot));
        assert_eq!(read(&paths, &change.lab, None, "this boot").unwrap().unwrap().1, change);
        end(&paths, &change.lab).unwrap();
        end(&paths, &change.lab).unwrap();
        assert_eq!(standing(&paths, Some(&changing), "this boot"), None);
    }

    #[test]
    fn a_damaged_record_is_never_guessed_at() {
        let (_folder, paths, change) = begun(None);
        let path = file(&paths, &change.lab);
        for text in ["", "{", "{\"version\":1}", "[]", "{\"version\":1,\"more\":2}"] {
            fs::write(&path, text).unwrap();
            let error = read(&paths, &change.lab, None, "this boot").unwrap_err();
            assert!(matches!(error, LedgerError::DamagedChange { .. }), "{text}: {error}");
        }
        fs::write(&path, "{\"version\":2}").unwrap();
        let error = read(&paths, &change.lab, None, "this boot").unwrap_err();
        assert!(matches!(error, LedgerError::Version { found: 2, .. }), "{error}");
    }

    #[test]
    fn a_deadline_passes() {
        let deadline = Deadline::after(Duration::from_millis(20));
        assert!(!deadline.has_passed());
        std::thread::sleep(Duration::from_millis(30));
        assert!(deadline.has_passed());
        assert!(Deadline::after(Duration::from_secs(u64::MAX)).left() > Duration::from_secs(1 << 32));
    }
}
