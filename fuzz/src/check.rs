//! What must hold for any bytes whatever, by kind of text. `tests/it/fuzz.rs` uses these too, on the seeds and on what
//! fuzzing has found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;
use vmnet::definition::{Definition, Problems};
use vmnet::desired::{Desired, Host, desired};
use vmnet::engine::{qmp, record};
use vmnet::ledger;
use vmnet::model::{Engine, Lock, Model, Resolved, resolve};
use vmnet::names::VmName;
use vmnet::paths::Paths;
use vmnet::plan::{Found, diff};
use vmnet::reach::{self, Known, Report, Seen};
use vmnet::render::qemu::{Privilege, SEED_IMAGE, by_hand, disk_name, kept, overlay};
use vmnet::render::{Files, Given, GuestFiles, GuestView, domain, qemu, seed};
use vmnet::rule;
use vmnet::state::{Device, Facts, Guest, HostState, Table};

/// A definition: whatever it says is refused in words, or means one thing that can be rendered and read back.
pub fn definition(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let definition = match Definition::parse(text) {
        Ok(definition) => definition,
        Err(problems) => return refused(&problems, text),
    };
    let Resolved { model, lock } = match resolve(&definition, &Lock::default()) {
        Ok(resolved) => resolved,
        Err(problems) => return refused(&problems, text),
    };
    // What was chosen stays chosen, and its file says the same when it is read back.
    assert_eq!(Lock::parse(&lock.to_string()).expect("a lock file reads back"), lock);
    let again = resolve(&definition, &lock).expect("a definition goes with its own lock file");
    assert!(again.model == model && again.lock == lock, "with its lock file a definition means something else");
    serde_json::to_string(&model).expect("a model is JSON");
    reachability(&model);
    on_a_host(&model);
}

/// A refusal says what is wrong, on a terminal without any escapes but its own.
fn refused(problems: &Problems, text: &str) {
    assert!(!problems.is_empty(), "refused for no reason");
    let plain = problems.render("net.toml", text, false);
    let control = |c: &char| c.is_control() && *c != '\n';
    assert!(!plain.chars().any(|c| control(&c)), "control characters reach the terminal: {plain:?}");
    problems.render("net.toml", text, true);
    serde_json::to_string(&problems.reports("net.toml", text)).expect("problems are JSON");
}

/// Who reaches whom, as it would be reported.
fn reachability(model: &Model) {
    let expected = reach::expectations(model, &Known::default());
    let seen = vec![Seen::Silent; expected.len()];
    let report = Report::new(model.lab(), expected, seen);
    is_xml(&report.junit().expect("a report is JUnit"));
    serde_json::to_string(&report).expect("a report is JSON");
    report.text(80);
}

/// The lab on a host that has everything: refused, or a state that needs no plan once it is there.
fn on_a_host(model: &Model) {
    let (facts, paths, found) = (&*FACTS, Paths::default(), Found::new());
    let guests: BTreeMap<VmName, Guest> = model.vms().keys().map(|vm| (vm.clone(), guest(model, vm, facts))).collect();
    let host = Host { facts, paths: &paths, found: &found, guests: &guests, domains: &BTreeMap::new() };
    let Desired { state, notes: _, mtu: _ } = match desired(model, &host) {
        Ok(desired) => desired,
        Err(refusals) => {
            assert!(!refusals.is_empty(), "refused for no reason");
            refusals.iter().for_each(|refusal| drop(refusal.to_string()));
            return;
        }
    };
    let none = BTreeSet::new();
    let plan = diff(&HostState::default(), &state, &found, &none);
    plan.ops().for_each(|op| drop(op.to_string()));
    serde_json::to_string(&plan.waves).expect("a plan is JSON");
    assert!(diff(&state, &state, &found, &none).is_empty(), "what is as it should be has a plan");
    diff(&state, &HostState::default(), &found, &none);
    let text = serde_json::to_string(&state).expect("a state is JSON");
    assert_eq!(serde_json::from_str::<HostState>(&text).expect("a state reads back"), state);
    for table in state.tables.values() {
        let Table::Body(body) = table else { panic!("a table is wanted as drifted") };
        let count = |c| body.chars().filter(|found| *found == c).count();
        assert!(count('{') == count('}') && count('"') % 2 == 0, "a table's text is not whole:\n{body}");
    }
    for (path, file) in &state.files {
        let whole = path.is_absolute() && !path.components().any(|part| part.as_os_str() == "..");
        assert!(whole && !file.content.contains('\0'), "{}", path.display());
    }
}

/// A guest of the model, with all its texts read back.
fn guest(model: &Model, name: &VmName, facts: &Facts) -> Guest {
    let vm = &model.vms()[name];
    let paths = Paths::default();
    let keys = vec!["ssh-ed25519 AAAA somebody".to_owned()];
    let keys_of = vm.setup().users.iter().map(|account| (account.name.to_string(), keys.clone())).collect();
    let given = Given { keys, keys_of, user_data: None };
    let view = GuestView { model, vm, files: Files::beside(Path::new("/lab")), given: &given, instance: 1, mtus: &[] };
    for (_, text) in seed::files(&view) {
        let json = text.strip_prefix("#cloud-config\n").unwrap_or(&text);
        serde_json::from_str::<Value>(json).expect("a seed is JSON");
    }
    let folder = PathBuf::from("/folder");
    let disk = overlay(&view, &folder.join(disk_name(1)));
    let kept = kept(&view, facts, &folder).unwrap_or_default();
    let seed = vm.cloud_init().then(|| folder.join(SEED_IMAGE));
    let files = GuestFiles { disk: disk.map(|disk| disk.path), seed, kept };
    for privilege in [Privilege::Root, Privilege::Unprivileged] {
        if let Ok(by_hand) = by_hand(&view, &paths, facts, &files, privilege) {
            assert!(!by_hand.shell().contains('\0'));
        }
    }
    if let Ok(xml) = domain::xml(&view, &files) {
        is_xml(&xml);
    }
    match (vm.engine(), qemu::guest(&view, &paths, facts)) {
        (Engine::Qemu, Ok(guest)) => {
            assert!(!guest.args.iter().any(|arg| arg.contains('\0')), "an argument that no program can have");
            Guest::Qemu(Box::new(guest))
        }
        _ => Guest::Netns { ns: rule::guest_namespace(model.lab(), name) },
    }
}

fn is_xml(text: &str) {
    let mut reader = quick_xml::Reader::from_str(text);
    loop {
        match reader.read_event() {
            Ok(quick_xml::events::Event::Eof) => return,
            Ok(_) => {}
            Err(error) => panic!("{error}: {text}"),
        }
    }
}

/// The host of `tests/desired`.
static FACTS: LazyLock<Facts> = LazyLock::new(|| {
    let mut facts: Value = serde_json::from_str(include_str!("../../tests/desired/facts.json")).expect("facts");
    let blank = serde_json::to_value(Device::default()).expect("a device is JSON");
    for device in facts["devices"].as_object_mut().expect("devices").values_mut() {
        let said = std::mem::replace(device, blank.clone());
        let (Some(device), Value::Object(said)) = (device.as_object_mut(), said) else { panic!("a device") };
        for (key, value) in said {
            match (device.get_mut(&key), value) {
                (Some(Value::Object(into)), Value::Object(value)) => into.extend(value),
                (_, value) => drop(device.insert(key, value)),
            }
        }
    }
    serde_json::from_value(facts).expect("facts")
});

/// A lock file: damaged, or the same after it is written again.
pub fn lock(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Lock::parse(text) {
        Ok(lock) => assert_eq!(Lock::parse(&lock.to_string()).expect("a lock file reads back"), lock),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A ledger: damaged, of another version, or the same after it is written again.
pub fn ledger(data: &[u8]) {
    let Ok(ledger) = ledger::parse(data) else { return };
    let text = serde_json::to_vec(&ledger).expect("a ledger is JSON");
    assert_eq!(ledger::parse(&text).expect("a ledger reads back"), ledger);
    // What `destroy` makes of it.
    let lock = Lock::parse(&ledger.lock).unwrap_or_default();
    if let Ok(definition) = Definition::parse(&ledger.definition) {
        drop(resolve(&definition, &lock));
    }
}

/// The record of a change: damaged, of another version, or the same after it is written again, and a way back.
pub fn change(data: &[u8]) {
    let Ok(change) = ledger::change::parse(data) else { return };
    let text = serde_json::to_vec(&change).expect("a record is JSON");
    assert_eq!(ledger::change::parse(&text).expect("a record reads back"), change);
    let back = diff(&HostState::default(), &change.before, &Found::new(), &BTreeSet::new());
    back.ops().for_each(|op| drop(op.to_string()));
}

/// The record of a guest: damaged, of another version, or one with every field.
pub fn record(data: &[u8]) {
    if let Ok(running) = record::parse(data) {
        serde_json::to_string(&running).expect("a record is JSON");
    }
}

/// What QEMU says, line by line: what is printed of it has no control characters, and is short.
pub fn qmp(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        let said = match qmp::parse(line) {
            Ok(qmp::Message::Refusal(reason)) => reason,
            Ok(_) => continue,
            Err(error) => error.to_string(),
        };
        assert!(said.len() < 300 && !said.chars().any(char::is_control), "{said:?}");
    }
}
