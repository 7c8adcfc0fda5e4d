//! `vmnet store`: what a coordinator asks a host about files, and hands to it. No verb for people.

use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::output::Output;
use super::session::paths;
use crate::ledger::files;
use crate::names::FileDigest;

#[derive(Serialize)]
struct HasReport<'a> {
    missing: Vec<&'a FileDigest>,
}

#[derive(Serialize)]
struct TakeReport<'a> {
    digest: &'a FileDigest,
    /// False where it was there already.
    taken: bool,
}

/// `vmnet store has`
pub(super) fn has(digests: &[FileDigest], output: &Output) -> Result<ExitCode, Failure> {
    let paths = paths()?;
    let mut missing = Vec::new();
    for digest in digests {
        if !files::has(&paths, digest)? {
            missing.push(digest);
        }
    }
    let lines = || missing.iter().map(|digest| format!("{digest}\n")).collect();
    let report = HasReport { missing: missing.clone() };
    output.result(&report, lines)?;
    Ok(ExitCode::SUCCESS)
}

/// `vmnet store take`
pub(super) fn take(digest: &FileDigest, size: u64, output: &Output) -> Result<ExitCode, Failure> {
    let came = |done| output.progress("receiving", done, size);
    let taken = files::take(&paths()?, digest, size, std::io::stdin().lock(), came)
        .map_err(|error| Failure::failed(format!("{digest} was not taken"), error))?;
    output.result(&TakeReport { digest, taken }, String::new)?;
    Ok(ExitCode::SUCCESS)
}
