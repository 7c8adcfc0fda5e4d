//! `vmnet rehearse`: a definition tried out on machines that are namespaces.

mod machines;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::bundle::Bundle;
use super::failure::Failure;
use super::output::{Output, count, foreign};
use super::signals::Signals;
use super::source::Source;
use super::wait_for;
use crate::cli::Rehearse;
use crate::kernel::hold;
use crate::names::LabName;
use crate::remote::{Answer, Event, Place};
use crate::stage::stage;

pub(super) use machines::{hold, inside};
use machines::Machines;

/// How often a rehearsal looks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Serialize)]
struct Report {
    lab: LabName,
    /// What `create` said on each host.
    hosts: BTreeMap<String, Value>,
    verify: Value,
    /// Addresses at which the machine outside answers.
    outside: Vec<IpAddr>,
    /// The process that keeps each machine, where they were kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    machines: Option<BTreeMap<String, u32>>,
    seconds: f64,
}

/// `vmnet rehearse`
pub(super) fn run(arguments: Rehearse, output: &Output) -> Result<ExitCode, Failure> {
    let Rehearse { file, keep, guests, only, junit, enter, end, command } = arguments;
    if let Some(machine) = enter {
        return machines::enter(process_of(file.as_deref(), &machine)?, &command);
    }
    if end {
        return end_kept(file.as_deref(), output);
    }
    let begun = Instant::now();
    let source = Source::read_whole(file.as_deref().unwrap_or(Path::new("net.toml")))?;
    let stage = stage(&source.whole, &only.into_iter().collect());
    if keep && machines::kept()?.iter().any(|(lab, ..)| *lab == stage.lab) {
        let help = format!("end it first: vmnet rehearse --end {}", stage.lab);
        return Err(Failure::advised(format!("a rehearsal of lab {} was kept", stage.lab), help));
    }
    let bundle = Bundle {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        path: source.path.clone(),
        definition: source.text.clone(),
        lock: source.lock.to_string(),
        files: BTreeMap::new(),
        rehearsed: !guests,
    };
    let bundle = serde_json::to_vec(&bundle).map_err(|error| Failure::failed("the definition can't be sent", error))?;
    let signals = Signals::catch();
    hold::leave().map_err(|error| machines::no_machine("of its own", error))?;
    let machines = Machines::start(&stage, &source)?;
    output.say(format_args!("{} on this machine, made in {:.2} s", count(stage.hosts.len(), "host"), seconds(begun)));
    let places = machines.places();
    let has_hosts = !source.whole.hosts().is_empty();
    let work = async {
        let came = async {
            while !signals.cancel(true).load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            done = carry_out(&places, &stage.lab, has_hosts, &bundle, output) => done,
            () = came => Err(Failure::because("interrupted; everything that was made is gone")),
        }
    };
    let _ = junit;
    let (hosts, verify, passed) = wait_for(work)?;
    let report = Report { lab: stage.lab.clone(), hosts, verify, outside: stage.answers.clone(), machines: keep.then(|| machines.processes()), seconds: seconds(begun) };
    output.result(&report, || text(&report))?;
    if keep {
        machines.keep()?;
    }
    Ok(ExitCode::from(u8::from(!passed)))
}

/// What came of it: what `create` said on each host, what `verify` did, and whether all is as it should be.
type Outcome = (BTreeMap<String, Value>, Value, bool);

async fn carry_out(
    places: &[Place],
    lab: &LabName,
    has_hosts: bool,
    bundle: &[u8],
    output: &Output,
) -> Result<Outcome, Failure> {
    let create = |place: &Place| {
        let mut args = vec!["create".to_owned()];
        if has_hosts {
            args.extend(["--here".to_owned(), place.host().to_owned()]);
        }
        args.push(Bundle::ARGUMENT.to_owned());
        args
    };
    let created = all(places, create, bundle, output).await?;
    let boot = |_: &Place| ["boot", "--all", "--of", lab.as_str()].map(str::to_owned).to_vec();
    all(places, boot, &[], output).await?;
    let mut verified = serde_json::Map::new();
    let mut passed = true;
    for place in places {
        let answer = place.call(&["verify", lab.as_str()], &[], |_| {}).await;
        let answer = answer.map_err(|error| Failure::failed("verify", error))?;
        passed &= answer.code == 0;
        verified.insert(place.host().to_owned(), answer.document);
    }
    Ok((created, Value::Object(verified), passed))
}

/// The same on all hosts at the same time.
async fn all(
    places: &[Place],
    args: impl Fn(&Place) -> Vec<String>,
    stdin: &[u8],
    output: &Output,
) -> Result<BTreeMap<String, Value>, Failure> {
    let calls = places.iter().map(async |place| {
        let args = args(place);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let note = |event| {
            if let Event::Note { text } = event {
                output.say(format_args!("{}: {}", place.host(), foreign(&text)));
            }
        };
        (place.host(), place.call(&args, stdin, note).await)
    });
    let mut documents = BTreeMap::new();
    for (host, answer) in futures_util::future::join_all(calls).await {
        let Answer { failed, document, .. } = answer.map_err(|error| Failure::failed(format!("host {host}"), error))?;
        if failed {
            return Err(Failure::because(format!("host {host}: {document}")));
        }
        documents.insert(host.to_owned(), document);
    }
    Ok(documents)
}

fn text(report: &Report) -> String {
    format!("{report}", report = serde_json::to_string_pretty(report).unwrap_or_default())
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

/// The lab that is meant, of those whose rehearsal was kept.
fn lab_of(argument: Option<&Path>) -> Result<LabName, Failure> {
    let kept = machines::kept()?;
    let labs: BTreeSet<&LabName> = kept.iter().map(|(lab, ..)| lab).collect();
    let said = match argument {
        Some(path) if path.extension().is_some_and(|end| end == "toml") => Some(Source::lab_in(path)?),
        Some(name) => Some(name.to_string_lossy().parse().map_err(|error| Failure::Usage(format!("{error}")))?),
        None => None,
    };
    let list = || labs.iter().map(|lab| lab.as_str()).collect::<Vec<_>>().join(", ");
    match (said, labs.len()) {
        (_, 0) => Err(Failure::because("no rehearsal was kept; vmnet rehearse --keep leaves one")),
        (Some(lab), _) if labs.contains(&lab) => Ok(lab),
        (Some(lab), _) => Err(Failure::because(format!("no rehearsal of lab {lab} was kept; there is {}", list()))),
        (None, 1) => Ok(kept[0].0.clone()),
        (None, _) => Err(Failure::Usage(format!("several were kept; say which: {}", list()))),
    }
}

/// The process that keeps a machine.
fn process_of(argument: Option<&Path>, machine: &str) -> Result<u32, Failure> {
    let lab = lab_of(argument)?;
    let kept = machines::kept()?;
    let of_lab: Vec<_> = kept.iter().filter(|(other, ..)| *other == lab).collect();
    // The switches and the outside come first: a host of such a name is meant before them.
    match of_lab.iter().rfind(|(_, name, _)| name == machine) {
        Some((.., pid)) => Ok(*pid),
        None => {
            let names: Vec<&str> = of_lab.iter().map(|(_, name, _)| name.as_str()).collect();
            Err(Failure::Usage(format!("the rehearsal has no machine {machine:?}; it has {}", names.join(", "))))
        }
    }
}

/// `vmnet rehearse --end`
fn end_kept(argument: Option<&Path>, output: &Output) -> Result<ExitCode, Failure> {
    #[derive(Serialize)]
    struct Ended {
        lab: LabName,
        machines: Vec<String>,
    }
    let lab = lab_of(argument)?;
    let mut ended = Vec::new();
    for (_, machine, pid) in machines::kept()?.into_iter().filter(|(other, ..)| *other == lab) {
        hold::end(pid).map_err(|error| Failure::failed(format!("{machine} can't be ended"), error))?;
        ended.push(machine);
    }
    let ended = Ended { lab, machines: ended };
    output.result(&ended, || format!("the rehearsal of lab {} is over", ended.lab))?;
    Ok(ExitCode::SUCCESS)
}
