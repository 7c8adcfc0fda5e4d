//! Guests: defaults filled in, images looked up. Their nics are [`super::nic`]'s. Pure.

use std::collections::BTreeMap;

use super::disk;
use super::hosts::host_of;
use super::image::images;
use super::lock::Lock;
use super::nic::{self, Nics};
use super::{Accel, Engine, Image, Network, Nic, Vm, setup};
use crate::definition::{At, Definition, Key, Problem, Problems, VmDef};
use crate::names::{ImageName, LabName, NetName, VmName};

/// Nics and further disks for which QEMU's q35 machine has slots, beside disk, seed and random numbers; one or two are
/// left.
const MOST_DEVICES: usize = 24;

/// Every guest, and the lock file that goes with them.
pub(super) fn vms(
    lab: &LabName,
    definition: &Definition,
    networks: &BTreeMap<NetName, Network>,
    lock: &Lock,
    problems: &mut Problems,
) -> (BTreeMap<VmName, Vm>, Lock) {
    let Nics { mut by_vm, lock } = nic::nics(lab, definition, networks, lock, problems);
    let images = images(&definition.images, problems);
    let mut vms = BTreeMap::new();
    for (name, def) in definition.vms.iter() {
        if let Some((_, network)) = definition.networks.get_key_value(name.as_str()) {
            let problem = Problem::new(def.span(), format!("{name} is the name of a guest and of a network"));
            let problem = problem.related(network.span(), "the network");
            problems.push(problem.help("guests and networks share one name space: rename one of them"));
        }
        let nics = by_vm.remove(name).unwrap_or_default();
        vms.insert(name.clone(), vm(name, def, nics, definition, &images, problems));
    }
    disk::shared(&vms, definition, problems);
    // Where no guest takes it, nobody else complains.
    if let Key::Is(image) = &definition.defaults.image {
        look_up(image, definition, &images, problems);
    }
    (vms, lock)
}

fn vm(
    name: &VmName,
    at: &At<VmDef>,
    nics: Vec<Nic>,
    definition: &Definition,
    images: &BTreeMap<ImageName, Image>,
    problems: &mut Problems,
) -> Vm {
    let (def, defaults) = (at.get_ref(), &definition.defaults);
    let engine = def.engine.or(&defaults.engine);
    let engine_is_wrong = engine.is_wrong();
    let engine = engine.value().map_or(Engine::Qemu, |engine| *engine);
    let image = def.image.or(&defaults.image);
    if engine.is_machine() && image.is_missing() && !engine_is_wrong {
        let problem = Problem::new(at.span(), format!("vm {name} has no image"));
        problems
            .push(problem.help("add image = \"…\", one of [image.*], or engine = \"netns\" for a guest without one"));
    }
    let disks = disk::disks(name, def.disks.or(&defaults.disks), problems);
    if engine.is_machine() && nics.len() + disks.len() > MOST_DEVICES {
        let more = if disks.is_empty() { String::new() } else { format!(" and {} further disks", disks.len()) };
        let problem = Problem::new(at.span(), format!("vm {name} has {} nics{more}", nics.len()));
        problems.push(problem.help(format!("QEMU's machine has room for {MOST_DEVICES}: use several guests")));
    }
    let image = image.as_ref().and_then(|image| look_up(image, definition, images, problems));
    let keys = def.ssh_keys.or(&defaults.ssh_keys);
    setup::whole_keys(keys, problems);
    let cloud_init = def.cloud_init.or(&defaults.cloud_init).value().is_none_or(|cloud_init| *cloud_init);
    Vm {
        name: name.clone(),
        engine,
        accel: def.accel.or(&defaults.accel).value().map_or(Accel::Kvm, |accel| *accel),
        cpus: def.cpus.or(&defaults.cpus).value().map_or(1, |cpus| cpus.0),
        memory: def.memory.or(&defaults.memory).value().map_or(1 << 30, |memory| memory.0),
        image: image.filter(|_| engine.is_machine()).cloned(),
        disk: def.disk.or(&defaults.disk).value().map(|disk| disk.0),
        disks,
        firmware: def.firmware.or(&defaults.firmware).value().copied().unwrap_or_default(),
        qemu_args: def.qemu_args.or(&defaults.qemu_args).items().map(|arg| arg.get_ref().0.clone()).collect(),
        libvirt_xml: def.libvirt_xml.or(&defaults.libvirt_xml).value().cloned(),
        user: def.user.or(&defaults.user).value().map_or_else(|| setup::LOGIN.to_owned(), ToString::to_string),
        host: host_of(name, definition).cloned(),
        autostart: def.autostart.or(&defaults.autostart).value().is_some_and(|autostart| *autostart),
        description: def.description.or(&defaults.description).value().map(|text| text.0.clone()),
        ssh_keys: keys.items().filter(|_| cloud_init).map(|key| key.get_ref().0.clone()).collect(),
        cloud_init,
        setup: setup::setup(name, def, definition, problems),
        nics,
    }
}

fn look_up<'i>(
    at: &At<ImageName>,
    definition: &Definition,
    images: &'i BTreeMap<ImageName, Image>,
    problems: &mut Problems,
) -> Option<&'i Image> {
    let name = at.get_ref();
    if !definition.images.contains_key(name) && definition.images.is_whole() {
        let known = definition.images.keys().map(ImageName::as_str);
        let problem = Problem::new(at.span(), format!("there is no image {name}"));
        problems.push(match some_of(known) {
            None => problem.help(format!("add [image.{name}] with file = \"…\"")),
            Some(known) => problem.help(format!("{} {known}", are("image", definition.images.keys().count()))),
        });
    }
    images.get(name)
}

/// `the networks are`, `the only network is`.
pub(super) fn are(thing: &str, count: usize) -> String {
    if count == 1 { format!("the only {thing} is") } else { format!("the {thing}s are") }
}

/// The first dozen of some names for a complaint; `None` where there is none.
pub(super) fn some_of<'n>(mut names: impl Iterator<Item = &'n str>) -> Option<String> {
    let shown: Vec<&str> = names.by_ref().take(12).collect();
    let more = if names.next().is_some() { ", …" } else { "" };
    (!shown.is_empty()).then(|| format!("{}{more}", shown.join(", ")))
}
