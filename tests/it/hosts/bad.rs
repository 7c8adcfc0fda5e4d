//! Hosts that don't do what they should: each row says what happened on which host, and nothing is left half-done.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::fleet::{SETTLED, TWO, as_before, has, json, said, settled, two};
use super::{Hosts, can};
use crate::sandbox;
use crate::world::{Lab, sh, with_empty_guest};

#[test]
fn a_host_that_is_not_there_or_another_stops_all() {
    let name = "hosts::bad::a_host_that_is_not_there_or_another_stops_all";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let (mut hosts, lab) = two();
        let before = settled(&hosts);
        let refused = |hosts: &Hosts, words: &[&str]| {
            let (text, code) = said(&lab, &["create"]);
            assert!(code == 1 || code == 4, "{code}: {text}");
            has(&text, words);
            as_before(hosts, &before, SETTLED, &text);
            assert!(!lab.folder().join("net.lock").exists());
            code
        };
        // It does not answer.
        hosts.stop_sshd(2);
        refused(&hosts, &["h2", "nothing was done", "refuses the connection", "--only h1"]);
        hosts.start_sshd(2);
        // Its vmnet is another one, or none.
        hosts.replace_vmnet(2, Some("#!/bin/sh\necho vmnet 99.1.0\n"));
        assert_eq!(refused(&hosts, &["h2", "99.1.0", "--install"]), 4);
        hosts.replace_vmnet(2, None);
        assert_eq!(refused(&hosts, &["h2", "no vmnet", "--install"]), 4);
        let (text, code) = said(&lab, &["plan", "--install"]);
        assert_eq!(code, 0, "{text}");
        // Its key is another one.
        hosts.change_key(2);
        refused(&hosts, &["h2", "host key is another one", "ssh-keygen"]);
        fs::write("/root/.ssh/known_hosts", "").unwrap();
        hosts.know(1);
        hosts.know(2);
        // It lacks what its part needs.
        hosts.sh(2, "ip link set nic0 nomaster; ip link del br0");
        let lacks = settled(&hosts);
        let (text, code) = said(&lab, &["create"]);
        assert!(code == 1 || code == 4, "{text}");
        has(&text, &["nothing was changed on any host", "h2", "br0", "could do its part"]);
        as_before(&hosts, &lacks, SETTLED, "after");
        hosts.sh(
            2,
            "ip link add br0 type bridge forward_delay 0; ip link set nic0 master br0; ip link set br0 up; sleep 1",
        );
        // It answers late.
        let late = hosts.delay(2, Duration::from_secs(4));
        assert_eq!(said(&lab, &["create"]).1, 0);
        late.join().unwrap();
        // It is gone afterwards: the others are shown all the same.
        hosts.stop_sshd(2);
        let (status, code) = json(&lab, &["status"]);
        assert_eq!(
            (code, &status["hosts"]["h1"]["condition"], &status["hosts"]["h2"]["condition"]),
            (1, &Value::from("as-applied"), &Value::from("lost"))
        );
        let (text, code) = said(&lab, &["ps"]);
        assert_eq!(code, 1);
        has(&text, &["vm1", "h2", "refuses the connection"]);
        hosts.start_sshd(2);
        assert_eq!(said(&lab, &["destroy"]).1, 0);
    });
}

#[test]
fn one_lab_has_one_definition_and_every_host_its_own_part() {
    let name = "hosts::bad::one_lab_has_one_definition_and_every_host_its_own_part";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let (hosts, lab) = two();
        let before = settled(&hosts);
        // Two definitions of one lab, by two files or since one host was left out.
        assert_eq!(said(&lab, &["create"]).1, 0);
        fs::write(lab.folder().join("net.toml"), TWO.replace("10.2.0.0", "10.4.0.0")).unwrap();
        assert_eq!(said(&lab, &["create", "--only", "h2"]).1, 0);
        let (status, _) = json(&lab, &["status"]);
        assert_eq!((&status["definitions"], &status["whole"]), (&Value::from(2), &Value::from(false)), "{status:#}");
        assert_eq!(
            (&status["hosts"]["h1"]["same"], &status["hosts"]["h2"]["same"]),
            (&Value::from(false), &Value::from(true))
        );
        has(&said(&lab, &["status"]).0, &["2 definitions of one lab", "h1 have another"]);
        let (text, code) = said(&lab, &["create"]);
        assert_eq!(code, 0, "{text}");
        has(&text, &["there were 2 definitions"]);
        assert_eq!(json(&lab, &["status"]).0["whole"], true);
        assert_eq!(said(&lab, &["destroy"]).1, 0);
        as_before(&hosts, &before, SETTLED, "after");
        // Two hosts that are one machine.
        fs::write(lab.folder().join("net.toml"), TWO.replace("[host.h2]", "[host.h2]\nssh = \"h1\"")).unwrap();
        let (text, code) = said(&lab, &["create"]);
        assert_eq!(code, 1, "{text}");
        has(&text, &["h2", "same machine as h1", "[host.h2]"]);
        as_before(&hosts, &before, SETTLED, "after");
        // Hosts that were exchanged, and a lab of that name that knows no hosts.
        fs::write(lab.folder().join("net.toml"), TWO).unwrap();
        assert_eq!(said(&lab, &["create"]).1, 0);
        let exchanged =
            TWO.replace("[host.h1]", "[host.h1]\nssh = \"h2\"").replace("[host.h2]", "[host.h2]\nssh = \"h1\"");
        fs::write(lab.folder().join("net.toml"), exchanged).unwrap();
        for verb in ["create", "destroy", "plan"] {
            let (text, code) = said(&lab, &[verb]);
            assert_eq!(code, 1, "{text}");
            has(&text, &["part of host h1", "part of host h2", "ssh h2 vmnet destroy two"]);
        }
        fs::write(lab.folder().join("net.toml"), TWO).unwrap();
        assert_eq!(said(&lab, &["destroy"]).1, 0);
        fs::write(hosts.path(2, "/run/own.toml"), "lab = \"two\"\n[network.x]\nmode = \"isolated\"\n").unwrap();
        hosts.sh(2, "vmnet create /run/own.toml; sleep 2");
        let there = settled(&hosts);
        for verb in ["create", "destroy"] {
            let (text, code) = said(&lab, &[verb]);
            assert_eq!(code, 1, "{text}");
            has(&text, &["h2", "knows no hosts"]);
        }
        as_before(&hosts, &there, SETTLED, "after");
    });
}

#[test]
fn a_host_that_fails_in_the_middle_takes_all_back() {
    let name = "hosts::bad::a_host_that_fails_in_the_middle_takes_all_back";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let (hosts, lab) = two();
        let before = settled(&hosts);
        // Between plan and create somebody takes a name on h2.
        let own = env!("CARGO_BIN_EXE_vmnet");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *' create '*) ip link add br-db type bridge;; esac\n{own} \"$@\"\ncode=$?\n\
             case \"$*\" in *' create '*) ip link del br-db;; esac\nexit $code\n"
        );
        hosts.replace_vmnet(2, Some(&script));
        let (failure, code) = json(&lab, &["create"]);
        assert_eq!(code, 1, "{failure:#}");
        has(failure["error"].as_str().unwrap(), &["was not created", "all hosts are as before"]);
        assert_eq!(failure["hosts"]["h1"]["state"], "it went back");
        has(&failure["hosts"]["h2"].to_string(), &["br-db", "as before"]);
        as_before(&hosts, &before, SETTLED, "after");
        assert!(!lab.folder().join("net.lock").exists(), "no host uses it");
        // The same where there was a lab before: it is what it was.
        hosts.replace_vmnet(2, Some(&format!("#!/bin/sh\nexec {own} \"$@\"\n")));
        assert_eq!(said(&lab, &["create"]).1, 0);
        let made = settled(&hosts);
        let lock = fs::read(lab.folder().join("net.lock")).unwrap();
        let script =
            format!("#!/bin/sh\ncase \"$*\" in *' create '*) echo nonsense; exit 3;; esac\nexec {own} \"$@\"\n");
        hosts.replace_vmnet(2, Some(&script));
        let more = TWO.to_owned()
            + "[vm.vm3]\nhost = \"h1\"\nnic = \"web\"\n[network.more]\nmode = \"isolated\"\nhosts = [\"h1\", \"h2\"]\nbridge = \"br0\"\n[network.third]\nmode = \"isolated\"\nhosts = \"h1\"\n";
        fs::write(
            lab.folder().join("net.toml"),
            more.replace("[network.more]\nmode = \"isolated\"\nhosts = [\"h1\", \"h2\"]\nbridge = \"br0\"\n", ""),
        )
        .unwrap();
        let (text, code) = said(&lab, &["create"]);
        assert_eq!(code, 1, "{text}");
        has(&text, &["h2", "nonsense", "all hosts are as before"]);
        as_before(&hosts, &made, SETTLED, "after");
        assert_eq!(fs::read(lab.folder().join("net.lock")).unwrap(), lock);
    });
}

#[test]
fn what_guests_need_is_sent_to_their_hosts_only() {
    let name = "hosts::bad::what_guests_need_is_sent_to_their_hosts_only";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let hosts = Hosts::start(2);
        let text = "lab = \"files\"\n[defaults.vm]\nimage = \"tiny\"\nssh_keys = [\"keys/me.pub\"]\n[host.h1]\n[host.h2]\n\
                    [image.tiny]\nfile = \"disk.qcow2\"\n[image.other]\nfile = \"other.qcow2\"\n\
                    [network.a]\nmode = \"isolated\"\n[network.b]\nmode = \"isolated\"\n\
                    [vm.vm1]\nhost = \"h1\"\nnic = \"a\"\n[vm.vm2]\nhost = \"h2\"\nnic = \"b\"\nimage = \"other\"\n";
        let lab = Lab::from_text(text);
        fs::write(lab.folder().join("disk.qcow2"), "one").unwrap();
        fs::write(lab.folder().join("other.qcow2"), "two").unwrap();
        fs::create_dir(lab.folder().join("keys")).unwrap();
        let key = lab.folder().join("keys/me.pub");
        // A private key never leaves this machine.
        fs::write(&key, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        let (text, code) = said(&lab, &["create"]);
        assert_eq!(code, 1, "{text}");
        has(&text, &["no public key"]);
        fs::copy("/root/.ssh/id_ed25519.pub", &key).unwrap();
        let (text, code) = said(&lab, &["create"]);
        assert_eq!(code, 0, "{text}");
        for (number, there) in [(1, "one"), (2, "two")] {
            let files = hosts.sh(number, "cat /run/state/.files/* | sort");
            assert!(files.contains(there) && files.contains("ssh-ed25519"), "{files}");
            assert_eq!(hosts.sh(number, "ls -A /run/state/.files | wc -l").trim(), "2");
        }
        assert_eq!(said(&lab, &["destroy"]).1, 0);
    });
}

/// The lab's own guests make room by their end; what does not fit then costs nobody the lab that there is.
#[test]
fn guests_that_do_not_fit_cost_no_lab() {
    sandbox::with_qemu("hosts::bad::guests_that_do_not_fit_cost_no_lab", || {
        let lab = Lab::from_text(&with_empty_guest("full"));
        sh("qemu-img create -q -f qcow2 /run/lab/empty.qcow2 1M");
        let usable = json(&lab, &["list"]).0["room"].as_u64().unwrap();
        // It fits once, and not twice.
        let text = with_empty_guest("full").replace("64MiB", &format!("{}MiB", (usable / 3 * 2) >> 20));
        fs::write("/run/lab/net.toml", &text).unwrap();
        lab.ok(&["create"]);
        lab.ok(&["boot", "vm1"]);
        let process = || json(&lab, &["ps"]).0["vms"][0]["pid"].as_i64().unwrap();
        let (before, (list, _)) = (process(), json(&lab, &["list"]));
        let room = [&list["room"], &list["labs"][0]["room_without"]].map(|room| room.as_u64().unwrap());
        assert!(room[0] < usable / 2 && room[1] > usable / 4 * 3, "{room:?} of {usable}");
        let second = text.split_once("[vm.vm1]").unwrap().1;
        fs::write("/run/lab/net.toml", format!("{text}[vm.vm2]{second}")).unwrap();
        let (said_of_two, code) = said(&lab, &["rebuild", "--yes"]);
        assert_eq!(code, 4, "{said_of_two}");
        has(&said_of_two, &["nothing was changed", "localhost", "the 2 guests need", "memory ="]);
        assert_eq!(process(), before);
        fs::write("/run/lab/net.toml", &text).unwrap();
        // Nothing in it listens to the power button.
        sh(&format!("(sleep 3; kill -9 {before}) >/dev/null 2>&1 &"));
        let (said_of_one, code) = said(&lab, &["rebuild", "--yes"]);
        assert_eq!(code, 0, "{said_of_one}");
        let anew = process();
        assert_ne!(anew, before);
        sh(&format!("kill -9 {anew}"));
        lab.ok(&["destroy", "--stop", "--purge"]);
    });
}
