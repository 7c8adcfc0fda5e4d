//! Free text on its way into other languages: XML, YAML, rules, lines of files. What arrives is what was given.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use vmnet::definition::Definition;
use vmnet::model::{Lock, Model, resolve};
use vmnet::render::seed::raw::RawUserData;
use vmnet::render::{Files, Given, GuestFiles, GuestView, domain, seed};

use crate::matrix::promise::{keep, said};
use crate::matrix::row;
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh};

/// Texts that mean something to one language or another.
const HOSTILE: [&str; 12] = [
    "<b>&amp;\"'</b>]]><!--<![CDATA[",
    "$(id)`id`;|&>x",
    "\\n\\\\ \\u0041 %s %%",
    "{{ x }} {tap:0} {host-key-private}",
    "a,b=c,,readonly=off",
    "- name: root",
    "}], \"users\": [{\"name\": \"root\"",
    "!!python/object:os.system *alias &anchor",
    "é 🦀 \u{202e} \u{200b} \u{2028} \u{2029} \u{feff} \u{fffd}",
    "  leading and trailing  ",
    "#cloud-config",
    "'''\"\"\"",
];

/// Any line that a definition takes, and those above.
fn text() -> impl Strategy<Value = String> {
    let any = "[^\\p{Cc}\u{fffe}\u{ffff}]{1,40}".prop_map(|text: String| text);
    prop_oneof![2 => any, 1 => proptest::sample::select(HOSTILE.to_vec()).prop_map(str::to_owned)]
}

/// The same texts in every run: what fails here fails everywhere.
fn texts(count: u32) -> Vec<String> {
    let mut runner = TestRunner::deterministic();
    let mut one = || text().new_tree(&mut runner).unwrap().current();
    HOSTILE.iter().map(|text| (*text).to_owned()).chain((0..count).map(|_| one())).collect()
}

fn model_of(cmdline: &str, path: &str) -> Model {
    let string = |text: &str| toml_string(text);
    let text = format!(
        "lab = \"texts\"\n[network.web]\nmode = \"isolated\"\n[image.i]\nfile = {0}\nformat = \"raw\"\nkernel = {0}\n\
         initrd = {0}\ncmdline = {1}\n[vm.q]\nimage = \"i\"\nnic = \"web\"\naccel = \"tcg\"\n",
        string(path),
        string(cmdline)
    );
    let read = Definition::parse(&text).and_then(|definition| resolve(&definition, &Lock::default()));
    read.unwrap_or_else(|problems| panic!("{}", problems.render("net.toml", &text, false))).model
}

fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn with_view<T>(model: &Model, folder: &Path, keys: &[String], work: impl FnOnce(&GuestView<'_>) -> T) -> T {
    let given = Given { keys: keys.to_vec(), ..Given::default() };
    let vm = &model.vms()["q"];
    work(&GuestView { model, vm, files: Files::beside(folder), given: &given, instance: 1, mtus: &[] })
}

/// What `program` prints for a text on its stdin.
fn filtered(program: &str, args: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Markup in a command line and in paths, tabs and newlines in the definition's folder: libxml2, which libvirt reads
/// with, and quick-xml find the values that were given.
#[test]
fn row_42_domain_xml() {
    let texts = texts(40);
    for (number, text) in texts.iter().enumerate() {
        let folder = PathBuf::from(if number % 3 == 0 { "/lab\n\t\r<x>\"&'" } else { "/lab" });
        // As a path it is relative, else the folder would not be in it.
        let path = format!("x{text}");
        let model = model_of(text, &path);
        let xml = with_view(&model, &folder, &[], |view| {
            let files = GuestFiles {
                disk: Some(folder.join("disk.qcow2")),
                seed: Some(folder.join("seed")),
                kept: Default::default(),
            };
            domain::xml(view, &files).unwrap()
        });
        let absolute = folder.join(&path).to_string_lossy().into_owned();
        let expected = [
            ("/domain/os/cmdline", text.clone()),
            ("/domain/os/kernel", absolute.clone()),
            ("/domain/devices/disk[1]/source/@file", folder.join("disk.qcow2").to_string_lossy().into_owned()),
            ("/domain/devices/disk[1]/backingStore/source/@file", absolute),
        ];
        let paths: Vec<String> = expected.iter().map(|(path, _)| format!("string({path})")).collect();
        let query = format!("concat({}, '|end')", paths.join(", '|\u{1f980}|', "));
        let found = filtered("xmllint", &["--nonet", "--xpath", &query, "-"], &xml);
        let found = found.trim_end_matches('\n').trim_end_matches("|end");
        let wanted: Vec<&str> = expected.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(found, wanted.join("|\u{1f980}|"), "{xml}");
        #[derive(serde::Deserialize)]
        struct Domain {
            os: Os,
        }
        #[derive(serde::Deserialize)]
        struct Os {
            cmdline: String,
        }
        let read: Domain = quick_xml::de::from_str(&xml).unwrap();
        assert_eq!(read.os.cmdline.trim(), text.trim(), "{xml}");
    }
    println!("{} domains", texts.len());
}

/// Keys with everything that ends a value, a document or a line in YAML: PyYAML, which cloud-init reads with, and
/// serde_json find the same data, the keys as given and nothing beside them.
#[test]
fn row_45_cloud_init() {
    let texts = texts(300);
    // Keys come from files, too: any character may be in one.
    let wild = ["\u{7f}\u{85}\u{9b}x", "\u{fffe}\u{ffff}", "tab\there", "\u{1}\u{1b}[31m", "a\nb: c\n- d", "\r\n..."];
    let keys: Vec<String> =
        texts.iter().map(String::as_str).chain(wild).map(|text| format!("ssh-ed25519 AAAA {text}")).collect();
    let model = model_of("quiet", "x.img");
    let mut documents = Vec::new();
    for pair in keys.chunks(2) {
        let files = with_view(&model, Path::new("/lab"), pair, seed::files);
        assert_eq!(
            files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["meta-data", "network-config", "user-data"]
        );
        for (name, text) in files {
            let json: serde_json::Value = serde_json::from_str(text.trim_start_matches("#cloud-config\n")).unwrap();
            if name == "user-data" {
                assert_eq!(json["users"][0]["ssh_authorized_keys"], serde_json::json!(pair), "{text}");
                assert_eq!(json["users"].as_array().map(Vec::len), Some(1), "{text}");
                assert!(text.starts_with("#cloud-config\n"));
            }
            documents.push((text, json));
        }
    }
    let program = "import json, sys, yaml\nfor text, value in json.load(sys.stdin):\n    read = yaml.safe_load(text)\n    \
                   assert read == value, (text, read)\nprint('same')";
    let said = filtered("python3", &["-c", program], &serde_json::to_string(&documents).unwrap());
    assert_eq!(said.trim(), "same");
    println!("{} documents", documents.len());
}

proptest! {
    #![proptest_config(Config { cases: 256, failure_persistence: None, ..Config::default() })]

    /// Commands with whatever TOML holds, and a file of user-data beside them: nothing leaves its place.
    #[test]
    fn row_45_commands(line in any::<String>(), word in any::<String>(), theirs in any::<String>()) {
        let (line, word) = (format!("x{}", line.replace('\0', "")), word.replace('\0', ""));
        let run = toml::Value::Array(vec![
            toml::Value::String(line.clone()),
            toml::Value::Array(["touch", &word].map(|word| toml::Value::String(word.to_owned())).to_vec()),
        ]);
        let text = format!(
            "lab = \"texts\"\n[network.web]\nmode = \"isolated\"\n[image.i]\nkernel = \"/k\"\n[vm.q]\nimage = \"i\"\n\
             nic = \"web\"\naccel = \"tcg\"\nrun = {run}\n"
        );
        let model = Definition::parse(&text).and_then(|definition| resolve(&definition, &Lock::default())).unwrap().model;
        let theirs = RawUserData::parse(format!("#!/bin/sh\n{theirs}").into_bytes()).unwrap();
        let (vm, wanted) = (&model.vms()["q"], serde_json::json!([line, ["touch", word]]));
        for user_data in [None, Some(theirs)] {
            let given = Given { user_data, ..Given::default() };
            let files = Files::beside(Path::new("/lab"));
            let files = seed::files(&GuestView { model: &model, vm, files, given: &given, instance: 1, mtus: &[] });
            let text = &files[2].1;
            prop_assert!(given.user_data.is_none() || text.is_ascii());
            if given.user_data.is_none() {
                let json: serde_json::Value = serde_json::from_str(text.trim_start_matches("#cloud-config\n")).unwrap();
                prop_assert_eq!(&json["runcmd"], &wanted);
            }
        }
    }

    /// The same for serde_json and quick-xml alone, with other texts in every run.
    #[test]
    fn row_45_any_text(text in text(), key in any::<String>()) {
        let keys = [format!("ssh-rsa {key}")];
        let model = model_of(&text, "x.img");
        let files = with_view(&model, Path::new("/lab"), &keys, seed::files);
        let json: serde_json::Value = serde_json::from_str(files[2].1.trim_start_matches("#cloud-config\n")).unwrap();
        prop_assert_eq!(&json["users"][0]["ssh_authorized_keys"][0], &keys[0]);
        // One character that YAML reads differently than JSON would be enough to lose the guest's keys.
        let odd = |c: char| c != '\n' && (u32::from(c) < 0x20 || (0x7f..=0xffff).contains(&u32::from(c)));
        prop_assert!(files.iter().all(|(_, text)| !text.contains(odd)), "{files:?}");
    }
}

/// Names that are words, numbers or addresses to nft: the rules say what they would with others, and guests reach what
/// they should.
#[test]
fn row_43_nftables() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(
            "lab = \"table\"\n[defaults.vm]\nengine = \"netns\"\n\
             [network.accept]\nmode = \"routed\"\nsubnet = \"10.1.0.0/24\"\nifname = \"drop\"\n\
             [network.inet]\nmode = \"nat\"\nsubnet = [\"10.2.0.0/24\", \"fd00:2::/64\"]\nifname = \"0x1f\"\n\
             [network.0]\nmode = \"routed\"\nsubnet = \"10.3.0.0/24\"\nifname = \"10.0.0.1\"\n\
             [network.ct]\nmode = \"isolated\"\nifname = \"a_b-c.d\"\n[router]\nexternal = { via = \"none\" }\n\
             [vm.jump]\nnic = [{ network = \"accept\", tap = \"rt\" }, { network = \"ct\", tap = \"fwd\" }]\n\
             [vm.return]\nnic = { network = \"inet\", tap = \"ip\" }\n[vm.1]\nnic = { network = \"0\", tap = \"1\" }\n",
        );
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        let verified = lab.ok(&["verify"]);
        assert!(verified.contains(" 0 not as expected, 0 unknown"), "{verified}");
        let rules = sh("nft -j list ruleset; ip netns exec vmnet-table nft -j list ruleset");
        for name in ["accept", "inet", "0"] {
            assert!(rules.contains(&format!("\"{name}\"")), "{name} is not in the rules as a name: {rules}");
        }
        lab.ok(&["destroy", "--stop"]);
        keep(&lab, &before);
    });
}

/// Free text in the definition that has a newline is refused; of what a file of keys holds, lines that are no keys
/// reach nothing. No file that vmnet writes has a line that the definition gave.
#[test]
fn row_44_lines() {
    row!(|| {
        let before = Snapshot::when_settled();
        let tiny = "[image.i]\nkernel = \"/bin/true\"\n";
        let definition = |extra: &str| {
            format!(
                "lab = \"lines\"\n[network.web]\nmode = \"isolated\"\nsubnet = \"10.1.0.0/24\"\n{tiny}[vm.q]\n\
                 accel = \"tcg\"\nimage = \"i\"\nnic = \"web\"\n{extra}"
            )
        };
        for key in ["ssh_keys = \"ssh-rsa A\\nB\"", "ssh_keys = [\"ssh-rsa A\", \"x\\r\\ny\"]", "user = \"a\\nb\""] {
            let lab = Lab::from_text(&definition(key));
            let output = lab.vmnet(&["create"]);
            assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        }
        // What a resolver, a hosts file or a DHCP server would take for lines of its own.
        let lines = "ssh-rsa AAAA me\n10.1.0.99 evil\ndhcp-script=/bin/evil\nnameserver 10.1.0.99\n[keyfile]\n";
        let lab = Lab::from_text(&definition("ssh_keys = \"keys\""));
        std::fs::write(lab.folder().join("keys"), lines).unwrap();
        lab.ok(&["create"]);
        lab.ok(&["xml", "q"]);
        let seed = sh("grep -c 'ssh-rsa AAAA me' /run/state/lines/by-hand/*/seed.img");
        assert_eq!(seed.trim(), "1", "the key that is one arrives");
        let found = sh("grep -rlaE 'evil|10\\.1\\.0\\.99|keyfile' /run/state /run/vmnet || true");
        assert_eq!(found.trim(), "", "files with a line that is no key");
        lab.ok(&["destroy", "--purge"]);
        keep(&lab, &before);
    });
}
