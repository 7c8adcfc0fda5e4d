//! `vmnet image prune`: takes away what was downloaded or sent and nothing on this host needs.

use std::process::ExitCode;
use std::time::Duration;

use indicatif::BinaryBytes;
use serde::Serialize;

use super::list::short;
use super::usage::Usage;
use crate::commands::failure::Failure;
use crate::commands::output::{GOOD, Output, count};
use crate::commands::session::paths;
use crate::images;
use crate::ledger::ChangeLock;
use crate::names::FileDigest;

/// How long to wait for a change of another command.
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Serialize)]
struct Report {
    dry_run: bool,
    removed: Vec<Removed>,
    /// How many stay.
    kept: usize,
    /// Bytes that became free.
    freed: u64,
}

#[derive(Serialize)]
struct Removed {
    digest: FileDigest,
    /// Bytes.
    size: u64,
    /// Its download was not finished.
    unfinished: bool,
}

/// `vmnet image prune`
pub(in crate::commands) fn prune(dry_run: bool, output: &Output) -> Result<ExitCode, Failure> {
    let paths = paths()?;
    // Nobody creates a lab meanwhile that needs what goes.
    let lock = match dry_run {
        true => None,
        false => Some(ChangeLock::take(&paths, "image prune", LIMIT, |holder| output.waits_for(holder))?),
    };
    let usage = Usage::look(&paths)?;
    if let Some(lab) = usage.unknown.first() {
        let help = format!("vmnet status {lab} says what is wrong with it; vmnet destroy {lab} ends it");
        return Err(Failure::advised(
            format!("the ledger of lab {lab} can't be read, so what it needs is not known; nothing was removed"),
            help,
        ));
    }
    let failed = |error| Failure::failed(format!("{} can't be read", paths.files().display()), error);
    let mut report = Report { dry_run, removed: Vec::new(), kept: 0, freed: 0 };
    for entry in images::entries(&paths).map_err(failed)? {
        let is_needed = !entry.is_part && usage.needs(&entry.path, &entry.digest);
        let goes = !is_needed && (dry_run || removed(&entry)?);
        if goes {
            report.freed += entry.size;
            let (digest, size, unfinished) = (entry.digest, entry.size, entry.is_part);
            report.removed.push(Removed { digest, size, unfinished });
        } else {
            report.kept += 1;
        }
    }
    drop(lock);
    output.result(&report, || text(&report))?;
    Ok(ExitCode::SUCCESS)
}

fn removed(entry: &images::Entry) -> Result<bool, Failure> {
    images::remove(entry).map_err(|error| Failure::failed("not all of it was removed", error))
}

fn text(report: &Report) -> String {
    let Report { dry_run, removed, kept, freed } = report;
    if removed.is_empty() {
        return format!("nothing to remove; {} in use\n", count(*kept, "file"));
    }
    let would = if *dry_run { "would be removed" } else { "removed" };
    let line = |Removed { digest, size, unfinished }: &Removed| {
        let what = if *unfinished { "unfinished " } else { "" };
        format!("{GOOD}{would}{GOOD:#}: {what}{} ({})\n", short(digest), BinaryBytes(*size))
    };
    let lines: String = removed.iter().map(line).collect();
    format!("{lines}{}, {}; {} in use\n", count(removed.len(), "file"), BinaryBytes(*freed), count(*kept, "file"))
}
