//! `vmnet check`: the definition alone.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::output::{GOOD, Output, count, shown};
use super::source::Source;

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    lab: &'a str,
    networks: usize,
    vms: usize,
    hosts: usize,
    model: &'a crate::model::Model,
    /// The lock file does not hold yet what was chosen by rule; `create` writes it.
    lock_changes: bool,
}

pub(super) fn run(file: &Path, output: &Output) -> Result<ExitCode, Failure> {
    let source = Source::read_whole(file)?;
    let model = &source.whole;
    let report = Report {
        file: source.path.display().to_string(),
        lab: model.lab().as_str(),
        networks: model.networks().len(),
        vms: model.vms().len(),
        hosts: model.hosts().len(),
        model,
        lock_changes: source.lock != source.old_lock,
    };
    output.result(&report, || {
        let (lab, networks, vms) = (report.lab, report.networks, report.vms);
        let lock = if report.lock_changes { "; create will write its lock file" } else { "" };
        let file = shown(file);
        let hosts = if report.hosts > 0 { format!(", {}", count(report.hosts, "host")) } else { String::new() };
        let (networks, vms) = (count(networks, "network"), count(vms, "guest"));
        format!("{file}: {GOOD}right{GOOD:#}: lab {lab}, {networks}, {vms}{hosts}{lock}")
    })?;
    Ok(ExitCode::SUCCESS)
}
