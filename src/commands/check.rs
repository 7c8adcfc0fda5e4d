//! `vmnet check`: the definition alone.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::keys;
use super::output::{GOOD, Output, count, shown};
use super::source::Source;
use crate::cli;
use crate::model::{Model, slice};
use crate::names::HostName;

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    lab: &'a str,
    networks: usize,
    vms: usize,
    hosts: usize,
    /// What each host has.
    parts: BTreeMap<&'a HostName, Part>,
    model: &'a Model,
    /// The lock file does not hold yet what was chosen by rule; `create` writes it.
    lock_changes: bool,
}

/// One host's part.
#[derive(Serialize)]
struct Part {
    networks: usize,
    vms: usize,
    router: bool,
    /// Subnets that are reached by way of other hosts.
    elsewhere: usize,
}

fn part(whole: &Model, host: &HostName) -> Option<Part> {
    let part = slice(whole, host)?;
    Some(Part {
        networks: part.networks().len(),
        vms: part.vms().len(),
        router: part.router().is_some(),
        elsewhere: part.elsewhere().len(),
    })
}

fn text(host: &HostName, part: &Part) -> String {
    let Part { networks, vms, router, elsewhere } = part;
    let mut text = format!("\n  {host}: {}, {}", count(*networks, "network"), count(*vms, "guest"));
    if *router {
        text.push_str(", a router");
    }
    if *elsewhere > 0 {
        text.push_str(&format!(" with {} to other hosts", count(*elsewhere, "route")));
    }
    text
}

pub(super) fn run(file: &cli::File, output: &Output) -> Result<ExitCode, Failure> {
    let source = Source::read_whole(&file.file, file.named.as_ref())?;
    let model = &source.whole;
    // What goes into seeds is a part of the definition as far as it is there.
    model.vms().values().try_for_each(|vm| keys::check(&source, vm))?;
    let report = Report {
        file: source.path.display().to_string(),
        lab: model.lab().as_str(),
        networks: model.networks().len(),
        vms: model.vms().len(),
        hosts: model.hosts().len(),
        parts: model.hosts().keys().filter_map(|host| Some((host, part(model, host)?))).collect(),
        model,
        lock_changes: source.lock != source.old_lock,
    };
    output.result(&report, || {
        let (lab, networks, vms) = (report.lab, report.networks, report.vms);
        let lock = if report.lock_changes { "; create will write its lock file" } else { "" };
        let file = shown(&file.file);
        let hosts = if report.hosts > 0 { format!(", {}", count(report.hosts, "host")) } else { String::new() };
        let (networks, vms) = (count(networks, "network"), count(vms, "guest"));
        format!("{file}: {GOOD}right{GOOD:#}: lab {lab}, {networks}, {vms}{hosts}{lock}")
            + &report.parts.iter().map(|(host, part)| text(host, part)).collect::<String>()
    })?;
    Ok(ExitCode::SUCCESS)
}
