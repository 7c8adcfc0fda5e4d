//! `vmnet verify`: who should reach whom, who does, and whether that is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::lookup;
use super::output::Output;
use super::session::Session;
use super::source::Source;
use crate::desired::{Note, uplink_devices};
use crate::model::Model;
use crate::names::VmName;
use crate::observe::Observation;
use crate::probe;
use crate::probe::trace::Watch;
use crate::reach::points::Homes;
use crate::reach::trace::{Plan, Stopped};
use crate::reach::{Endpoint, Expectation, Known, Report, expectations};

/// The width of a terminal that does not tell.
const WIDTH: usize = 80;

#[derive(Serialize)]
struct Verified<'a> {
    #[serde(flatten)]
    report: &'a Report,
    notes: &'a [Note],
}

pub(super) async fn run(
    argument: &str,
    junit: Option<&Path>,
    outside: Vec<IpAddr>,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let lab = lookup::lab_or_only(argument)?;
    let (_, source) = lookup::applied(&lab)?;
    let mut session = Session::look_at(&lab)?;
    let mut observation = session.look(Some(&source.model))?;
    let running: BTreeSet<VmName> = observation.state.guests.keys().cloned().collect();
    let known = Known { host: addresses_of_host(&observation), outside, routes: routes_of_host(&observation) };
    let expected = expectations(&source.model, &known);
    output.say(format_args!("probing {} pairs", expected.len()));
    let notes = notes(&mut session, &source, &mut observation)?;
    let seen = probe::run(&source.model, &running, &expected, probe::new_run())
        .map_err(|error| Failure::failed(format!("lab {lab} can't be probed"), error))?;
    let mut report = Report::new(&lab, expected, seen);
    if report.totals.differs > 0 {
        let rows = report.to_trace();
        output.say(format_args!("looking where the packets of {} of them stop", rows.len()));
        report.add_traces(trace(&source.model, &observation, &running, &report, &rows));
    }
    if let Some(path) = junit {
        let text = report.junit().map_err(|error| Failure::failed("the JUnit report can't be written", error))?;
        let failed = |error| Failure::failed(format!("{} can't be written", path.display()), error);
        crate::ledger::write_atomically(path, text.as_bytes(), 0o644).map_err(failed)?;
    }
    output.result(&Verified { report: &report, notes: &notes }, || report.text(width()))?;
    if report.totals.differs > 0 {
        // They may be the reason.
        output.notes(&notes);
    }
    Ok(ExitCode::from(u8::from(!report.passed())))
}

/// Tries rows that differ once more, with the links on their way watched. That it can't be done is no failure.
fn trace(
    model: &Model,
    observation: &Observation,
    running: &BTreeSet<VmName>,
    report: &Report,
    rows: &[usize],
) -> Result<BTreeMap<usize, Stopped>, String> {
    let run = probe::new_run();
    let tries: Vec<Expectation> = rows.iter().map(|row| report.rows[*row].expectation.clone()).collect();
    let numbered: Vec<(u32, &Expectation)> = (0..).zip(&tries).collect();
    let stands_in = |expectation: &Expectation| match &expectation.from {
        Endpoint::Guest(vm) => probe::stands_in(model, vm),
        Endpoint::Gateway(_) | Endpoint::Host | Endpoint::Outside => false,
    };
    let plan = Plan::new(model, &Homes::default(), run, &numbered, stands_in);
    let watch = Watch::open(&plan, None, model, &uplink_devices(model, &observation.facts));
    let (outcomes, seen) = watch.during(|| probe::run(model, running, &tries, run));
    let outcomes = outcomes.map_err(|error| error.to_string())?;
    let explained = numbered.iter().zip(&outcomes).zip(rows);
    Ok(explained
        .filter_map(|(((number, expectation), outcome), row)| {
            Some((*row, seen.explain(&plan, *number, expectation, outcome)?))
        })
        .collect())
}

/// What `create` and `status` say of the host: a foreign chain that drops the lab's traffic, for example.
fn notes(session: &mut Session, source: &Source, observation: &mut Observation) -> Result<Vec<Note>, Failure> {
    let guests = observation.state.guests.clone();
    Ok(session.sketch(&source.model, observation, &guests)?.0.notes)
}

/// Addresses that the definition does not hold: the host's own, which no guest may reach past the router.
fn addresses_of_host(observation: &Observation) -> Vec<IpAddr> {
    let devices = observation.facts.devices.values().filter(|device| device.up && device.master.is_none());
    let addresses = devices.flat_map(|device| &device.addresses).map(ipnet::IpNet::addr);
    let host = addresses.filter(|address| match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(_) => false,
    });
    host.collect()
}

/// Where the host's own routes lead. The default route leads to everything, and so says nothing.
fn routes_of_host(observation: &Observation) -> Vec<ipnet::IpNet> {
    observation.facts.routes.iter().map(|route| route.to).filter(|to| to.prefix_len() > 0).collect()
}

fn width() -> usize {
    let from_environment = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let asked = || {
        // SAFETY: `winsize` is four numbers, for which all zeros is a value; TIOCGWINSZ writes one of that size.
        let (size, result) = unsafe {
            let mut size: libc::winsize = std::mem::zeroed();
            let result = libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size);
            (size, result)
        };
        (result == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
    };
    from_environment.or_else(asked).unwrap_or(WIDTH)
}
