//! Desired states as data: each folder of `tests/desired` is a lab on a host.
//!
//! `net.toml` is the definition. `facts.json`, where there is one, changes `tests/desired/facts.json` (a host with
//! everything) as RFC 7396 says. `here`, where there is one, names the host whose part it is. `run.json`, where there is one, says which guests shall run, `found.json` what earlier
//! plans found and changed. What the lab means on that host stands in `desired.snap`: the plan from an empty host, notes, tables and drop-ins; or every refusal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use vmnet::definition::Definition;
use vmnet::desired::{self, Desired, Host, Refusal};
use vmnet::model::{Engine, Lock, Model, resolve, slice};
use vmnet::names::VmName;
use vmnet::paths::Paths;
use vmnet::plan::{Found, Plan, diff};
use vmnet::render::{Files, Given, GuestView, libvirt, qemu};
use vmnet::rule;
use vmnet::state::{Facts, Guest, HostState, SettingKey, Table};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/desired")
}

fn json(path: &Path) -> Option<Value> {
    let text = fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// RFC 7396: objects are merged, null removes, everything else replaces.
fn patch(target: &mut Value, with: Value) {
    let Value::Object(with) = with else {
        *target = with;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Default::default());
    }
    let map = target.as_object_mut().unwrap();
    for (key, value) in with {
        if value.is_null() {
            map.remove(&key);
        } else {
            patch(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn facts(case: &Path) -> Facts {
    let mut facts = json(&folder().join("facts.json")).unwrap();
    // What a device is not said to have, it has not.
    let blank = serde_json::to_value(vmnet::state::Device::default()).unwrap();
    if let Some(changes) = json(&case.join("facts.json")) {
        patch(&mut facts, changes);
    }
    for device in facts["devices"].as_object_mut().unwrap().values_mut() {
        let said = std::mem::replace(device, blank.clone());
        patch(device, said);
    }
    serde_json::from_value(facts).unwrap_or_else(|error| panic!("{}: {error}", case.display()))
}

/// The guests of `run.json`: `"model"` for those that run as the model says, anything else for one that was started
/// from another definition.
fn guests(case: &Path, model: &Model, facts: &Facts) -> BTreeMap<VmName, Guest> {
    let Some(run) = json(&case.join("run.json")) else { return BTreeMap::new() };
    let run: BTreeMap<VmName, Value> = serde_json::from_value(run).unwrap();
    let of = |(name, how): (VmName, Value)| {
        if how != "model" {
            return (name, serde_json::from_value(how).unwrap());
        }
        let vm = &model.vms()[name.as_str()];
        let files = Files::beside(Path::new("/lab"));
        let view = GuestView { model, vm, files, given: &Given::default(), instance: 1, mtus: &[] };
        let guest = match vm.engine() {
            Engine::Netns => Guest::Netns { ns: rule::guest_namespace(model.lab(), &name) },
            Engine::Qemu => Guest::Qemu(Box::new(qemu::guest(&view, &Paths::default(), facts).unwrap())),
            Engine::Libvirt => Guest::Libvirt(Box::new(libvirt::guest(&view, &Paths::default(), facts).unwrap())),
        };
        (name, guest)
    };
    run.into_iter().map(of).collect()
}

/// The whole, or the part of the host that `here` names.
fn part(case: &Path, whole: Model) -> Model {
    let Ok(here) = fs::read_to_string(case.join("here")) else { return whole };
    slice(&whole, &here.trim().parse().unwrap()).unwrap_or_else(|| panic!("{}: no host {here}", case.display()))
}

fn of_case(case: &Path) -> Result<Desired, Vec<Refusal>> {
    let text = fs::read_to_string(case.join("net.toml")).unwrap();
    let resolved = Definition::parse(&text).and_then(|definition| resolve(&definition, &Lock::default()));
    let model = resolved.unwrap_or_else(|problems| panic!("{}", problems.render("net.toml", &text, false))).model;
    let model = part(case, model);
    let facts = facts(case);
    let guests = guests(case, &model, &facts);
    let (paths, found) = (Paths::default(), found(case));
    desired::desired(
        &model,
        &Host { facts: &facts, paths: &paths, found: &found, guests: &guests, domains: &BTreeMap::new() },
    )
}

/// What earlier plans found and changed: `found.json`, a list of pairs.
fn found(case: &Path) -> Found {
    let pairs = json(&case.join("found.json")).unwrap_or(Value::Array(Vec::new()));
    let pairs: Vec<(SettingKey, String)> = serde_json::from_value(pairs).unwrap();
    pairs.into_iter().collect()
}

/// What a host has in the settings that a plan changes, and so what is found before.
fn empty_host(desired: &Desired) -> (HostState, Found) {
    let found: Found =
        desired.state.settings.keys().filter_map(|key| Some((key.clone(), before(key)?.into()))).collect();
    (HostState { settings: found.clone(), ..HostState::default() }, found)
}

fn before(key: &SettingKey) -> Option<&'static str> {
    match key {
        SettingKey::DeviceState { .. } => Some("down"),
        SettingKey::Sysctl { ns: vmnet::state::Ns::Host, key } if key.contains("/eno") => Some("0"),
        SettingKey::Sysctl { .. } => None,
    }
}

fn listing(plan: &Plan) -> String {
    let mut text = String::new();
    for wave in &plan.waves {
        writeln!(text, "{}", wave.phase.title()).unwrap();
        for op in &wave.ops {
            writeln!(text, "    {op}").unwrap();
        }
    }
    text
}

/// The cases whose tables are shown whole; in the others they hold nothing new.
const WITH_TABLES: [&str; 6] =
    ["campus", "outside-vlan", "routed-hosts-host", "routed-hosts-macvlan", "through-host", "through-host-guarded"];

fn report(desired: &Desired, with_tables: bool) -> String {
    let (host, found) = empty_host(desired);
    let mut text = listing(&diff(&host, &desired.state, &found, &BTreeSet::new()));
    for note in &desired.notes {
        writeln!(text, "\nnote: {}: {}", note.about, note.text).unwrap();
    }
    for (id, table) in desired.state.tables.iter().filter(|_| with_tables) {
        let Table::Body(body) = table else { panic!("{id} is wanted as drifted") };
        write!(text, "\n--- table {id}\n{body}").unwrap();
    }
    for (path, file) in desired.state.files.iter().filter(|(path, _)| !path.starts_with("/run/vmnet")) {
        write!(text, "\n--- {} {:o}\n{}", path.display(), file.mode, file.content).unwrap();
    }
    text
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

#[test]
fn labs_on_hosts_mean_what_they_should() {
    for case in cases() {
        let text = match of_case(&case) {
            Ok(desired) => report(&desired, WITH_TABLES.iter().any(|name| case.ends_with(name))),
            Err(refusals) => {
                let line =
                    |refusal: &Refusal| format!("{}: {refusal}\n", if refusal.is_lack() { "lacks" } else { "refused" });
                refusals.iter().map(line).collect()
            }
        };
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(&case);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!("desired", text));
    }
}

#[test]
fn what_is_as_it_should_be_needs_no_plan_and_goes_without_a_trace() {
    for case in cases() {
        let Ok(desired) = of_case(&case) else { continue };
        let (host, found) = empty_host(&desired);
        let again = diff(&desired.state, &desired.state, &found, &BTreeSet::new());
        assert!(again.is_empty(), "{}:\n{}", case.display(), listing(&again));
        // Settings of things that go with them need no way back; those of the host's get one.
        let away = diff(&desired.state, &HostState::default(), &found, &BTreeSet::new());
        for (key, value) in &host.settings {
            let back = format!("set {key}: {value}");
            let restored = away.ops().any(|op| op.to_string().starts_with(&back));
            assert!(restored || desired.state.settings.get(key) == Some(value), "{}: {back}", case.display());
        }
    }
}
