//! `vmnet status`: the network as it is, and what differs from what was applied.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use serde::Serialize;

use super::create::listing;
use super::failure::Failure;
use super::lookup;
use super::output::{BOLD, GOOD, Output, WARN, foreign, table};
use super::session::Session;
use super::standing;
use crate::desired::Note;
use crate::ledger::Progress;
use crate::model::{Bridge, External, Model, Network};
use crate::observe::Observation;
use crate::plan::{Plan, Wave};
use crate::state::Ns;

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    /// The definition as applied came from here.
    file: String,
    /// A change was interrupted and not finished.
    unfinished: bool,
    #[serde(flatten)]
    standing: standing::Report,
    /// The definition's file says something else by now.
    file_changed: bool,
    networks: Vec<NetworkReport>,
    router: Option<RouterReport>,
    guests: Vec<String>,
    /// What `create` would do to repair it.
    drift: &'a [Wave],
    /// What keeps `create` from repairing it; where there is something, `drift` is not known and empty.
    obstacles: Vec<String>,
    /// Devices that are not the lab's on its bridges.
    foreign: Vec<Foreign>,
    notes: &'a [Note],
}

#[derive(Serialize)]
struct NetworkReport {
    name: String,
    mode: &'static str,
    vlan: Option<u16>,
    bridge: String,
    subnets: Vec<String>,
    gateways: Vec<String>,
    ports: usize,
}

#[derive(Serialize)]
struct RouterReport {
    namespace: String,
    via: &'static str,
}

#[derive(Serialize)]
struct Foreign {
    device: String,
    bridge: String,
}

pub(super) async fn run(argument: &str, output: &Output) -> Result<ExitCode, Failure> {
    let lab = lookup::lab(argument)?;
    let (ledger, source) = lookup::applied(&lab)?;
    let mut session = Session::look_at(&lab)?;
    let mut observation = session.look(Some(&source.model))?;
    let guests = observation.state.guests.clone();
    // What stands in the way of a repair is part of the status, no reason to show none.
    let (plan, notes, obstacles) = match session.wanted(&source.model, &mut observation, &guests) {
        Ok(wanted) => (session.plan(&observation, &wanted.state), wanted.notes, Vec::new()),
        Err(Failure::Refused(refusals)) => (Plan::default(), Vec::new(), refusals),
        Err(failure) => return Err(failure),
    };
    let model = &source.model;
    let ports = ports(&observation);
    let report = Report {
        lab: lab.as_str(),
        file: ledger.path.display().to_string(),
        unfinished: ledger.progress == Progress::Changing,
        standing: standing::Report::of(&session, &ledger)?,
        file_changed: source.file_changed(),
        networks: model.networks().values().map(|network| describe(network, &ports)).collect(),
        router: model
            .router()
            .as_ref()
            .map(|router| RouterReport { namespace: router.namespace().to_string(), via: via(router.external()) }),
        guests: guests.keys().map(ToString::to_string).collect(),
        drift: &plan.waves,
        foreign: foreign_ports(model, &observation),
        obstacles: obstacles.iter().map(ToString::to_string).collect(),
        notes: &notes,
    };
    output.result(&report, || text(&report, &plan))?;
    output.notes(&notes);
    Ok(ExitCode::SUCCESS)
}

/// How many ports each bridge of the host has, ours and foreign ones.
fn ports(observation: &Observation) -> BTreeMap<&str, usize> {
    let ours = observation.state.links.iter().filter(|(id, _)| id.ns == Ns::Host).map(|(_, link)| &link.master);
    let masters = ours.chain(observation.facts.devices.values().map(|device| &device.master));
    let mut ports = BTreeMap::new();
    for bridge in masters.flatten() {
        *ports.entry(bridge.as_str()).or_default() += 1;
    }
    ports
}

fn describe(network: &Network, ports: &BTreeMap<&str, usize>) -> NetworkReport {
    let bridge = network.bridge().name();
    NetworkReport {
        name: network.name().to_string(),
        mode: network.mode().word(),
        vlan: network.tagged().as_ref().map(|tagged| tagged.vlan.get()),
        bridge: bridge.to_string(),
        subnets: network.subnets().iter().map(|subnet| subnet.net().to_string()).collect(),
        gateways: network.subnets().iter().filter_map(|subnet| *subnet.gateway()).map(|g| g.to_string()).collect(),
        ports: ports.get(bridge.as_str()).copied().unwrap_or_default(),
    }
}

fn via(external: &External) -> &'static str {
    match external {
        External::None => "none",
        External::Host(_) => "host",
        External::Macvlan(_) => "macvlan",
        External::Vlan { .. } => "vlan",
    }
}

fn foreign_ports(model: &Model, observation: &Observation) -> Vec<Foreign> {
    let own: BTreeSet<&str> = model
        .networks()
        .values()
        .filter(|network| matches!(network.bridge(), Bridge::Own { .. }))
        .map(|network| network.bridge().name().as_str())
        .collect();
    let devices = observation.facts.devices.iter();
    devices
        .filter_map(|(name, device)| {
            let bridge = device.master.as_deref().filter(|master| own.contains(master))?;
            Some(Foreign { device: foreign(name), bridge: bridge.to_owned() })
        })
        .collect()
}

fn text(report: &Report<'_>, plan: &Plan) -> String {
    let mut text = format!("{BOLD}lab {}{BOLD:#} from {}\n", report.lab, foreign(&report.file));
    text.push_str(&report.standing.text(report.lab));
    if report.unfinished && !report.standing.has_change() {
        text.push_str(&format!("{WARN}a change was interrupted; run vmnet create{WARN:#}\n"));
    }
    if report.file_changed {
        text.push_str(&format!("{WARN}the file was edited since; vmnet plan shows what create would change{WARN:#}\n"));
    }
    let mut networks = table(&["network", "mode", "vlan", "bridge", "ports", "subnet", "gateway"]);
    for network in &report.networks {
        let NetworkReport { name, mode, vlan, bridge, subnets, gateways, ports } = network;
        networks.add_row([
            name.clone(),
            (*mode).to_owned(),
            vlan.map_or("-".into(), |vlan| vlan.to_string()),
            bridge.clone(),
            ports.to_string(),
            or_dash(subnets),
            or_dash(gateways),
        ]);
    }
    text.push_str(&format!("\n{networks}\n"));
    if let Some(RouterReport { namespace, via }) = &report.router {
        text.push_str(&format!("\nrouter in namespace {namespace}, outside via {via}\n"));
    }
    if !report.guests.is_empty() {
        text.push_str(&format!("guests running: {}\n", report.guests.join(", ")));
    }
    for Foreign { device, bridge } in &report.foreign {
        text.push_str(&format!("{WARN}{device}{WARN:#} on {bridge} is not this lab's\n"));
    }
    for obstacle in &report.obstacles {
        text.push_str(&format!("{WARN}in the way of any change:{WARN:#} {obstacle}\n"));
    }
    if !report.obstacles.is_empty() {
        return text;
    }
    if plan.is_empty() {
        text.push_str(&format!("{GOOD}as applied{GOOD:#}\n"));
    } else {
        text.push_str(&format!("\n{WARN}differs from what was applied; vmnet create would{WARN:#}\n{}", listing(plan)));
    }
    text
}

fn or_dash(list: &[String]) -> String {
    if list.is_empty() { "-".to_owned() } else { list.join(" ") }
}
