//! [`Session`]: one command's view of one lab on this host, from observation to the ledger.

mod claims;
mod found;
mod libvirt;
mod way_back;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::failure::Failure;
use super::output::{Output, foreign};
use super::privilege;
use super::progress::Progress;
use super::signals::Signals;
use super::source::Source;
use super::standing::{interrupted, unconfirmed};
use super::unrecorded;
pub(super) use libvirt::{kept, silent};

use crate::apply::{self, ApplyError, KernelHost, Report, Work};
use crate::desired::{Desired, Host, Refusal, forwarding, sketch};
use crate::kernel::trust;
use crate::ledger::change::{self, Change, Deadline, Standing};
use crate::ledger::{self, ChangeLock, Ledger, LedgerError, Progress as Came};
use crate::model::{Bridge, External, Model};
use crate::names::{IfName, LabName, VlanId, VmName};
use crate::observe::{self, Observation, ObserveError, Scope};
use crate::paths::{self, Paths};
use crate::plan::{Found, Hurt, Op, Plan, Remote, diff, hurt, own_groups};
use crate::state::{Feature, Guest, HostState, LinkKind, Ns, SettingKey};

/// How long a command waits for another one's change: longer than guests get to shut down ([`crate::engine::GRACE`]), so
/// that a word of consent is not lost to somebody's `stop`.
const LOCK_LIMIT: Duration = Duration::from_secs(120);

/// The verb that brings a lab back.
pub(super) const RESTORE: &str = "restore";

/// Verbs that leave the definition as it was applied.
const OF_GUESTS: [&str; 6] = ["boot", "stop", "reset", "attach", "detach", "xml"];

/// What the watcher of an unconfirmed change does when its time has passed.
pub(super) const GO_BACK: &str = "undo, since nobody confirmed it, of";

/// Where things stand on disk: `VMNET_STATE_DIR` and `VMNET_RUN_DIR` move them.
pub(super) fn paths() -> Result<Paths, Failure> {
    let paths = folders()?;
    for folder in [&paths.state, &paths.run] {
        trust::way_to(folder).map_err(|error| {
            Failure::failed(format!("{} is no safe place; nothing was changed", folder.display()), error)
        })?;
    }
    Ok(paths)
}

/// As [`paths`], for who only wants to know.
pub(super) fn folders() -> Result<Paths, Failure> {
    let root = |variable: &str, default: PathBuf| match std::env::var_os(variable).map(PathBuf::from) {
        None => Ok(default),
        Some(path) if path.is_absolute() => Ok(path),
        Some(path) => Err(Failure::Usage(format!("{variable}={} is not an absolute path", path.display()))),
    };
    let Paths { state, run } = Paths::default();
    Ok(Paths { state: root("VMNET_STATE_DIR", state)?, run: root("VMNET_RUN_DIR", run)? })
}

/// One lab on this host.
pub(super) struct Session {
    pub(super) paths: Paths,
    pub(super) lab: LabName,
    /// What was remembered; for a lab that was never applied, an empty ledger that is not on disk yet.
    pub(super) ledger: Ledger,
    /// What other labs of this host found in settings that they changed and still need.
    others: Found,
    /// Another lab's ledger can't be read, so its part of that is not known.
    others_unknown: bool,
    /// Whether there was a ledger on disk.
    pub(super) is_known: bool,
    pub(super) host: KernelHost,
    /// A change may hurt what is not the lab's.
    pub(super) force: bool,
    /// libvirt is asked where the lab uses it.
    pub(super) asks_libvirt: bool,
    /// It need not answer: whoever asks sees to it.
    pub(super) may_be_silent: bool,
    /// States of devices that were down and that somebody uses by now: setting them down would cut the host off.
    pub(super) stays_up: BTreeSet<SettingKey>,
    /// Before the lock: they are caught as long as it is held.
    signals: Option<Signals>,
    /// Guests that stand or fall alone, see [`Work::apart`].
    pub(super) apart: BTreeSet<VmName>,
    /// Whoever changes something shows how far it is.
    pub(super) quiet: bool,
    /// A change has to be confirmed within this time, else it is undone.
    pub(super) confirm: Option<Duration>,
    /// Until when the change of this session has to be confirmed.
    pub(super) deadline: Option<Deadline>,
    /// The boot in which the lab was applied, where that is not this one.
    pub(super) stale: Option<String>,
    /// A change that is open or unconfirmed.
    pub(super) pending: Option<(Standing, Change)>,
    verb: String,
    lock: Option<ChangeLock>,
}

impl Session {
    /// Opens a lab for looking at.
    pub(super) fn look_at(lab: &LabName) -> Result<Self, Failure> {
        Self::open(lab, "", None)
    }

    /// Opens a lab for changing: waits for the lock. A change that is not confirmed comes first; where only guests are
    /// started or stopped, one of the network that was interrupted, too.
    pub(super) fn change_of(lab: &LabName, verb: &str, output: &Output) -> Result<Self, Failure> {
        let session = Self::ending(lab, verb, output)?;
        let of_guests = |verb: &str| OF_GUESTS.contains(&verb);
        match &session.pending {
            Some((Standing::Unconfirmed, change)) => Err(unconfirmed(change, &session)),
            Some((Standing::Open, change)) if of_guests(verb) && !of_guests(&change.verb) => Err(interrupted(change)),
            _ => Ok(session),
        }
    }

    /// Whether the last change got to its end.
    pub(super) fn is_whole(&self) -> bool {
        self.is_known && self.ledger.progress == Came::Applied
    }

    /// Whether nobody else changes anything meanwhile.
    pub(super) fn holds_lock(&self) -> bool {
        self.lock.is_some()
    }

    /// Opens a lab for what may end a change that is not confirmed: waits for the lock.
    pub(super) fn ending(lab: &LabName, verb: &str, output: &Output) -> Result<Self, Failure> {
        let paths = paths()?;
        ledger::check_folders(&paths, lab)?;
        let who = format!("{verb} {lab}");
        let lock = ChangeLock::take(&paths, &who, LOCK_LIMIT, |holder| output.waits_for(holder))?;
        Ok(Self { signals: Some(Signals::catch()), ..Self::open(lab, verb, Some(lock))? })
    }

    fn open(lab: &LabName, verb: &str, lock: Option<ChangeLock>) -> Result<Self, Failure> {
        let paths = paths()?;
        let boot_id = boot_id()?;
        let mut read = ledger::read(&paths, lab)?;
        let mut pending = change::read(&paths, lab, read.as_ref(), &boot_id)?;
        let of_last_boot = |(standing, _): &mut (Standing, _)| *standing == Standing::BeforeBoot;
        if lock.is_some()
            && let Some((_, change)) = pending.take_if(of_last_boot)
        {
            change::settle(&paths, &change)?;
            read = change.old;
        }
        let is_known = read.is_some();
        let mut ledger = read.unwrap_or_else(|| Ledger::new(lab.clone(), boot_id.clone()));
        let mut stale = None;
        if ledger.boot_id != boot_id {
            // Another boot: what was found and recorded is of a kernel that is gone.
            stale = Some(std::mem::replace(&mut ledger.boot_id, boot_id));
            ledger.found.clear();
            ledger.tables.clear();
        }
        if !is_known || stale.is_some() {
            found::kept_elsewhere(&paths, lab)?;
        }
        let mut scope = Scope::new(lab, paths.clone());
        scope.settings = ledger.found.keys().cloned().collect();
        scope.tables = ledger.tables.clone();
        scope.drop_ins = drop_ins(lab);
        // Before libvirt runs, at the start of the host, its guests are its own affair; asking would wait for it in vain.
        let asks_libvirt = verb != RESTORE || observe::libvirt_runs();
        scope.libvirt = asks_libvirt && libvirt::may_be_used(&ledger, is_known);
        let host = KernelHost::new(scope);
        let (others, others_unknown) = match found::held_by_others(&paths, &ledger) {
            // Nor may it keep the host from being reachable again, or anybody from their guests.
            Err(_) if verb == GO_BACK || verb == "undo" || OF_GUESTS.contains(&verb) => (Found::new(), true),
            // Looking takes nothing from anybody, nor does a lab that comes back after a reboot: a damaged ledger of
            // another one must not keep it from that.
            Err(_) if lock.is_none() || (stale.is_some() && verb == RESTORE) => (Found::new(), false),
            others => (others?, false),
        };
        let (lab, verb) = (lab.clone(), verb.to_owned());
        let (force, confirm, deadline) = (false, None, None);
        Ok(Self {
            paths,
            lab,
            ledger,
            others,
            others_unknown,
            is_known,
            host,
            force,
            asks_libvirt,
            may_be_silent: false,
            stays_up: BTreeSet::new(),
            apart: BTreeSet::new(),
            quiet: false,
            signals: None,
            confirm,
            deadline,
            stale,
            pending,
            verb,
            lock,
        })
    }

    /// What is there now. With a model, what stands in that lab's way is looked for too.
    pub(super) fn look(&mut self, model: Option<&Model>) -> Result<Observation, Failure> {
        if let Some(model) = model {
            self.host.scope.forwards = forwards(model);
            self.host.scope.libvirt |= self.asks_libvirt && model.uses_libvirt();
        }
        let observation = self.host.look().map_err(unobservable)?;
        if let Some(silence) = observation.facts.libvirt.silence().filter(|_| !self.may_be_silent) {
            return Err(silent(&self.lab, &silence));
        }
        let found = self.ledger.found.iter().chain(self.pending.iter().flat_map(|(_, change)| &change.before.settings));
        self.stays_up = found::in_use(&self.host.scope, &observation.facts, found).map_err(unobservable)?;
        Ok(observation)
    }

    /// What shall be, with these guests running; the settings that it names are read into `observation` too.
    pub(super) fn wanted(
        &mut self,
        model: &Model,
        observation: &mut Observation,
        guests: &BTreeMap<VmName, Guest>,
    ) -> Result<Desired, Failure> {
        let (wanted, refusals) = self.sketch(model, observation, guests)?;
        if refusals.is_empty() { Ok(wanted) } else { Err(Failure::Refused(refusals)) }
    }

    /// As [`Session::wanted`], as far as it is known beside what stands in the way.
    pub(super) fn sketch(
        &mut self,
        model: &Model,
        observation: &mut Observation,
        guests: &BTreeMap<VmName, Guest>,
    ) -> Result<(Desired, Vec<Refusal>), Failure> {
        if wants_other_vlans(model, &observation.state) {
            observation.facts.hidden_vlans = observe::hidden_vlans(&self.host.scope).map_err(unobservable)?;
        }
        let facts = &mut observation.facts;
        facts.sysctls.extend(present(forwarding(model, facts))?);
        let found = self.found_by_all();
        let domains = &observation.state.domains;
        let host = Host { facts, paths: &self.paths, found: &found, guests, domains };
        let (wanted, refusals) = sketch(model, &host);
        self.host.scope.settings.extend(wanted.state.settings.keys().cloned());
        // What has the name of a namespace of ours and is none, or none yet, is never entered.
        let is_made = |name: &crate::names::NsName| {
            observation.state.namespaces.get(name).is_some_and(|found| !found.mark.is_empty())
        };
        let is_there = |key: &SettingKey| match key {
            SettingKey::Sysctl { ns: Ns::Named(name), .. } => is_made(name),
            SettingKey::Sysctl { ns: Ns::Host, .. } | SettingKey::DeviceState { .. } => true,
        };
        let keys = self.host.scope.settings.iter().filter(|key| is_there(key)).cloned().collect();
        observation.state.settings = observe::settings(&keys).map_err(unobservable)?;
        Ok((wanted, refusals))
    }

    /// The plan from what is there to what shall be.
    pub(super) fn plan(&self, observation: &Observation, wanted: &HostState) -> Plan {
        let Observation { state, facts, strangers, .. } = observation;
        diff(state, wanted, &self.to_restore(), &own_groups(state, facts, strangers))
    }

    /// What is not as it was found, whichever lab changed it.
    fn found_by_all(&self) -> Found {
        self.others.clone().into_iter().chain(self.ledger.found.clone()).collect()
    }

    /// What goes back to what it was when this lab does not need it any more: not what another lab needs.
    pub(super) fn to_restore(&self) -> Found {
        // What one may need of which nothing is known stays.
        let found = self.ledger.found.clone().into_iter().filter(|_| !self.others_unknown);
        found.filter(|(key, _)| !self.others.contains_key(key) && !self.stays_up.contains(key)).collect()
    }

    /// The definition as applied; asked after the lock was taken, so that nobody changes it in between.
    pub(super) fn applied(&self) -> Result<Source, Failure> {
        if !self.is_known {
            return Err(Failure::because(format!(
                "lab {} is not created on this host; run vmnet create first",
                self.lab
            )));
        }
        Source::applied(&self.ledger)
    }

    /// Refuses a plan that would take the network from somebody else's device, or the device itself; or from a guest of
    /// which there is no record.
    pub(super) fn refuse_hurt(&self, observation: &Observation, plan: &Plan) -> Result<(), Failure> {
        if self.force {
            return Ok(());
        }
        unrecorded::refuse(&self.lab, &observation.state, plan)?;
        let all = self.hurt_by(observation, plan)?;
        if all.is_empty() {
            return Ok(());
        }
        let all: Vec<String> = all.iter().map(|hurt| format!("{} is {hurt}", foreign(hurt.device()))).collect();
        let (lab, all) = (&self.lab, all.join(", "));
        Err(Failure::because(format!(
            "devices that are not lab {lab}'s hang on what would go: {all}; nothing was changed; unplug or remove them \
             first (only --force of destroy, gc and stop goes on regardless)"
        )))
    }

    /// What a plan would do to things that are not the lab's. Other namespaces are looked into only where links go.
    pub(super) fn hurt_by(&self, observation: &Observation, plan: &Plan) -> Result<BTreeSet<Hurt>, Failure> {
        let goes = |op: &Op| matches!(op, Op::RemoveLink { .. } | Op::RemoveGroup { .. });
        let remotes = if plan.ops().any(goes) { self.remotes()? } else { Vec::new() };
        let Observation { state, facts, strangers, .. } = observation;
        Ok(hurt(plan.ops(), state, facts, strangers, &remotes))
    }

    /// What hangs on the lab's links from namespaces of others.
    pub(super) fn remotes(&self) -> Result<Vec<Remote>, Failure> {
        observe::remotes(&self.host.scope).map_err(unobservable)
    }

    /// Carries out a plan: ledger first, so that what was found is never lost; then the waves; then what became of it.
    pub(super) async fn carry_out(
        &mut self,
        source: Option<&Source>,
        observation: &Observation,
        wanted: &HostState,
        plan: &Plan,
        output: &Output,
        interruptible: bool,
    ) -> Result<Report, Failure> {
        self.refuse_hurt(observation, plan)?;
        privilege::require_for(plan)?;
        KernelHost::prepare(plan).map_err(no_modules)?;
        let mut old = self.is_known.then(|| self.ledger.clone());
        if let (Some(old), Some(boot_id)) = (&mut old, &self.stale) {
            old.boot_id.clone_from(boot_id);
        }
        found::remember(&mut self.ledger.found, plan, wanted);
        // What another lab changed and this one needs too is put back by whichever goes last.
        let shared = self.others.iter().filter(|(key, _)| wanted.settings.contains_key(*key));
        for (key, value) in shared {
            self.ledger.found.entry(key.clone()).or_insert_with(|| value.clone());
        }
        self.host.scope.settings.extend(self.ledger.found.keys().cloned());
        if let Some(source) = source {
            self.ledger.definition.clone_from(&source.text);
            self.ledger.path.clone_from(&source.path);
            self.ledger.lock = source.lock.to_string();
            self.ledger.origin.clone_from(&source.origin);
        }
        let before = self.before(observation, old.as_ref())?;
        let begun = self.room().and_then(|room| {
            self.begin(old.clone(), source, &before, plan, output)?;
            Ok(room)
        });
        let room = match begun {
            // Removing is how people make room.
            Err(failure) if !interruptible && failure.is_full() => {
                self.unrecorded(output);
                None
            }
            begun => Some(begun?),
        };
        let is_recorded = room.is_some();
        let mut progress = (!self.quiet).then(|| Progress::of(plan.len(), output));
        let found = self.to_restore();
        let signals = self.signals.take().unwrap_or_else(Signals::catch);
        let (cancel, apart) = (signals.cancel(interruptible), std::mem::take(&mut self.apart));
        let work = Work { before: &before, desired: wanted, plan, found: &found, cancel, apart: &apart };
        let mut event = |event| progress.iter_mut().for_each(|progress| progress.event(&event));
        let mut result = apply::run(&mut self.host, &work, &mut event).await;
        drop(room);
        if let Ok(report) = &result
            && let Err(source) = self.close(&without(wanted, report.failed.keys()))
            // Then the ledger before it stands, and says the same of what counts.
            && (is_recorded || !source.is_full())
        {
            let restored = apply::back(&mut self.host, &work.way_back(), &mut event).await;
            result = Err(ApplyError::Ledger { source, restored });
        }
        progress.map(Progress::done);
        match &result {
            // One that stays beside a ledger that is applied says nothing.
            Ok(_) if self.confirm.is_none() => drop(change::end(&self.paths, &self.lab)),
            Err(error) if error.is_as_before() => self.forget(old, source, output),
            _ => {}
        }
        self.signals = Some(signals);
        Ok(result?)
    }

    /// What a failure leads back to: with the settings that the definition in force asks for, so that those of links
    /// and namespaces which go come back with them.
    fn before(&mut self, observation: &Observation, old: Option<&Ledger>) -> Result<HostState, Failure> {
        let mut before = observation.state.clone();
        if let Some(source) = old.and_then(|old| Source::applied(old).ok()) {
            let mut seen = observation.clone();
            let guests = before.guests.clone();
            // Only for the keys; what stands in its way by now does not matter.
            self.sketch(&source.model, &mut seen, &guests)?;
            before.settings = seen.state.settings;
        }
        Ok(before)
    }

    /// Writes down that a change is done.
    fn close(&mut self, wanted: &HostState) -> Result<(), LedgerError> {
        self.ledger.tables = self.host.recorded().clone();
        // What was put back is its owner's again, and what they make of it is theirs.
        self.ledger.found.retain(|key, _| wanted.settings.contains_key(key));
        self.ledger.progress = Came::Applied;
        ledger::write(&self.paths, &self.ledger)?;
        self.stale = None;
        if self.confirm.is_some() {
            self.keep_room();
        }
        Ok(())
    }
}

/// What was wanted, without some guests.
fn without<'s, 'v>(wanted: &'s HostState, vms: impl Iterator<Item = &'v VmName>) -> Cow<'s, HostState> {
    let mut wanted = Cow::Borrowed(wanted);
    vms.for_each(|vm| wanted.to_mut().remove_guest(vm));
    wanted
}

/// Whether the lab's sub-interfaces are not those of the definition: only then namespaces of others are looked into,
/// which costs a visit to each.
fn wants_other_vlans(model: &Model, state: &HostState) -> bool {
    let of_link = |kind: &LinkKind| match kind {
        LinkKind::Vlan { id, .. } => Some(*id),
        _ => None,
    };
    let external = model.router().as_ref().and_then(|router| match router.external() {
        External::Vlan { vlan, .. } => Some(*vlan),
        External::None | External::Host(_) | External::Macvlan(_) => None,
    });
    let networks = model.networks().values().filter_map(|network| Some(network.tagged().as_ref()?.vlan));
    let mut wanted: Vec<VlanId> = networks.chain(external).collect();
    let mut there: Vec<VlanId> = state.links.values().filter_map(|link| of_link(&link.kind)).collect();
    wanted.sort();
    there.sort();
    wanted != there
}

/// This boot's identity.
pub(super) fn boot_id() -> Result<String, Failure> {
    ledger::boot_id().map_err(|error| Failure::failed("/proc can't be read", error))
}

/// Modules that are there and can't be loaded: the kernel forbids it, or they are of another kernel.
fn no_modules(reasons: BTreeMap<Feature, String>) -> Failure {
    let lines = reasons.iter().map(|(feature, why)| format!("the module {} can't be loaded: {why}", feature.module()));
    let help = "nothing was changed; load it by hand (modprobe) or boot the kernel that it belongs to";
    Failure::lacks(format!("{}; {help}", lines.collect::<Vec<_>>().join("; ")))
}

/// The files outside of our own folders that a plan may write.
fn drop_ins(lab: &LabName) -> BTreeSet<PathBuf> {
    [paths::network_manager_drop_in(lab), paths::networkd_drop_in(lab)].into()
}

/// The devices whose traffic the host's own forward chains must let pass: the way out through the host, and with
/// br_netfilter the bridges.
fn forwards(model: &Model) -> BTreeSet<IfName> {
    let outside = model.router().as_ref().and_then(|router| match router.external() {
        External::Host(host) => Some(host.outer.clone()),
        External::None | External::Macvlan(_) | External::Vlan { .. } => None,
    });
    let bridges = model.networks().values().filter_map(|network| match network.bridge() {
        Bridge::Own { name, .. } => Some(name.clone()),
        Bridge::Foreign { .. } => None,
    });
    bridges.chain(outside).collect()
}

/// The present values of settings of the host, by path below `/proc/sys/net`.
fn present(paths: BTreeSet<String>) -> Result<BTreeMap<String, String>, Failure> {
    let keys = paths.into_iter().map(|path| SettingKey::sysctl(&Ns::Host, path)).collect();
    let found = observe::settings(&keys).map_err(unobservable)?;
    let by_path = |(key, value)| match key {
        SettingKey::Sysctl { key, .. } => Some((key, value)),
        SettingKey::DeviceState { .. } => None,
    };
    Ok(found.into_iter().filter_map(by_path).collect())
}

pub(super) fn unobservable(error: ObserveError) -> Failure {
    Failure::failed("this host can't be observed", error)
}
