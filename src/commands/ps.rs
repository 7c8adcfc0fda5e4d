//! `vmnet ps`: guests and their nics.

use std::collections::BTreeSet;
use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::lookup;
use super::outdated::outdated;
use super::output::{Output, WARN, table, visible};
use super::session::Session;
use super::unrecorded;
use crate::engine;
use crate::kinds::Engine;
use crate::model::{Model, Vm};
use crate::rule;
use crate::state::Guest;

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    /// Why libvirt does not say which of its guests run.
    libvirt_silent: Option<String>,
    vms: Vec<VmReport>,
}

#[derive(Serialize)]
struct VmReport {
    name: String,
    engine: &'static str,
    description: Option<String>,
    /// `None` where that is not known: libvirt does not answer.
    running: Option<bool>,
    /// A process holds its TAP, and there is no record of it: it may run.
    unrecorded: bool,
    /// It runs, and not as the definition says by now.
    outdated: bool,
    pid: Option<i32>,
    /// Seconds since it started.
    seconds: Option<u64>,
    nics: Vec<NicReport>,
}

#[derive(Serialize)]
struct NicReport {
    network: String,
    mac: String,
    tap: String,
    bridge: String,
    addresses: Vec<String>,
}

pub(super) async fn run(argument: &str, output: &Output) -> Result<ExitCode, Failure> {
    let lab = lookup::lab_or_only(argument)?;
    let (_, source) = lookup::applied(&lab)?;
    let mut session = Session::look_at(&lab)?;
    // What vmnet itself runs is known without libvirt.
    session.may_be_silent = true;
    let mut observation = session.look(None)?;
    let libvirt_silent = observation.facts.libvirt.silence();
    let processes =
        engine::running(&session.paths, &lab).map_err(|error| Failure::failed("guests can't be listed", error))?;
    let guests = observation.state.guests.clone();
    let mtu = match session.sketch(&source.model, &mut observation, &guests)? {
        (wanted, refusals) if refusals.is_empty() => Some(wanted.mtu),
        _ => None,
    };
    let outdated = mtu.map(|mtu| outdated(&session, &source, &observation, &mtu)).unwrap_or_default();
    let model = &source.model;
    let unknown: BTreeSet<String> = unrecorded::taps(&observation.state).into_iter().map(|(_, vm)| vm).collect();
    let report = |vm: &Vm| {
        let guest = observation.state.guests.get(vm.name());
        let is_in_question = libvirt_silent.is_some() && guest.is_none() && *vm.engine() == Engine::Libvirt;
        let process = match guest {
            Some(Guest::Libvirt(guest)) => engine::libvirt::process(&guest.name),
            // Its machines run on without it.
            None if is_in_question => engine::libvirt::process(&rule::domain_name(&lab, vm.name())),
            Some(Guest::Qemu(_)) => {
                let recorded = processes.iter().find(|process| process.vm == *vm.name());
                recorded.map(|process| (process.pid, process.age()))
            }
            Some(Guest::Netns { .. }) | None => None,
        };
        VmReport {
            name: vm.name().to_string(),
            engine: guest.map_or_else(|| vm.engine().word(), Guest::engine),
            description: vm.description().clone(),
            running: match is_in_question && process.is_none() {
                true => None,
                false => Some(guest.is_some() || is_in_question),
            },
            unrecorded: !is_in_question && unknown.iter().any(|name| name == vm.name().as_str()),
            outdated: outdated.contains(vm.name()),
            pid: process.map(|(pid, _)| pid),
            seconds: process.map(|(_, age)| age.as_secs()),
            nics: nics(model, vm),
        }
    };
    let report = Report {
        lab: lab.as_str(),
        vms: model.vms().values().map(report).collect(),
        libvirt_silent: libvirt_silent.clone(),
    };
    output.result(&report, || text(&report))?;
    Ok(ExitCode::SUCCESS)
}

fn nics(model: &Model, vm: &Vm) -> Vec<NicReport> {
    let nics = model.nics(vm).map(|(_, nic, network)| NicReport {
        network: network.name().to_string(),
        mac: nic.mac().to_string(),
        tap: nic.tap().to_string(),
        bridge: network.bridge().name().to_string(),
        addresses: nic.addresses().iter().map(ToString::to_string).collect(),
    });
    nics.collect()
}

fn text(report: &Report<'_>) -> String {
    if report.vms.is_empty() {
        return format!("lab {} has no guests\n", report.lab);
    }
    let mut rows = table(&["vm", "engine", "state", "pid", "network", "mac", "tap", "bridge", "address"]);
    for vm in &report.vms {
        let state = match (vm.running, vm.outdated, vm.unrecorded) {
            (Some(true), true, _) => "running*",
            (Some(true), false, _) => "running",
            (Some(false), _, true) | (None, _, _) => "unknown",
            (Some(false), _, false) => "stopped",
        };
        let pid = vm.pid.map_or("-".into(), |pid| pid.to_string());
        let head = [vm.name.clone(), vm.engine.to_owned(), state.to_owned(), pid];
        for (number, nic) in vm.nics.iter().enumerate() {
            // Of a guest with several nics only the first row tells whose they are.
            let mut row = if number == 0 { head.to_vec() } else { vec![String::new(); 4] };
            let addresses = if nic.addresses.is_empty() { "-".to_owned() } else { nic.addresses.join(" ") };
            row.extend([nic.network.clone(), nic.mac.clone(), nic.tap.clone(), nic.bridge.clone(), addresses]);
            rows.add_row(row);
        }
    }
    let outdated = report.vms.iter().any(|vm| vm.outdated);
    let remark = if outdated { "* as it was started; the definition says something else since\n" } else { "" };
    let unknown = match report.vms.iter().any(|vm| vm.unrecorded && vm.running == Some(false)) {
        true => "unknown: a process holds its TAP, and there is no record of it\n",
        false => "",
    };
    let silent = report.libvirt_silent.as_ref().map_or_else(String::new, |silence| {
        format!("{WARN}note{WARN:#}: libvirt can't be asked which guests it runs: {}\n", visible(silence))
    });
    format!("{rows}\n{remark}{unknown}{silent}")
}
