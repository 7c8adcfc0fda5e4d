//! What vmnet remembers on disk about an applied lab: ledger, the record of a change that is under way, and the lock
//! that one change at a time holds.
//!
//! The ledger holds the definition as applied, so `destroy` needs no file; it is replaced by rename after fsync and
//! never guessed at when it is damaged.

pub mod change;
pub mod files;
mod ground;
mod lock;
mod room;
mod store;
mod undone;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use ground::check_folders;
pub use lock::{ChangeLock, LockError};
pub use room::Room;
pub use store::{
    LedgerError, Unreadable, boot_id, labs, parse, read, remove, write, write_atomically, write_atomically_for,
};
pub use undone::Undone;

use crate::names::{HostName, LabName};
use crate::observe::Recorded;
use crate::plan::Found;
use crate::state::{SettingKey, TableId};

/// The form that this program writes, and the only one it reads.
const VERSION: u32 = 1;

/// One lab as it was applied on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    version: u32,
    /// The lab.
    pub lab: LabName,
    /// The boot (`/proc/sys/kernel/random/boot_id`) in which it was applied: after another boot the kernel objects
    /// are gone, whatever stands here.
    pub boot_id: String,
    /// How far the last change came.
    pub progress: Progress,
    /// The definition's text as applied.
    pub definition: String,
    /// Where the definition's file was.
    pub path: PathBuf,
    /// The lock file's text that went with it.
    pub lock: String,
    /// What came with the definition.
    #[serde(default, skip_serializing_if = "Origin::is_plain")]
    pub origin: Origin,
    /// What stood in settings that were changed.
    #[serde(with = "found")]
    pub found: Found,
    /// The nftables tables as the kernel listed them right after they were applied.
    #[serde(with = "tables")]
    pub tables: BTreeMap<TableId, Recorded>,
}

/// What came with a definition that is more than a file on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The host whose part this is, where the definition names hosts.
    pub here: Option<HostName>,
    /// It came from another host: nothing stands at its path here.
    pub sent: bool,
    /// Where the files are that came with it, by what the definition says.
    pub files: BTreeMap<String, PathBuf>,
    /// Every guest is a namespace, whatever the definition says of its engine.
    pub rehearsed: bool,
    /// The name that the lab has instead of the one which its definition says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<LabName>,
    /// Where the home is of who created it, where the definition names files in it (`~/`). Whoever starts its guests later,
    /// systemd at the host's start for one, has another home or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<PathBuf>,
}

impl Origin {
    /// A file of this host, and all of it.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// How far a change came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// A change began; it is not known how far it came.
    Changing,
    /// Applied and read back.
    Applied,
}

impl Ledger {
    /// Whether it is only that of a removal: of a lab whose own ledger was gone, and that was being removed by its
    /// marks.
    pub fn is_of_leftovers(&self) -> bool {
        self.definition.is_empty()
    }

    /// A ledger of a lab about to be applied for the first time.
    pub fn new(lab: LabName, boot_id: String) -> Self {
        Self {
            version: VERSION,
            lab,
            boot_id,
            progress: Progress::Changing,
            definition: String::new(),
            path: PathBuf::new(),
            lock: String::new(),
            origin: Origin::default(),
            found: Found::new(),
            tables: BTreeMap::new(),
        }
    }
}

/// Maps whose keys are no strings, as lists of pairs.
macro_rules! pair_list {
    ($module:ident, $key:ty, $value:ty) => {
        mod $module {
            use std::collections::BTreeMap;

            use serde::{Deserialize, Deserializer, Serializer};

            pub(super) fn serialize<S: Serializer>(
                map: &BTreeMap<$key, $value>,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(map)
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<BTreeMap<$key, $value>, D::Error> {
                Ok(Vec::<($key, $value)>::deserialize(deserializer)?.into_iter().collect())
            }
        }
    };
}

pair_list!(found, super::SettingKey, String);
pair_list!(tables, super::TableId, super::Recorded);
