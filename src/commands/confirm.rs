//! `vmnet confirm`: what `create --confirm` made stays.

use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::lookup;
use super::output::{GOOD, Output};
use super::session::{Session, boot_id, paths};
use super::standing::{clock, undone};
use crate::ledger::change::{self, Change, Standing};
use crate::ledger::{self, Progress};
use crate::names::LabName;

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    /// What was confirmed: `create`.
    verb: &'a str,
}

pub(super) fn run(argument: &str, output: &Output) -> Result<ExitCode, Failure> {
    let lab = lookup::lab(argument)?;
    // Whoever comes in time does not lose by waiting for the lock.
    let in_time = is_in_time(&lab)?;
    let session = Session::ending(&lab, "confirm")?;
    let Some((Standing::Unconfirmed, Change { verb, confirm: Some(deadline), .. })) = &session.pending else {
        return Err(nothing(&lab));
    };
    if session.ledger.progress == Progress::Changing || !session.is_known {
        return Err(Failure::because(format!(
            "{verb} of lab {lab} was interrupted, so there is nothing whole to keep; run vmnet undo {lab} to go back \
             now; it is undone at {} otherwise",
            clock(deadline.until)
        )));
    }
    if !in_time && deadline.has_passed() {
        return Err(Failure::because(format!(
            "the time to confirm {verb} of lab {lab} ended at {}: it is being undone (vmnet undo {lab} does it now, if \
             nobody does)",
            clock(deadline.until)
        )));
    }
    change::end(&session.paths, &lab)?;
    output.result(&Report { lab: lab.as_str(), verb }, || format!("lab {lab}: {GOOD}confirmed{GOOD:#}, it stays\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn is_in_time(lab: &LabName) -> Result<bool, Failure> {
    let paths = paths()?;
    let ledger = ledger::read(&paths, lab)?;
    let change = change::read(&paths, lab, ledger.as_ref(), &boot_id()?)?;
    Ok(change.and_then(|(_, change)| change.confirm).is_some_and(|deadline| !deadline.has_passed()))
}

fn nothing(lab: &LabName) -> Failure {
    Failure::because(match undone(lab) {
        Some(undone) => format!("there is nothing to confirm for lab {lab}: its last {undone}; run it again"),
        None => format!("there is nothing to confirm for lab {lab}: no change of it waits for that"),
    })
}
