//! libvirt, by way of `vmnet-libvirt`, which is the only program that links it; and guests that it runs.
//!
//! A domain is defined before it is started, and stays defined when it ends. libvirt makes the TAPs and puts them on
//! their bridges; they get the lab's marks right after.

mod door;
mod doors;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::folder::{Folder, service_user};
use super::process::{self, Process};
use super::{EngineError, PRESS_AGAIN, Stopped, disk, port};
use crate::kernel::Kernel;
use crate::libvirt::xml;
use crate::libvirt::{Answer, Ask, DomainState, Owner, Refusal, RefusalKind};
use crate::names::{LabName, VmName};
use crate::rule;
use crate::state::{Domain, LibvirtGuest};

pub use door::{Door, DoorError, PROGRAM, program};
pub use doors::Doors;

/// How often libvirt is asked whether a guest has ended.
const LOOK: Duration = Duration::from_millis(100);

/// How long a domain may take to end when its power cord was pulled.
const END_LIMIT: Duration = Duration::from_secs(15);

/// Whose a domain must be.
fn owner(lab: &LabName, vm: &VmName) -> Owner {
    Owner { lab: lab.to_string(), vm: vm.to_string() }
}

fn failed(action: &'static str, vm: &VmName) -> impl FnOnce(DoorError) -> EngineError {
    move |source| EngineError::Libvirt { action, vm: vm.clone(), source }
}

/// Defines a guest's domain, or defines it anew.
///
/// # Errors
/// [`EngineError::Libvirt`].
pub async fn define(doors: &Arc<Doors>, vm: &VmName, domain: &Domain) -> Result<(), EngineError> {
    let ask = Ask::Define { xml: domain.xml.clone(), autostart: domain.autostart };
    doors.ask(ask).await.map(drop).map_err(failed("define", vm))
}

/// Has libvirt forget a guest's domain; one that is not there is forgotten.
///
/// # Errors
/// [`EngineError::Libvirt`].
pub async fn undefine(doors: &Arc<Doors>, lab: &LabName, vm: &VmName) -> Result<(), EngineError> {
    let ask = Ask::Undefine { uuid: rule::guest_uuid(lab, vm), mark: owner(lab, vm) };
    doors.ask(ask).await.map(drop).map_err(failed("undefine", vm))
}

/// Makes disk and seed and starts the domain. On an error nothing of it stays but the guest's folder.
///
/// # Errors
/// Also when the guest runs already.
pub async fn start(doors: &Arc<Doors>, vm: &VmName, guest: &LibvirtGuest) -> Result<(), EngineError> {
    if let Some(files) = &guest.files {
        let (user, _) = service_user(&files.user)?;
        let folder = Folder::make(&files.state_dir, user)?;
        let parts = disk::GuestFiles { disk: files.disk.as_ref(), kept: &files.kept, seed: &files.seed };
        let mut made = Vec::new();
        let begun = async {
            disk::make(vm, &folder, parts, &mut made).await?;
            begin(doors, vm, guest).await
        };
        let begun = begun.await;
        if begun.is_err() {
            made.iter().try_for_each(|name| folder.remove(name))?;
        }
        return begun;
    }
    begin(doors, vm, guest).await
}

async fn begin(doors: &Arc<Doors>, vm: &VmName, guest: &LibvirtGuest) -> Result<(), EngineError> {
    let ask = Ask::Start { uuid: rule::guest_uuid(&guest.lab, vm), mark: owner(&guest.lab, vm) };
    doors.ask(ask).await.map(drop).map_err(failed("start", vm))
}

/// Gives the TAPs of a domain that was just started what a TAP of the lab's has. On an error the domain is ended.
///
/// # Errors
/// What the kernel says.
pub async fn mark(
    kernel: &mut Kernel,
    doors: &Arc<Doors>,
    vm: &VmName,
    guest: &LibvirtGuest,
) -> Result<(), EngineError> {
    for (name, link) in &guest.taps {
        if let Err(error) = port::settle(kernel, name, link).await {
            pull_the_cord(doors, &guest.lab, vm).await?;
            return Err(error);
        }
    }
    Ok(())
}

/// Presses the power button, waits for `grace`, then pulls the cord. One that does not run is no error.
///
/// # Errors
/// [`EngineError::Libvirt`].
pub async fn stop(doors: &Arc<Doors>, lab: &LabName, vm: &VmName, grace: Duration) -> Result<Stopped, EngineError> {
    if !runs(doors, lab, vm).await? {
        return Ok(Stopped::WasOff);
    }
    let deadline = Instant::now() + grace;
    while Instant::now() < deadline {
        let ask = Ask::Shutdown { uuid: rule::guest_uuid(lab, vm), mark: owner(lab, vm) };
        match doors.ask(ask).await {
            // It has just ended, or can't hear: what it does shows.
            Ok(_) | Err(DoorError::Refused(Refusal { kind: RefusalKind::State, .. })) => {}
            Err(error) => return Err(failed("shut down", vm)(error)),
        }
        // A guest that is still booting does not notice the button, so it is pressed again.
        if ended_until(doors, lab, vm, deadline.min(Instant::now() + PRESS_AGAIN)).await? {
            return Ok(Stopped::PoweredOff);
        }
    }
    pull_the_cord(doors, lab, vm).await?;
    Ok(Stopped::Quit)
}

async fn pull_the_cord(doors: &Arc<Doors>, lab: &LabName, vm: &VmName) -> Result<(), EngineError> {
    let ask = Ask::Destroy { uuid: rule::guest_uuid(lab, vm), mark: owner(lab, vm) };
    doors.ask(ask).await.map_err(failed("end", vm))?;
    ended_until(doors, lab, vm, Instant::now() + END_LIMIT).await?;
    Ok(())
}

async fn ended_until(doors: &Arc<Doors>, lab: &LabName, vm: &VmName, deadline: Instant) -> Result<bool, EngineError> {
    loop {
        if !runs(doors, lab, vm).await? {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        sleep(LOOK.min(left)).await;
    }
}

async fn runs(doors: &Arc<Doors>, lab: &LabName, vm: &VmName) -> Result<bool, EngineError> {
    Ok(state(doors, lab, vm).await?.is_some_and(DomainState::has_process))
}

/// What a guest's domain does; `None` where there is none.
///
/// # Errors
/// [`EngineError::Libvirt`].
pub async fn state(doors: &Arc<Doors>, lab: &LabName, vm: &VmName) -> Result<Option<DomainState>, EngineError> {
    match doors.ask(Ask::State { uuid: rule::guest_uuid(lab, vm) }).await.map_err(failed("ask about", vm))? {
        Answer::State { state } => Ok(state),
        _ => Ok(None),
    }
}

/// The pseudoterminal of the serial console of a guest that runs.
///
/// # Errors
/// [`EngineError::Libvirt`]; that it does not run.
pub fn console(lab: &LabName, vm: &VmName) -> Result<PathBuf, EngineError> {
    let uuid = rule::guest_uuid(lab, vm);
    let Answer::Domains { domains } = Doors::default().ask_now(&Ask::Domains).map_err(failed("ask about", vm))? else {
        return Err(EngineError::not_running(lab, vm));
    };
    let domain = domains.into_iter().find(|domain| domain.uuid == uuid && domain.state.has_process());
    let described = domain.map(|domain| xml::domain(&domain.xml)).filter(|is| is.owner == Some(owner(lab, vm)));
    described.and_then(|is| is.console).map(PathBuf::from).ok_or_else(|| EngineError::not_running(lab, vm))
}

/// The number of the process that a domain runs in, and how long it has been running; as far as libvirt's file says.
pub fn process(domain: &str) -> Option<(i32, Duration)> {
    let path = PathBuf::from("/run/libvirt/qemu").join(format!("{domain}.pid"));
    let pid = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    let started = process::start_time(pid)?;
    Process::open(pid, started).map(|process| (process.pid(), process::age(started)))
}

/// The last lines that QEMU and libvirt wrote about a domain, escaped, in one line.
pub(super) fn last_words(domain: &str) -> String {
    let path = Path::new(rule::LIBVIRT_LOGS).join(format!("{domain}.log"));
    let log = std::fs::read(&path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log[log.len().saturating_sub(LAST)..]);
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(3)..].join("; ");
    if last.is_empty() {
        return format!("look into {}", path.display());
    }
    last.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// More than three lines have, in bytes.
const LAST: usize = 4096;
