//! Who does reach whom: expectations of [`crate::reach`] in, what was seen out. And who has an address already ([`ask`]).
//!
//! A guest that is a namespace probes from inside. For every other one a probe stands in, with a free address of the
//! guest's subnets and the guest's gateways, on a short-lived port of its network ([`kernel::stand`]): "from the
//! guest's position". What is tried is always the real thing. All senders try at the same time.
//!
//! [`kernel::stand`]: crate::kernel::stand

mod claim;
pub(crate) mod packet;
mod sender;
mod service;
pub mod trace;
mod tries;

pub use claim::{Asked, ask};

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::kernel::KernelError;
use crate::model::{Engine, Model};
use crate::names::{HostName, VmName};
use crate::reach::{Endpoint, Expectation, Seen};
use sender::{Numbered, Sender};
use tries::{Attempt, Port, Try};

/// Namespace guests up to this many probe from inside. Each pair costs entries in the kernel's neighbour table, which
/// all namespaces of a machine share (`gc_thresh3`, 1024 by default), so beyond it probes stand in for them too.
const INSIDE_MAX: usize = 20;

/// A probe that could not be carried out at all.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A port or a namespace.
    #[error("cannot probe from {from}")]
    Place {
        /// The sender.
        from: String,
        /// Why.
        #[source]
        source: KernelError,
    },
    /// Sockets.
    #[error("cannot probe from {from}")]
    Sockets {
        /// The sender.
        from: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ProbeError {
    /// Whether a link or a namespace that the sender has is not there.
    fn is_gone(&self) -> bool {
        match self {
            Self::Place { source, .. } => source.is_gone(),
            Self::Sockets { source, .. } => {
                source.kind() == io::ErrorKind::NotFound || source.raw_os_error() == Some(libc::ENODEV)
            }
        }
    }
}

/// The guests of a lab, as far as it is known whether they run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guests {
    /// Those that do.
    pub running: BTreeSet<VmName>,
    /// Why others can't be tried, where that is another reason than that they don't run.
    pub absent: BTreeMap<VmName, String>,
    /// Hosts that were left out, each with why: their gateways are not tried. One that does not answer is tried, since
    /// its network may.
    #[serde(default)]
    pub silent: BTreeMap<HostName, String>,
}

impl Guests {
    fn missing(&self, vm: &VmName) -> Option<String> {
        if self.running.contains(vm) {
            return None;
        }
        Some(self.absent.get(vm).cloned().unwrap_or_else(|| format!("{vm} is not running")))
    }

    /// Why an expectation can't be tried, for the guests of it, and for gateways of hosts that nobody knows about.
    pub fn untested(&self, expectation: &Expectation) -> Option<String> {
        [&expectation.from, &expectation.to].into_iter().find_map(|endpoint| match endpoint {
            Endpoint::Guest(vm) => self.missing(vm),
            Endpoint::Gateway(_, Some(host)) => self.silent.get(host).cloned(),
            _ => None,
        })
    }
}

/// A number that tells the requests of one run from those of all others.
pub fn new_run() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// Whether a probe stands in for a guest, rather than that it sends itself.
pub fn stands_in(model: &Model, vm: &VmName) -> bool {
    let inside = namespace_guests(model) <= INSIDE_MAX;
    !(inside && model.vms().get(vm).is_some_and(|vm| *vm.engine() == Engine::Netns))
}

/// Tries every expectation; one outcome each, in order. Each echo request carries the number of the run and that of its
/// expectation. Of several hosts the model is the view from this one, and the senders are this one's.
///
/// Blocking, for one to four seconds.
///
/// # Errors
/// When a probe can't be put in place or can't open its sockets; not when there is no answer.
pub fn run(
    model: &Model,
    guests: &Guests,
    expectations: &[(u32, &Expectation)],
    run: u64,
) -> Result<Vec<Seen>, ProbeError> {
    let mut seen: Vec<Option<Seen>> = vec![None; expectations.len()];
    let mut by_sender = BTreeMap::<Sender, Vec<usize>>::new();
    let inside = namespace_guests(model) <= INSIDE_MAX;
    for (number, (_, expectation)) in expectations.iter().enumerate() {
        match guests.untested(expectation).map_or_else(|| Sender::of(model, expectation, inside), Err) {
            Ok(sender) => by_sender.entry(sender).or_default().push(number),
            Err(reason) => seen[number] = Some(Seen::Untested { reason }),
        }
    }
    for (numbers, outcomes) in from_all(model, &by_sender, expectations, run)? {
        for (number, outcome) in numbers.iter().zip(outcomes) {
            seen[*number] = Some(outcome);
        }
    }
    let missing = || Seen::Untested { reason: "the probe ended early".into() };
    Ok(seen.into_iter().map(|seen| seen.unwrap_or_else(missing)).collect())
}

fn namespace_guests(model: &Model) -> usize {
    model.vms().values().filter(|vm| *vm.engine() == Engine::Netns).count()
}

type Outcomes<'a> = Vec<(&'a [usize], Vec<Seen>)>;

/// One thread for each sender.
fn from_all<'a>(
    model: &Model,
    by_sender: &'a BTreeMap<Sender, Vec<usize>>,
    expectations: &[(u32, &Expectation)],
    run: u64,
) -> Result<Outcomes<'a>, ProbeError> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = by_sender
            .iter()
            .map(|(sender, numbers)| {
                let wanted: Vec<Numbered<'_>> = numbers.iter().map(|place| expectations[*place]).collect();
                (numbers.as_slice(), scope.spawn(move || sender.send(model, run, &wanted)))
            })
            .collect();
        let join = |(numbers, thread): (&'a [usize], std::thread::ScopedJoinHandle<'_, _>)| {
            let outcome: Result<Vec<Seen>, ProbeError> =
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match outcome {
                // One that is not as it was made says nothing of the others.
                Err(error) if error.is_gone() => {
                    let reason = format!(
                        "{error}: {}",
                        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
                    );
                    Ok((numbers, vec![Seen::Broken { reason }; numbers.len()]))
                }
                outcome => outcome.map(|seen| (numbers, seen)),
            }
        };
        threads.into_iter().map(join).collect()
    })
}

/// Asks whether an address is free; a question carries no number.
fn who_has(port: Port, target: IpAddr) -> Attempt {
    Attempt { what: Try::WhoHas { port, sender: None, target, macs: Vec::new() }, wanted: false, number: 0 }
}
