//! Guests: defaults filled in, addresses and MACs chosen. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;

use ipnet::IpNet;

use super::address::{lowest_free, natural, unusable};
use super::lock::{Lock, NicKey};
use super::{Accel, Engine, Image, ImageFormat, Network, Nic, NicModel, Vm};
use crate::definition::{At, Definition, Entries, ImageDef, NicDef, Problem, Problems, VmDef};
use crate::names::{IfName, ImageName, LabName, Mac, NetName, VmName};
use crate::rule;

/// What guests are made of.
pub(super) struct Input<'a> {
    pub(super) vms: &'a Entries<VmName, VmDef>,
    pub(super) defaults: &'a VmDef,
    pub(super) images: &'a Entries<ImageName, ImageDef>,
    pub(super) networks: &'a BTreeMap<NetName, Network>,
    pub(super) definition: &'a Definition,
    pub(super) lock: &'a Lock,
}

/// A nic on its way to being one.
struct Draft<'a> {
    key: NicKey,
    def: &'a NicDef,
    span: Range<usize>,
    addresses: Vec<IpNet>,
    mac: Option<Mac>,
    tap: IfName,
}

/// Every guest, and the lock file that goes with them.
pub(super) fn vms(lab: &LabName, input: Input<'_>, problems: &mut Problems) -> (BTreeMap<VmName, Vm>, Lock) {
    let mut names: Vec<&VmName> = input.vms.keys().collect();
    names.sort_by(|a, b| natural(a.as_str(), b.as_str()));
    let mut drafts: Vec<Draft<'_>> = Vec::new();
    for name in names {
        drafts.extend(nics(lab, name, &input, problems));
    }
    let mut lock = Lock::default();
    choose_addresses(&mut drafts, &input, &mut lock, problems);
    choose_macs(lab, &mut drafts, &input, &mut lock, problems);
    unique_taps(&drafts, problems);
    let mut by_vm: BTreeMap<VmName, Vec<Nic>> = BTreeMap::new();
    for draft in drafts {
        // A nic without a MAC has a problem already, and the model is not handed out.
        let Some(mac) = draft.mac else { continue };
        let model = draft.def.model.as_ref().map_or(NicModel::Virtio, |model| *model.get_ref());
        let nic = Nic { network: draft.key.network, mac, addresses: draft.addresses, tap: draft.tap, model };
        by_vm.entry(draft.key.vm).or_default().push(nic);
    }
    let mut vms = BTreeMap::new();
    for (name, def) in input.vms {
        if input.networks.contains_key(name.as_str()) {
            let problem = Problem::new(def.span(), format!("{name} is the name of a network too"));
            problems.push(problem.help("guests and networks share one name space: rename one"));
        }
        let nics = by_vm.remove(name).unwrap_or_default();
        vms.insert(name.clone(), vm(name, def, nics, &input, problems));
    }
    (vms, lock)
}

fn vm(name: &VmName, at: &At<VmDef>, nics: Vec<Nic>, input: &Input<'_>, problems: &mut Problems) -> Vm {
    let (def, defaults) = (at.get_ref(), input.defaults);
    let engine = def.engine.as_ref().or(defaults.engine.as_ref()).map_or(Engine::Qemu, |at| *at.get_ref());
    let image = def.image.as_ref().or(defaults.image.as_ref());
    if engine == Engine::Qemu && image.is_none() {
        let problem = Problem::new(at.span(), format!("vm {name} has no image"));
        problems
            .push(problem.help("add image = \"…\", one of [image.*], or engine = \"netns\" for a guest without one"));
    }
    let user = def.user.as_ref().or(defaults.user.as_ref());
    Vm {
        name: name.clone(),
        engine,
        accel: def.accel.as_ref().or(defaults.accel.as_ref()).map_or(Accel::Kvm, |at| *at.get_ref()),
        cpus: in_range(def.cpus.as_ref().or(defaults.cpus.as_ref()), 1, 1..=512, "cpus", problems),
        memory: bytes(def.memory.as_ref().or(defaults.memory.as_ref()), 16 << 20, "memory", problems)
            .unwrap_or(1 << 30),
        image: image.and_then(|image| read_image(image, input, problems)).filter(|_| engine == Engine::Qemu),
        disk: bytes(def.disk.as_ref().or(defaults.disk.as_ref()), 1 << 20, "disk", problems),
        user: user.map_or_else(|| "lab".to_owned(), |user| checked_user(user, problems)),
        ssh_keys: def
            .ssh_keys
            .as_ref()
            .or(defaults.ssh_keys.as_ref())
            .map_or_else(Vec::new, |keys| keys.get_ref().iter().map(|key| key.get_ref().0.clone()).collect()),
        nics,
    }
}

fn in_range(
    at: Option<&At<u32>>,
    default: u32,
    range: std::ops::RangeInclusive<u32>,
    key: &str,
    problems: &mut Problems,
) -> u32 {
    let Some(at) = at else { return default };
    if !range.contains(at.get_ref()) {
        let problem = Problem::new(at.span(), format!("{key} = {} is out of range", at.get_ref()));
        problems.push(problem.help(format!("use a number from {} to {}", range.start(), range.end())));
    }
    *at.get_ref()
}

fn bytes(at: Option<&At<crate::definition::Bytes>>, least: u64, key: &str, problems: &mut Problems) -> Option<u64> {
    let at = at?;
    if at.get_ref().0 < least {
        let problem = Problem::new(at.span(), format!("this is too little {key}"));
        problems.push(problem.help(format!("use at least {}MiB", least >> 20)));
    }
    Some(at.get_ref().0)
}

/// A login name as useradd(8) takes it; it reaches the guest's user database.
fn checked_user(at: &At<crate::definition::Text>, problems: &mut Problems) -> String {
    let text = &at.get_ref().0;
    let fits = text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
    if !fits {
        let problem = Problem::new(at.span(), format!("{text:?} is not a login name"));
        problems.push(problem.help("use 1 to 32 of a-z, 0-9, _ and -, beginning with a letter or _"));
    }
    text.clone()
}

fn read_image(at: &At<ImageName>, input: &Input<'_>, problems: &mut Problems) -> Option<Image> {
    let Some(def) = input.images.get(at.get_ref()) else {
        let known: Vec<&str> = input.images.keys().map(ImageName::as_str).collect();
        let problem = Problem::new(at.span(), format!("there is no image {}", at.get_ref()));
        problems.push(match known.is_empty() {
            true => problem.help(format!("add [image.{}] with file = \"…\"", at.get_ref())),
            false => problem.help(format!("the images are {}", known.join(", "))),
        });
        return None;
    };
    let span = def.span();
    let ImageDef { file, format, kernel, initrd, cmdline } = def.get_ref();
    if file.is_none() && kernel.is_none() {
        let problem = Problem::new(span, format!("image {} has neither a file nor a kernel", at.get_ref()));
        problems.push(problem.help("add file = \"vm-images/debian-12.qcow2\""));
    }
    for (key, other) in [("initrd", initrd), ("cmdline", cmdline)] {
        if let (Some(other), None) = (other, kernel) {
            let problem = Problem::new(other.span(), format!("{key} without a kernel has no meaning"));
            problems.push(problem.help(format!("add kernel = \"…\", or remove {key}")));
        }
    }
    let path = |at: &Option<At<crate::definition::Text>>| at.as_ref().map(|at| PathBuf::from(&at.get_ref().0));
    let by_ending = || match file.as_ref().map(|file| file.get_ref().0.as_str()) {
        None => Some(ImageFormat::Raw),
        Some(file) if file.ends_with(".qcow2") => Some(ImageFormat::Qcow2),
        Some(file) if file.ends_with(".raw") || file.ends_with(".img") => Some(ImageFormat::Raw),
        Some(_) => None,
    };
    let format = format.as_ref().map(|format| *format.get_ref()).or_else(by_ending);
    if let (None, Some(file)) = (format, file) {
        let problem = Problem::new(file.span(), "this file's ending does not tell its format");
        problems.push(problem.help("add format = \"qcow2\" or \"raw\""));
    }
    Some(Image {
        name: at.get_ref().clone(),
        file: path(file),
        format: format?,
        kernel: path(kernel),
        initrd: path(initrd),
        cmdline: cmdline
            .as_ref()
            .map(|at| at.get_ref().0.clone())
            .or_else(|| kernel.as_ref().map(|_| "console=ttyS0".to_owned())),
    })
}

fn nics<'a>(lab: &LabName, name: &VmName, input: &Input<'a>, problems: &mut Problems) -> Vec<Draft<'a>> {
    let at = &input.vms[name];
    let Some(nics) = at.get_ref().nics.as_ref().or(input.defaults.nics.as_ref()) else {
        let problem = Problem::new(at.span(), format!("vm {name} has no nic"));
        problems.push(problem.help("add nic = \"…\", the name of a network"));
        return Vec::new();
    };
    let mut drafts: Vec<Draft<'_>> = Vec::new();
    for (index, nic) in nics.get_ref().iter().enumerate() {
        let (span, def) = (nic.span(), nic.get_ref());
        // A nic without a network has its problem already.
        let Some(network) = &def.network else { continue };
        if !input.networks.contains_key(network.get_ref()) {
            problems.push(unknown_network(network, input.definition));
            continue;
        }
        let number = drafts.iter().filter(|draft| draft.key.network == *network.get_ref()).count();
        if let Some(tap) = def.tap.as_ref().filter(|tap| tap.get_ref().as_str().starts_with("vnet")) {
            let problem = Problem::new(tap.span(), format!("TAP name {} begins with vnet", tap.get_ref()));
            problems.push(problem.help("choose another name: libvirt takes those for its own and renames them"));
        }
        let by_rule = || rule::tap_name(lab, name, index);
        drafts.push(Draft {
            key: NicKey { vm: name.clone(), network: network.get_ref().clone(), number },
            def,
            span,
            addresses: Vec::new(),
            mac: None,
            tap: def.tap.as_ref().map_or_else(by_rule, |tap| tap.get_ref().clone()),
        });
    }
    drafts
}

fn unknown_network(at: &At<NetName>, definition: &Definition) -> Problem {
    let known: Vec<&str> = definition.networks.keys().map(NetName::as_str).collect();
    let problem = Problem::new(at.span(), format!("there is no network {}", at.get_ref()));
    if known.is_empty() {
        return problem.help(format!("add [network.{}]", at.get_ref()));
    }
    let shown = known.iter().take(12).copied().collect::<Vec<_>>().join(", ");
    problem.help(format!("the networks are {shown}{}", if known.len() > 12 { ", …" } else { "" }))
}

/// First what the definition says, then what the lock file says, then the lowest free ones in natural order.
fn choose_addresses(drafts: &mut [Draft<'_>], input: &Input<'_>, lock: &mut Lock, problems: &mut Problems) {
    let mut taken: BTreeMap<&NetName, BTreeMap<IpAddr, String>> = BTreeMap::new();
    for (name, network) in input.networks {
        let gateways = network.subnets.iter().filter_map(|subnet| subnet.gateway);
        taken.insert(name, gateways.map(|gateway| (gateway, "the gateway".to_owned())).collect());
    }
    for draft in drafts.iter_mut() {
        let Some(said) = &draft.def.addresses else { continue };
        let network = &input.networks[&draft.key.network];
        for at in said.get_ref() {
            let holders = taken.entry(&network.name).or_default();
            draft.addresses.extend(said_address(at, network, holders, &draft.key, problems));
        }
    }
    for draft in drafts.iter_mut().filter(|draft| draft.def.addresses.is_none()) {
        let network = &input.networks[&draft.key.network];
        let holders = taken.entry(&network.name).or_default();
        let locked = input.lock.addresses.get(&draft.key).map_or(&[][..], Vec::as_slice);
        for address in locked {
            let net = network.subnets.iter().find(|subnet| subnet.net.contains(address)).map(|subnet| subnet.net);
            let free = !holders.contains_key(address) && net.is_some_and(|net| unusable(&net, *address).is_none());
            let one_each = !draft.addresses.iter().any(|other| other.addr().is_ipv4() == address.is_ipv4());
            if let (Some(net), true, true) = (net, free, one_each) {
                holders.insert(*address, draft.key.to_string());
                draft.addresses.extend(IpNet::new(*address, net.prefix_len()));
            }
        }
    }
    let mut free: BTreeMap<&NetName, BTreeSet<IpAddr>> =
        taken.into_iter().map(|(name, holders)| (name, holders.into_keys().collect())).collect();
    for draft in drafts.iter_mut().filter(|draft| draft.def.addresses.is_none()) {
        let network = &input.networks[&draft.key.network];
        let taken = free.entry(&network.name).or_default();
        for ipv4 in [true, false] {
            let subnet = network.subnets.iter().find(|subnet| subnet.net.addr().is_ipv4() == ipv4);
            let has_one = draft.addresses.iter().any(|address| address.addr().is_ipv4() == ipv4);
            let Some(subnet) = subnet.filter(|_| !has_one) else { continue };
            let Some(address) = lowest_free(&subnet.net, taken) else {
                let title = format!("subnet {} of network {} is full", subnet.net, network.name);
                problems.push(Problem::new(draft.span.clone(), title).help("make the subnet larger"));
                continue;
            };
            taken.insert(address);
            draft.addresses.extend(IpNet::new(address, subnet.net.prefix_len()));
        }
        if !draft.addresses.is_empty() {
            lock.addresses.insert(draft.key.clone(), draft.addresses.iter().map(IpNet::addr).collect());
        }
    }
}

fn said_address(
    at: &At<IpAddr>,
    network: &Network,
    holders: &mut BTreeMap<IpAddr, String>,
    key: &NicKey,
    problems: &mut Problems,
) -> Option<IpNet> {
    let address = *at.get_ref();
    let Some(subnet) = network.subnets.iter().find(|subnet| subnet.net.contains(&address)) else {
        let nets: Vec<String> = network.subnets.iter().map(|subnet| subnet.net.to_string()).collect();
        let title = format!("address {address} is in no subnet of network {}", network.name);
        problems.push(Problem::new(at.span(), title).help(match nets.is_empty() {
            true => "give the network a subnet, or remove the address".to_owned(),
            false => format!("its subnets are {}", nets.join(", ")),
        }));
        return None;
    };
    if let Some(why) = unusable(&subnet.net, address) {
        let problem = Problem::new(at.span(), format!("address {address} {why} of {}", subnet.net));
        problems.push(problem.help("use an address that a host can have"));
    }
    if let Some(holder) = holders.insert(address, key.to_string()) {
        let problem = Problem::new(at.span(), format!("address {address} is taken by {holder}"));
        problems.push(problem.help("choose another, or leave it out to get a free one"));
    }
    IpNet::new(address, subnet.net.prefix_len()).ok()
}

/// MACs of the definition first, then locked ones, then by rule; one that is taken is settled by the next attempt.
fn choose_macs(lab: &LabName, drafts: &mut [Draft<'_>], input: &Input<'_>, lock: &mut Lock, problems: &mut Problems) {
    let mut taken: BTreeMap<Mac, NicKey> = BTreeMap::new();
    for draft in drafts.iter_mut() {
        let Some(at) = &draft.def.mac else { continue };
        let mac = *at.get_ref();
        if let Some(other) = taken.insert(mac, draft.key.clone()) {
            let problem =
                Problem::new(at.span(), format!("MAC {mac} is used twice")).help(format!("{other} has it too"));
            problems.push(problem);
        }
        draft.mac = Some(mac);
    }
    for draft in drafts.iter_mut().filter(|draft| draft.mac.is_none()) {
        if let Some(mac) = input.lock.macs.get(&draft.key).filter(|mac| !taken.contains_key(*mac)) {
            taken.insert(*mac, draft.key.clone());
            lock.macs.insert(draft.key.clone(), *mac);
            draft.mac = Some(*mac);
        }
    }
    for draft in drafts.iter_mut().filter(|draft| draft.mac.is_none()) {
        let NicKey { vm, network, number } = &draft.key;
        let free = (0..1024)
            .map(|attempt| (attempt, rule::guest_mac(lab, vm, network, *number, attempt)))
            .find(|(_, mac)| !taken.contains_key(mac));
        let Some((attempt, mac)) = free else {
            let problem = Problem::new(draft.span.clone(), format!("no free MAC was found for {}", draft.key));
            problems.push(problem.help("give this nic a mac by hand"));
            continue;
        };
        taken.insert(mac, draft.key.clone());
        if attempt > 0 {
            lock.macs.insert(draft.key.clone(), mac);
        }
        draft.mac = Some(mac);
    }
}

fn unique_taps(drafts: &[Draft<'_>], problems: &mut Problems) {
    let mut seen: BTreeMap<&IfName, &NicKey> = BTreeMap::new();
    for draft in drafts {
        if let Some(other) = seen.insert(&draft.tap, &draft.key) {
            let span = draft.def.tap.as_ref().map_or(draft.span.clone(), At::span);
            let problem = Problem::new(span, format!("the TAP name {} is used twice", draft.tap));
            problems.push(problem.help(format!("{other} has it too: choose another tap")));
        }
    }
}
