//! `vmnet verify`: who should reach whom, who does, and whether that is the same.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::lookup;
use super::output::{BAD, GOOD, Output};
use super::session::Session;
use super::source::Source;
use crate::desired::{Note, uplink_devices};
use crate::kinds::Engine;
use crate::model::{Model, Vm, view};
use crate::names::LabName;
use crate::observe::Observation;
use crate::probe::trace::Watch;
use crate::probe::{self, Guests};
use crate::reach::trace::{Plan, Stopped};
use crate::reach::{self, Endpoint, Expectation, Known, Report, expectations};

/// The width of a terminal that does not tell.
const WIDTH: usize = 80;

#[derive(Serialize)]
struct Verified<'a> {
    #[serde(flatten)]
    report: &'a Report,
    notes: &'a [Note],
}

/// A lab as it is on this host, to be tried.
pub(super) struct Ground {
    pub(super) source: Source,
    /// The whole lab from here.
    pub(super) view: Model,
    session: Session,
    observation: Observation,
}

impl Ground {
    /// Looks at a lab that was created here.
    pub(super) fn of(lab: &LabName) -> Result<Self, Failure> {
        let (_, source) = lookup::applied(lab)?;
        let mut session = Session::look_at(lab)?;
        // Where it has no guests, what libvirt says makes no difference.
        session.may_be_silent = source.model.vms().values().all(|vm| *vm.engine() != Engine::Libvirt);
        let observation = session.look(Some(&source.model))?;
        let view = view(&source.whole, source.origin.here.as_ref());
        Ok(Self { source, view, session, observation })
    }

    /// The guests that run here. Of those on other hosts nothing is known.
    fn guests(&self) -> Guests {
        let here = self.view.here();
        let away = self.view.vms().values().filter(|vm| vm.host() != here);
        let why = |vm: &Vm| Some((vm.name().clone(), format!("{} runs on {}", vm.name(), vm.host().as_ref()?)));
        Guests {
            running: self.observation.state.guests.keys().cloned().collect(),
            absent: away.filter_map(why).collect(),
            silent: BTreeMap::new(),
        }
    }

    /// Addresses that the definition does not hold.
    pub(super) fn known(&self, outside: Vec<IpAddr>) -> Known {
        let observation = &self.observation;
        Known { host: addresses_of_host(observation), outside, routes: routes_of_host(observation) }
    }

    /// What `create` and `status` say of the host: a foreign chain that drops the lab's traffic, for example.
    pub(super) fn notes(&mut self) -> Result<Vec<Note>, Failure> {
        let guests = self.observation.state.guests.clone();
        Ok(self.session.sketch(&self.source.model, &mut self.observation, &guests)?.0.notes)
    }

    /// Tries expectations with their numbers.
    pub(super) fn probe(
        &self,
        guests: &Guests,
        tries: &[(u32, &Expectation)],
        run: u64,
    ) -> Result<Vec<reach::Seen>, Failure> {
        let failed = |error| Failure::failed(format!("lab {} can't be probed", self.view.lab()), error);
        probe::run(&self.view, guests, tries, run).map_err(failed)
    }

    /// Begins to watch the points of a plan that are here.
    pub(super) fn watch<'p>(&self, plan: &'p Plan) -> Watch<'p> {
        let devices = uplink_devices(&self.source.model, &self.observation.facts);
        Watch::open(plan, self.view.here().as_ref(), &self.source.model, &devices)
    }
}

pub(super) async fn run(
    argument: &str,
    junit: Option<&Path>,
    outside: Vec<IpAddr>,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let lab = lookup::lab_or_only(argument)?;
    let mut ground = Ground::of(&lab)?;
    let guests = ground.guests();
    let expected = expectations(&ground.view, &ground.known(outside));
    output.say(format_args!("probing {} pairs", expected.len()));
    let notes = ground.notes()?;
    let seen = ground.probe(&guests, &numbered(&expected), probe::new_run())?;
    let mut report = Report::new(&lab, expected, seen);
    if report.totals.differs > 0 {
        let rows = report.to_trace();
        if !rows.is_empty() {
            output.say(format_args!("looking where the packets of {} of them stop", rows.len()));
        }
        report.add_traces(trace(&ground, &guests, &report, &rows));
    }
    write_junit(&report, junit)?;
    output.result(&Verified { report: &report, notes: &notes }, || report.text(width()))?;
    if report.totals.differs > 0 {
        // They may be the reason.
        output.notes(&notes);
    }
    Ok(ExitCode::from(u8::from(!report.passed())))
}

/// Expectations with their numbers.
pub(super) fn numbered(expectations: &[Expectation]) -> Vec<(u32, &Expectation)> {
    (0..).zip(expectations).collect()
}

/// What came of it all, in half a sentence.
pub(super) fn verdict(report: &Report) -> String {
    match (report.passed(), report.totals.unseen()) {
        (true, 0) if report.rows.is_empty() => "there was nothing to try".to_owned(),
        (true, 0) => format!("{GOOD}everybody reaches whom they should, and nobody else{GOOD:#}"),
        (true, unseen) => format!("{GOOD}all is as expected{GOOD:#} but for {unseen} unknown or not tried"),
        (false, _) => format!("{BAD}not everybody reaches whom they should{BAD:#}"),
    }
}

/// Writes the report for a CI server, where one is wanted.
pub(super) fn write_junit(report: &Report, path: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let text = report.junit().map_err(|error| Failure::failed("the JUnit report can't be written", error))?;
    let failed = |error| Failure::failed(format!("{} can't be written", path.display()), error);
    // In place, as any program would: what is there may be a device, a pipe, or somebody's file.
    std::fs::write(path, text).map_err(failed)
}

/// What to watch for while senders of one host try again.
pub(super) fn plan(view: &Model, run: u64, tries: &[(u32, &Expectation)]) -> Plan {
    let stands_in = |expectation: &Expectation| match &expectation.from {
        Endpoint::Guest(vm) => probe::stands_in(view, vm),
        Endpoint::Gateway(..) | Endpoint::Host(_) | Endpoint::Outside => false,
    };
    Plan::new(view, run, tries, stands_in)
}

/// Tries rows that differ once more, with the links on their way watched. That it can't be done is no failure.
fn trace(
    ground: &Ground,
    guests: &Guests,
    report: &Report,
    rows: &[usize],
) -> Result<BTreeMap<usize, Stopped>, String> {
    let run = probe::new_run();
    let tries: Vec<Expectation> = rows.iter().map(|row| report.rows[*row].expectation.clone()).collect();
    let numbered = numbered(&tries);
    let plan = plan(&ground.view, run, &numbered);
    let (outcomes, seen) = ground.watch(&plan).during(|| probe::run(&ground.view, guests, &numbered, run));
    let outcomes = outcomes.map_err(|error| error.to_string())?;
    let explained = numbered.iter().zip(&outcomes).zip(rows);
    Ok(explained
        .filter_map(|(((number, expectation), outcome), row)| {
            Some((*row, seen.explain(&plan, *number, expectation, outcome)?))
        })
        .collect())
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

pub(super) fn width() -> usize {
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
