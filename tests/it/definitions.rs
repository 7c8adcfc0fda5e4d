//! Definitions as data: `tests/definitions/bad/*.toml` with what vmnet says about each beside it, and
//! `tests/definitions/good/*.toml` with the model and the lock file that they mean.
//!
//! A new case is a new file. `INSTA_UPDATE=always cargo test --test it definitions` writes what stands beside it;
//! read it as the administrator would who made that mistake.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use vmnet::definition::{Definition, Problems};
use vmnet::model::{Lock, Resolved, resolve};
use vmnet::names::LabName;

/// The definition and its lock file as texts, to what they mean.
fn read(text: &str, lock: &str) -> Result<Resolved, Problems> {
    let lock = if lock.is_empty() { Lock::default() } else { Lock::parse(lock).unwrap() };
    resolve(&Definition::parse(text)?, &lock)
}

/// The files of a folder below `tests/definitions` that end in `.toml`, in order.
fn cases(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/definitions").join(folder);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has cases", folder.display());
    files
}

/// Compares with the snapshot that stands beside the case.
fn assert_beside(case: &Path, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(case.parent().unwrap());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(case.file_stem().unwrap().to_str().unwrap(), text));
}

#[test]
fn bad_definitions_are_told_what_is_wrong() {
    for case in cases("bad") {
        let text = fs::read_to_string(&case).unwrap();
        let lock = fs::read_to_string(case.with_extension("lock")).unwrap_or_default();
        match read(&text, &lock) {
            Ok(_) => panic!("{} is accepted", case.display()),
            Err(problems) => assert_beside(&case, &problems.render("net.toml", &text, false)),
        }
    }
}

#[test]
fn good_definitions_mean_what_they_should() {
    for case in cases("good") {
        let text = fs::read_to_string(&case).unwrap();
        let lock = fs::read_to_string(case.with_extension("lock")).unwrap_or_default();
        let Resolved { model, lock } =
            read(&text, &lock).unwrap_or_else(|problems| panic!("{}", problems.render("net.toml", &text, false)));
        let model = serde_json::to_string_pretty(&model).unwrap();
        assert_beside(&case, &format!("{model}\n\n--- net.lock\n{lock}"));
    }
}

/// The same file as another lab: the names of devices on the host are others, addresses are not, and the lock file serves
/// both.
#[test]
fn a_file_as_another_lab_has_names_of_its_own() {
    let mut text = String::new();
    for case in cases("good") {
        let name = case.file_stem().unwrap().to_str().unwrap().to_owned();
        let lock = fs::read_to_string(case.with_extension("lock")).unwrap_or_default();
        let file = fs::read_to_string(&case).unwrap();
        let own = read(&file, &lock).unwrap();
        let definition = Definition::parse(&file).unwrap();
        let other = resolve(&definition.clone().called("ci-7".parse().unwrap()), &own.lock).unwrap();
        let addresses = |resolved: &Resolved| -> Vec<_> {
            let nics = resolved.model.vms().values().flat_map(|vm| vm.nics().iter());
            nics.map(|nic| nic.addresses().clone()).collect()
        };
        assert_eq!(addresses(&own), addresses(&other), "{name}");
        assert_eq!(own.lock, other.lock, "{name}: nothing collides in these, so the file stays as it is");
        // Under its own name it is what it was.
        let same = resolve(&definition.called(own.model.lab().clone()), &own.lock).unwrap();
        assert_eq!(same.model, read(&file, &own.lock.to_string()).unwrap().model, "{name}");
        let [own, other] = [own, other].map(|resolved| devices(&resolved));
        for (what, device) in &other {
            assert!(device.len() <= 15 || what == "router", "{name}: {device}");
            let is_said = file.contains(&format!("\"{device}\""));
            assert_eq!(own[what] == *device, is_said, "{name}: {what}: by hand it stays, by rule it is another one");
            text.push_str(&format!("{name}: {what}: {} -> {device}\n", own[what]));
        }
    }
    assert_beside(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/definitions/called"), &text);
}

/// What each thing of a lab is called on the host.
fn devices(resolved: &Resolved) -> BTreeMap<String, String> {
    let model = &resolved.model;
    let bridges = model.networks().values();
    let bridges = bridges.map(|network| (format!("bridge of {}", network.name()), network.bridge().name().to_string()));
    let nics = model.vms().values().flat_map(|vm| vm.nics().iter().enumerate().map(move |nic| (vm.name(), nic)));
    let taps = nics.map(|(vm, (number, nic))| (format!("nic {number} of {vm}"), nic.tap().to_string()));
    let router = model.router().iter().map(|router| ("router".to_owned(), router.namespace().to_string()));
    let ports = model.router().iter().flat_map(|router| router.ports().iter());
    let ports = ports.map(|(network, port)| (format!("port in {network}"), port.outer().to_string()));
    bridges.chain(taps).chain(router).chain(ports).collect()
}

/// MACs that settled a collision are each lab's own, and stay when guests come.
#[test]
fn a_collision_is_settled_for_each_lab_of_a_file() {
    // Found by trying: these two have one MAC by rule in this lab, and not in that of the file.
    let (first, second) = ("v911", "v2059");
    let file = format!(
        "lab = \"own\"\nnetwork.n.subnet = \"10.0.0.0/8\"\n[defaults.vm]\nengine = \"netns\"\nnic = \"n\"\n\
         [vm.{first}]\n[vm.{second}]\n"
    );
    let other: LabName = "other".parse().unwrap();
    let resolved =
        |file: &str, lock: &Lock| resolve(&Definition::parse(file).unwrap().called(other.clone()), lock).unwrap();
    let made = resolved(&file, &Lock::default());
    assert!(made.lock.macs.is_empty());
    assert_eq!(made.lock.others[&other].macs.len(), 1, "{}", made.lock);
    let again = resolved(&file, &Lock::parse(&made.lock.to_string()).unwrap());
    assert_eq!(made, again);
    // The file's own lab keeps the line, and has no use for it.
    let own = read(&file, &made.lock.to_string()).unwrap();
    assert_eq!((own.lock.macs.len(), &own.lock.others), (0, &made.lock.others));
}

/// Texts of every shape that a reader could stumble over, deep and long. They take milliseconds; were anything
/// quadratic or recursive without bound, they would take hours or the stack.
#[test]
fn large_and_deep_texts_end() {
    const SIZE: usize = 1 << 17;
    let repeat = |piece: &str| piece.repeat(SIZE / piece.len());
    let lines = |line: &dyn Fn(usize) -> String| (0..SIZE / line(9999).len()).map(line).collect::<String>();
    let texts = [
        ("a megabyte", "key = 1\n".repeat((1 << 20) / 8)),
        ("lists", format!("x = {}", repeat("["))),
        ("closed lists", format!("x = {}1{}", "[".repeat(SIZE / 2), "]".repeat(SIZE / 2))),
        ("inline tables", format!("x = {}", repeat("{ a = "))),
        ("dotted keys", format!("x{} = 1", repeat(".a"))),
        ("dotted headers", format!("[x{}]", repeat(".a"))),
        ("one string", format!("lab = \"{}\"", repeat("a"))),
        ("one key", format!("[vm.{}]\nx = 1", repeat("a"))),
        ("one line", format!("lab = \"l\"\nx = [{}]", repeat("1, "))),
        ("one list", format!("lab = \"l\"\nvm.a.nic = [{}]", repeat("\"b\", "))),
        ("one table", format!("lab = \"l\"\nvm.a = {{ {} }}", lines(&|n| format!("k{n} = 1, ")))),
        ("unknown keys", lines(&|n| format!("key{n} = 1\n"))),
        ("syntax errors", repeat("=\n")),
        ("line breaks", repeat("\n")),
        ("quotes", repeat("\"\"\"\n")),
        ("headers", lines(&|n| format!("[network.n{n}]\n"))),
        ("bad networks", lines(&|n| format!("[network.n{n}]\nvlan = 0\nsubnet = \"10.0.0.0/8\"\n"))),
        ("overlaps", lines(&|n| format!("network.n{n} = {{ subnet = \"10.0.0.0/8\" }}\n"))),
        ("subnets", format!("network.n.subnet = [{}]", repeat("\"10.0.0.0/8\", "))),
        ("one VLAN", lines(&|n| format!("network.n{n} = {{ mode = \"isolated\", vlan = 1 }}\n"))),
        ("one bridge", lines(&|n| format!("network.n{n} = {{ mode = \"isolated\", ifname = \"br\" }}\n"))),
        ("one address", {
            let guests = lines(&|n| format!("vm.v{n}.nic = {{ network = \"n\", address = \"10.0.0.9\" }}\n"));
            format!("network.n.subnet = \"10.0.0.0/8\"\n{guests}")
        }),
        ("guests", format!("network.n.subnet = \"10.0.0.0/8\"\n{}", lines(&|n| format!("vm.v{n}.nic = \"n\"\n")))),
    ];
    for (what, text) in texts {
        let problems = read(&text, "").err().unwrap_or_else(|| panic!("{what} is accepted"));
        let rendered = problems.render("net.toml", &text, false);
        assert!(rendered.contains("problem"), "{what}");
        assert!(rendered.len() < 100_000, "{what}: {}", rendered.len());
        assert!(!problems.reports("net.toml", &text).is_empty(), "{what}");
    }
}

/// What a file holds must not reach a terminal as a command to it.
#[test]
fn complaints_hold_no_terminal_escapes() {
    for text in [
        "lab = \"\u{1b}[31mred\"",
        "\u{1b}]0;title\u{7} = 1",
        "lab = \"\\u001b[31m\"",
        "[vm.\"\\u009b31m\"]\n",
        "# \u{202e}\nx",
    ] {
        let problems = read(text, "").unwrap_err();
        let mut shown = problems.render("net.toml", text, false);
        for report in problems.reports("net.toml", text) {
            shown.push_str(&report.problem);
            shown.push_str(&report.help.unwrap_or_default());
        }
        let bad =
            |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        assert!(!shown.contains(bad), "{shown:?}");
    }
}

/// Neither what is right nor what is wrong, in a text that is TOML or not, under its key or one that was misspelt.
#[test]
fn no_complaint_shows_a_password() {
    let hash = format!("$6$saltsalt${}", "Zz9.".repeat(21) + "ab");
    let lines = [
        format!("password_hash = \"{hash}\""),
        format!("users = [{{ password_hash = '{hash}', name = 1 }}]"),
        "password_hash = \"hunter2hunter2\"".to_owned(),
        format!("\"password_hash\" = \"{hash}\" x"),
        format!("pasword_hash = \"{hash}\""),
        format!("password_hash = \"{hash}"),
        "password_hash = \"hunter2hunter2".to_owned(),
        "password_hash=\"\"\"hunter2hunter2\"\"\"".to_owned(),
    ];
    for line in lines {
        let text = format!("lab = \"l\"\n[vm.vm1]\nnic = 1\n{line}\nwrong = 1\n");
        let problems = read(&text, "").unwrap_err();
        let reports = serde_json::to_string(&problems.reports("net.toml", &text)).unwrap();
        let shown = problems.render("net.toml", &text, false) + &reports;
        assert!(!shown.contains("hunter2") && !shown.contains("Zz9.Zz9") && shown.contains("net.toml:"), "{shown}");
    }
}
