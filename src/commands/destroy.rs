//! `vmnet destroy`: a plan toward the empty state. Needs no file.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::list;
use super::lookup;
use super::output::{GOOD, Output, WARN, count, foreign, shown};
use super::privilege;
use super::session::{Session, kept, silent, unobservable};
use super::source::remove_if_there;
use crate::names::{LabName, VmName};
use crate::observe::{self, Doubt, Observation};
use crate::paths::{Paths, unfinished};
use crate::state::HostState;
use crate::{engine, ledger, rule};

/// What the command line says beside the lab.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) stop: bool,
    pub(super) purge: bool,
    pub(super) force: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    changes: usize,
    seconds: f64,
    /// Guests' disks that were kept.
    kept: Vec<PathBuf>,
    /// Those that were removed.
    purged: Vec<PathBuf>,
    /// Whether it is not known what the lab changed of the host's own settings, so that they stay as they are.
    settings_unknown: bool,
    /// What looks like the lab's, is not proven to be, and stays.
    unproven: Vec<Doubt>,
}

/// What is said of a lab without a ledger.
pub(super) const SETTINGS_UNKNOWN: &str = "settings of the host that it changed (forwarding of devices, a NIC that it \
                                           brought up) are not known and stay as they are";

pub(super) async fn run(argument: &str, options: Options, output: &Output) -> Result<ExitCode, Failure> {
    let begun = std::time::Instant::now();
    let lab = lookup::lab(argument)?;
    let mut session = Session::ending(&lab, "destroy", output)?;
    session.may_be_silent = true;
    let observation = session.look(None)?;
    answers(&mut session, &observation, options, output)?;
    may_go(&lab, &observation, options, "destroy")?;
    let settings_unknown = settings_unknown(&session, &observation);
    if settings_unknown {
        output.say(format_args!(
            "{WARN}note{WARN:#}: lab {lab} has no ledger: what carries its marks goes; {SETTINGS_UNKNOWN}"
        ));
    }
    let purged = if options.purge { disks(&session.paths, &lab) } else { Vec::new() };
    let (changes, kept) = remove(&mut session, &observation, options, output).await?;
    let others: Vec<String> = ledger::labs(&session.paths)?.iter().map(ToString::to_string).collect();
    // Told beside what was done, which does not depend on it. By its group a link without its mark may be this lab's.
    let marks = observe::marks(&session.paths, std::slice::from_ref(&lab)).map(|marks| marks.unproven);
    let unproven = marks.unwrap_or_default().into_iter().filter(|doubt| doubt.lab.as_ref() == Some(&lab)).collect();
    let seconds = begun.elapsed().as_secs_f64();
    let report = Report { lab: lab.as_str(), changes, seconds, kept, purged, settings_unknown, unproven };
    output.result(&report, || {
        let mut text = match report.changes {
            0 if !report.purged.is_empty() => String::new(),
            0 if others.is_empty() => format!("lab {lab}: {GOOD}nothing to remove{GOOD:#}\n"),
            0 => format!("lab {lab}: {GOOD}nothing to remove{GOOD:#} (labs of this host: {})\n", others.join(", ")),
            changes => {
                format!("lab {lab}: {GOOD}removed{GOOD:#}, {} in {:.2} s\n", count(changes, "change"), report.seconds)
            }
        };
        for disk in &report.purged {
            text.push_str(&format!("removed {}\n", shown(disk)));
        }
        for disk in &report.kept {
            text.push_str(&format!("kept {} (vmnet destroy --purge {lab} removes it)\n", shown(disk)));
        }
        text.push_str(&list::text_of_unproven(&report.unproven));
        text
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses where libvirt says nothing and may have guests or networks of the lab; with force it goes on, and says so.
fn answers(session: &mut Session, observation: &Observation, options: Options, output: &Output) -> Result<(), Failure> {
    let Some(silence) = observation.facts.libvirt.silence() else { return Ok(()) };
    let left = kept(&session.lab);
    match (left.is_empty(), options.force) {
        (true, _) => {}
        (false, false) => return Err(silent(&session.lab, &silence)),
        (false, true) => output.say(format_args!(
            "{WARN}note{WARN:#}: libvirt does not answer; what it has of lab {} stays: {}",
            session.lab,
            foreign(&left.join(", "))
        )),
    }
    session.host.scope.libvirt = false;
    Ok(())
}

/// Whether there is something of a lab whose ledger is gone, and with it what settings were found.
pub(super) fn settings_unknown(session: &Session, observation: &Observation) -> bool {
    let is_known = session.is_known && !session.ledger.is_of_leftovers();
    !is_known && observation.state != HostState::default()
}

/// Where disks of a lab's guests are: those that vmnet starts, and those that others start.
fn folders_of_guests(paths: &Paths, lab: &LabName) -> [PathBuf; 2] {
    ["guests", "by-hand"].map(|folder| paths.lab_state(lab).join(folder))
}

/// Refuses while guests run, unless they are to be stopped.
pub(super) fn may_go(
    lab: &LabName,
    observation: &Observation,
    options: Options,
    verb: &'static str,
) -> Result<(), Failure> {
    let running: Vec<&str> = observation.state.guests.keys().map(VmName::as_str).collect();
    if running.is_empty() || options.stop {
        return Ok(());
    }
    let names = running.join(", ");
    // Of a lab without a ledger no guest can be stopped by its name.
    let help = match verb {
        "gc" => "say vmnet gc --stop".to_owned(),
        _ => format!("stop them first, or say vmnet {verb} --stop {lab}"),
    };
    Err(Failure::advised(format!("guests of lab {lab} run: {names}"), help))
}

/// Removes a lab, down to its folders. Gives the number of changes, and the disks that were kept.
pub(super) async fn remove(
    session: &mut Session,
    observation: &Observation,
    options: Options,
    output: &Output,
) -> Result<(usize, Vec<PathBuf>), Failure> {
    let lab = session.lab.clone();
    if options.purge && folders_of_guests(&session.paths, &lab).iter().any(|folder| folder.exists()) {
        privilege::require_folders()?;
        // Guests of vmnet's own are stopped first.
        let [_, by_hand] = folders_of_guests(&session.paths, &lab);
        let mut others = disks(&session.paths, &lab);
        others.retain(|disk| disk.starts_with(&by_hand));
        nobody_works_on(&others, "nothing was changed")?;
    }
    for key in &session.stays_up {
        output.say(format_args!("{WARN}note{WARN:#}: the {key} is left as it is: others use the device by now"));
    }
    session.force = options.force;
    let empty = HostState::default();
    let plan = session.plan(observation, &empty);
    if !plan.is_empty() {
        session.carry_out(None, observation, &empty, &plan, output, false).await?;
    }
    let kept = if options.purge { Vec::new() } else { disks(&session.paths, &lab) };
    if options.purge {
        nobody_works_on(&disks(&session.paths, &lab), "disks were kept")?;
        purge(&session.paths, &lab)?;
    }
    // What a crash left of a lock file, beside the definition; the lock file itself is the user's.
    if session.is_known {
        let left = unfinished(&session.ledger.path.with_extension("lock"));
        let removed = remove_if_there(&left);
        removed.map_err(|error| Failure::failed(format!("{} can't be removed", left.display()), error))?;
    }
    ledger::remove(&session.paths, &lab)?;
    remove_run_folder(&session.paths, &lab)?;
    Ok((plan.len(), kept))
}

pub(super) fn disks(paths: &Paths, lab: &LabName) -> Vec<PathBuf> {
    let mut disks: Vec<PathBuf> = folders_of_guests(paths, lab)
        .into_iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| std::fs::read_dir(entry.path()).ok())
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "qcow2"))
        .collect();
    disks.sort();
    disks
}

/// Refuses to remove disks under a running machine: one that somebody else started, or of which there is no record.
pub(super) fn nobody_works_on(disks: &[PathBuf], so: &str) -> Result<(), Failure> {
    for disk in disks {
        let path = shown(disk);
        let is_in_use =
            engine::is_in_use(disk).map_err(|error| Failure::failed(format!("{path} can't be looked at"), error))?;
        if is_in_use {
            return Err(Failure::advised(
                format!("a machine that vmnet has no record of runs from {path}; {so}"),
                "shut it down first; destroy without --purge keeps disks",
            ));
        }
    }
    Ok(())
}

fn purge(paths: &Paths, lab: &LabName) -> Result<(), Failure> {
    for folder in folders_of_guests(paths, lab) {
        // What libvirt logged of guests that were its; a name that is no guest's has nothing there.
        let entries = std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok);
        let guests = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<VmName>().ok());
        let domains = guests.map(|vm| rule::domain_name(lab, &vm)).filter(|name| !is_of_another(paths, lab, name));
        for log in domains.flat_map(|name| engine::console_log::files_of_domain(&name)) {
            remove_if_there(&log)
                .map_err(|error| Failure::failed(format!("{} can't be removed", log.display()), error))?;
        }
        gone(std::fs::remove_dir_all(&folder))
            .map_err(|error| Failure::failed(format!("{} can't be removed", folder.display()), error))?;
    }
    Ok(())
}

/// Whether a domain of this name is, or was, a guest of another lab: `a-b-c` is guest `c` of lab `a-b`, and guest `b-c` of
/// lab `a`.
fn is_of_another(paths: &Paths, lab: &LabName, name: &str) -> bool {
    name.match_indices('-').any(|(at, _)| match (name[..at].parse::<LabName>(), name[at + 1..].parse::<VmName>()) {
        (Ok(other), Ok(vm)) => other != *lab && paths.guest_state(&other, &vm).exists(),
        _ => false,
    })
}

/// The lab's folder below the run directory: sockets and records of guests that are gone, empty folders of hooks. Where
/// others put files among the hooks, these stay, and `list` and `destroy` name them.
pub(super) fn remove_run_folder(paths: &Paths, lab: &LabName) -> Result<(), Failure> {
    let (folder, hooks) = (paths.lab_run(lab), paths.hooks(lab));
    let fail = |error| Failure::failed(format!("{} can't be removed", folder.display()), error);
    let (made, others) = observe::below_hooks(paths, lab).map_err(unobservable)?;
    if others.is_empty() {
        return gone(std::fs::remove_dir_all(&folder)).map_err(fail);
    }
    for path in made {
        remove_if_there(&path).map_err(fail)?;
    }
    for entry in std::fs::read_dir(&folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let removed = match entry.file_type().map_err(fail)?.is_dir() {
            true if entry.path() == hooks => continue,
            true => std::fs::remove_dir_all(entry.path()),
            false => std::fs::remove_file(entry.path()),
        };
        gone(removed).map_err(fail)?;
    }
    Ok(())
}

fn gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    removed.or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_of_two_labs() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths { state: root.path().join("state"), run: root.path().join("run") };
        let is_of_another = |name| is_of_another(&paths, &"a".parse().unwrap(), name);
        std::fs::create_dir_all(paths.guest_state(&"a".parse().unwrap(), &"b-c".parse().unwrap())).unwrap();
        assert!(!is_of_another("a-b-c"));
        std::fs::create_dir_all(paths.guest_state(&"a-b".parse().unwrap(), &"c".parse().unwrap())).unwrap();
        assert!(is_of_another("a-b-c") && !is_of_another("a-b"));
    }
}
