//! The record of a change, and the way back that it leads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Came, Session, cancel_on_signal, no_modules};
use crate::apply::{self, KernelHost, Restored, WayBack};
use crate::commands::failure::Failure;
use crate::commands::output::Output;
use crate::commands::progress::Progress;
use crate::commands::watch;
use crate::ledger::change::{self, Change, Deadline};
use crate::ledger::{self, Ledger, Room, Undone};
use crate::observe::Observation;
use crate::plan::{Hurt, Plan};

impl Session {
    /// Writes down where a way back leads, and that a change begins. Nothing was changed where that fails.
    ///
    /// A record that stands there already leads to what was last applied, so it stays: this change comes on top.
    pub(super) fn begin(
        &mut self,
        old: Option<Ledger>,
        observation: &Observation,
        plan: &Plan,
        output: &Output,
    ) -> Result<(), Failure> {
        let begun = self.write_down(old.clone(), observation, plan, output);
        if begun.is_err() {
            // The first error is the one to tell.
            let _ = match (&self.pending, old) {
                (Some(_), _) => Ok(()),
                (None, Some(_)) => change::end(&self.paths, &self.lab),
                (None, None) => ledger::remove(&self.paths, &self.lab),
            };
        }
        begun.map_err(|failure| self.unwritten(failure))
    }

    /// Takes the room on the disk that the ledger needs at the end: too late to find out then.
    pub(super) fn room(&self) -> Result<Room, Failure> {
        Room::take(&self.paths, &self.ledger).map_err(|error| {
            if !self.is_known {
                // The folder that was made for it. The first error is the one to tell.
                let _ = ledger::remove(&self.paths, &self.lab);
            }
            self.unwritten(error.into())
        })
    }

    fn unwritten(&self, failure: Failure) -> Failure {
        let folder = self.paths.state.display();
        match failure {
            Failure::Failed { message: _, source } => Failure::Failed {
                message: format!(
                    "nothing was changed: the change can't be written down below {folder}; make room there"
                ),
                source,
            },
            other => other,
        }
    }

    fn write_down(
        &mut self,
        old: Option<Ledger>,
        observation: &Observation,
        plan: &Plan,
        output: &Output,
    ) -> Result<(), Failure> {
        if self.pending.is_none() {
            let change = Change::begin(&self.lab, &self.verb, &self.ledger.boot_id, observation.state.clone());
            let mut change = change.map_err(|error| Failure::failed("/proc can't be read", error))?;
            change.guests = apply::guests_of(plan);
            change.old = old;
            change.confirm = self.confirm.map(Deadline::after);
            match &change.confirm {
                None => change::write(&self.paths, &change)?,
                Some(deadline) => {
                    watch::start(&self.paths, &change)?;
                    self.deadline = Some(*deadline);
                    output.say(watch::announcement(&self.lab, deadline));
                }
            }
        }
        Undone::forget(&self.paths, &self.lab);
        self.ledger.progress = Came::Changing;
        Ok(ledger::write(&self.paths, &self.ledger)?)
    }

    /// Everything is as it was before a change that failed: so is the ledger.
    pub(super) fn forget(&mut self, old: Option<Ledger>) -> Result<(), Failure> {
        match old {
            Some(old) => ledger::write(&self.paths, &old)?,
            None => return Ok(ledger::remove(&self.paths, &self.lab)?),
        }
        if self.pending.is_none() {
            change::end(&self.paths, &self.lab)?;
        }
        Ok(())
    }

    /// Leads back to what was there before `change`. Gives the number of operations, and what it did to devices that
    /// are not the lab's, which it refuses unless forced.
    ///
    /// What fails on the way does not end it. Then the record stays, and it can be tried again.
    pub(in crate::commands) async fn go_back(
        &mut self,
        change: &Change,
        output: &Output,
    ) -> Result<(usize, BTreeSet<Hurt>), Failure> {
        self.host.scope.settings.extend(change.before.settings.keys().cloned());
        let observation = self.look(None)?;
        let found = self.to_restore();
        let way = WayBack { to: &change.before, found: &found, guests: change.guests.clone() };
        let plan = way.from(&observation.state);
        self.refuse_hurt(&observation, &plan)?;
        let hurt = self.hurt_by(&observation, &plan)?;
        KernelHost::prepare(&plan).map_err(no_modules)?;
        self.ledger.progress = Came::Changing;
        if self.is_known {
            ledger::write(&self.paths, &self.ledger)?;
        }
        let mut progress = Progress::of(plan.len(), output);
        let listener = tokio::spawn(cancel_on_signal(Arc::new(AtomicBool::new(false)), false));
        let restored = apply::back(&mut self.host, &way, &mut |event| progress.event(&event)).await;
        listener.abort();
        progress.done();
        if !matches!(restored, Restored::Completely) {
            let lab = &self.lab;
            return Err(Failure::because(format!(
                "the way back is not complete{restored}\ntry vmnet undo {lab} again"
            )));
        }
        match &change.old {
            Some(old) => {
                // Tables that were written again were recorded again.
                let mut old = old.clone();
                old.tables.clone_from(self.host.recorded());
                ledger::write(&self.paths, &old)?;
                change::end(&self.paths, &self.lab)?;
            }
            None => ledger::remove(&self.paths, &self.lab)?,
        }
        Ok((plan.len(), hurt))
    }
}
