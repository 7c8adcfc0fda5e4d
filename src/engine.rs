//! Guests: starting, stopping and reaching them.
//!
//! Each start ([`qemu::launch`]) carries out what a [`Guest`] says and decides nothing. A guest of the `netns` engine is made of links,
//! addresses and routes like any other part of a lab, so nothing is left to start; commands run in its namespace.

pub mod console;
pub mod detach;
mod disk;
mod error;
pub mod folder;
mod identity;
pub mod libvirt;
pub mod netns;
mod process;
pub mod qemu;
pub mod qmp;
pub mod record;
mod scope;
mod seed;
mod spawn;
pub mod ssh;
pub mod wait;

use std::time::Duration;

pub use disk::{instance, is_in_use, prepare, public_host_key, reset};
pub use error::{BaseProblem, EngineError};
pub use qemu::Stopped;
pub use record::{Running, running, running_in};
pub use scope::own_scope;

use crate::names::VmName;
use crate::state::Guest;

/// How long a guest may take to shut down by itself; the time that libvirt-guests gives, too.
pub const GRACE: Duration = Duration::from_secs(60);

/// Stops a guest: the power button, and after `grace` the power cord. One that does not run is no error.
pub async fn stop(vm: &VmName, guest: &Guest, grace: Duration) -> Result<Stopped, EngineError> {
    match guest {
        Guest::Qemu(guest) => qemu::stop(vm, guest, grace).await,
        Guest::Netns { .. } => Ok(Stopped::WasOff),
    }
}
