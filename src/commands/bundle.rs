//! [`Bundle`]: a definition on its way to another host, with its lock file and where its files are there.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use crate::names::{FileDigest, LabName};

/// Twice what a definition may have: in JSON some characters are two.
const LARGEST: u64 = 32 << 20;

/// What a host gets on its standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bundle {
    /// The vmnet that made it.
    pub(super) version: String,
    /// The file, absolute, where it was made.
    pub(super) path: PathBuf,
    /// The definition's text.
    pub(super) definition: String,
    /// The lock file's text, with all that was chosen.
    pub(super) lock: String,
    /// What is in the files, by what the definition says: the host that gets it has them by that.
    pub(super) files: BTreeMap<String, FileDigest>,
    /// Every guest is to be a namespace.
    pub(super) rehearsed: bool,
    /// The lab's name, where it is not the one that the definition says.
    pub(super) alias: Option<LabName>,
}

impl Bundle {
    /// What stands on the command line for it.
    pub(super) const ARGUMENT: &str = "-";

    /// From standard input. One of another version is refused: it may mean something else.
    pub(super) fn read() -> Result<Self, Failure> {
        let mut text = Vec::new();
        let read = std::io::stdin().lock().take(LARGEST).read_to_end(&mut text);
        read.map_err(|error| Failure::failed("standard input can't be read", error))?;
        let no_bundle = |error: serde_json::Error| {
            Failure::Usage(format!("what standard input holds was not sent by vmnet: {error}; name a definition"))
        };
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(no_bundle)?;
        let (own, other) = (env!("CARGO_PKG_VERSION"), value["version"].as_str().unwrap_or_default());
        if own != other && !other.is_empty() {
            let help = "install one version on all hosts";
            return Err(Failure::advised(format!("vmnet {other} sent this, and here is vmnet {own}"), help));
        }
        serde_json::from_value(value).map_err(no_bundle)
    }
}
