//! `vmnet status`: the network as it is, and what differs from what was applied.

mod drift;

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::lookup;
use super::outdated::outdated;
use super::output::{BOLD, GOOD, Output, WARN, foreign, table};
use super::session::Session;
use super::{standing, unrecorded};
use crate::desired::Note;
use crate::ledger::Progress;
use crate::model::{External, Network};
use crate::observe::Observation;
use crate::plan::{Extent, Plan, Wave, differences};
use crate::state::Ns;

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    /// The definition as applied came from here.
    file: String,
    /// Of a definition with hosts: the one whose part this is.
    here: Option<&'a str>,
    /// What tells the definition as applied from any other.
    fingerprint: String,
    /// A change was interrupted and not finished.
    unfinished: bool,
    #[serde(flatten)]
    standing: standing::Report,
    /// The definition's file says something else by now.
    file_changed: bool,
    /// `as-applied`, `differs` or `degraded`: something on the host keeps it from being repaired.
    condition: &'static str,
    networks: Vec<NetworkReport>,
    router: Option<RouterReport>,
    guests: Vec<String>,
    /// Those of them that run in another way than the definition says.
    outdated: Vec<String>,
    /// What is not as it should be, object by object.
    differences: Vec<drift::DifferenceReport>,
    /// What `create` would do to repair it.
    drift: &'a [Wave],
    /// What keeps `create` from repairing it; where there is something, `drift` is not known and empty.
    obstacles: Vec<String>,
    /// Devices that are not the lab's on its bridges, stacked on its links or in its namespaces.
    foreign: Vec<drift::Foreign>,
    /// Domains of libvirt's that are not the lab's guests, on its networks.
    foreign_domains: Vec<drift::ForeignUser>,
    /// Files, tables, rules and routes of others in places that are the lab's.
    beside: Vec<drift::Other>,
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

pub(super) async fn run(argument: &str, output: &Output) -> Result<ExitCode, Failure> {
    let lab = lookup::lab_or_only(argument)?;
    let (ledger, source) = lookup::applied(&lab)?;
    let mut session = Session::look_at(&lab)?;
    session.may_be_silent = true;
    let mut observation = session.look(Some(&source.model))?;
    let guests = observation.state.guests.clone();
    // What stands in the way of a repair is part of the status, no reason to show none.
    let (wanted, obstacles) = session.sketch(&source.model, &mut observation, &guests)?;
    let (plan, extent, outdated) = match obstacles.is_empty() && observation.facts.libvirt.silence().is_none() {
        true => {
            let outdated = outdated(&session, &source, &observation, &wanted.mtu);
            let extent = if session.is_whole() { Extent::Whole } else { Extent::Unrecorded };
            (session.plan(&observation, &wanted.state), extent, outdated)
        }
        false => (Plan::default(), Extent::Part, Vec::new()),
    };
    let mut obstacles: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
    let unknown = unrecorded::taps(&observation.state);
    if let Some(silence) = observation.facts.libvirt.silence() {
        obstacles.push(format!("libvirt can't be asked what it has of the lab: {silence}"));
    } else if !unknown.is_empty() {
        obstacles.push(unrecorded::text(&lab, &unknown));
    }
    let notes = wanted.notes;
    let differences = differences(&observation.state, &wanted.state, &session.to_restore(), extent);
    let model = &source.model;
    let ports = ports(&observation);
    let bridges = model.networks().values().map(|network| network.bridge().name().as_str()).collect();
    let report = Report {
        lab: lab.as_str(),
        file: ledger.path.display().to_string(),
        here: ledger.origin.here.as_ref().map(|here| here.as_str()),
        fingerprint: source.fingerprint()?,
        unfinished: ledger.progress == Progress::Changing,
        standing: standing::Report::of(&session, &ledger)?,
        file_changed: source.file_changed(),
        condition: match (obstacles.is_empty(), differences.is_empty() && plan.is_empty()) {
            (false, _) => "degraded",
            (true, false) => "differs",
            (true, true) => "as-applied",
        },
        networks: model.networks().values().map(|network| describe(network, &ports)).collect(),
        router: model
            .router()
            .as_ref()
            .map(|router| RouterReport { namespace: router.namespace().to_string(), via: via(router.external()) }),
        guests: guests.keys().map(ToString::to_string).collect(),
        outdated: outdated.iter().map(ToString::to_string).collect(),
        differences: differences.into_iter().map(drift::DifferenceReport::from).collect(),
        drift: &plan.waves,
        foreign: drift::foreign_devices(&observation, &session.remotes()?),
        foreign_domains: drift::foreign_users(&observation, &bridges),
        beside: drift::beside(&observation, &wanted.state),
        obstacles,
        notes: &notes,
    };
    output.result(&report, || text(&report))?;
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

fn text(report: &Report<'_>) -> String {
    let here = report.here.map(|here| format!(", part of host {here}")).unwrap_or_default();
    let mut text = format!("{BOLD}lab {}{BOLD:#} from {}{here}\n", report.lab, foreign(&report.file));
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
    for guest in &report.outdated {
        text.push_str(&format!(
            "{WARN}{guest} runs as it was started{WARN:#}: what the definition says of it since takes effect at its next \
             boot\n"
        ));
    }
    for device in &report.foreign {
        text.push_str(&format!("{WARN}not this lab's:{WARN:#} {}\n", device.text));
    }
    // Those that run were told by their devices.
    for domain in report.foreign_domains.iter().filter(|domain| !domain.live) {
        text.push_str(&format!("{WARN}not this lab's:{WARN:#} {}\n", domain.text));
    }
    for other in &report.beside {
        text.push_str(&format!("{WARN}not this lab's:{WARN:#} {}\n", other.text));
    }
    for obstacle in &report.obstacles {
        text.push_str(&format!("{WARN}in the way of any change:{WARN:#} {obstacle}\n"));
    }
    text.push_str(&match report.condition {
        "degraded" => format!("{WARN}degraded{WARN:#}: vmnet create can't repair it until that is out of the way\n"),
        "differs" => format!("{WARN}differs from what was applied{WARN:#}; vmnet create repairs it\n"),
        _ => format!("{GOOD}as applied{GOOD:#}\n"),
    });
    for difference in &report.differences {
        text.push_str(&format!("  {WARN}~{WARN:#} {}\n", difference.text));
    }
    text
}

fn or_dash(list: &[String]) -> String {
    if list.is_empty() { "-".to_owned() } else { list.join(" ") }
}
