//! Guests: starting, stopping and reaching them.
//!
//! Each start ([`qemu::launch`]) carries out what a [`Guest`] says and decides nothing. A guest of the `netns` engine is made of links,
//! addresses and routes like any other part of a lab, so nothing is left to start; commands run in its namespace.

mod capacity;
pub mod console;
pub mod console_log;
pub mod content;
pub mod detach;
mod disk;
mod error;
pub mod folder;
mod identity;
mod keeper;
mod kept;
pub mod libvirt;
pub mod netns;
mod port;
mod process;
pub mod qemu;
pub mod qmp;
pub mod record;
mod scope;
mod seed;
mod spawn;
pub mod ssh;
pub mod wait;

use std::sync::Arc;
use std::time::Duration;

pub use capacity::capacity;
pub use disk::{GuestFiles, base_of, instance, is_in_use, prepare, public_host_key, reset};
use libvirt::Doors;

pub use error::{BaseProblem, EngineError};
pub use keeper::{KEEP, Keeper, keep};
pub use record::{Running, running, running_in};
pub use scope::own_scope;

use crate::model::{Engine, Model, Vm};
use crate::names::VmName;
use crate::paths::Paths;
use crate::rule;
use crate::state::Guest;

/// How long a guest may take to shut down by itself; the time that libvirt-guests gives, too.
pub const GRACE: Duration = Duration::from_secs(60);

/// How long a guest has to react to the power button before it is pressed again.
const PRESS_AGAIN: Duration = Duration::from_secs(3);

/// How a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It was not running.
    WasOff,
    /// It shut down when it was asked to.
    PoweredOff,
    /// It did not react in time: its QEMU was told to end.
    Quit,
    /// QEMU did not react either and was killed.
    Killed,
}

/// Whether a machine of a lab runs, as far as that can be told without asking anybody.
fn runs(paths: &Paths, model: &Model, vm: &Vm) -> Result<bool, EngineError> {
    let (lab, name) = (model.lab(), vm.name());
    Ok(match vm.engine() {
        Engine::Qemu => running_in(&paths.guest_run(lab, name))?.is_some(),
        Engine::Libvirt => libvirt::process(&rule::domain_name(lab, name)).is_some(),
        Engine::Netns => false,
    })
}

/// Stops a guest: the power button, and after `grace` the power cord. One that does not run is no error.
pub async fn stop(doors: &Arc<Doors>, vm: &VmName, guest: &Guest, grace: Duration) -> Result<Stopped, EngineError> {
    match guest {
        Guest::Qemu(guest) => qemu::stop(vm, guest, grace).await,
        Guest::Libvirt(guest) => libvirt::stop(doors, &guest.lab, vm, grace).await,
        Guest::Netns { .. } => Ok(Stopped::WasOff),
    }
}
