//! nftables tables: whose they are, and whether they still say what was written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use super::Scope;
use super::census::{Census, Rows};
use super::facts::find_tool;
use crate::kernel::nft::{self, Nft};
use crate::kernel::{netns, nftables};
use crate::mark::Mark;
use crate::names::NsName;
use crate::rule;
use crate::state::{Family, Ns, Table, TableId, Tool};

/// What is known of a table since it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The body that was written.
    pub body: String,
    /// The fingerprint of the kernel's listing right after it.
    pub fingerprint: String,
    /// The last commit when the listing was that; `None` when another tool was at work at the same time.
    pub commit: Option<Commit>,
}

/// A state of a namespace's ruleset: as long as it is the last, nothing has changed, and nothing need be listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The boot (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// The namespace's number.
    pub namespace: u64,
    /// The generation number in it.
    pub generation: u32,
}

impl Recorded {
    /// Records a table that was written right before. `None` when it can't be listed.
    pub fn take(nft: &Nft, id: &TableId, body: &str) -> Option<Self> {
        let commit = || {
            let own = netns::open(&id.ns).ok()?;
            let namespace = fs::File::from(own).metadata().ok()?.ino();
            let generation = netns::run_in(&id.ns, nftables::generation).ok()?.ok()?;
            Some(Commit { boot: boot()?, namespace, generation })
        };
        let before = commit();
        let fingerprint = nft::fingerprint(&nft.listing(id).ok()??);
        let unchanged = before.filter(|before| commit().as_ref() == Some(before));
        Some(Self { body: body.to_owned(), fingerprint, commit: unchanged })
    }
}

fn boot() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// The lab's.
    pub tables: BTreeMap<TableId, Table>,
    /// The host's others, as `family name`.
    pub foreign: BTreeSet<String>,
    /// Others in the router's namespace, in words.
    pub inside: BTreeSet<(NsName, String)>,
    /// What is known of those of the lab's that are as they were written.
    pub recorded: BTreeMap<TableId, Recorded>,
}

/// Sorts tables into ours and foreign, and compares ours with what was recorded.
pub(super) fn read(scope: &Scope, census: &Census) -> Tables {
    let nft = find_tool(Tool::Nft).map(|program| Nft::new(&program));
    let mut found = Tables::default();
    for (ns, rows) in &census.rows {
        for row in &rows.tables {
            let marked = row.comment.as_deref().is_some_and(|comment| Mark::is_of(comment, &scope.lab));
            let family = [Family::Inet, Family::Bridge].into_iter().find(|f| nft::protocol(*f) == row.family);
            let named = row.name == rule::router_namespace(&scope.lab).as_str();
            match family {
                // Nobody else has tables in a namespace of ours.
                Some(family) if named && (marked || *ns != Ns::Host) => {
                    let id = TableId { ns: ns.clone(), family, name: row.name.clone() };
                    let table = match compare(&id, scope.tables.get(&id), rows, nft.as_ref()) {
                        Ok(recorded) => {
                            let body = recorded.body.clone();
                            found.recorded.insert(id.clone(), recorded);
                            Table::Body(body)
                        }
                        Err(listing) => Table::Drifted(listing),
                    };
                    found.tables.insert(id, table);
                }
                _ if *ns == Ns::Host => {
                    let name = format!("{} {}", nft::family_word(row.family), row.name.escape_debug());
                    found.foreign.insert(name);
                }
                _ if ns.name() == Some(&rule::router_namespace(&scope.lab)) => {
                    let text = format!("table {} {}", nft::family_word(row.family), row.name.escape_debug());
                    found.inside.extend(ns.name().map(|ns| (ns.clone(), text)));
                }
                _ => {}
            }
        }
    }
    found
}

/// What is known of a table that is still as it was written: by the commit number, else by its listing. Of another
/// one, the listing.
fn compare(id: &TableId, known: Option<&Recorded>, rows: &Rows, nft: Option<&Nft>) -> Result<Recorded, String> {
    let now = rows.generation.and_then(|(namespace, generation)| Some(Commit { boot: boot()?, namespace, generation }));
    if let Some(known) = known.filter(|known| now.is_some() && now == known.commit) {
        return Ok(known.clone());
    }
    let listing = nft.and_then(|nft| nft.listing(id).ok()?).unwrap_or_default();
    match known.filter(|known| known.fingerprint == nft::fingerprint(&listing)) {
        // The listing is not older than the commit number, so a commit in between only costs one more listing.
        Some(known) => Ok(Recorded { commit: now, ..known.clone() }),
        None => Err(String::from_utf8_lossy(&listing).into_owned()),
    }
}
