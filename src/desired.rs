//! Model, host and facts in; the host state that shall be, out. One file a concern.
//!
//! Every decision about this host is taken here: which device an altname means, what is in the way, which MTU a hop
//! gets. What can't be is a [`Refusal`], all of them at once, before anything is touched. Pure.

mod across;
pub mod capacity;
mod claims;
mod collisions;
mod context;
mod devices;
mod firewall;
mod foreign;
mod guests;
mod libvirt;
mod nft;
mod outside;
mod refusal;
mod router;
mod segments;
mod services;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use across::forwarding;
pub use claims::{Claim, Claims, claims, outside_of, unasked};
pub use devices::{Devices, uplink_devices};
pub use firewall::table_name;
pub use refusal::{Lack, Refusal};

use crate::model::Model;
use crate::names::{NetName, VmName};
use crate::paths::Paths;
use crate::plan::Found;
use crate::state::{Domain, Facts, Guest, HostState};

/// What the desired state depends on beside the model.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// What is true of the host.
    pub facts: &'a Facts,
    /// Where things stand on disk.
    pub paths: &'a Paths,
    /// What earlier plans found and changed: a device that vmnet brought up stays up.
    pub found: &'a Found,
    /// The guests that shall run: those that do, and those to be started.
    pub guests: &'a BTreeMap<VmName, Guest>,
    /// What libvirt has defined for guests of the lab.
    pub domains: &'a BTreeMap<VmName, Domain>,
}

/// The state that shall be, and what people should know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The state.
    pub state: HostState,
    /// Warnings and remarks.
    pub notes: Vec<Note>,
    /// The MTU of each network's segment on this host, in bytes.
    pub mtu: BTreeMap<NetName, u32>,
}

/// Something that is no error and that an administrator wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What it is about, for example a device.
    pub about: String,
    /// What is the case, and what to do about it.
    pub text: String,
}

/// The state that a lab shall have on a host.
///
/// # Errors
/// Everything that stands in the way on this host, each with its remedy.
pub fn desired(model: &Model, host: &Host<'_>) -> Result<Desired, Vec<Refusal>> {
    let (desired, refusals) = sketch(model, host);
    if refusals.is_empty() { Ok(desired) } else { Err(refusals) }
}

/// The state that a lab shall have on a host as far as that is known in spite of what stands in the way, and all of
/// that. To be looked at, never to be made: where anything stands in the way, parts are missing.
pub fn sketch(model: &Model, host: &Host<'_>) -> (Desired, Vec<Refusal>) {
    let mut context = context::Context::new(model, host);
    let devices = devices::devices(&mut context);
    devices::lacks(&mut context);
    segments::segments(&mut context, &devices);
    router::router(&mut context, &devices);
    across::ways(&mut context);
    outside::through_host(&mut context);
    foreign::chains(&mut context);
    guests::guests(&mut context);
    firewall::tables(&mut context);
    services::files(&mut context);
    libvirt::networks(&mut context);
    collisions::names_are_free(&mut context);
    context.finish()
}
