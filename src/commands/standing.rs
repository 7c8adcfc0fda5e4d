//! How a lab stands: a change that is open, not confirmed or was undone, or a boot since.

use std::time::Duration;

use serde::Serialize;

use super::failure::Failure;
use super::output::WARN;
use super::session::{Session, boot_id, paths};
use crate::ledger::change::{Change, Standing};
use crate::ledger::{Ledger, Undone};
use crate::names::LabName;

/// What `status` says of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Applied in an earlier boot: nothing of it is there until `restore`.
    stale: bool,
    /// A change that is not done.
    change: Option<ChangeReport>,
    /// The last change, where it was undone since nobody confirmed it.
    undone: Option<UndoneReport>,
}

#[derive(Debug, Serialize)]
struct ChangeReport {
    verb: String,
    begun: u64,
    state: &'static str,
    until: Option<u64>,
    #[serde(skip)]
    text: String,
}

#[derive(Debug, Serialize)]
struct UndoneReport {
    verb: String,
    at: u64,
    error: Option<String>,
}

impl Report {
    /// How the lab of a session stands; `ledger` is as it is on disk.
    pub(super) fn of(session: &Session, ledger: &Ledger) -> Result<Self, Failure> {
        let change = session.pending.as_ref().map(|(standing, change)| ChangeReport {
            verb: change.verb.clone(),
            begun: change.begun,
            state: match standing {
                Standing::Open => "open",
                Standing::Unconfirmed => "unconfirmed",
                Standing::BeforeBoot => "before-boot",
            },
            until: change.confirm.map(|deadline| deadline.until),
            text: in_words(*standing, change, session),
        });
        let undone = Undone::read(&session.paths, &session.lab);
        let undone = undone.map(|Undone { id: _, verb, at, error }| UndoneReport { verb, at, error });
        Ok(Self { stale: ledger.boot_id != boot_id()?, change, undone })
    }

    /// Whether a change is not done, and the record of it is there.
    pub(super) fn has_change(&self) -> bool {
        self.change.is_some()
    }

    /// In sentences for people, one a line.
    pub(super) fn text(&self, lab: &str) -> String {
        let mut lines = Vec::new();
        if let Some(UndoneReport { verb, at, error }) = &self.undone {
            lines.push(undone_text(verb, *at, error.as_deref()));
        }
        if let Some(ChangeReport { text, .. }) = &self.change {
            lines.push(text.clone());
        } else if self.stale {
            lines.push(format!("applied before this boot; vmnet restore {lab} brings it back"));
        }
        lines.iter().map(|line| format!("{WARN}{line}{WARN:#}\n")).collect()
    }
}

fn undone_text(verb: &str, at: u64, error: Option<&str>) -> String {
    let at = clock(at);
    match error {
        None => format!("{verb} was not confirmed and was undone at {at}"),
        Some(error) => format!("{verb} was not confirmed, and the way back failed at {at}: {error}"),
    }
}

/// What became of the last change, for somebody who asks for a lab that is not there, or comes too late.
pub(super) fn undone(lab: &LabName) -> Option<String> {
    let undone = Undone::read(&paths().ok()?, lab)?;
    Some(undone_text(&undone.verb, undone.at, undone.error.as_deref()))
}

/// A change that is not done, in a sentence for people.
fn in_words(standing: Standing, change: &Change, session: &Session) -> String {
    let Change { lab, verb, .. } = change;
    let begun = clock(change.begun);
    match standing {
        Standing::Open => format!(
            "{verb} of {begun} is not done; unless it still runs: vmnet undo {lab} goes back, vmnet create goes on"
        ),
        Standing::Unconfirmed => {
            let (state, remedy) = waiting(change, session);
            format!("{state}: {remedy}")
        }
        Standing::BeforeBoot => format!(
            "{verb} of {begun} was not done or not confirmed when the machine went down; vmnet restore {lab} brings \
             back what was there before it"
        ),
    }
}

/// How a change stands that has to be confirmed, and what can be done: every verb says it in these words.
pub(super) fn waiting(change: &Change, session: &Session) -> (String, String) {
    let Change { lab, verb, confirm, .. } = change;
    let begun = clock(change.begun);
    let until = confirm.map(|deadline| clock(deadline.until)).unwrap_or_default();
    if confirm.is_some_and(|deadline| deadline.has_passed()) {
        let state = format!("the time to confirm {verb} of {begun} ended at {until}, so it is being undone now");
        return (state, format!("vmnet undo {lab} does it, if nobody does"));
    }
    if session.is_whole() {
        let remedy = format!("vmnet confirm {lab} keeps it, until {until}; vmnet undo {lab} goes back");
        return (format!("{verb} of {begun} is not confirmed"), remedy);
    }
    let unless = if session.holds_lock() { "" } else { ", unless it still runs" };
    let state = format!("{verb} of {begun} was interrupted{unless}, so there is nothing whole to keep");
    (state, format!("vmnet undo {lab} goes back now; it is undone at {until} otherwise"))
}

/// Why nothing else can be done now.
pub(super) fn unconfirmed(change: &Change, session: &Session) -> Failure {
    let (state, remedy) = waiting(change, session);
    Failure::advised(format!("lab {}: {state}; nothing was done", change.lab), remedy)
}

/// Why no guest is started or stopped in the middle of a change of the network: what is there then is neither what was
/// nor what shall be, and no way would lead back.
pub(super) fn interrupted(change: &Change) -> Failure {
    let Change { lab, verb, .. } = change;
    Failure::advised(
        format!("lab {lab}: {verb} of {} was interrupted; nothing was done", clock(change.begun)),
        format!(
            "first vmnet create (makes it whole), vmnet undo {lab} (goes back) or vmnet destroy {lab} (removes it)"
        ),
    )
}

/// A time in seconds since 1970 as people read it, in UTC: whoever asks may sit elsewhere than the host.
pub(super) fn clock(time: u64) -> String {
    let (days, seconds) = (time / 86_400, time % 86_400);
    let (year, month, day) = date(days);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02} UTC")
}

/// Year, month and day of a number of days since 1970, in years that begin in March: so the leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    // From 1 March of the year 0; 400 years have 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // From March on, five months have 153 days.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + later, month, day)
}

/// A time span in words.
pub(super) fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 60 && seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_dates() {
        for (time, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_200, "2024-03-01 00:00:00 UTC"),
            (1_798_761_599, "2026-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(clock(time), text);
        }
        assert_eq!(span(Duration::from_secs(90)), "90 s");
        assert_eq!(span(Duration::from_secs(120)), "2 min");
    }
}
