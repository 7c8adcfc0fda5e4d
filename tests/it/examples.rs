//! What people copy is right, and makes a lab: every example, the definitions in the documentation, and the list of keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use vmnet::definition::{Definition, Problems};
use vmnet::model::{External, Lock, Model, Resolved, resolve};

use crate::sandbox;
use crate::scenarios::has_kind;
use crate::skip::skip;
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn means(text: &str) -> Result<Resolved, Problems> {
    resolve(&Definition::parse(text)?, &Lock::default())
}

fn assert_right(path: &str, text: &str) {
    if let Err(problems) = means(text) {
        panic!("{}", problems.render(path, text, false));
    }
}

/// The blocks of a page that are marked as TOML.
fn toml_blocks(page: &str) -> Vec<&str> {
    let blocks = page.split("```toml\n").skip(1);
    blocks.map(|block| block.split_once("```").unwrap().0).collect()
}

fn examples() -> BTreeSet<PathBuf> {
    let files = fs::read_dir(project("examples")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect()
}

#[test]
fn every_example_is_right_and_says_what_it_shows() {
    let examples = examples();
    assert!(examples.len() > 6);
    let list = fs::read_to_string(project("examples/README.md")).unwrap();
    let mut bridges = BTreeMap::new();
    for path in examples {
        let (name, text) = (path.file_name().unwrap().to_str().unwrap(), fs::read_to_string(&path).unwrap());
        assert!(text.starts_with("# "), "{name} begins with what it shows");
        // The demonstration leaves one behind where it is killed.
        if !name.starts_with('.') {
            assert!(list.contains(&format!("({name})")), "{name} is in the list");
        }
        assert_right(name, &text);
        // Two labs share no VLAN; otherwise all of them can be tried side by side.
        for network in means(&text).unwrap().model.networks().values().filter(|network| network.tagged().is_none()) {
            let bridge = network.bridge().name().clone();
            assert_eq!(bridges.insert(bridge, path.clone()), None, "{} of {name}", network.name());
        }
    }
}

#[test]
fn the_definition_of_the_readme_is_right() {
    let page = fs::read_to_string(project("README.md")).unwrap();
    let blocks = toml_blocks(&page);
    assert!(blocks.iter().any(|block| block.contains("lab = ")), "the README has a definition");
    blocks.into_iter().for_each(|block| assert_right("README.md", block));
}

/// A host that has what the examples ask for: NICs, an address for `snat`, and somebody's own bridge.
const HOST: &str = "
    for nic in eno1 nic0; do
        ip link add $nic type veth peer name wire-$nic
        ip link set $nic up && ip link set wire-$nic up
    done
    ip address add 192.0.2.10/24 dev eno1 && ip route add default via 192.0.2.1
    ip link add br0 type bridge && ip link set br0 up";

/// The examples and the definition of the README that use VLANs, or those that use none.
fn with_vlans(wanted: bool) -> Vec<String> {
    let readme = fs::read_to_string(project("README.md")).unwrap();
    let of_readme = toml_blocks(&readme).into_iter().filter(|block| block.contains("lab = ")).map(str::to_owned);
    let texts = examples().into_iter().map(|path| fs::read_to_string(path).unwrap()).chain(of_readme);
    let uses_vlans = |model: &Model| {
        let external = model.router().as_ref().map(|router| router.external());
        model.networks().values().any(|network| network.tagged().is_some())
            || matches!(external, Some(External::Vlan { .. }))
    };
    texts.filter(|text| uses_vlans(&means(text).unwrap().model) == wanted).collect()
}

/// Makes each lab and removes it again.
fn are_created_and_removed(texts: Vec<String>) {
    sh(HOST);
    for text in texts {
        let before = Snapshot::when_settled();
        // A veth has no permanent MAC that could name it.
        let lab = Lab::from_text(&text.replace("52:54:00:ab:cd:ef", "eno1"));
        if !means(&text).unwrap().model.hosts().is_empty() {
            // Its hosts are not here.
            lab.ok(&["rehearse"]);
            assert_eq!(before.differences(&Snapshot::take()), Vec::<String>::new());
            continue;
        }
        lab.ok(&["create"]);
        lab.ok(&["plan", "--check"]);
        if text.contains("engine = \"netns\"") {
            lab.ok(&["boot", "--all", "--wait"]);
            lab.ok(&["verify"]);
            // What the README says to try.
            lab.ok(&["exec", "vm1", "ping", "-c", "1", "192.168.20.10"]);
        }
        lab.ok(&["destroy", "--stop", "--purge"]);
        let differences = before.differences(&Snapshot::take());
        assert!(differences.is_empty(), "{} left this behind:\n{}", lab.name, differences.join("\n"));
        fs::remove_dir_all(lab.folder()).unwrap();
    }
}

#[test]
fn examples_make_labs() {
    sandbox::run("examples::examples_make_labs", || are_created_and_removed(with_vlans(false)));
}

#[test]
fn examples_with_vlans_make_labs() {
    sandbox::run("examples::examples_with_vlans_make_labs", || {
        if !has_kind("vlan") {
            return skip(&sandbox::test(), "the kernel has no links of kind vlan");
        }
        are_created_and_removed(with_vlans(true));
    });
}

#[test]
fn the_lock_file_of_the_documentation_is_right() {
    let page = fs::read_to_string(project("docs/definition.md")).unwrap();
    let lock = toml_blocks(&page).into_iter().find(|block| block.contains("version = 1")).unwrap();
    assert_eq!(Lock::parse(lock).unwrap().to_string(), lock);
}

/// The keys of the tables of docs/definition.md by their section's heading.
fn documented_keys() -> BTreeMap<String, BTreeSet<String>> {
    let page = fs::read_to_string(project("docs/definition.md")).unwrap();
    let (mut keys, mut heading, mut in_table) = (BTreeMap::<_, BTreeSet<_>>::new(), String::new(), false);
    for line in page.lines() {
        if let Some(title) = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')) {
            title.clone_into(&mut heading);
        }
        in_table = line.starts_with("| key ") || in_table && line.starts_with('|');
        if let Some((key, _)) = line.strip_prefix("| `").filter(|_| in_table).and_then(|rest| rest.split_once('`')) {
            keys.entry(heading.clone()).or_default().insert(key.to_owned());
        }
    }
    keys
}

/// What vmnet itself says are the keys of a table: it lists them when it finds one that it does not know.
fn known_keys(text: &str) -> BTreeSet<String> {
    let problems = means(text).unwrap_err();
    let reports = problems.reports("net.toml", text);
    let help = reports.iter().find(|report| report.problem.contains("has no key \"zzzzzz\"")).unwrap();
    let help = help.help.as_deref().unwrap();
    let list = help.strip_prefix("its keys are ").or(help.strip_prefix("its only key is ")).unwrap();
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_key_is_documented_and_no_other() {
    let sections = [
        ("The lab", "zzzzzz = 1"),
        ("`[uplink.NAME]`", "[uplink.x]\nzzzzzz = 1"),
        ("`[network.NAME]`", "[network.x]\nzzzzzz = 1"),
        ("`[router]`", "[router]\nzzzzzz = 1"),
        ("`router.external`", "[router.external]\nzzzzzz = 1"),
        ("`[image.NAME]`", "[image.x]\nzzzzzz = 1"),
        ("`[vm.NAME]`", "[vm.x]\nzzzzzz = 1"),
        ("`[host.NAME]`", "[host.x]\nzzzzzz = 1"),
        ("`[[expect]]`", "[[expect]]\nzzzzzz = 1"),
        ("A disk", "[vm.x]\ndisks.d = { zzzzzz = 1 }"),
        ("A nic", "[vm.x]\nnic = { zzzzzz = 1 }"),
        ("A route", "[vm.x]\nnic = { network = \"x\", routes = { zzzzzz = 1 } }"),
        ("A user", "[vm.x]\nusers = { zzzzzz = 1 }"),
        ("`[defaults.vm]`", "[defaults]\nzzzzzz = 1"),
    ];
    let known: BTreeMap<String, BTreeSet<String>> =
        sections.into_iter().map(|(heading, text)| (heading.to_owned(), known_keys(text))).collect();
    assert_eq!(documented_keys(), known);
}
