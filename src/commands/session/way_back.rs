//! The record of a change, and the way back that it leads.

use std::collections::BTreeSet;

use super::{Came, Session, no_modules};
use crate::apply::{self, KernelHost, Restored, WayBack};
use crate::commands::destroy;
use crate::commands::failure::Failure;
use crate::commands::output::{Output, WARN, chain, near};
use crate::commands::progress::Progress;
use crate::commands::signals::Signals;
use crate::commands::source::Source;
use crate::commands::watch;
use crate::ledger::change::{self, Change, Deadline};
use crate::ledger::{self, Ledger, LedgerError, Room, Undone};
use crate::plan::{Hurt, Plan};
use crate::state::{HostState, SettingKey};

impl Session {
    /// Writes down where a way back leads, and that a change begins. Nothing was changed where that fails.
    ///
    /// A record that stands there already leads to what was last applied, so it stays: this change comes on top.
    pub(super) fn begin(
        &mut self,
        old: Option<Ledger>,
        source: Option<&Source>,
        before: &HostState,
        plan: &Plan,
        output: &Output,
    ) -> Result<(), Failure> {
        let begun = self.write_down(old.clone(), source, before, plan, output);
        // A record that stood there before says more than we know.
        if begun.is_err() && (self.pending.is_none() || old.is_some()) {
            self.forget(old, source, output);
        }
        begun
    }

    /// Takes the room on the disk that the ledger needs at the end: too late to find out then.
    pub(super) fn room(&self) -> Result<Room, Failure> {
        Room::take(&self.paths, &self.ledger).map_err(|error| {
            if !self.is_known {
                // The folder that was made for it. The first error is the one to tell.
                let _ = ledger::remove(&self.paths, &self.lab);
            }
            self.unwritten(error)
        })
    }

    /// Keeps room for the way back of a change that waits to be confirmed: the disk may be full by then. Where it is
    /// full now, the way back tries without.
    pub(super) fn keep_room(&self) {
        if let Ok(room) = Room::take(&self.paths, &self.ledger) {
            room.keep();
        }
    }

    /// Says that a removal goes on although nothing of it can be written down. The ledger of before stands.
    pub(super) fn unrecorded(&self, output: &Output) {
        output.say(format_args!(
            "{WARN}note{WARN:#}: there is no room below {} to write down where a way back leads: {} of lab {} goes on \
             without; if it is interrupted, run it again",
            self.paths.state.display(),
            self.verb,
            self.lab
        ));
    }

    fn unwritten(&self, error: LedgerError) -> Failure {
        let folder = self.paths.state.display();
        let remedy = if error.is_full() { "; make room there" } else { "" };
        let message = "nothing was changed: the change can't be written down below";
        Failure::failed(format!("{message} {folder}{remedy}"), error)
    }

    fn write_down(
        &mut self,
        old: Option<Ledger>,
        source: Option<&Source>,
        before: &HostState,
        plan: &Plan,
        output: &Output,
    ) -> Result<(), Failure> {
        if self.pending.is_none() {
            let change = Change::begin(&self.lab, &self.verb, &self.ledger.boot_id, before.clone());
            let mut change = change.map_err(|error| Failure::failed("/proc can't be read", error))?;
            change.guests = apply::guests_of(plan);
            change.old = old;
            change.confirm = self.confirm.map(Deadline::after);
            match &change.confirm {
                None => change::write(&self.paths, &change).map_err(|error| self.unwritten(error))?,
                Some(deadline) => {
                    watch::start(&self.paths, &change)?;
                    self.deadline = Some(*deadline);
                    // Who coordinates several hosts tells it themselves, where it is the user's to know.
                    if output.is_text() {
                        output.say(watch::announcement(&self.lab, deadline));
                    }
                }
            }
        }
        Undone::forget(&self.paths, &self.lab);
        self.ledger.progress = Came::Changing;
        ledger::write(&self.paths, &self.ledger).map_err(|error| self.unwritten(error))?;
        // Behind the ledger, which says where it is: so `destroy` finds what a crash leaves of it.
        if let Some(source) = source
            && source.write_lock()?
        {
            output.say(format_args!("wrote {}: keep it beside the definition", near(&source.lock_path())));
        }
        Ok(())
    }

    /// Everything is as it was before a change that failed: so are ledger and lock file. That they can't be is told
    /// beside the failure, and not instead.
    pub(super) fn forget(&mut self, old: Option<Ledger>, source: Option<&Source>, output: &Output) {
        let ledger = match old {
            // One that was never replaced stays, where the disk may be full.
            Some(old) => match ledger::read(&self.paths, &self.lab) {
                Ok(Some(now)) if now == old => Ok(()),
                _ => ledger::write(&self.paths, &old),
            }
            .and_then(|()| match &self.pending {
                None => change::end(&self.paths, &self.lab),
                Some(_) => Ok(()),
            }),
            None => ledger::remove(&self.paths, &self.lab),
        };
        let lock = source.map_or(Ok(()), Source::restore_lock);
        for failure in [ledger.map_err(Failure::from), lock].into_iter().filter_map(Result::err) {
            output.say(format_args!("{WARN}note{WARN:#}: {}", chain(&failure).join(": ")));
        }
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
        self.may_be_silent = true;
        // What the change took from libvirt is in libvirt's files no more, and comes back.
        self.host.scope.libvirt |= self.asks_libvirt && change.before.uses_libvirt();
        let observation = self.look(None)?;
        let found = self.to_restore();
        let mut before = change.before.clone();
        if let Some(silence) = observation.facts.libvirt.silence() {
            // A host that is cut off does not wait for libvirt. Its guests stay as they are, their ports, too.
            output.say(format_args!(
                "{WARN}note{WARN:#}: guests and networks of libvirt stay as they are, since it does not answer: {silence}"
            ));
            self.host.scope.libvirt = false;
            before.leave_out_libvirt();
        }
        // What another lab came to need since then stays as that one needs it, and goes back with it; so does what one
        // may need of which nothing is known.
        let mine = &self.ledger.found;
        let is_others =
            |key: &SettingKey| self.others.contains_key(key) || (self.others_unknown && mine.contains_key(key));
        before.settings.retain(|key, _| !is_others(key) && !self.stays_up.contains(key));
        let way = WayBack { to: &before, found: &found, guests: change.guests.clone() };
        let plan = way.from(&observation.state);
        self.refuse_hurt(&observation, &plan)?;
        let hurt = self.hurt_by(&observation, &plan)?;
        KernelHost::prepare(&plan).map_err(no_modules)?;
        self.ledger.progress = Came::Changing;
        Room::give_up(&self.paths, &self.lab);
        if self.is_known {
            match ledger::write(&self.paths, &self.ledger) {
                // The record says where to go, whatever the ledger says.
                Err(error) if error.is_full() => {}
                written => written?,
            }
        }
        let mut progress = Progress::of(plan.len(), output);
        let signals = self.signals.take().unwrap_or_else(Signals::catch);
        signals.cancel(false);
        let restored = apply::back(&mut self.host, &way, &mut |event| progress.event(&event)).await;
        self.signals = Some(signals);
        progress.done();
        if !matches!(restored, Restored::Completely) {
            let lab = &self.lab;
            return Err(Failure::because(format!(
                "the way back is not complete{restored}\ntry vmnet undo {lab} again"
            )));
        }
        self.end_as_before(change)?;
        Ok((plan.len(), hurt))
    }

    /// What is remembered is what was, once the host is.
    fn end_as_before(&self, change: &Change) -> Result<(), Failure> {
        match &change.old {
            Some(old) => {
                // Tables that were written again were recorded again.
                let mut old = old.clone();
                old.tables.clone_from(self.host.recorded());
                lock_file_back(&self.ledger, &old)?;
                ledger::write(&self.paths, &old)?;
                change::end(&self.paths, &self.lab)?;
            }
            None => {
                // Empty folders of hooks, where a way back was interrupted before.
                destroy::remove_run_folder(&self.paths, &self.lab)?;
                ledger::remove(&self.paths, &self.lab)?;
            }
        }
        Ok(())
    }
}

/// What the change wrote into the lock file goes with it: addresses that were given up are kept again. A file that says
/// anything else by now is the user's.
fn lock_file_back(now: &Ledger, old: &Ledger) -> Result<(), Failure> {
    if now.path != old.path || now.lock == old.lock || old.origin.sent {
        return Ok(());
    }
    match Source::applied(old) {
        Ok(source) if source.lock_says(&now.lock) => source.put_lock_back(Some(&old.lock)),
        _ => Ok(()),
    }
}
