//! `vmnet with`: a lab for the time that a command takes, on one host or on several.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::create::Options;
use super::{Fleet, Outcome, listed};
use crate::commands::boot;
use crate::commands::create::there_already;
use crate::commands::destroy;
use crate::commands::failure::Failure;
use crate::commands::output::{BOLD, GOOD, count, foreign};
use crate::commands::signals::Signals;
use crate::commands::with::run;

/// How often it is looked whether a signal came while guests are waited for.
const LOOK: Duration = Duration::from_millis(50);

/// What the command line says beside the definition.
#[derive(Debug, Clone, Copy)]
pub(super) struct With<'c> {
    /// For guests.
    pub(super) wait: Duration,
    /// The lab stays where the command fails.
    pub(super) keep_on_failure: bool,
    /// The command and its arguments.
    pub(super) command: &'c [String],
}

impl Fleet {
    /// `vmnet with`: creates, boots, waits, runs the command and removes everything. The command's standard output holds
    /// nothing else.
    pub(super) async fn with(&self, options: With<'_>) -> Result<ExitCode, Failure> {
        self.all_here()?;
        self.refuse_what_is_there().await?;
        // From here on a signal leads to the end, by way of the command's where it runs.
        let signals = Signals::catch();
        // That is all or nothing by itself.
        self.create(Options { new: true, ..Options::default() }).await?;
        let done = match self.booted(options.wait, &signals).await {
            Ok(()) => Ok(self.ran(options.command, &signals).await),
            Err(failure) => Err(failure),
        };
        let lab = self.lab();
        if let (Ok(code @ 1..), true) = (&done, options.keep_on_failure) {
            self.output.say(format_args!(
                "lab {lab}: the command failed ({code}), and it stays; remove it: {BOLD}{}{BOLD:#}",
                self.how_to_remove()
            ));
            return Ok(ExitCode::from(*code));
        }
        // Half removed is worse than gone.
        signals.cancel(false);
        let removed = self.cleaned().await;
        let code = done.unwrap_or_else(|failure| {
            self.output.failure(&failure);
            failure.code()
        });
        match removed {
            Ok(()) => Ok(ExitCode::from(code)),
            Err(failure) if code == 0 => Err(failure),
            Err(failure) => {
                self.output.failure(&failure);
                Ok(ExitCode::from(code))
            }
        }
    }

    /// Whatever is there of a lab of this name is somebody's, and would go with it: `create` looks once more, with the
    /// lock.
    async fn refuse_what_is_there(&self) -> Result<(), Failure> {
        let survey = self.survey().await?;
        let Some((_, seen)) = survey.there().next() else { return Ok(()) };
        let only_disks = seen.state == "disks";
        Err(there_already(self.lab(), &seen.disks, !only_disks))
    }

    /// Starts all guests and waits until they answer.
    async fn booted(&self, wait: Duration, signals: &Signals) -> Result<(), Failure> {
        let interrupted = signals.cancel(true);
        let came = async {
            while !interrupted.load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            biased;
            () = came => Err(Failure::because("interrupted; the command was not run")),
            booted = self.start(&None, boot::Options { wait: Some(wait), jobs: None, overcommit: false }) => self.all_started(&booted),
        }
    }

    /// Runs the command.
    async fn ran(&self, command: &[String], signals: &Signals) -> u8 {
        let guests: usize = self.members.iter().map(|member| member.model.vms().len()).sum();
        let program = command.first().map_or("", String::as_str);
        let lab = self.lab();
        self.output.say(format_args!(
            "lab {lab}: {GOOD}created{GOOD:#} on {}{}; running {}",
            listed(self.members.iter().map(|member| &member.name)),
            if guests > 0 { format!(", {} on the network", count(guests, "guest")) } else { String::new() },
            foreign(program)
        ));
        run(command, lab, &self.source.path, signals, &self.output).await
    }

    /// Removes it with everything; says so loudly where that fails.
    async fn cleaned(&self) -> Result<(), Failure> {
        let removed = self.remove(destroy::Options { stop: true, purge: true, force: false }).await;
        let lab = self.lab();
        if removed.values().all(Outcome::is_done) {
            let nothing = |outcome: &Outcome| {
                outcome.field("changes") == 0 && outcome.field("purged").as_array().is_none_or(Vec::is_empty)
            };
            let is_gone = removed.values().all(nothing);
            let how = if is_gone { "somebody has removed it already" } else { "removed" };
            self.output.say(format_args!("lab {lab}: {GOOD}{how}{GOOD:#}"));
            return Ok(());
        }
        let failed = super::outcome::failures(&removed);
        Err(Failure::Hosts {
            message: format!("lab {lab} is STILL THERE: it could not be removed from {}", listed(failed.keys())),
            hosts: failed,
            help: Some(self.how_to_remove()),
            code: 1,
        })
    }

    /// What to say to have it gone.
    fn how_to_remove(&self) -> String {
        match self.source.whole.hosts().is_empty() {
            true => format!("vmnet destroy --stop --purge {}", self.lab()),
            false => format!("vmnet destroy --stop --purge {}", self.file()),
        }
    }
}
