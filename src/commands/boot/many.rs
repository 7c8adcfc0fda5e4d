//! Guests by and by: as many at the same time as the host can carry.
//!
//! Each batch is a change of its own, with the lock; while guests are waited for, nobody is kept from changing anything.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::batch::{self, Batch};
use super::lines::{Lines, State};
use super::report::{Done, Failed, list};
use crate::apply::{Step, Told};
use crate::commands::failure::Failure;
use crate::commands::output::{Output, count};
use crate::commands::session::{Session, paths};
use crate::commands::signals::Signals;
use crate::commands::source::Source;
use crate::engine;
use crate::engine::libvirt::Doors;
use crate::model::Model;
use crate::names::{LabName, VmName};
use crate::observe::Observation;

/// How often a wait looks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(50);

/// What is asked for.
pub(super) struct Order<'a> {
    pub(super) lab: &'a LabName,
    /// One guest was asked for: it fails as a whole, with everything that came with it.
    pub(super) alone: bool,
    pub(super) wait: Option<Duration>,
    /// How many machines start at the same time.
    pub(super) jobs: usize,
    pub(super) begun: Instant,
    /// libvirt, for those that wait for its guests.
    pub(super) doors: Arc<Doors>,
    pub(super) output: &'a Output,
}

/// A lab that was opened, and looked at.
pub(super) struct Opened {
    pub(super) session: Session,
    pub(super) source: Source,
    pub(super) observation: Observation,
}

/// A guest that has answered, or not.
struct Answer {
    vm: VmName,
    /// It holds one of the places of those that start.
    starts: bool,
    result: Result<(), engine::EngineError>,
    /// Since its own start.
    after: Duration,
}

/// What is going on.
struct Going<'a> {
    order: &'a Order<'a>,
    model: Rc<Model>,
    lines: Rc<Lines>,
    running: &'a [VmName],
    /// They have not been begun.
    queue: VecDeque<VmName>,
    /// So many machines were started and have not answered yet.
    starting: usize,
    done: Done,
}

/// Starts the guests, and waits for them and for those that run already where that is asked for.
pub(super) async fn start(
    order: &Order<'_>,
    opened: Opened,
    to_start: Vec<VmName>,
    running: &[VmName],
) -> Result<Done, Failure> {
    let signals = Signals::catch();
    let cancel = signals.cancel(true);
    let model = Rc::clone(&opened.source.model);
    let lines = Rc::new(Lines::new(order, &model, &to_start));
    let mut waits = FuturesUnordered::new();
    if order.wait.is_some() {
        waits.extend(running.iter().map(|vm| order.answer(Rc::clone(&model), vm.clone(), false)));
    }
    let (queue, done) = (VecDeque::from(to_start), Done::default());
    let mut going = Going { order, model, lines, running, queue, starting: 0, done };
    // The first one even where nothing is to be started: the network is put right.
    let mut opened = Some(opened);
    while opened.is_some() || !going.queue.is_empty() || !waits.is_empty() {
        let next = going.next();
        if next.is_empty() && opened.is_none() {
            tokio::select! {
                Some(answer) = waits.next() => going.settle(answer)?,
                () = came(cancel) => return Err(going.interrupted()),
            }
            continue;
        }
        let is_first = opened.is_some();
        let launched = {
            let lines = Rc::clone(&going.lines);
            let launch = order.launch(opened.take(), &next, &lines);
            tokio::pin!(launch);
            loop {
                tokio::select! {
                    launched = &mut launch => break launched,
                    Some(answer) = waits.next() => going.settle(answer)?,
                }
            }
        };
        let wait_for = going.launched(launched, next, is_first)?;
        waits.extend(wait_for.into_iter().map(|vm| order.answer(Rc::clone(&going.model), vm, true)));
    }
    going.done.started.sort();
    Ok(going.done)
}

impl Going<'_> {
    /// The next guests: namespaces, which cost nothing, and as many machines as there are places.
    fn next(&mut self) -> Vec<VmName> {
        let mut left = self.order.jobs.saturating_sub(self.starting);
        let (mut next, mut later) = (Vec::new(), VecDeque::new());
        for vm in self.queue.drain(..) {
            match (is_machine(&self.model, &vm), left) {
                (true, 0) => later.push_back(vm),
                (true, _) => {
                    left -= 1;
                    next.push(vm);
                }
                (false, _) => next.push(vm),
            }
        }
        self.queue = later;
        next
    }

    /// Takes down what became of a batch, and gives those that are to be waited for.
    fn launched(
        &mut self,
        launched: Result<Batch, Failure>,
        next: Vec<VmName>,
        is_first: bool,
    ) -> Result<Vec<VmName>, Failure> {
        let Batch { started, failed, repaired } = match launched {
            Ok(batch) => batch,
            // Nothing was begun before it.
            Err(failure) if is_first => return Err(failure),
            Err(failure) if failure.is_cancelled() => {
                self.queue.extend(next);
                return Err(self.interrupted());
            }
            Err(failure) => {
                let failed = next.into_iter().chain(self.queue.drain(..));
                Batch { failed: failed.map(|vm| (vm, Failed::of(&failure))).collect(), ..Batch::default() }
            }
        };
        let waits = self.order.wait.is_some();
        if waits && self.order.alone && !started.is_empty() {
            self.order.output.say(format_args!("waiting for {}", count(1, "guest")));
        }
        for vm in &started {
            self.lines.show(vm, if waits { State::Waiting } else { State::Started });
            self.starting += usize::from(waits && is_machine(&self.model, vm));
        }
        failed.iter().for_each(|(vm, failed)| self.lines.show(vm, State::Failed(failed.line())));
        self.done.failed.extend(failed);
        self.done.repaired += repaired;
        self.done.started.extend(started.iter().cloned());
        Ok(if waits { started } else { Vec::new() })
    }

    fn settle(&mut self, answer: Answer) -> Result<(), Failure> {
        let Answer { vm, starts, result, after } = answer;
        self.starting -= usize::from(starts);
        match result {
            Ok(()) => {
                self.lines.show(&vm, State::Up(after.as_secs_f64()));
                self.done.answered.insert(vm, self.order.begun.elapsed().as_secs_f64());
            }
            Err(error) => {
                let failure = Failure::failed(format!("vm {vm} is not on the network"), error);
                if self.order.alone {
                    return Err(failure);
                }
                let failed = Failed::to_answer(&failure);
                self.lines.show(&vm, State::Failed(failed.line()));
                self.done.failed.insert(vm, failed);
            }
        }
        Ok(())
    }

    /// What runs stays; what was not begun is not.
    fn interrupted(&self) -> Failure {
        let mut run: Vec<VmName> = self.running.iter().chain(&self.done.started).cloned().collect();
        run.sort();
        let begun = match run.as_slice() {
            [] => String::new(),
            [only] => format!("; {only} runs"),
            several => format!("; {} run", list(several)),
        };
        let left: Vec<VmName> = self.queue.iter().cloned().collect();
        let left = if left.is_empty() { String::new() } else { format!("; not started: {}", list(&left)) };
        let what = if self.order.wait.is_some() { "not waited to the end" } else { "interrupted" };
        Failure::because(format!("{what}{begun}{left}"))
    }
}

impl Order<'_> {
    /// Starts a batch, in a session of its own where none is open.
    async fn launch(&self, opened: Option<Opened>, vms: &[VmName], lines: &Rc<Lines>) -> Result<Batch, Failure> {
        let Opened { mut session, source, mut observation } = match opened {
            Some(opened) => opened,
            None => {
                let mut session = Session::change_of(self.lab, "boot", self.output)?;
                let source = session.applied()?;
                session.host.scope.guest_devices = true;
                let observation = session.look(Some(&source.model))?;
                Opened { session, source, observation }
            }
        };
        session.quiet = lines.are_shown();
        let hearing = Rc::clone(lines);
        session.host.told = Told::to(move |vm, step| {
            hearing.show(
                vm,
                match step {
                    Step::Disk => State::Disk,
                    Step::Starting => State::Starting,
                },
            );
        });
        // Somebody may have started one of them meanwhile.
        let (run, rest): (Vec<VmName>, Vec<VmName>) =
            vms.iter().cloned().partition(|vm| observation.state.guests.contains_key(vm));
        let mut batch = batch::start(&mut session, &source, &mut observation, &rest, self.alone, self.output).await?;
        batch.started.extend(run);
        Ok(batch)
    }

    /// Waits until a guest answers.
    async fn answer(&self, model: Rc<Model>, vm: VmName, starts: bool) -> Answer {
        let begun = Instant::now();
        let limit = self.wait.unwrap_or_default();
        let result = match paths() {
            Ok(paths) => engine::wait::until_up(&model, &model.vms()[&vm], &paths, &self.doors, limit).await,
            // They were there a moment ago.
            Err(_) => Err(engine::EngineError::not_running(self.lab, &vm)),
        };
        Answer { starts: starts && is_machine(&model, &vm), vm, result, after: begun.elapsed() }
    }
}

fn is_machine(model: &Model, vm: &VmName) -> bool {
    model.vms().get(vm).is_some_and(|vm| vm.engine().is_machine())
}

async fn came(cancel: &AtomicBool) {
    while !cancel.load(Ordering::Relaxed) {
        tokio::time::sleep(LOOK).await;
    }
}
