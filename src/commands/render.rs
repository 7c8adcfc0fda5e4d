//! `vmnet xml` and `vmnet qemu-args`: a guest for libvirt, or for people who start QEMU themselves.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::output::{Output, WARN};
use super::session::Session;
use super::source::Source;
use super::{image, keys, lookup, privilege};
use crate::engine;
use crate::engine::folder::{Owner, service_user};
use crate::model::{Engine, Vm};
use crate::names::VmName;
use crate::render::libvirt::LIBVIRT_USER;
use crate::render::qemu::{ByHand, Privilege, SEED_IMAGE, by_hand, disk_name, kept, overlay};
use crate::render::{GuestFiles, GuestView, domain, seed};
use crate::state::{Facts, Guest};

/// A disk made for somebody else is never reset: its number stays.
const INSTANCE: u32 = 1;

/// `vmnet xml`
pub(super) async fn xml(name: &str, output: &Output) -> Result<ExitCode, Failure> {
    let (lab, vm) = lookup::guest(name)?;
    let (_, source) = lookup::applied(&lab)?;
    if *source.model.vms()[&vm].engine() == Engine::Libvirt {
        return own_domain(&source, &vm, output).await;
    }
    // Where there is no libvirt, the XML is for another host, whose libvirt takes the files over itself.
    let owner = service_user(LIBVIRT_USER).map_or(Owner { uid: 0, gid: 0 }, |(owner, _)| owner);
    with_files(name, owner, output, |view, files, _, _| {
        let text = domain::xml(view, files).map_err(|error| Failure::failed("no domain XML", error))?;
        show_xml(view.vm, &text, output)
    })
    .await
}

fn show_xml(vm: &Vm, xml: &str, output: &Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Report<'a> {
        vm: &'a str,
        xml: &'a str,
    }
    output.result(&Report { vm: vm.name().as_str(), xml }, || xml.to_owned())
}

/// The domain of a guest that libvirt runs, as `vmnet boot` defines it. Disk and seed are made unless it runs, so that
/// `virsh` can start it, too.
async fn own_domain(before: &Source, name: &VmName, output: &Output) -> Result<ExitCode, Failure> {
    image::ready(before, std::slice::from_ref(name), output)?;
    privilege::require_to_prepare()?;
    // With the lock: what it makes is what `boot` and `reset` work on.
    let mut session = Session::ending(before.model.lab(), "xml", output)?;
    let source = &session.applied()?;
    let vm = source.model.vms().get(name).ok_or_else(|| super::boot::gone(source, name))?;
    session.host.scope.guest_devices = true;
    let mut observation = session.look(Some(&source.model))?;
    let guests = observation.state.guests.clone();
    let mtu = session.wanted(&source.model, &mut observation, &guests)?.mtu;
    let Guest::Libvirt(guest) = super::boot::startable(&session, source, &observation.facts, &mtu, vm)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let (Some(domain), Some(files)) = (guest.domain, guest.files) else { return Ok(ExitCode::SUCCESS) };
    if !guests.contains_key(vm.name()) {
        let (owner, _) = service_user(&files.user)?;
        let parts = engine::GuestFiles { disk: files.disk.as_ref(), kept: &files.kept, seed: &files.seed };
        engine::prepare(vm.name(), &files.state_dir, owner, parts).await?;
    }
    show_xml(vm, &domain.xml, output)?;
    Ok(ExitCode::SUCCESS)
}

/// `vmnet qemu-args`
pub(super) async fn qemu_args(name: &str, unprivileged: bool, output: &Output) -> Result<ExitCode, Failure> {
    let (lab, vm) = lookup::guest(name)?;
    if *lookup::applied(&lab)?.1.model.vms()[&vm].engine() == Engine::Libvirt {
        let message = format!("vm {vm} is a guest of libvirt, which has arguments of its own for QEMU");
        return Err(Failure::advised(message, format!("look at its domain: vmnet xml {lab}/{vm}")));
    }
    let (privilege, owner) = match unprivileged {
        true => (Privilege::Unprivileged, caller()),
        false => (Privilege::Root, Owner { uid: 0, gid: 0 }),
    };
    with_files(name, owner, output, |view, files, facts, paths| {
        let by_hand: ByHand = by_hand(view, paths, facts, files, privilege)
            .map_err(|error| Failure::lacks(format!("{error}; {}", error.help())))?;
        output.result(&by_hand, || by_hand.shell())
    })
    .await
}

/// Who called, behind sudo where that is in use.
fn caller() -> Owner {
    let id = |variable: &str| std::env::var(variable).ok().and_then(|id| id.parse().ok());
    Owner { uid: id("SUDO_UID").unwrap_or(0), gid: id("SUDO_GID").unwrap_or(0) }
}

/// Makes a disk and a seed for `owner`, apart from those of `vmnet boot`, and shows what goes with them.
async fn with_files(
    name: &str,
    owner: Owner,
    output: &Output,
    show: impl FnOnce(&GuestView<'_>, &GuestFiles, &Facts, &crate::paths::Paths) -> Result<(), Failure>,
) -> Result<ExitCode, Failure> {
    let (lab, vm) = lookup::guest(name)?;
    let (_, source) = lookup::applied(&lab)?;
    let vm: &Vm = &source.model.vms()[&vm];
    if *vm.engine() == Engine::Netns {
        return Err(Failure::because(format!("vm {} is a namespace (engine = \"netns\"), no machine", vm.name())));
    }
    image::ready(&source, std::slice::from_ref(vm.name()), output)?;
    super::boot::images_exist(&source, vm)?;
    if owner.uid != nix::unistd::geteuid().as_raw() {
        privilege::require_to_prepare()?;
    }
    let mut session = Session::look_at(&lab)?;
    session.host.scope.guest_devices = true;
    let mut observation = session.look(Some(&source.model))?;
    let guests = observation.state.guests.clone();
    if guests.contains_key(vm.name()) {
        let name = vm.name();
        output.say(format_args!(
            "{WARN}note{WARN:#}: vm {name} runs; a second one has the same MACs and addresses: first vmnet stop {lab}/{name}"
        ));
    }
    let mtu = session.wanted(&source.model, &mut observation, &guests)?.mtu;
    let mtus = super::boot::mtus(vm, &mtu);
    let given = keys::read(&source, vm)?;
    let view =
        GuestView { model: &source.model, vm, files: source.files(), given: &given, instance: INSTANCE, mtus: &mtus };
    let folder: PathBuf = session.paths.by_hand(&lab, vm.name(), owner.uid);
    let mut disk = overlay(&view, &folder.join(disk_name(INSTANCE)));
    if let Some(disk) = &mut disk {
        disk.digest = image::content(&session.paths, &source, vm, |_, _| {})?;
    }
    let kept = kept(&view, &observation.facts, &folder)
        .map_err(|error| Failure::lacks(format!("{error}; {}", error.help())))?;
    let parts = engine::GuestFiles { disk: disk.as_ref(), kept: &kept, seed: &seed::files(&view) };
    engine::prepare(vm.name(), &folder, owner, parts).await?;
    let seed = vm.cloud_init().then(|| folder.join(SEED_IMAGE));
    let files = GuestFiles { disk: disk.map(|disk| disk.path), seed, kept };
    show(&view, &files, &observation.facts, &session.paths)?;
    Ok(ExitCode::SUCCESS)
}
