//! Guests that libvirt runs: the domain that is defined for a guest, and the one that runs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ForeignNic, Kept, Link, Overlay};
use crate::names::{IfName, LabName};

/// What libvirt has defined for a guest, running or not.
///
/// Two are the same when they were made of the same text: what libvirt shows is that text with its own additions.
#[derive(Debug, Clone, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// The digest of what it was made of, which it carries in its metadata.
    pub made: String,
    /// Whether libvirt starts it when the host boots.
    pub autostart: bool,
    /// Its XML, to define it or to define it again.
    pub xml: String,
}

impl PartialEq for Domain {
    fn eq(&self, other: &Self) -> bool {
        let Self { made, autostart, xml: _ } = self;
        (made, autostart) == (&other.made, &other.autostart)
    }
}

/// A domain that runs, or everything that its start needs.
///
/// Two are the same when they were made of the same text, see [`Domain`].
#[derive(Debug, Clone, Eq, Serialize, Deserialize)]
pub struct LibvirtGuest {
    /// The lab that its metadata name.
    pub lab: LabName,
    /// The domain's name.
    pub name: String,
    /// The digest of what it was made of.
    pub made: String,
    /// The TAPs that libvirt makes for it, in nic order, as they shall be.
    pub taps: Vec<(IfName, Link)>,
    /// What libvirt has defined, or shall have; `None` for one that is gone when it is off.
    pub domain: Option<Domain>,
    /// What is to be made before it starts; `None` where it is there.
    pub files: Option<LibvirtFiles>,
}

impl PartialEq for LibvirtGuest {
    fn eq(&self, other: &Self) -> bool {
        (&self.lab, &self.made) == (&other.lab, &other.made)
    }
}

/// Disk and seed of a guest that libvirt runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibvirtFiles {
    /// The user that libvirt runs QEMU as.
    pub user: String,
    /// The guest's folder below the state directory; made for that user, 0700.
    pub state_dir: PathBuf,
    /// The overlay to make when it does not exist.
    pub disk: Option<Overlay>,
    /// The files of the seed (name and text), written to `seed.img` at each start.
    pub seed: Vec<(String, String)>,
    /// UEFI variables and further disks to make when they do not exist.
    #[serde(default)]
    pub kept: Kept,
}

/// What came of asking libvirt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "libvirt", rename_all = "kebab-case")]
pub enum Libvirt {
    /// Nobody asked: the lab has nothing to do with it.
    #[default]
    NotAsked,
    /// It answered.
    Answers,
    /// It was asked in vain.
    Silent {
        /// Why.
        why: String,
        /// What to do about it, as a sentence without a full stop.
        help: Option<String>,
    },
}

impl Libvirt {
    /// Nobody asked.
    pub fn is_not_asked(&self) -> bool {
        *self == Self::NotAsked
    }

    /// Why it said nothing, with what to do about it; `None` where it was not asked, or answered.
    pub fn silence(&self) -> Option<String> {
        let Self::Silent { why, help } = self else { return None };
        Some(help.as_ref().map_or_else(|| why.clone(), |help| format!("{why}; {help}")))
    }
}

/// A domain that is not a guest of the lab's, and may stand where one shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignDomain {
    /// Its name; untrusted.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Whether somebody made it of what `vmnet xml` printed for a guest of the lab's.
    pub by_hand: bool,
    /// Its interfaces, those that it has now and those that it is defined with.
    #[serde(default)]
    pub nics: Vec<ForeignNic>,
}
