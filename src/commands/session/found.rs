//! What was there before: settings that the lab changed, and the lab itself, kept in another state folder.

use std::collections::{BTreeMap, BTreeSet};

use super::unobservable;
use crate::commands::failure::Failure;
use crate::commands::output::shown;
use crate::ledger::{self, Ledger};
use crate::names::{IfName, LabName};
use crate::observe::{self, ObserveError, Scope};
use crate::paths::Paths;
use crate::plan::{Found, Op, Plan};
use crate::state::{Facts, HostState, Ns, SettingKey};

/// The states of devices, among those that were found, which others use by now: here, or from a namespace of theirs.
pub(super) fn in_use<'a>(
    scope: &Scope,
    facts: &Facts,
    found: impl Iterator<Item = (&'a SettingKey, &'a String)>,
) -> Result<BTreeSet<SettingKey>, ObserveError> {
    let down = found.filter_map(|(key, value)| match key {
        SettingKey::DeviceState { device } if value == "down" => Some((device, key)),
        _ => None,
    });
    let devices: BTreeMap<&IfName, &SettingKey> = down.collect();
    let (used, rest): (Vec<_>, Vec<_>) = devices.into_iter().partition(|(device, _)| facts.is_used(device.as_str()));
    let mut stays: BTreeSet<SettingKey> = used.into_iter().map(|(_, key)| key.clone()).collect();
    // Other namespaces are looked into only where it matters.
    if !rest.is_empty() {
        let elsewhere = observe::used_elsewhere(scope)?;
        let used = rest.into_iter().filter(|(device, _)| elsewhere.contains(device.as_str()));
        stays.extend(used.map(|(_, key)| key.clone()));
    }
    Ok(stays)
}

/// What settings of the host were before this plan changes them for the first time. Those of our own links and
/// namespaces go with them.
pub(super) fn remember(found: &mut Found, plan: &Plan, wanted: &HostState) {
    for op in plan.ops() {
        let Op::Set { key, was: Some(was), .. } = op else { continue };
        let ours = match key {
            SettingKey::DeviceState { .. } => false,
            SettingKey::Sysctl { ns: Ns::Named(_), .. } => true,
            SettingKey::Sysctl { ns: Ns::Host, key } => {
                let device = key.split('/').nth(2).unwrap_or_default();
                wanted.links.keys().any(|id| id.ns == Ns::Host && id.name.as_str() == device)
            }
        };
        if !ours && wanted.settings.contains_key(key) {
            found.entry(key.clone()).or_insert_with(|| was.clone());
        }
    }
}

/// Refuses a lab of which this state folder knows nothing, or nothing of this boot, while its hooks name another folder
/// that does hold its ledger: by its marks alone it would be taken over, and what it found in the host's settings be
/// lost. Where that ledger is gone, too, the marks count.
pub(super) fn kept_elsewhere(paths: &Paths, lab: &LabName) -> Result<(), Failure> {
    let Some(state) = observe::kept_in(paths, lab).map_err(unobservable)?.filter(|state| *state != paths.state) else {
        return Ok(());
    };
    let other = Paths { state, run: paths.run.clone() };
    // One that can't be read is one.
    if matches!(ledger::read(&other, lab), Ok(None)) {
        return Ok(());
    }
    let (folder, own) = (shown(&other.state), shown(&paths.state));
    let help = format!("say VMNET_STATE_DIR={folder}, or destroy it with that first");
    Err(Failure::advised(
        format!("lab {lab} is kept in the state folder {folder}, and this is {own}; nothing was changed"),
        help,
    ))
}

/// What the other labs' ledgers of this boot hold. One that can't be read is a reason to stop: its lab may need what
/// this one would put back.
pub(super) fn held_by_others(paths: &Paths, own: &Ledger) -> Result<Found, Failure> {
    let mut found = Found::new();
    for lab in ledger::labs(paths)?.into_iter().filter(|lab| *lab != own.lab) {
        let read = ledger::read(paths, &lab).map_err(|error| {
            let why = "so what it needs of the host's own settings is not known; nothing was changed";
            Failure::failed(format!("the ledger of lab {lab}, another one of this host, can't be used, {why}"), error)
        });
        if let Some(other) = read?.filter(|other| other.boot_id == own.boot_id) {
            found.extend(other.found);
        }
    }
    Ok(found)
}
