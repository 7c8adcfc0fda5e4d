//! Watches the links of this host while something is tried: the effects behind [`crate::reach::trace`].
//!
//! Sockets are all that it makes. What can't be watched is told with its reason, and never an error.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::packet::{self, Passer, Passing};
use crate::kernel::capture::{Capture, Passed};
use crate::kernel::dump::{Dumper, LinkRow};
use crate::kernel::netns;
use crate::model::Model;
use crate::names::{HostName, IfName, UplinkName};
use crate::reach::points::{Point, Question, Spot};
use crate::reach::trace::{Frame, Plan, Seen, Sighting, Trouble, Watched};
use crate::state::{LinkId, Ns};

/// How long after the last try something may still be on its way.
const AFTER: Duration = Duration::from_millis(150);
/// How often the end is looked for, in milliseconds.
const TICK: u8 = 50;
/// Kinds of frame that are remembered of a point: a guest may send what it likes.
const SIGHTINGS_MAX: usize = 64;
/// What is read of a frame, in bytes.
const FRAME: usize = 256;

/// The points of this host, watched.
#[derive(Debug)]
pub struct Watch<'a> {
    plan: &'a Plan,
    /// Those of points on one link are at one place, so each link has one socket.
    links: Vec<Watching>,
    /// Points without a link.
    blind: Vec<Watched>,
}

/// A link that is watched, and what was seen on it.
#[derive(Debug)]
struct Watching {
    points: Vec<Point>,
    name: String,
    trouble: Option<Trouble>,
    capture: Option<Capture>,
    sightings: BTreeSet<Sighting>,
}

/// A link to be watched, and the points that are on it with the bridge that each belongs to.
struct Wanted<'a> {
    points: Vec<Point>,
    bridge: Option<&'a IfName>,
}

impl<'a> Watch<'a> {
    /// Begins to watch the points of a host: this one, whose part of the model and whose devices are given.
    pub fn open(
        plan: &'a Plan,
        here: Option<&HostName>,
        model: &Model,
        devices: &BTreeMap<UplinkName, IfName>,
    ) -> Self {
        let mut watch = Self { plan, links: Vec::new(), blind: Vec::new() };
        let mut by_ns = BTreeMap::<Ns, BTreeMap<IfName, Wanted<'_>>>::new();
        for point in plan.points(here) {
            match point.spot.link(model, devices) {
                Some(LinkId { ns, name }) => {
                    let bridge = point.spot.bridge(model);
                    let links = by_ns.entry(ns).or_default();
                    links.entry(name).or_insert_with(|| Wanted { points: Vec::new(), bridge }).points.push(point);
                }
                None => {
                    let trouble = Some(Trouble::Missing);
                    watch.blind.push(Watched { point, link: None, trouble, sightings: Vec::new() });
                }
            }
        }
        for (ns, wanted) in by_ns {
            let opened = netns::run_in(&ns, || open_here(&wanted));
            let opened = opened.map_err(|error| chain(&error)).and_then(|done| done.map_err(|error| chain(&error)));
            match opened {
                Ok(links) => watch.links.extend(links),
                Err(why) => watch.links.extend(wanted.into_iter().map(|(name, wanted)| {
                    let trouble = Some(Trouble::Blind { why: why.clone() });
                    Watching::new(wanted.points, &name, trouble, None)
                })),
            }
        }
        watch
    }

    /// Does `work`, and gives what was seen meanwhile beside what came of it.
    pub fn during<T>(mut self, work: impl FnOnce() -> T) -> (T, Seen) {
        let done = AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            let reader = scope.spawn(|| self.read_until(&done));
            let outcome = work();
            std::thread::sleep(AFTER);
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome
        });
        (outcome, self.seen())
    }

    fn read_until(&mut self, done: &AtomicBool) {
        loop {
            // Looked at first: what came before the end is read after it.
            let last = done.load(Ordering::Relaxed);
            for link in &mut self.links {
                link.drain(self.plan);
            }
            if last {
                return;
            }
            let captures = self.links.iter().filter_map(|link| link.capture.as_ref());
            let mut waiting: Vec<PollFd<'_>> =
                captures.map(|capture| PollFd::new(capture.as_fd(), PollFlags::POLLIN)).collect();
            if poll(&mut waiting, PollTimeout::from(TICK)).is_err() {
                std::thread::sleep(Duration::from_millis(TICK.into()));
            }
        }
    }

    fn seen(self) -> Seen {
        let mut points = self.blind;
        for Watching { points: on_it, name, trouble, capture: _, sightings } in self.links {
            points.extend(on_it.into_iter().map(|point| Watched {
                point,
                link: Some(name.clone()),
                trouble: trouble.clone(),
                sightings: sightings.iter().copied().collect(),
            }));
        }
        Seen { points }
    }
}

impl Watching {
    fn new(points: Vec<Point>, name: &IfName, trouble: Option<Trouble>, capture: Option<Capture>) -> Self {
        Self { points, name: name.to_string(), trouble, capture, sightings: BTreeSet::new() }
    }

    fn drain(&mut self, plan: &Plan) {
        let mut buffer = [0; FRAME];
        let Some(capture) = &self.capture else { return };
        loop {
            match capture.next(&mut buffer) {
                Ok(Some(passed)) => {
                    let sighting = sighting(plan, &buffer[..passed.length], passed);
                    if self.sightings.len() < SIGHTINGS_MAX {
                        self.sightings.extend(sighting);
                    }
                }
                Ok(None) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Told once; a link that went down goes on afterwards.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                Err(error) => {
                    self.trouble = Some(Trouble::Blind { why: error.to_string() });
                    self.capture = None;
                    return;
                }
            }
        }
    }
}

fn sighting(plan: &Plan, frame: &[u8], passed: Passed) -> Option<Sighting> {
    let Passer { from, to, tag, what } = packet::read_passing(frame)?;
    let frame = match what {
        Passing::Asks(by, target) if plan.asks(Some(by), target) => Frame::Asks(Question { by, target }),
        Passing::Has(by, target) if plan.asks(by, target) => Frame::Has { by, target },
        Passing::Request(token) if token.run == plan.run => Frame::Request { number: token.number },
        Passing::Reply(token) if token.run == plan.run => Frame::Reply { number: token.number },
        _ => return None,
    };
    Some(Sighting { frame, from, to, tag: passed.tag.or(tag), outgoing: passed.outgoing })
}

/// Opens the links of the calling thread's namespace.
fn open_here(wanted: &BTreeMap<IfName, Wanted<'_>>) -> io::Result<Vec<Watching>> {
    let rows = Dumper::open()?.links()?;
    let by_name = |name: &str| rows.iter().find(|row| row.name == name);
    let open = |(name, wanted): (&IfName, &Wanted<'_>)| {
        let points = wanted.points.clone();
        let Some(row) = by_name(name.as_str()) else {
            return Watching::new(points, name, Some(Trouble::Missing), None);
        };
        let is_bridge = points.iter().any(|point| matches!(point.spot, Spot::Bridge { .. }));
        match Capture::open(row.index, is_bridge) {
            Ok(capture) => {
                let bridge = wanted.bridge.map(|name| (name, by_name(name.as_str()).map(|row| row.index)));
                Watching::new(points, name, trouble(row, bridge), Some(capture))
            }
            Err(error) => Watching::new(points, name, Some(Trouble::Blind { why: error.to_string() }), None),
        }
    };
    Ok(wanted.iter().map(open).collect())
}

/// What keeps frames from passing a link that can be watched.
fn trouble(row: &LinkRow, bridge: Option<(&IfName, Option<u32>)>) -> Option<Trouble> {
    match bridge {
        _ if !row.up => Some(Trouble::Down),
        Some((bridge, index)) if index.is_none() || row.master != index => {
            Some(Trouble::Astray { bridge: bridge.clone() })
        }
        _ if !row.carrier => Some(Trouble::NoCarrier),
        _ => None,
    }
}

/// An error with its reasons, in a line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(reason) = source {
        text += &format!(": {reason}");
        source = reason.source();
    }
    text
}
