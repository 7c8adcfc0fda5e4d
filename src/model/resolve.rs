//! [`resolve`]: definition and lock file in, model and new lock file out; or every problem at once. Pure.

use super::lock::Lock;
use super::{DeviceRef, Model, Uplink, router, segment, vm};
use crate::definition::{At, Definition, Problem, Problems};
use crate::names::{LabName, Mac, UplinkName};

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
/// Every problem of the definition, each at its place.
pub fn resolve(definition: &Definition, lock: &Lock) -> Result<Resolved, Problems> {
    let mut problems = Problems::default();
    let Definition { lab, uplinks, defaults, networks, router, images, vms } = definition;
    // Without a name the rest is resolved all the same, so that its problems show too.
    let lab_name: LabName = match lab {
        Some(lab) => lab.get_ref().clone(),
        None => {
            problems.push(Problem::new(0..0, "the lab has no name").help("begin the file with lab = \"campus\""));
            "lab".parse().expect("lab is a lab name")
        }
    };
    let uplinks = uplinks
        .iter()
        .filter_map(|(name, def)| {
            let device = device_ref(&def.get_ref().device.as_ref()?.get_ref().0);
            Some((name.clone(), Uplink { name: name.clone(), device }))
        })
        .collect();
    let uplink_names: Vec<&UplinkName> = definition.uplinks.keys().collect();
    let networks = segment::networks(&lab_name, networks, &uplink_names, &mut problems);
    let router = router::router(&lab_name, router.as_ref(), &networks, definition, &mut problems);
    let (vms, lock) =
        vm::vms(&lab_name, vm::Input { vms, defaults, images, networks: &networks, definition, lock }, &mut problems);
    problems.into_result(Resolved { model: Model { lab: lab_name, uplinks, networks, router, vms }, lock })
}

fn device_ref(text: &str) -> DeviceRef {
    text.parse::<Mac>().map_or_else(|_| DeviceRef::Name(text.to_owned()), DeviceRef::Mac)
}

/// The uplink that something is on: the one it says, or the only one there is.
pub(super) fn pick_uplink(
    said: Option<&At<UplinkName>>,
    known: &[&UplinkName],
    span: std::ops::Range<usize>,
    what: &str,
    problems: &mut Problems,
) -> Option<UplinkName> {
    let list = || known.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    match (said, known) {
        (Some(name), _) if known.contains(&name.get_ref()) => Some(name.get_ref().clone()),
        (Some(name), []) => {
            let problem = Problem::new(name.span(), format!("there is no uplink {}", name.get_ref()));
            problems.push(problem.help(format!("add [uplink.{}] with device = \"eno1\"", name.get_ref())));
            None
        }
        (Some(name), _) => {
            let problem = Problem::new(name.span(), format!("there is no uplink {}", name.get_ref()));
            problems.push(problem.help(format!("the uplinks are {}", list())));
            None
        }
        (None, [only]) => Some((*only).clone()),
        (None, []) => {
            let problem = Problem::new(span, format!("{what} needs an uplink, and there is none"));
            problems.push(problem.help("add [uplink.trunk] with device = \"eno1\""));
            None
        }
        (None, _) => {
            let problem = Problem::new(span, format!("{what} does not say which uplink it is on"));
            problems.push(problem.help(format!("add uplink = \"…\", one of {}", list())));
            None
        }
    }
}
