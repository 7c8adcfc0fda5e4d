//! `vmnet undo`: back to what was there before a change that is not confirmed, or was interrupted.

use std::process::ExitCode;
use std::time::Instant;

use serde::Serialize;

use super::confirm::unless_another;
use super::failure::Failure;
use super::lookup;
use super::output::{GOOD, Output, count};
use super::session::Session;
use super::standing::{clock, undone};

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    /// What was undone: `create`, `boot`, …
    verb: &'a str,
    /// Operations of the way back.
    changes: usize,
    seconds: f64,
}

pub(super) async fn run(argument: &str, output: &Output) -> Result<ExitCode, Failure> {
    let begun = Instant::now();
    let lab = lookup::lab_with_change(argument)?;
    let mut session = Session::ending(&lab, "undo", output)?;
    let Some((_, change)) = session.pending.take() else {
        let undone = undone(&lab).map(|undone| format!(" (its last {undone})")).unwrap_or_default();
        let nothing = format!(
            "there is nothing to undo for lab {lab}: no change of it is unconfirmed or was interrupted{undone}"
        );
        return Err(unless_another(nothing, "undo", |_| true));
    };
    let (changes, _) = session.go_back(&change, output).await?;
    let seconds = begun.elapsed().as_secs_f64();
    output.result(&Report { lab: lab.as_str(), verb: &change.verb, changes, seconds }, || {
        let since = match change.old {
            Some(_) => format!("it is as it was before {} of {}", change.verb, clock(change.begun)),
            None => "nothing of it is left".to_owned(),
        };
        format!("lab {lab}: {GOOD}undone{GOOD:#}, {} in {seconds:.2} s; {since}\n", count(changes, "change"))
    })?;
    Ok(ExitCode::SUCCESS)
}
