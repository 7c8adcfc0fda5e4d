//! A guest that libvirt runs: its domain, and everything that its start needs. Pure.

use super::domain::{self, DomainError};
use super::qemu::{self, LackError, SEED_IMAGE, disk_name, overlay, taps};
use super::{GuestFiles, GuestView, seed};
use crate::paths::Paths;
use crate::rule;
use crate::state::{Domain, Facts, LibvirtFiles, LibvirtGuest};

/// The user that libvirt runs QEMU as on Debian and Ubuntu.
pub const LIBVIRT_USER: &str = "libvirt-qemu";

/// Why there is no domain for a guest.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The host lacks something.
    #[error(transparent)]
    Lack(#[from] LackError),
    /// XML can't hold it.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

/// Everything that the start of a guest needs. `view.vm` is one of the `libvirt` engine.
///
/// # Errors
/// What the host lacks, and what can't stand in a domain.
pub fn guest(view: &GuestView<'_>, paths: &Paths, facts: &Facts) -> Result<LibvirtGuest, GuestError> {
    qemu::has_what_machines_need(view, facts)?;
    let (lab, vm) = (view.model.lab(), view.vm.name());
    let state_dir = paths.guest_state(lab, vm);
    let disk = overlay(view, &state_dir.join(disk_name(view.instance)));
    let seed = seed::files(view);
    let seed_image = (!seed.is_empty()).then(|| state_dir.join(SEED_IMAGE));
    let kept = qemu::kept(view, facts, &state_dir)?;
    let files = GuestFiles { disk: disk.as_ref().map(|disk| disk.path.clone()), seed: seed_image, kept: kept.clone() };
    let domain::Made { xml, made } = domain::made(view, &files)?;
    let domain = Domain { made: made.clone(), autostart: *view.vm.autostart(), xml };
    let files = LibvirtFiles { user: LIBVIRT_USER.into(), state_dir, disk, seed, kept };
    Ok(LibvirtGuest {
        lab: lab.clone(),
        name: rule::domain_name(lab, vm),
        made,
        taps: taps(view),
        domain: Some(domain),
        files: Some(files),
    })
}
