//! `vmnet probe-part`: what one host does of a `verify` of several, as their coordinator asks. No verb for people.
//!
//! A [`Question`] comes on standard input, and what is asked for is the result. Expectations don't travel: both sides
//! derive them from the same definition, which the fingerprint is for, and count them in the same order.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::output::Output;
use super::verify::{Ground, numbered};
use crate::desired::Note;
use crate::names::LabName;
use crate::probe::{self, Guests};
use crate::reach::trace::{self, Plan};
use crate::reach::{Expectation, Known, Seen, expectations};

/// Most of what is sent is a plan of eight tries.
const LARGEST: u64 = 16 << 20;

/// What a host is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question {
    /// What tells the definition from any other.
    pub(super) fingerprint: String,
    /// What.
    pub(super) ask: Ask,
}

/// The things to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ask {
    /// Try everything that its senders try: [`Probed`].
    Probe {
        /// The guests of all hosts.
        guests: Guests,
        /// Addresses beyond the router that answer.
        outside: Vec<IpAddr>,
    },
    /// Watch its points, until told to stop or this time is over: [`Watched`]. Progress says that it has begun.
    Watch {
        /// Of all hosts.
        plan: Plan,
        /// Seconds.
        limit: u64,
    },
    /// Try some things again, by their places among all: [`Tried`].
    Again {
        /// The number of the run.
        run: u64,
        /// What the host knew the first time.
        known: Known,
        /// The guests of all hosts.
        guests: Guests,
        /// The number of each in the run, and its place.
        tries: BTreeMap<u32, usize>,
    },
    /// End the watching of a run.
    Stop {
        /// The number of the run.
        run: u64,
    },
}

/// What came of everything.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Probed {
    /// What the host knows beside the definition.
    pub(super) known: Known,
    /// One outcome for each expectation.
    pub(super) seen: Vec<Seen>,
    /// What may be the reason where something is not as expected.
    pub(super) notes: Vec<Note>,
}

/// What passed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Watched {
    /// At each of its points.
    pub(super) seen: trace::Seen,
}

/// What came of some tries.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tried {
    /// By their numbers.
    pub(super) outcomes: BTreeMap<u32, Seen>,
}

#[derive(Serialize)]
struct Nothing {}

/// `vmnet probe-part`
pub(super) fn run(lab: &LabName, output: &Output) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    let read = std::io::stdin().lock().take(LARGEST).read_to_end(&mut text);
    read.map_err(|error| Failure::failed("the question can't be read", error))?;
    let Question { fingerprint, ask } = serde_json::from_slice(&text)
        .map_err(|error| Failure::failed("standard input is no question of a coordinator's", error))?;
    if let Ask::Stop { run } = ask {
        stop(run);
        output.result(&Nothing {}, String::new)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut ground = Ground::of(lab)?;
    if ground.source.fingerprint()? != fingerprint {
        return Err(Failure::because(format!("another definition of lab {lab} is applied here")));
    }
    match ask {
        Ask::Probe { guests, outside } => {
            let known = ground.known(outside);
            let expected = expectations(&ground.view, &known);
            let notes = ground.notes()?;
            let seen = ground.probe(&guests, &numbered(&expected), probe::new_run())?;
            output.result(&Probed { known, seen, notes }, String::new)?;
        }
        Ask::Watch { plan, limit } => {
            let stopped = bind(plan.run)?;
            let watch = ground.watch(&plan);
            output.progress("watching", 0, 1);
            let ((), seen) = watch.during(|| wait(&stopped, Duration::from_secs(limit)));
            output.result(&Watched { seen }, String::new)?;
        }
        Ask::Again { run, known, guests, tries } => {
            let expected = expectations(&ground.view, &known);
            let find = |(number, place): (&u32, &usize)| Some((*number, expected.get(*place)?));
            let tries: Vec<(u32, &Expectation)> = tries.iter().filter_map(find).collect();
            let seen = ground.probe(&guests, &tries, run)?;
            let outcomes = tries.iter().map(|(number, _)| *number).zip(seen).collect();
            output.result(&Tried { outcomes }, String::new)?;
        }
        Ask::Stop { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Where a watching process hears that it is over: a name without a file, of this host's network namespace. Whoever else
/// says so here ends a look at packets early, and nothing more.
fn address(run: u64) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("vmnet-watch-{run:016x}"))
}

fn bind(run: u64) -> Result<UnixDatagram, Failure> {
    let bound = address(run).and_then(|address| UnixDatagram::bind_addr(&address));
    bound.map_err(|error| Failure::failed("nothing can be watched", error))
}

/// Waits for the word, at most this long.
fn wait(socket: &UnixDatagram, limit: Duration) {
    // Where it can't be waited for, it is over at once, and nothing was seen.
    let _ = socket.set_read_timeout(Some(limit)).and_then(|()| socket.recv(&mut [0]));
}

fn stop(run: u64) {
    let sent = address(run).and_then(|address| UnixDatagram::unbound()?.send_to_addr(&[0], &address));
    if let Err(error) = sent {
        // It ended by itself.
        tracing::debug!(%error, "nobody watches");
    }
}
