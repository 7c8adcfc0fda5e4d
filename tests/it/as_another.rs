//! `--lab`: one file as several labs, side by side on one host.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::matrix::rows::{LAB, WORLD, through_host};
use super::sandbox;
use super::skip::skip_this;
use super::snapshot::Snapshot;
use super::world::{Lab, output, sh, succeeds};

/// Nothing of it is anybody's but the lab's own: nat through the host, an isolated network.
fn file() -> String {
    through_host().replace("mode = \"routed\"\n", "")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(lab: &Lab, args: &[&str]) -> Value {
    let text = lab.ok(&[args, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

/// The lab that a command line leads to.
#[track_caller]
fn means(lab: &Lab, args: &[&str], name: &str) {
    assert_eq!(json(lab, args)["lab"], name, "{args:?}");
}

/// Lab a alone runs from the file, which is lab row.
fn the_file_is_not_meant(lab: &Lab) {
    // The file is not the one that runs from it under another name, for no verb.
    for verb in [&["status"][..], &["destroy"], &["stop", "--all"], &["boot", "--all"], &["ps"], &["verify"]] {
        let refused = lab.vmnet(verb);
        let said = said(&refused);
        assert!(refused.status.code() == Some(1) && said.contains("under another name: a\n"), "{verb:?}: {said}");
        assert!(said.contains("--lab NAME"), "{said}");
    }
}

/// Labs a, b and row run from the file; it is edited.
fn what_the_file_says_by_now(lab: &Lab) {
    // A file that says another name by now is still its lab's.
    fs::write("/run/lab/net.toml", file().replace("lab = \"row\"", "lab = \"renamed\"")).unwrap();
    means(lab, &["status"], "row");
    assert!(said(&lab.vmnet(&["boot", "vm1"])).contains("vm vm1 runs already"));
    // It may say that of another one which runs from it: that one is meant then.
    fs::write("/run/lab/net.toml", file().replace("lab = \"row\"", "lab = \"b\"")).unwrap();
    means(lab, &["status"], "b");
    // A guest that its lab has not got yet is not another lab's.
    let more = "[vm.vm9]\nengine = \"netns\"\nnic = \"quiet\"\n";
    fs::write("/run/lab/more.toml", file() + more).unwrap();
    lab.ok(&["create", "more.toml", "--lab", "c"]);
    fs::write("/run/lab/net.toml", file() + more + "[network.late]\nmode = \"isolated\"\n").unwrap();
    let refused = lab.vmnet(&["boot", "vm9"]);
    assert!(refused.status.code() == Some(2) && said(&refused).contains("of lab c is c/vm9"), "{}", said(&refused));
    lab.ok(&["boot", "c/vm9"]);
    lab.ok(&["destroy", "--stop", "c"]);
    fs::write("/run/lab/net.toml", file()).unwrap();
    fs::remove_file("/run/lab/more.toml").unwrap();
    sh("rm -f /run/lab/more.lock");
}

#[test]
fn labs_of_one_file_live_side_by_side() {
    sandbox::run("as_another::labs_of_one_file_live_side_by_side", || {
        sh(WORLD);
        let lab = Lab::from_text(&file());
        let nothing = Snapshot::when_settled();
        assert_eq!(json(&lab, &["check", "--lab", "a"])["lab"], "a");
        assert_eq!(json(&lab, &["plan", "--lab", "a"])["lab"], "a");
        lab.ok(&["create", "--lab", "a"]);
        the_file_is_not_meant(&lab);
        means(&lab, &["status", "--lab", "a"], "a");
        lab.ok(&["boot", "--all", "--lab", "a"]);
        // Nor are its guests.
        let refused = lab.vmnet(&["stop", "vm1"]);
        assert!(
            refused.status.code() == Some(2) && said(&refused).contains("that of lab a is a/vm1"),
            "{}",
            said(&refused)
        );
        // Whoever follows a hint stays in the lab.
        let again = lab.vmnet(&["boot", "a/vm1"]);
        assert!(again.status.code() == Some(1) && said(&again).contains("(vmnet stop a/vm1)"), "{}", said(&again));
        let alone = Snapshot::when_settled();

        lab.ok(&["create", "net.toml", "--lab", "b"]);
        let several = lab.vmnet(&["status"]);
        assert!(said(&several).contains("under another name: a, b\n"), "{}", said(&several));
        lab.ok(&["boot", "vm1", "vm2", "--of", "net.toml", "--lab", "b"]);
        // The file's own, beside them; it needs no word.
        lab.ok(&["create"]);
        means(&lab, &["status"], "row");
        lab.ok(&["boot", "--all", "--lab", "row"]);
        for name in ["a", "b", "row"] {
            let status = json(&lab, &["status", "--lab", name]);
            assert_eq!(
                (&status["lab"], &status["condition"]),
                (&Value::from(name), &Value::from("as-applied")),
                "{status:#}"
            );
            let ps = json(&lab, &["ps", "--lab", name]);
            assert_eq!(ps["vms"][0]["nics"][0]["addresses"][0], "10.1.0.10/24", "{ps:#}");
            let verify = json(&lab, &["verify", "net.toml", "--lab", name]);
            assert_eq!(verify["totals"]["differs"], 0, "{verify:#}");
            assert_eq!(json(&lab, &["plan", "--lab", name, "--check"])["changes"], 0);
        }
        what_the_file_says_by_now(&lab);
        // One lock file for all of them: addresses don't hang on names.
        let locks = output("ls /run/lab");
        assert_eq!(locks.split_whitespace().collect::<Vec<_>>(), ["net.lock", "net.toml"]);

        lab.ok(&["stop", "vm2", "--lab", "b"]);
        lab.ok(&["reset", "vm2", "--lab", "b"]);
        assert!(succeeds("ip netns | grep -q '^vmnet-a.vm2'") && !succeeds("ip netns | grep -q '^vmnet-b.vm2'"));
        lab.ok(&["destroy", "--stop", "--lab", "row"]);
        lab.ok(&["destroy", "net.toml", "--stop", "--lab", "b"]);
        let differences = alone.differences(&Snapshot::when_settled());
        assert!(differences.is_empty(), "the other is untouched: {}", differences.join("\n"));
        lab.ok(&["destroy", "--stop", "--lab", "a"]);
        let differences = nothing.differences(&Snapshot::when_settled());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    });
}

/// Each verb that has a way back or a word of consent, by file and name.
#[test]
fn a_name_leads_to_its_lab_and_no_other() {
    sandbox::run("as_another::a_name_leads_to_its_lab_and_no_other", || {
        sh(WORLD);
        let lab = Lab::from_text(&file());
        lab.ok(&["create", "--lab", "a"]);
        lab.ok(&["create", "--lab", "b", "--confirm", "5m"]);
        lab.ok(&["confirm", "net.toml", "--lab", "b"]);
        lab.ok(&["create", "--lab", "c", "--confirm", "5m"]);
        lab.ok(&["undo", "--lab", "c"]);
        assert!(lab.ok(&["restore", "net.toml", "--lab", "a"]).contains("lab a:"));
        let labs: Vec<Value> = json(&lab, &["list"])["labs"].as_array().unwrap().clone();
        assert_eq!(labs.iter().map(|lab| lab["lab"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
        // A name is one already, and another file's lab is not this one's.
        let refused = lab.vmnet(&["destroy", "a", "--lab", "b"]);
        assert!(refused.status.code() == Some(2) && said(&refused).contains("--lab is for"), "{}", said(&refused));
        fs::copy("/run/lab/net.toml", "/run/lab/other.toml").unwrap();
        let refused = lab.vmnet(&["destroy", "other.toml", "--lab", "b"]);
        assert!(refused.status.code() == Some(1) && said(&refused).contains("/run/lab/net.toml"), "{}", said(&refused));
        let refused = lab.vmnet(&["create", "--lab", "No Name"]);
        assert!(refused.status.code() == Some(2) && said(&refused).contains("a-z"), "{}", said(&refused));
        // Its file may be gone or wrong by then.
        fs::write("/run/lab/net.toml", "lab = \"").unwrap();
        lab.ok(&["destroy", "net.toml", "--lab", "b"]);
        fs::remove_file("/run/lab/net.toml").unwrap();
        lab.ok(&["destroy", "--lab", "a"]);
        assert!(!Path::new("/run/state").exists() || output("ls /run/state").is_empty());
    });
}

/// What two labs can't share is refused by the name of the one that has it.
#[test]
fn what_is_one_labs_is_refused_to_the_other() {
    sandbox::run("as_another::what_is_one_labs_is_refused_to_the_other", || {
        sh(WORLD);
        let with = |what: &str, instead: &str| file().replace(what, instead);
        let ifname = with("[network.quiet]", "[network.quiet]\nifname = \"br-mine\"");
        let tap = with("nic = \"db\"", "nic = { network = \"db\", tap = \"mine\" }");
        let vlan = LAB.replace("[network.quiet]", "[network.quiet]\nvlan = 7");
        for (text, words) in [
            (ifname, vec!["br-mine", "(lab a's)"]),
            (tap, vec!["mine", "(lab a's)"]),
            (through_host(), vec!["10.2.0.0/24", "(lab a's)"]),
            (LAB.to_owned(), vec!["192.0.2.109", "the router of lab a"]),
            (vlan, vec!["VLAN 7", "(lab a's)"]),
        ] {
            let lab = Lab::from_text(&text);
            if text.contains("vlan = ")
                && !succeeds("ip link add link nic0 name nic0.9 type vlan id 9 && ip link del nic0.9")
            {
                skip_this("this kernel has no 802.1Q: the VLAN of two labs");
                continue;
            }
            lab.ok(&["create", "--lab", "a"]);
            lab.ok(&["boot", "--all", "--lab", "a"]);
            let before = Snapshot::when_settled();
            let refused = lab.vmnet(&["create", "--lab", "b"]);
            let booted = refused.status.success().then(|| lab.vmnet(&["boot", "--all", "--lab", "b"]));
            let last = said(booted.as_ref().unwrap_or(&refused));
            for word in words {
                assert!(last.contains(word), "{word}: {last}");
            }
            if booted.is_some() {
                lab.ok(&["destroy", "--stop", "--lab", "b"]);
            }
            let differences = before.differences(&Snapshot::when_settled());
            assert!(differences.is_empty(), "{}", differences.join("\n"));
            lab.ok(&["destroy", "--stop", "--lab", "a"]);
        }
    });
}

/// A rehearsal of the file as another lab, beside one that was kept.
#[test]
fn rehearsals_have_names_too() {
    sandbox::run("as_another::rehearsals_have_names_too", || {
        let lab = Lab::from_text(&file().replace("via = \"host\"", "via = \"none\""));
        let kept = json(&lab, &["rehearse", "--keep"]);
        assert_eq!(kept["lab"], "row");
        let other = json(&lab, &["rehearse", "--keep", "--lab", "ci-7"]);
        assert_eq!((&other["lab"], &other["passed"]), (&Value::from("ci-7"), &Value::from(true)), "{other:#}");
        let run = |args: &[&str]| {
            lab.ok(&[&["rehearse", "net.toml"], args, &["--enter", "here", "--", "ip", "-br", "link"]].concat())
        };
        assert!(run(&[]).contains("br-web") && !run(&["--lab", "ci-7"]).contains("br-web"));
        let names = run(&["--lab", "ci-7"]);
        assert!(names.lines().any(|line| line.starts_with("br-") && line.contains("-web ")), "{names}");
        lab.ok(&["rehearse", "--end", "--lab", "ci-7"]);
        lab.ok(&["rehearse", "--end"]);
    });
}
