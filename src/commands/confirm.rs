//! `vmnet confirm`: what `create --confirm` made stays.

use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::lookup;
use super::output::{GOOD, Output};
use super::session::{Session, boot_id, paths};
use super::standing::{undone, waiting};
use crate::ledger;
use crate::ledger::change::{self, Standing};
use crate::names::LabName;

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    /// What was confirmed: `create`.
    verb: &'a str,
}

pub(super) fn run(argument: &str, output: &Output) -> Result<ExitCode, Failure> {
    let lab = lookup::lab_with_change(argument)?;
    // Whoever comes in time does not lose by waiting for the lock.
    let in_time = is_in_time(&lab)?;
    let session = Session::ending(&lab, "confirm", output)?;
    let Some((Standing::Unconfirmed, change)) = &session.pending else { return Err(nothing(&lab)) };
    let is_late = !in_time && change.confirm.is_some_and(|deadline| deadline.has_passed());
    if !session.is_whole() || is_late {
        let (state, remedy) = waiting(change, &session);
        return Err(Failure::advised(format!("lab {lab}: {state}"), remedy));
    }
    let verb = &change.verb;
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

/// That there is nothing to be done, and which labs may be meant.
pub(super) fn unless_another(nothing: String, verb: &str, is_meant: impl Fn(Standing) -> bool) -> Failure {
    let labs = lookup::labs_with_change(is_meant).unwrap_or_default();
    if labs.is_empty() {
        return Failure::because(nothing);
    }
    let each: Vec<String> = labs.iter().map(|lab| format!("vmnet {verb} {lab}")).collect();
    Failure::advised(nothing, format!("where another lab is meant: {}", each.join(", ")))
}

fn nothing(lab: &LabName) -> Failure {
    let nothing = format!("there is nothing to confirm for lab {lab}");
    if let Some(undone) = undone(lab) {
        return Failure::advised(format!("{nothing}: its last {undone}"), "run it again");
    }
    let nothing = format!("{nothing}: no change of it waits for that");
    unless_another(nothing, "confirm", |standing| standing == Standing::Unconfirmed)
}
