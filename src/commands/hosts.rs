//! A lab on several hosts: each computes its part from the same definition, and this room tells all of them what to do
//! and makes one answer of theirs.
//!
//! [`Fleet`] knows its hosts as [`Place`]s only: over ssh, rehearsed, or this machine. What a host does is what its own
//! vmnet does; nothing here looks at a kernel.

mod back;
mod board;
mod create;
mod each;
mod enter;
mod outcome;
mod plan;
mod rebuild;
mod rehearse;
mod route;
mod send;
mod status;
mod survey;
mod trace;
mod verify;
mod with;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;

use super::failure::Failure;
use super::output::Output;
use super::source::Source;
use crate::model::{Model, slice};
use crate::names::{HostName, LabName};
use crate::remote::{Event, Factory, LIMIT, Place, RemoteError};
use board::{Board, Line};
pub(super) use create::Options;
use outcome::Outcome;
pub(super) use outcome::told;
pub(super) use rehearse::{OfHost, Rehearsed};
pub(super) use route::run;
pub(super) use verify::Verified;

/// What this machine is called where the definition names no hosts.
const THIS: &str = "localhost";

/// This program, whatever became of its file.
const SELF: &str = "/proc/self/exe";

/// What became of a call on each host.
type Outcomes = BTreeMap<String, Outcome>;

/// The hosts of a lab, or some of them, and the definition.
pub(super) struct Fleet {
    source: Source,
    fingerprint: String,
    members: Vec<Member>,
    /// Hosts that could not be reached, or have another vmnet.
    lost: BTreeMap<String, RemoteError>,
    /// Addresses beyond the router that answer.
    outside: Vec<IpAddr>,
    output: Output,
}

/// One of them.
struct Member {
    name: String,
    way: Way,
    place: RefCell<Rc<Place>>,
    /// Its part.
    model: Rc<Model>,
}

/// How it was reached.
#[derive(Clone, PartialEq, Eq)]
enum Way {
    /// By ssh, to this destination.
    Ssh(String),
    /// As namespaces of this machine.
    Rehearsed,
    /// It is this machine.
    This { here: Option<HostName> },
}

/// What a host is asked to do.
#[derive(Clone)]
struct Call {
    args: Vec<String>,
    input: Vec<u8>,
    limit: Duration,
}

impl Call {
    /// A verb with its arguments.
    fn of<S: Into<String>>(args: impl IntoIterator<Item = S>) -> Self {
        Self { args: args.into_iter().map(Into::into).collect(), input: Vec::new(), limit: LIMIT }
    }

    fn with(self, input: Vec<u8>) -> Self {
        Self { input, ..self }
    }

    fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }
}

impl Fleet {
    /// Connects to the hosts of a definition over ssh, or to those in `only`, and compares versions; with `install` a
    /// host gets this program where it has none or another one. Who can't be reached is told by [`Fleet::all_here`].
    pub(super) async fn connect(
        source: Source,
        only: &[HostName],
        install: bool,
        output: &Output,
    ) -> Result<Self, Failure> {
        let names = chosen(&source.whole, only)?;
        let board = Board::new("connecting", &names, output);
        let connected = join_all(names.iter().map(async |name| {
            let destination = source.whole.hosts()[name].ssh();
            let line = board.line(name.as_str());
            let place = reach(name, destination, install, &line).await;
            line.end(place.is_ok());
            (name.clone(), destination.clone(), place)
        }));
        let connected = connected.await;
        drop(board);
        let (mut members, mut lost) = (Vec::new(), BTreeMap::new());
        for (name, destination, place) in connected {
            match place {
                Ok(place) => members.push(Member::new(&source, &name, Way::Ssh(destination), place)?),
                Err(error) => drop(lost.insert(name.to_string(), error)),
            }
        }
        let fingerprint = source.fingerprint()?;
        Ok(Self { source, fingerprint, members, lost, outside: Vec::new(), output: *output })
    }

    /// The hosts of a definition as namespaces of this machine, each reached by its factory; the one host of a definition
    /// that names none, too. Beyond the router these addresses answer. Where guests are namespaces, the definition was
    /// read by [`Source::read_rehearsed`].
    pub(super) fn rehearsed(
        source: Source,
        factories: BTreeMap<HostName, Factory>,
        outside: &[IpAddr],
        output: &Output,
    ) -> Result<Self, Failure> {
        let mut members = Vec::new();
        for (name, factory) in factories {
            let place = Place::rehearsed(name.as_str(), factory);
            members.push(Member::new(&source, &name, Way::Rehearsed, place)?);
        }
        let fingerprint = source.fingerprint()?;
        let (lost, outside) = (BTreeMap::new(), outside.to_vec());
        Ok(Self { source, fingerprint, members, lost, outside, output: *output })
    }

    /// This machine alone: a definition without hosts, or the part that was read.
    pub(super) fn this(source: Source, output: &Output) -> Result<Self, Failure> {
        let here = source.origin.here.clone();
        let name = here.as_ref().map_or(THIS, HostName::as_str).to_owned();
        let place = RefCell::new(Rc::new(Place::this(&name)));
        let member = Member { name, way: Way::This { here }, place, model: Rc::clone(&source.model) };
        let fingerprint = source.fingerprint()?;
        let (lost, outside) = (BTreeMap::new(), Vec::new());
        Ok(Self { source, fingerprint, members: vec![member], lost, outside, output: *output })
    }

    /// The lab.
    pub(super) fn lab(&self) -> &LabName {
        self.source.whole.lab()
    }

    /// Refuses to begin where a host can't be reached.
    pub(super) fn all_here(&self) -> Result<(), Failure> {
        if self.lost.is_empty() {
            return Ok(());
        }
        let lost: BTreeMap<_, _> =
            self.lost.iter().map(|(name, error)| (name.clone(), outcome::document(error))).collect();
        let install = self.lost.values().all(RemoteError::wants_install);
        let (is_or_are, names) = (if lost.len() == 1 { "is" } else { "are" }, listed(lost.keys()));
        let what = if install { "without this version of vmnet" } else { "not there" };
        Err(Failure::Hosts {
            message: format!("lab {}: {names} {is_or_are} {what}; nothing was done", self.lab()),
            hosts: lost,
            help: (!self.members.is_empty())
                .then(|| format!("--only {} leaves out the others", listed(self.members.iter().map(|m| &m.name)))),
            code: if install { 4 } else { 1 },
        })
    }

    /// Ends the connections.
    pub(super) async fn close(self) {
        join_all(self.members.into_iter().map(async |member| {
            if let Some(place) = Rc::into_inner(member.place.into_inner()) {
                place.close().await;
            }
        }))
        .await;
    }

    /// Asks all hosts at once that have something to do.
    async fn ask(&self, phase: &str, call: impl Fn(&Member) -> Option<Call>) -> Outcomes {
        let calls: Vec<_> = self.members.iter().filter_map(|member| call(member).map(|call| (member, call))).collect();
        let names: Vec<&str> = calls.iter().map(|(member, _)| member.name.as_str()).collect();
        let board = Board::new(phase, &names, &self.output);
        let asked = calls.iter().map(async |(member, call)| {
            let mut line = board.line(&member.name);
            let outcome = member.ask(call, &mut line).await;
            line.end(outcome.is_done());
            (member.name.clone(), outcome)
        });
        join_all(asked).await.into_iter().collect()
    }

    /// Asks one host, which has to answer.
    async fn ask_one(&self, member: &Member, args: &[&str]) -> Result<serde_json::Value, Failure> {
        let outcome = member.ask_quietly(&Call::of(args.iter().copied())).await;
        if outcome.is_done() {
            return Ok(outcome.document());
        }
        let code = outcome.code().max(1);
        let hosts = BTreeMap::from([(member.name.clone(), outcome.document())]);
        Err(Failure::Hosts {
            message: format!("lab {}: host {} refuses", self.lab(), member.name),
            hosts,
            help: None,
            code,
        })
    }

    fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// How a command line names the definition.
    fn file(&self) -> String {
        let file = super::output::shown(&self.source.path);
        match &self.source.origin.alias {
            Some(lab) => format!("{file} --lab {lab}"),
            None => file,
        }
    }
}

impl Member {
    fn new(source: &Source, name: &HostName, way: Way, place: Place) -> Result<Self, Failure> {
        let whole = || source.whole.hosts().is_empty().then(|| Rc::clone(&source.whole));
        let model = slice(&source.whole, name)
            .map(Rc::new)
            .or_else(whole)
            .ok_or_else(|| Failure::Usage(format!("{} has no host {name}", source.path.display())))?;
        Ok(Self { name: name.to_string(), way, place: RefCell::new(Rc::new(place)), model })
    }

    fn place(&self) -> Rc<Place> {
        self.place.borrow().clone()
    }

    /// Asks one host.
    async fn ask(&self, call: &Call, line: &mut Line) -> Outcome {
        let mut said = String::new();
        let heard = |event| match event {
            Event::Text { text } => said = text,
            event => line.event(&event),
        };
        match self.ask_hearing(call, heard).await {
            Outcome::Answered { answer, text: _ } => Outcome::Answered { answer, text: said },
            other => other,
        }
    }

    /// Asks, and hears what it says meanwhile.
    async fn ask_hearing(&self, call: &Call, heard: impl FnMut(Event)) -> Outcome {
        let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
        let place = self.place();
        match place.call_within(call.limit, &args, &call.input, heard).await {
            Ok(answer) => Outcome::Answered { answer, text: String::new() },
            Err(error) => Outcome::Lost(error),
        }
    }

    /// Asks without showing it.
    async fn ask_quietly(&self, call: &Call) -> Outcome {
        self.ask(call, &mut Line::silent()).await
    }

    /// Connects anew: a connection that broke stays broken.
    async fn reconnect(&self) -> Result<(), RemoteError> {
        if let Way::Ssh(destination) = &self.way {
            let place = Place::connect(&self.name, destination).await?;
            *self.place.borrow_mut() = Rc::new(place);
        }
        Ok(())
    }

    /// What to say to it by hand, before `vmnet`.
    fn by_hand(&self) -> String {
        match &self.way {
            Way::Ssh(destination) => format!("ssh {destination} "),
            Way::Rehearsed | Way::This { .. } => String::new(),
        }
    }
}

/// The hosts that are meant.
fn chosen(whole: &Model, only: &[HostName]) -> Result<Vec<HostName>, Failure> {
    let known = whole.hosts();
    if let Some(unknown) = only.iter().find(|name| !known.contains_key(*name)) {
        let all = listed(known.keys());
        return Err(Failure::Usage(format!("there is no host {unknown} in the definition; it has {all}")));
    }
    Ok(known.keys().filter(|name| only.is_empty() || only.contains(name)).cloned().collect())
}

/// Connects to a host, where there has to be this version of vmnet.
async fn reach(name: &HostName, destination: &str, install: bool, line: &Line) -> Result<Place, RemoteError> {
    let place = Place::connect(name.as_str(), destination).await?;
    match place.check_version().await {
        Err(error) if install && error.wants_install() => {
            line.says("installing");
            place.install(std::path::Path::new(SELF)).await?;
        }
        checked => checked?,
    }
    Ok(place)
}

fn listed(names: impl IntoIterator<Item = impl ToString>) -> String {
    names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}
