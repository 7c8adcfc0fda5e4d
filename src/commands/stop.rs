//! `vmnet stop` and `vmnet reset`.

use std::process::ExitCode;

use serde::Serialize;

use super::destroy;
use super::failure::Failure;
use super::lookup;
use super::output::{GOOD, Output};
use super::privilege;
use super::session::{Session, silent};
use crate::engine;
use crate::names::VmName;

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    vms: Vec<&'a VmName>,
    seconds: f64,
}

/// `vmnet stop`
pub(super) async fn run(names: &[String], of: Option<&str>, force: bool, output: &Output) -> Result<ExitCode, Failure> {
    let begun = std::time::Instant::now();
    let (lab, _, vms) = lookup::guests(names, of)?;
    let mut session = Session::change_of(&lab, "stop", output)?;
    session.applied()?;
    session.force = force;
    let stopped = stop(&mut session, &vms, false, output).await?;
    let report = Report { lab: lab.as_str(), vms: stopped, seconds: begun.elapsed().as_secs_f64() };
    output.result(&report, || {
        let before: Vec<&VmName> = vms.iter().filter(|vm| !report.vms.contains(vm)).collect();
        let mut text = match report.vms.is_empty() {
            true => String::new(),
            false => format!("lab {lab}: {GOOD}stopped{GOOD:#} in {:.1} s: {}\n", report.seconds, list(&report.vms)),
        };
        text += &match before.as_slice() {
            [] if vms.is_empty() => format!("lab {lab} has no guests\n"),
            [] => String::new(),
            [only] => format!("lab {lab}: {only} is stopped already\n"),
            several => format!("lab {lab}: {} are stopped already\n", list(several)),
        };
        text
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Stops those that run; where libvirt is silent, only if all of them are known to. With `forget` libvirt forgets all of
/// them: what it has defined names a disk that goes.
async fn stop<'v>(
    session: &mut Session,
    vms: &'v [VmName],
    forget: bool,
    output: &Output,
) -> Result<Vec<&'v VmName>, Failure> {
    session.may_be_silent = !forget;
    let before = session.look(None)?;
    if let Some(silence) = before.facts.libvirt.silence() {
        if vms.is_empty() || !vms.iter().all(|vm| before.state.guests.contains_key(vm)) {
            return Err(silent(&session.lab, &silence));
        }
        session.host.scope.libvirt = false;
    }
    let mut wanted = before.state.clone();
    let stopped: Vec<&VmName> = vms.iter().filter(|vm| before.state.guests.contains_key(*vm)).collect();
    stopped.iter().for_each(|vm| wanted.remove_guest(vm));
    wanted.domains.retain(|vm, _| !(forget && vms.contains(vm)));
    let plan = session.plan(&before, &wanted);
    if !plan.is_empty() {
        session.carry_out(None, &before, &wanted, &plan, output, false).await?;
    }
    Ok(stopped)
}

/// `vmnet reset`
pub(super) async fn reset(
    names: &[String],
    of: Option<&str>,
    may_stop: bool,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let begun = std::time::Instant::now();
    let (lab, _, vms) = lookup::guests(names, of)?;
    let mut session = Session::change_of(&lab, "reset", output)?;
    let source = session.applied()?;
    if vms.iter().filter_map(|vm| source.model.vms().get(vm)).any(|vm| vm.engine().is_machine()) {
        privilege::require_folders()?;
    }
    let observation = session.look(None)?;
    if let (Some(vm), false) = (vms.iter().find(|vm| observation.state.guests.contains_key(*vm)), may_stop) {
        let help = format!("stop it first (vmnet stop {lab}/{vm}), or say vmnet reset --stop");
        return Err(Failure::advised(format!("vm {vm} runs"), help));
    }
    stop(&mut session, &vms, true, output).await?;
    for vm in &vms {
        let folder = session.paths.guest_state(&lab, vm);
        let mut disks = destroy::disks(&session.paths, &lab);
        disks.retain(|disk| disk.starts_with(&folder));
        destroy::nobody_works_on(&disks, "it was kept")?;
        engine::reset(&folder)?;
    }
    let report = Report { lab: lab.as_str(), vms: vms.iter().collect(), seconds: begun.elapsed().as_secs_f64() };
    output.result(&report, || {
        let begin = if report.vms.len() == 1 { "begins with a fresh disk" } else { "begin with fresh disks" };
        format!("lab {lab}: {GOOD}reset{GOOD:#}; {} {begin} at the next boot\n", list(&report.vms))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn list(vms: &[&VmName]) -> String {
    vms.iter().map(|vm| vm.as_str()).collect::<Vec<_>>().join(", ")
}
