//! [`KernelHost`]: this machine. One arm for each operation; those of a wave go out together.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::join_all;

use super::{Host, OpError, files, tables};
use crate::engine::libvirt::Doors;
use crate::engine::{self, EngineError};
use crate::kernel::nft::Nft;
use crate::kernel::{Kernel, KernelError, Request, caps, child, modules, netns, sysctl};
use crate::libvirt::Ask;
use crate::names::{IfName, LabName, VmName};
use crate::observe::{self, Observation, ObserveError, Recorded, Scope};
use crate::plan::{LinkChange, Op, Plan};
use crate::render;
use crate::state::{Feature, Guest, HostState, LibvirtNetwork, LinkId, Ns, SettingKey, TableId, Tool};

/// This machine, as the host of one lab.
#[derive(Debug)]
pub struct KernelHost {
    kernel: Kernel,
    /// What is looked at. Tables that are written are recorded here.
    pub scope: Scope,
    /// Hears how far the start of each guest is.
    pub told: Told,
    nft: Option<Nft>,
    doors: Arc<Doors>,
}

/// How far the start of a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its disk and seed are made.
    Disk,
    /// What runs it is started, and has not answered yet.
    Starting,
}

/// Who hears of the start of guests; nobody unless said.
#[derive(Clone, Default)]
pub struct Told(Option<Rc<Hears>>);

type Hears = dyn Fn(&VmName, Step);

impl Told {
    /// This function does.
    pub fn to(hears: impl Fn(&VmName, Step) + 'static) -> Self {
        Self(Some(Rc::new(hears)))
    }

    fn tell(&self, vm: &VmName, step: Step) {
        if let Some(hears) = &self.0 {
            hears(vm, step);
        }
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Told(somebody)" } else { "Told(nobody)" })
    }
}

type Answers = Vec<Option<Result<(), OpError>>>;

impl KernelHost {
    /// A host with the lab and the paths of `scope`.
    pub fn new(scope: Scope) -> Self {
        let nft = observe::find_tool(Tool::Nft).map(|program| Nft::new(&program));
        Self { kernel: Kernel::new(), scope, told: Told::default(), nft, doors: Arc::default() }
    }

    /// The connections to the kernel, for what is no operation of a plan.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// Loads the kernel modules that a plan needs, before anything of it is done.
    ///
    /// # Errors
    /// The features that the kernel can't have now, each with the reason.
    pub fn prepare(plan: &Plan) -> Result<(), BTreeMap<Feature, String>> {
        match child::find("modprobe") {
            // modprobe could not either, and says so of what the kernel loads by itself.
            _ if caps::in_user_namespace() => Ok(()),
            Some(modprobe) => modules::load(&plan.features(), &modprobe),
            // Without it the kernel can't load anything either, and says what it lacks.
            None => Ok(()),
        }
    }

    /// State and facts together.
    pub fn look(&mut self) -> Result<Observation, ObserveError> {
        let observation = observe::observe(&self.scope, &self.doors)?;
        self.scope.tables.clone_from(&observation.recorded);
        Ok(observation)
    }

    /// What is known of tables that were written: what the next observation has to be given.
    pub fn recorded(&self) -> &BTreeMap<TableId, Recorded> {
        &self.scope.tables
    }

    /// The request behind an operation on links, addresses or routes; `None` for one of another kind.
    fn request(&mut self, op: &Op) -> Option<Result<Request, KernelError>> {
        let kernel = &mut self.kernel;
        Some(match op {
            Op::AddLink { id, link } => kernel.add_link(id, link),
            Op::AddVeth { near, near_link, far, far_link } => kernel.add_veth((near, near_link), (far, far_link)),
            Op::ChangeLink { id, change } => kernel.change_link(id, change),
            Op::RemoveLink { id } => kernel.remove_link(id),
            Op::RemoveGroup { ns, group, count: _ } => kernel.remove_group(ns, *group),
            Op::AddAddress(address) => kernel.add_address(address),
            Op::RemoveAddress(address) => kernel.remove_address(address),
            Op::AddRoute(route) => kernel.add_route(route),
            Op::RemoveRoute(route) => kernel.remove_route(route),
            Op::Set { key: SettingKey::DeviceState { device }, value, was: _ } => {
                let up = match value.as_str() {
                    "up" => true,
                    "down" => false,
                    _ => return None,
                };
                let change = LinkChange { up: Some(up), ..LinkChange::default() };
                kernel.change_link(&LinkId::host(device.clone()), &change)
            }
            Op::AddNamespace { .. }
            | Op::RemoveNamespace { .. }
            | Op::SetIpv6 { .. }
            | Op::SetTxChecksum { .. }
            | Op::Set { .. }
            | Op::ReplaceTable { .. }
            | Op::ChangeTable { .. }
            | Op::RestoreTable { .. }
            | Op::RemoveTable { .. }
            | Op::WriteFile { .. }
            | Op::RemoveFile { .. }
            | Op::Reload { .. }
            | Op::DefineGuest { .. }
            | Op::UndefineGuest { .. }
            | Op::AddLibvirtNetwork { .. }
            | Op::ChangeLibvirtNetwork { .. }
            | Op::RemoveLibvirtNetwork { .. }
            | Op::StartGuest { .. }
            | Op::StopGuest { .. } => return None,
        })
    }

    /// All requests of the wave in flight at once, on the socket of each namespace.
    async fn requests(&mut self, ops: &[Op], answers: &mut Answers) {
        let mut sent = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            match self.request(op) {
                Some(Ok(request)) => sent.push(async move { (index, request.send().await) }),
                Some(Err(error)) => answers[index] = Some(settle(op, error)),
                None => {}
            }
        }
        for (index, answer) in join_all(sent).await {
            answers[index] = Some(answer.or_else(|error| settle(&ops[index], error)));
        }
    }

    /// Files below `/proc/sys`, one visit to each namespace.
    fn settings(&mut self, ops: &[Op], answers: &mut Answers) {
        let mut by_ns = BTreeMap::<&Ns, Vec<(usize, String, &str)>>::new();
        for (index, op) in ops.iter().enumerate() {
            match op {
                Op::SetIpv6 { id, on } => {
                    let setting = (index, sysctl::disable_ipv6(id.name.as_str()), if *on { "0" } else { "1" });
                    by_ns.entry(&id.ns).or_default().push(setting);
                }
                Op::Set { key: SettingKey::Sysctl { ns, key }, value, was: _ } => {
                    by_ns.entry(ns).or_default().push((index, key.clone(), value));
                }
                _ => {}
            }
        }
        for (ns, settings) in by_ns {
            match sysctl::write_all(ns, settings.iter().map(|(_, key, value)| (key.as_str(), *value))) {
                Ok(written) => {
                    for ((index, key, _), answer) in settings.into_iter().zip(written) {
                        answers[index] = Some(answer.or_else(|source| settle_setting(&ops[index], ns, key, source)));
                    }
                }
                Err(error) => fail_all(settings.iter().map(|(index, ..)| *index), ns, error.into(), answers),
            }
        }
    }

    /// Tables, and what they look like right after they were written.
    fn tables(&mut self, ops: &[Op], answers: &mut Answers) {
        for tables::Outcome { index, id, result, recorded } in tables::run(self.nft.as_ref(), ops) {
            if result.is_ok() {
                match recorded {
                    Some(recorded) => drop(self.scope.tables.insert(id.clone(), recorded)),
                    None => drop(self.scope.tables.remove(id)),
                }
            }
            answers[index] = Some(result);
        }
    }

    /// Guests start and stop side by side: each takes seconds, most of them waiting.
    async fn guests(&mut self, ops: &[Op], answers: &mut Answers) {
        let (mut preparing, mut stopping, mut by_libvirt) = (Vec::new(), Vec::new(), Vec::new());
        let doors = &self.doors;
        for (index, op) in ops.iter().enumerate() {
            match op {
                Op::StartGuest { vm, guest } => match guest.as_ref() {
                    Guest::Qemu(guest) => {
                        self.told.tell(vm, Step::Disk);
                        preparing.push(async move { (index, vm, engine::qemu::prepare(vm, guest).await) });
                    }
                    Guest::Libvirt(guest) => {
                        self.told.tell(vm, Step::Starting);
                        by_libvirt
                            .push(async move { (index, vm, guest, engine::libvirt::start(doors, vm, guest).await) });
                    }
                    // It is links, addresses and routes, which are operations of their own.
                    Guest::Netns { .. } => {}
                },
                Op::StopGuest { vm, guest } => stopping.push(async move {
                    let stopped = engine::stop(doors, vm, guest, engine::GRACE).await;
                    (index, "stop", vm, stopped.map(|_| ()))
                }),
                _ => {}
            }
        }
        for (index, vm, guest, started) in join_all(by_libvirt).await {
            let done = match started {
                Ok(()) => engine::libvirt::mark(&mut self.kernel, doors, vm, guest).await,
                Err(error) => Err(error),
            };
            answers[index] = Some(done.map_err(|error| guest_failed("start", vm, error)));
        }
        let mut starting = Vec::new();
        for (index, vm, prepared) in join_all(preparing).await {
            self.told.tell(vm, Step::Starting);
            // One after another: TAPs come by the one connection to the kernel, and it takes milliseconds.
            let launched = match prepared {
                Ok(prepared) => prepared.launch(&mut self.kernel).await,
                Err(error) => Err(error),
            };
            match launched {
                Ok(launched) => starting.push(async move { (index, "start", vm, launched.ready().await) }),
                Err(error) => answers[index] = Some(Err(guest_failed("start", vm, error))),
            }
        }
        let done = join_all(starting).await.into_iter().chain(join_all(stopping).await);
        for (index, action, vm, result) in done {
            answers[index] = Some(result.map_err(|error| guest_failed(action, vm, error)));
        }
    }

    /// Networks of libvirt's, all through one door: each takes milliseconds.
    fn libvirt_networks(&self, ops: &[Op], answers: &mut Answers) {
        let lab = &self.scope.lab;
        for (op, answer) in ops.iter().zip(answers) {
            let (action, name, ask) = match op {
                Op::AddLibvirtNetwork { name, network } => ("add", name, define(lab, name, network)),
                Op::ChangeLibvirtNetwork { name, network } => ("change", name, define(lab, name, network)),
                Op::RemoveLibvirtNetwork { name, uuid } => {
                    let (uuid, lab) = (uuid.clone(), lab.to_string());
                    ("remove", name, Ok(Ask::RemoveNetwork { uuid, lab }))
                }
                _ => continue,
            };
            let failed = |source| OpError::LibvirtNetwork { action, name: name.clone(), source };
            *answer = Some(ask.and_then(|ask| self.doors.ask_now(&ask).map(drop).map_err(failed)));
        }
    }

    /// What libvirt shall know of guests.
    async fn domains(&mut self, ops: &[Op], answers: &mut Answers) {
        let (doors, lab) = (&self.doors, &self.scope.lab);
        let one = async |(index, op): (usize, &Op)| match op {
            Op::DefineGuest { vm, domain } => {
                let defined = engine::libvirt::define(doors, vm, domain).await;
                Some((index, defined.map_err(|error| guest_failed("define", vm, error))))
            }
            Op::UndefineGuest { vm, domain: _ } => {
                let undefined = engine::libvirt::undefine(doors, lab, vm).await;
                Some((index, undefined.map_err(|error| guest_failed("undefine", vm, error))))
            }
            _ => None,
        };
        for (index, answer) in join_all(ops.iter().enumerate().map(one)).await.into_iter().flatten() {
            answers[index] = Some(answer);
        }
    }

    /// What is neither a request nor a batch.
    async fn single(&mut self, op: &Op) -> Result<(), OpError> {
        match op {
            Op::AddNamespace { ns, mark } => {
                self.kernel.leave(ns).await;
                netns::make(ns, mark).map_err(OpError::Kernel)
            }
            Op::RemoveNamespace { ns } => {
                self.kernel.leave(ns).await;
                netns::remove(ns).map_err(OpError::Kernel)
            }
            Op::SetTxChecksum { id, on } => self.checksum(&id.ns, &id.name, *on).map_err(OpError::Kernel),
            Op::WriteFile { path, file } => {
                files::write(path, file, self.root_of(path), !path.starts_with(&self.scope.paths.run))
                    .map_err(|source| OpError::File { action: "write", path: path.clone(), source })
            }
            Op::RemoveFile { path } => files::remove(path, self.root_of(path)).map_err(|source| OpError::File {
                action: "remove",
                path: path.clone(),
                source,
            }),
            Op::Reload { service } => {
                files::reload(*service).map_err(|source| OpError::Reload { service: *service, source })
            }
            Op::Set { key, value, was: _ } => Err(OpError::Value { key: key.to_string(), value: value.clone() }),
            Op::AddLink { .. }
            | Op::AddVeth { .. }
            | Op::SetIpv6 { .. }
            | Op::ChangeLink { .. }
            | Op::RemoveLink { .. }
            | Op::RemoveGroup { .. }
            | Op::AddAddress(_)
            | Op::RemoveAddress(_)
            | Op::AddRoute(_)
            | Op::RemoveRoute(_)
            | Op::ReplaceTable { .. }
            | Op::ChangeTable { .. }
            | Op::RestoreTable { .. }
            | Op::RemoveTable { .. }
            | Op::DefineGuest { .. }
            | Op::UndefineGuest { .. }
            | Op::AddLibvirtNetwork { .. }
            | Op::ChangeLibvirtNetwork { .. }
            | Op::RemoveLibvirtNetwork { .. }
            | Op::StartGuest { .. }
            | Op::StopGuest { .. } => Err(OpError::Unanswered),
        }
    }

    fn checksum(&mut self, ns: &Ns, name: &IfName, on: bool) -> Result<(), KernelError> {
        self.kernel.control(ns)?.set_tx_checksum(name.as_str(), on).map_err(|source| KernelError::Refused {
            action: format!("switch TX checksum offload of {name} in {ns}"),
            text: None,
            source,
        })
    }

    /// The root of ours that a path is below.
    fn root_of(&self, path: &Path) -> Option<&Path> {
        let roots: [&PathBuf; 2] = [&self.scope.paths.run, &self.scope.paths.state];
        roots.into_iter().find(|root| path.starts_with(root)).map(PathBuf::as_path)
    }
}

impl Host for KernelHost {
    async fn run(&mut self, ops: &[Op]) -> Vec<Result<(), OpError>> {
        let mut answers: Answers = ops.iter().map(|_| None).collect();
        self.requests(ops, &mut answers).await;
        self.settings(ops, &mut answers);
        self.tables(ops, &mut answers);
        self.libvirt_networks(ops, &mut answers);
        self.domains(ops, &mut answers).await;
        self.guests(ops, &mut answers).await;
        let mut all = Vec::with_capacity(ops.len());
        for (op, answer) in ops.iter().zip(answers) {
            all.push(match answer {
                Some(answer) => answer,
                None => self.single(op).await,
            });
        }
        all
    }

    async fn observe(&mut self) -> Result<HostState, ObserveError> {
        let (state, recorded) = observe::state(&self.scope, &self.doors)?;
        self.scope.tables = recorded;
        Ok(state)
    }
}

fn define(lab: &LabName, name: &str, network: &LibvirtNetwork) -> Result<Ask, OpError> {
    let xml = render::network::network(lab, name, network)
        .map_err(|source| OpError::Unwritable { name: name.to_owned(), source })?;
    Ok(Ask::DefineNetwork { xml, active: network.active, autostart: network.autostart })
}

fn guest_failed(action: &'static str, vm: &VmName, source: EngineError) -> OpError {
    OpError::Guest { action, vm: vm.clone(), source: Box::new(source) }
}

/// Whether the operation's goal is that something is not there.
fn is_removal(op: &Op) -> bool {
    matches!(op, Op::RemoveLink { .. } | Op::RemoveGroup { .. } | Op::RemoveAddress(_) | Op::RemoveRoute(_))
}

/// What is to be removed and is not there has been removed.
fn settle(op: &Op, error: KernelError) -> Result<(), OpError> {
    if is_removal(op) && error.is_gone() { Ok(()) } else { Err(error.into()) }
}

/// In a kernel without IPv6 it is off.
fn settle_setting(op: &Op, ns: &Ns, key: String, source: io::Error) -> Result<(), OpError> {
    let off = matches!(op, Op::SetIpv6 { on: false, .. }) && !sysctl::has_ipv6();
    if off { Ok(()) } else { Err(OpError::Setting { file: format!("/proc/sys/net/{key}"), ns: ns.clone(), source }) }
}

/// One error for several operations: it goes to the first, and the others failed with it.
fn fail_all(indexes: impl IntoIterator<Item = usize>, ns: &Ns, error: OpError, answers: &mut Answers) {
    let mut error = Some(error);
    for index in indexes {
        answers[index] = Some(Err(error.take().unwrap_or_else(|| OpError::Together { ns: ns.clone() })));
    }
}
