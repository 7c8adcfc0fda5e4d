//! [`resolve`]: definition and lock file in, model and new lock file out; or every problem at once. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use super::lock::Lock;
use super::view::View;
use super::{Model, Uplink, across, devices, expect, hosts, router, segment, share, vm};
use crate::definition::{Definition, Entries, Key, Problem, Problems, UplinkDef};
use crate::names::{LabName, UplinkName};
use crate::rule::BridgeForm;

/// A model, and the lock file that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The lab.
    pub model: Model,
    /// What was chosen by rule; the caller writes it where it differs from the one given.
    pub lock: Lock,
}

/// Turns what was written into what it means.
///
/// The result depends on nothing but the arguments, and not on the order of tables in the file.
///
/// # Errors
/// Every problem of the definition, each at its place; those of single values too.
pub fn resolve(definition: &Definition, lock: &Lock) -> Result<Resolved, Problems> {
    let Definition {
        lab,
        alias,
        libvirt,
        uplinks,
        defaults: _,
        networks,
        router,
        images: _,
        vms: _,
        hosts: _,
        expects: _,
        problems,
    } = definition;
    let mut problems = problems.clone();
    // Without a name the rest is resolved all the same, so that its problems show too.
    let lab_name = || "lab".parse::<LabName>().expect("lab is a lab name");
    let lab = match lab {
        Key::Is(lab) => lab.get_ref().clone(),
        Key::Wrong(_) => lab_name(),
        Key::Missing => {
            problems.push(Problem::new(0..0, "the lab has no name").help("begin the file with lab = \"campus\""));
            lab_name()
        }
    };
    let form = if alias.is_some() { BridgeForm::OfLab } else { BridgeForm::Plain };
    let mut networks = segment::networks(&lab, form, networks, uplinks, &mut problems);
    let mut needed = hosts::needed(definition, &mut problems);
    for network in networks.values_mut() {
        network.hosts = needed.remove(&network.name).unwrap_or_default();
    }
    let shares = share::shares(&mut networks, definition, lock, &mut problems);
    let mut router = router::router(&lab, router, &networks, definition, &mut problems);
    let (vms, mut chosen) = vm::vms(&lab, definition, &networks, &lock.of(alias.as_ref()), &mut problems);
    chosen.shares = shares;
    let lock = chosen.into_file(alias.as_ref(), lock);
    let hosts = hosts::hosts(&lab, definition, &networks, &mut problems);
    if let Some(router) = &mut router {
        router.host = hosts::of_router(definition, &networks, &mut problems);
    }
    hosts::joined(&networks, definition, &mut problems);
    let uplinks = read_uplinks(uplinks, &mut problems);
    let (elsewhere, expects, view) = (Vec::new(), Vec::new(), View::default());
    let libvirt = libvirt.value().copied();
    let mut model = Model { lab, libvirt, here: None, hosts, uplinks, networks, router, elsewhere, vms, expects, view };
    model.expects = expect::assertions(&model, definition, &mut problems);
    across::reachable(&model, definition, &mut problems);
    devices::names_differ(&model, definition, &mut problems);
    problems.into_result(Resolved { model, lock })
}

fn read_uplinks(defs: &Entries<UplinkName, UplinkDef>, problems: &mut Problems) -> BTreeMap<UplinkName, Uplink> {
    let mut uplinks: BTreeMap<UplinkName, Uplink> = BTreeMap::new();
    for (name, def) in defs.iter() {
        let Key::Is(device) = &def.get_ref().device else { continue };
        if let Some(other) = uplinks.values().find(|other| other.device == *device.get_ref()) {
            let problem = Problem::new(device.span(), format!("uplinks {} and {name} are one device", other.name));
            problems.push(problem.help("keep one of them: many networks may share an uplink"));
        }
        uplinks.insert(name.clone(), Uplink { name: name.clone(), device: device.get_ref().clone() });
    }
    uplinks
}

/// The uplink that something is on: the one it says, or the only one there is.
pub(super) fn pick_uplink(
    said: &Key<UplinkName>,
    uplinks: &Entries<UplinkName, UplinkDef>,
    span: Range<usize>,
    what: &str,
    problems: &mut Problems,
) -> Option<UplinkName> {
    let list = || uplinks.keys().map(UplinkName::as_str).collect::<Vec<_>>().join(", ");
    let problem = match said {
        Key::Is(name) if uplinks.contains_key(name.get_ref()) => return Some(name.get_ref().clone()),
        // The one that is meant may be the one that could not be read.
        _ if said.is_wrong() || !uplinks.is_whole() => return None,
        Key::Is(name) => {
            let problem = Problem::new(name.span(), format!("there is no uplink {}", name.get_ref()));
            match uplinks.len() {
                0 => problem.help(format!("add [uplink.{}] with device = \"eno1\"", name.get_ref())),
                1 => problem.help(format!("the only uplink is {}", list())),
                _ => problem.help(format!("the uplinks are {}", list())),
            }
        }
        _ => match uplinks.len() {
            0 => Problem::new(span, format!("{what} needs an uplink, and there is none"))
                .help("add [uplink.trunk] with device = \"eno1\", the NIC that carries its frames"),
            1 => return uplinks.keys().next().cloned(),
            _ => Problem::new(span, format!("{what} does not say which uplink it is on"))
                .help(format!("add uplink = \"…\", one of {}", list())),
        },
    };
    problems.push(problem);
    None
}
