//! What somebody meets who uses vmnet for the first time: each verb says what stands, and what to do.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::sandbox;
use crate::world::{Lab, output, sh};

const LAB: &str = r#"
lab = "first"
[defaults.vm]
engine = "netns"
[router]
external = { via = "none" }
[network.web]
subnet = "10.1.0.0/24"
[network.db]
mode = "routed"
subnet = "10.2.0.0/24"
[vm.vm1]
nic = "web"
[vm.vm2]
nic = "db"
"#;

/// Code, standard output and standard error.
fn said(lab: &Lab, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = lab.vmnet(args);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// The program must fail with this code and say all of this.
#[track_caller]
fn refuses(lab: &Lab, args: &[&str], code: i32, words: &[&str]) {
    let (found, _, text) = said(lab, args);
    assert_eq!(found, code, "{args:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{args:?}: {word} is not in: {text}");
    }
}

fn json(lab: &Lab, args: &[&str]) -> Value {
    serde_json::from_slice(&lab.vmnet(&[args, &["--json"]].concat()).stdout).unwrap()
}

#[test]
fn guests_that_run_already_and_those_that_do_not() {
    sandbox::run("first_use::guests_that_run_already_and_those_that_do_not", || {
        let lab = Lab::from_text(LAB);
        lab.ok(&["create"]);
        lab.ok(&["boot", "vm1"]);
        refuses(&lab, &["boot", "vm1"], 1, &["vm vm1 runs already", "help: stop it first"]);
        assert_eq!(json(&lab, &["boot", "vm1"])["error"], "vm vm1 runs already");
        // The others start all the same.
        let (code, out, err) = said(&lab, &["boot", "vm1", "vm2"]);
        assert_eq!(code, 1);
        assert!(out.contains("started") && out.contains(": vm2") && err.contains("vm vm1 runs already"), "{out}{err}");
        // Who waits, waits for those that run, too.
        let waited = json(&lab, &["boot", "vm1", "--wait"]);
        assert_eq!((&waited["started"], &waited["running"]), (&serde_json::json!([]), &serde_json::json!(["vm1"])));
        assert!(waited["answered"]["vm1"].is_number(), "{waited}");
        let (code, out, err) = said(&lab, &["boot", "--all", "--wait"]);
        assert!(code == 0 && err.contains("vm1: up after") && err.contains("vm2: up after"), "{err}");
        assert!(out.contains(": on the network after ") && out.contains("vm1, vm2"), "{out}");
        lab.ok(&["stop", "vm2"]);
        assert_eq!(lab.ok(&["stop", "vm2"]), "lab first: vm2 is stopped already\n");
        let stopped = lab.ok(&["stop", "--all"]);
        assert!(stopped.contains(": vm1\n") && stopped.ends_with("vm2 is stopped already\n"), "{stopped}");
        // What was missing is told apart from the start.
        sh("ip link del br-web");
        let booted = lab.ok(&["boot", "vm1"]);
        assert!(booted.starts_with("repaired the network first (") && booted.contains("started"), "{booted}");
        lab.ok(&["stop", "vm1"]);
        sh("ip link del br-web");
        assert!(json(&lab, &["boot", "vm1"])["repaired"].as_u64().unwrap() > 1);
        assert_eq!(json(&lab, &["boot", "vm2"])["repaired"], 0);
        lab.ok(&["destroy", "--stop"]);
    });
}

#[test]
fn a_wait_that_is_interrupted_says_what_runs() {
    sandbox::run("first_use::a_wait_that_is_interrupted_says_what_runs", || {
        let lab = Lab::from_text(LAB);
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        // It never answers.
        sh("ip -n vmnet-first.vm1 link set eth0 arp off");
        let mut client = lab.command(&["boot", "vm1", "--wait"]);
        let client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The bit of SIGINT among the signals that it catches.
        let status = format!("/proc/{}/status", client.id());
        let begun = Instant::now();
        let catches = || output(&format!("grep -s SigCgt {status} | grep -E '[2367abef]$'"));
        while catches().is_empty() || begun.elapsed() < Duration::from_millis(600) {
            assert!(begun.elapsed() < Duration::from_secs(20), "it never waits");
            std::thread::sleep(Duration::from_millis(10));
        }
        kill(Pid::from_raw(i32::try_from(client.id()).unwrap()), Signal::SIGINT).unwrap();
        let Output { status, stderr, .. } = client.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(1), "{text}");
        assert!(text.contains("not waited to the end; vm1 runs"), "{text}");
        lab.ok(&["destroy", "--stop"]);
    });
}

#[test]
fn names_that_are_none() {
    sandbox::run("first_use::names_that_are_none", || {
        let lab = Lab::from_text(LAB);
        refuses(
            &lab,
            &["stop", "vm9"],
            1,
            &["no lab on this host has a guest vm9", "first of net.toml is not created"],
        );
        let (code, out, _) = said(&lab, &["restore", "nolab"]);
        assert!(code == 1 && out.contains("lab nolab is not created on this host (no lab is)"), "{code} {out}");
        lab.ok(&["create"]);
        refuses(&lab, &["stop", "vm9"], 1, &["lab first has no guest vm9; it has vm1, vm2"]);
        refuses(&lab, &["boot", "first"], 1, &["first is a lab, not a guest", "vm1, vm2", "--all --of first"]);
        for verb in [&["exec", "first", "true"][..], &["logs", "first"], &["ssh", "first"], &["console", "first"]] {
            refuses(&lab, verb, 1, &["first is a lab, not a guest", "name one of its guests (vm1, vm2): first/VM"]);
            assert!(!said(&lab, verb).2.contains("--all"));
        }
        refuses(&lab, &["boot", "--wait", "5s", "vm1"], 2, &["--wait=5s"]);
        refuses(&lab, &["boot"], 2, &["--all"]);
        refuses(&lab, &["create", "--confirm", "0s"], 2, &["at least 1s"]);
        lab.ok(&["destroy"]);
    });
}

/// Far from the definition, in a hurry or not.
#[test]
fn the_only_lab_is_found_from_anywhere() {
    sandbox::run("first_use::the_only_lab_is_found_from_anywhere", || {
        let lab = Lab::from_text(LAB);
        let from_root = |args: &[&str]| {
            let Output { status, stdout, stderr } = lab.command(args).current_dir("/").output().unwrap();
            let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
            (status.code().unwrap(), text.into_owned())
        };
        lab.ok(&["create"]);
        for args in [&["status"][..], &["ps"], &["verify"]] {
            let (code, text) = from_root(args);
            // Nothing runs, so nothing is proven.
            assert_eq!(code, i32::from(args == ["verify"]), "{text}");
        }
        assert_eq!(from_root(&["destroy"]).0, 2);
        let other = LAB.replace("first", "second").replace("web", "lan").replace("10.1", "10.3");
        std::fs::create_dir("/run/second").unwrap();
        std::fs::write("/run/second/net.toml", other.replace("db", "pool").replace("10.2", "10.4")).unwrap();
        lab.ok(&["create", "--confirm", "60s", "/run/second/net.toml"]);
        assert_eq!(from_root(&["status"]).0, 2);
        let (code, text) = from_root(&["confirm"]);
        assert!(code == 0 && text.contains("lab second: confirmed"), "{text}");
        assert_eq!(from_root(&["confirm"]).0, 2);
        sh("sed -i 's/10.4/10.5/' /run/second/net.toml");
        lab.ok(&["create", "--confirm", "60s", "/run/second/net.toml"]);
        let (code, text) = from_root(&["undo"]);
        assert!(code == 0 && text.contains("lab second: undone"), "{text}");
        // In the folder of another lab that one is meant; which waits is told.
        lab.ok(&["create", "--confirm", "60s", "/run/second/net.toml"]);
        refuses(&lab, &["undo"], 1, &["nothing to undo for lab first", "another lab is meant: vmnet undo second\n"]);
        refuses(&lab, &["confirm"], 1, &["nothing to confirm for lab first", "meant: vmnet confirm second\n"]);
        lab.ok(&["confirm", "second"]);
        let (_, _, err) = said(&lab, &["confirm"]);
        assert!(!err.contains("second"), "{err}");
        lab.ok(&["destroy", "second"]);
        lab.ok(&["destroy"]);
    });
}

/// What is not there any more is told where it is looked for, and hints name the lab.
#[test]
fn what_others_broke() {
    sandbox::run("first_use::what_others_broke", || {
        let lab = Lab::from_text(LAB);
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        sh("ip -n vmnet-first.vm2 link del eth0");
        // A report is written as any file is: into what a link leads to.
        sh("echo old >/run/report; ln -s report /run/link");
        let (code, out, err) = said(&lab, &["verify", "--junit", "/run/link"]);
        assert_eq!(code, 1, "{out}{err}");
        assert!(out.contains("vm2 -> ") && out.contains("cannot probe from vm2") && out.contains('✗'), "{out}");
        let report = json(&lab, &["verify"]);
        let rows = report["rows"].as_array().unwrap();
        let of =
            |vm: &str| rows.iter().filter(|row| row["from"] == vm).map(|row| row["seen"].clone()).collect::<Vec<_>>();
        assert!(of("vm2").iter().all(|seen| seen == "broken"), "{report:#}");
        assert!(of("vm1").contains(&"reached".into()), "{report:#}");
        assert!(output("readlink /run/link; cat /run/report").starts_with("report\n<?xml"));
        refuses(&lab, &["destroy"], 1, &["guests of lab first run: vm1, vm2", "say vmnet destroy --stop first\n"]);
        // A copy of the definition is not what the lab was created from.
        sh("mkdir /run/copy; cp /run/lab/net.toml /run/copy");
        for args in [&["destroy", "--stop"][..], &["status"], &["stop", "--all"], &["stop", "vm1"], &["ps"]] {
            let Output { status, stderr, .. } = lab.command(args).current_dir("/run/copy").output().unwrap();
            let text = String::from_utf8_lossy(&stderr);
            assert_eq!(status.code(), Some(1), "{args:?}: {text}");
            assert!(
                text.contains("lab first was created from /run/lab/net.toml, and not from /run/copy/net.toml"),
                "{text}"
            );
            assert!(text.contains("say first in the place of the file"), "{text}");
        }
        lab.ok(&["stop", "--all"]);
        // What lost its mark stays, and is told.
        sh("ip link set br-web alias mine");
        let (code, out, err) = said(&lab, &["destroy"]);
        assert!(code == 0 && out.contains("not proven to be vmnet's: link br-web"), "{out}{err}");
        sh("ip link del br-web");
    });
}

/// A definition may have any ending, and a lab neither guests nor gateways.
#[test]
fn a_file_by_another_name_with_nothing_to_try() {
    sandbox::run("first_use::a_file_by_another_name_with_nothing_to_try", || {
        let lab = Lab::from_text(LAB);
        let text = "lab = \"bare\"\n[network.web]\nmode = \"isolated\"\n";
        std::fs::write("/run/lab/bare.conf", text).unwrap();
        lab.ok(&["create", "bare.conf"]);
        assert_eq!(json(&lab, &["status", "./bare.conf"])["lab"], "bare");
        assert_eq!(lab.ok(&["boot", "--all", "--of", "bare.conf"]), "lab bare has no guests\n");
        assert_eq!(lab.ok(&["stop", "--all", "--of", "bare.conf"]), "lab bare has no guests\n");
        let (code, out, _) = said(&lab, &["verify", "bare.conf"]);
        assert!(code == 0 && out.starts_with("There is nothing to try"), "{out}");
        lab.ok(&["destroy", "bare.conf"]);
        let (code, out, err) = said(&lab, &["rehearse", "bare.conf", "--only", "here"]);
        assert!(code == 0 && out.contains("there was nothing to try\n"), "{out}{err}");
        assert!(!out.contains("everybody"), "{out}");
        refuses(&lab, &["rehearse", "bare.conf", "--only", "h1"], 2, &["there is no host h1"]);
        refuses(&lab, &["status", "net"], 1, &["lab net is not created"]);
        refuses(&lab, &["status", "Net"], 2, &["with its ending, or as ./FILE"]);
    });
}

#[test]
fn a_definition_that_changes_nothing_here() {
    sandbox::run("first_use::a_definition_that_changes_nothing_here", || {
        let lab = Lab::from_text(LAB);
        lab.ok(&["create"]);
        assert!(lab.ok(&["create"]).contains("nothing to do"));
        let lab = Lab::from_text(&LAB.replace("[vm.vm2]\n", "[vm.vm2]\nautostart = true\n"));
        let (code, out, err) = said(&lab, &["create", "--confirm", "60s"]);
        assert!(code == 0 && out.contains("applied; nothing on the host changes"), "{out}");
        assert!(!out.contains("nothing to do") && out.contains("not confirmed yet: will be undone at"), "{out}");
        assert!(err.contains("will be undone in 1 min, at"), "{err}");
        lab.ok(&["confirm"]);
        assert!(lab.ok(&["create"]).contains("nothing to do"));
        lab.ok(&["destroy"]);
    });
}

/// The watcher was killed, so nobody goes back: every verb says the same of it.
#[test]
fn what_nobody_undid_in_time() {
    sandbox::run("first_use::what_nobody_undid_in_time", || {
        let lab = Lab::from_text(LAB);
        lab.ok(&["create", "--confirm", "1s"]);
        sh("kill -9 $(grep -ls await-confirm /proc/[0-9]*/cmdline | cut -d/ -f3 | grep -v $$) 2>/dev/null || true");
        std::thread::sleep(Duration::from_millis(1100));
        for args in [&["status"][..], &["create"], &["confirm"]] {
            let (_, out, err) = said(&lab, args);
            let text = out + &err;
            assert!(text.contains("the time to confirm create of") && text.contains("being undone now"), "{text}");
            assert!(text.contains("vmnet undo first does it, if nobody does"), "{text}");
        }
        assert!(lab.ok(&["undo"]).contains("nothing of it is left"));
    });
}

#[test]
fn a_damaged_lock_file_of_a_lab_that_is_not_created() {
    sandbox::run("first_use::a_damaged_lock_file_of_a_lab_that_is_not_created", || {
        let lab = Lab::from_text(LAB);
        std::fs::write(lab.folder().join("net.lock"), "<<<<<<<").unwrap();
        refuses(&lab, &["create"], 2, &["net.lock"]);
        refuses(&lab, &["status"], 1, &["lab first is not created"]);
        assert!(lab.ok(&["destroy"]).contains("nothing to remove"));
    });
}

#[test]
fn files_beside_the_definition() {
    sandbox::run("first_use::files_beside_the_definition", || {
        let lab = Lab::from_text(&LAB.replace("[vm.vm1]\n", "[vm.vm1]\nssh_keys = \"none.pub\"\n"));
        sh("chown 65534:65534 /run/lab/net.toml");
        let (code, _, err) = said(&lab, &["create"]);
        assert!(code == 0 && err.contains("vm vm1: ssh_keys: /run/lab/none.pub does not exist"), "{err}");
        assert_eq!(sh("stat -c %u:%g /run/lab/net.lock").trim(), "65534:65534");
        lab.ok(&["destroy"]);
    });
}

#[test]
fn help_and_completions_show_what_people_can_say() {
    let vmnet = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_vmnet")).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text.into_owned())
    };
    assert_eq!(vmnet(&["help"]).0, Some(0));
    assert!(vmnet(&["help", "boot"]).1.contains("--wait"));
    for args in [&["completions", "bash"][..], &["completions", "zsh"], &["completions", "fish"], &["--json"], &["man"]]
    {
        let text = vmnet(args).1;
        assert!(text.contains("create") && !text.contains("await-confirm"), "{args:?}");
    }
}

#[test]
fn more_words_show_what_is_in_a_table() {
    sandbox::run("first_use::more_words_show_what_is_in_a_table", || {
        let lab = Lab::from_text(LAB);
        assert!(!lab.ok(&["plan"]).contains("chain "));
        let plan = lab.ok(&["plan", "-v"]);
        assert!(plan.contains("        ") && plan.contains("chain forward"), "{plan}");
    });
}

/// A chain of somebody else's that drops what is forwarded: `verify` names it, too, where something is wrong.
#[test]
fn what_may_be_the_reason_is_told() {
    sandbox::run("first_use::what_may_be_the_reason_is_told", || {
        let lab = Lab::from_text(&LAB.replace("\"none\"", "\"host\""));
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        let (code, _, err) = said(&lab, &["verify"]);
        assert!(code == 0 && !err.contains("note:"), "{err}");
        sh(
            "nft 'add table inet strict; add chain inet strict fw { type filter hook forward priority 0; policy drop; }'",
        );
        sh("ip -n vmnet-first.vm1 link set eth0 down");
        let (code, _, err) = said(&lab, &["verify"]);
        assert!(code == 1 && err.contains("inet strict fw") && err.contains("run: "), "{err}");
        let notes = json(&lab, &["verify"])["notes"].to_string();
        assert!(notes.contains("inet strict fw"), "{notes}");
        lab.ok(&["destroy", "--stop"]);
    });
}
