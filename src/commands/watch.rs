//! The watcher of a change that has to be confirmed: a process of its own that goes back when the time has passed.
//!
//! It is there before the first thing is changed, and depends neither on the command that started it nor on that
//! one's terminal or login. It does nothing that `vmnet undo` would not do.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use super::output::{BOLD, Form, Output, chain, foreign};
use super::session::{GO_BACK, Session, boot_id, paths};
use super::standing::{clock, span};
use crate::cli::WATCH;
use crate::engine::detach;
use crate::ledger::change::{self, Change, Deadline, Standing, unix_now};
use crate::ledger::{self, Undone};
use crate::names::LabName;
use crate::paths::Paths;

/// How often it looks whether the change was confirmed meanwhile.
const LOOK: Duration = Duration::from_millis(200);

/// How often it tries to go back, and the pause between two tries.
const TRIES: (usize, Duration) = (3, Duration::from_secs(1));

/// Starts the watcher of a change, and writes the change's record: whatever ends this process, where there is a record
/// there is a watcher. Nothing may be changed where that fails.
pub(super) fn start(paths: &Paths, change: &Change) -> Result<(), Failure> {
    let environment = [("VMNET_STATE_DIR", paths.state.as_path()), ("VMNET_RUN_DIR", paths.run.as_path())];
    let failed =
        |error| Failure::failed("nobody would undo the change if it is not confirmed, so nothing was changed", error);
    let watcher = detach::start(&[WATCH, change.lab.as_str(), &change.id], &environment).map_err(failed)?;
    change::write(paths, change)?;
    watcher.release().map_err(failed)
}

/// What whoever has to confirm must know before anything is changed.
pub(super) fn announcement(lab: &LabName, deadline: &Deadline) -> String {
    let (limit, until) = (span(Duration::from_secs(deadline.seconds)), clock(deadline.until));
    format!("{BOLD}will be undone in {limit}{BOLD:#}, at {until}, unless you say: {BOLD}vmnet confirm {lab}{BOLD:#}")
}

/// The same once it is changed.
pub(super) fn reminder(lab: &LabName, deadline: &Deadline) -> String {
    let until = clock(deadline.until);
    format!("not confirmed yet: will be undone at {until} unless you say: {BOLD}vmnet confirm {lab}{BOLD:#}")
}

/// The watcher itself.
pub(super) async fn run(lab: &str, id: &str) -> Result<ExitCode, Failure> {
    let lab: LabName = lab.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
    let paths = paths()?;
    // A signal to all processes of a login is not meant for this one.
    let _deaf = [SignalKind::hangup(), SignalKind::interrupt()].map(signal);
    // Of this one's own name: the last one may just be about to end.
    let scope = format!("vmnet-confirm-{lab}-{id}.scope");
    let found = match detach::released(&scope).await {
        Ok(()) => awaited(&paths, &lab, id),
        Err(error) => Err(Failure::failed("the watcher can't stay", error)),
    };
    let problem = match &found {
        Ok(Some(_)) => None,
        Ok(None) => Some(format!("no change {id} of lab {lab} waits to be confirmed")),
        Err(failure) => Some(chain(failure).join(": ")),
    };
    detach::tell(problem.as_deref()).map_err(Failure::output)?;
    let Some((change, deadline)) = found? else { return Ok(ExitCode::from(1)) };
    let place = change::file(&paths, &lab);
    let written = inode(&place);
    while !deadline.has_passed() {
        tokio::time::sleep(LOOK.min(deadline.left())).await;
        if inode(&place) != written {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let mut result = Ok(());
    for _ in 0..TRIES.0 {
        result = go_back(&paths, &lab, id).await;
        match &result {
            Ok(()) => break,
            Err(_) => tokio::time::sleep(TRIES.1).await,
        }
    }
    if let Err(failure) = result {
        tell(&paths, &lab, &change, Some(&failure));
        return Err(failure);
    }
    Ok(ExitCode::SUCCESS)
}

/// Goes back, unless the change was confirmed or undone while the lock was waited for.
async fn go_back(paths: &Paths, lab: &LabName, id: &str) -> Result<(), Failure> {
    let mut session = loop {
        match Session::ending(lab, GO_BACK, &Output::new(Form::Json, false)) {
            Err(failure) if failure.is_held() => {}
            session => break session?,
        }
    };
    let Some((_, change)) = session.pending.take_if(|(_, change)| change.id == id) else { return Ok(()) };
    // What keeps the host reachable does not wait for a device that was plugged in meanwhile.
    session.force = true;
    let (_, hurt) = session.go_back(&change, &Output::new(Form::Json, false)).await?;
    for hurt in hurt {
        log(&format!("lab {lab}: {} was {hurt}, which went", foreign(hurt.device())));
    }
    tell(paths, lab, &change, None);
    Ok(())
}

/// The change that this process is to watch, and its deadline.
fn awaited(paths: &Paths, lab: &LabName, id: &str) -> Result<Option<(Change, Deadline)>, Failure> {
    let ledger = ledger::read(paths, lab)?;
    let found = change::read(paths, lab, ledger.as_ref(), &boot_id()?)?;
    let change = found.filter(|(standing, change)| *standing == Standing::Unconfirmed && change.id == id);
    Ok(change.and_then(|(_, change)| change.confirm.map(|deadline| (change, deadline))))
}

/// Which file stands at a place. A record that is written anew is another file.
fn inode(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Leaves word for `status` and in the system's log of what was done.
fn tell(paths: &Paths, lab: &LabName, change: &Change, failure: Option<&Failure>) {
    let error = failure.map(|failure| chain(failure).join(": "));
    let text = match &error {
        None => format!("lab {lab}: {} was not confirmed and is undone", change.verb),
        Some(error) => format!("lab {lab}: {} was not confirmed, and the way back failed: {error}", change.verb),
    };
    let undone = Undone { id: change.id.clone(), verb: change.verb.clone(), at: unix_now(), error };
    if let Err(error) = undone.write(paths, lab) {
        log(&format!("lab {lab}: what was done can't be written down: {error}"));
    }
    log(&text);
}

/// One line for the system's log (daemon, warning), where there is one.
fn log(text: &str) {
    let line = format!("<28>vmnet[{}]: {}", std::process::id(), text.replace('\n', " "));
    // Nobody is left who could be told otherwise.
    let _ = UnixDatagram::unbound().and_then(|socket| socket.send_to(line.as_bytes(), "/dev/log"));
}
