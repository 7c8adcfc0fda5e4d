//! Many guests at once: some fail and the others run, and each has a log of its console.

use serde_json::Value;

use crate::sandbox;
use crate::skip::skip;
use crate::world::{Engine, Lab, on_console, output, sh, succeeds};

/// A lab of so many small guests, the second of which boots from a file that is not there.
fn definition(guests: usize) -> String {
    let tiny = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("build/vm-images/tiny");
    let tiny = tiny.display();
    let mut text = format!(
        "lab = \"many\"\n[network.web]\nmode = \"isolated\"\n[defaults.vm]\naccel = \"tcg\"\nimage = \"tiny\"\n\
         memory = \"96MiB\"\nnic = \"web\"\n[image.tiny]\nfile = \"{tiny}/disk.qcow2\"\nkernel = \"{tiny}/vmlinuz\"\n\
         initrd = \"{tiny}/initrd.img\"\ncmdline = \"console=ttyS0 quiet\"\n\
         [image.gone]\nfile = \"gone.raw\"\nformat = \"raw\"\n"
    );
    for number in 1..=guests {
        text += &format!("[vm.vm{number}]\n{}", if number == 2 { "image = \"gone\"\n" } else { "" });
    }
    text
}

fn lab_of(guests: usize) -> Lab {
    let mut lab = Lab::from_text(&definition(guests));
    lab.engine = Engine::Qemu("tcg");
    lab
}

/// Runs in a sandbox, where the small guest and QEMU are there.
fn run(name: &str, work: impl FnOnce()) {
    let name = format!("many::{name}");
    let tiny = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("build/vm-images/tiny/vmlinuz");
    if !tiny.exists() {
        return skip(&name, "needs the small guest: make vm-images");
    }
    if !std::path::Path::new("/usr/bin/qemu-system-x86_64").exists() {
        return skip(&name, "needs qemu-system-x86_64");
    }
    sandbox::run(&name, work);
}

/// Runs a verb with `--json`, and gives its document and its exit code.
#[track_caller]
fn json(lab: &Lab, args: &[&str]) -> (Value, i32) {
    let said = lab.vmnet(&[args, &["--json"]].concat());
    let text = String::from_utf8_lossy(&said.stdout);
    let document = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error} in {text}"));
    (document, said.status.code().unwrap())
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

/// A guest is on the network before its shell reads the console, and until then what is typed comes back.
fn shell_is_there(lab: &str, vm: &str) {
    let console = format!("/run/vmnet/{lab}/guests/{vm}/console.sock");
    let tried = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(200));
        on_console(&console, "true").is_ok_and(|(_, code)| code == 0)
    });
    assert!(tried, "the shell of {vm} does not come");
}

/// Six guests, or with `VMNET_LONG` twenty, of which one has no image and one finds its port's name taken: the others
/// run and answer.
#[test]
fn guests_that_fail_keep_none_of_the_others_from_it() {
    let guests = if std::env::var_os("VMNET_LONG").is_some() { 20 } else { 6 };
    run("guests_that_fail_keep_none_of_the_others_from_it", || boot_all(guests));
}

fn boot_all(guests: usize) {
    let lab = lab_of(guests);
    lab.ok(&["create"]);
    sh(&format!("ip link add {} type bridge", lab.tap("vm3")));
    let (booted, code) = json(&lab, &["boot", "--all", "--wait=600s"]);
    assert_eq!(code, 1, "{booted:#}");
    let well: Vec<String> = (1..=guests).filter(|n| ![2, 3].contains(n)).map(|n| format!("vm{n}")).collect();
    let mut well: Vec<&str> = well.iter().map(String::as_str).collect();
    well.sort_unstable();
    assert_eq!(names(&booted["started"]), well, "{booted:#}");
    assert_eq!(booted["answered"].as_object().unwrap().len(), well.len(), "{booted:#}");
    let failed = booted["failed"].as_object().unwrap();
    assert_eq!(failed.keys().collect::<Vec<_>>(), ["vm2", "vm3"]);
    assert!(failed["vm2"]["error"].as_str().unwrap().contains("gone.raw does not exist"), "{booted:#}");
    assert!(failed["vm3"]["error"].as_str().unwrap().contains(&lab.tap("vm3")), "{booted:#}");
    assert!(!output(&format!("ip link show {}", lab.tap("vm3"))).contains("vmnet:many"), "foreign, and left alone");
    assert_eq!(lab.vmnet(&["plan", "--check"]).status.code(), Some(0), "nothing is left to do");
    // What failed can be had when its cause is gone.
    sh(&format!("ip link delete {}", lab.tap("vm3")));
    let (booted, code) = json(&lab, &["boot", "vm3", "--wait=600s"]);
    assert_eq!((code, names(&booted["started"])), (0, vec!["vm3"]), "{booted:#}");
    // People read the same.
    let said = lab.vmnet(&["boot", "--all"]);
    let text = String::from_utf8_lossy(&said.stdout);
    assert_eq!(said.status.code(), Some(1), "{text}");
    assert!(text.contains("vm2 not started") && text.contains(&format!("failed: 1 of {guests} guests")), "{text}");
    lab.ok(&["destroy", "--stop", "--purge"]);
}

/// What the guest says is logged, in files that end; the guest does not care what becomes of who keeps them.
#[test]
fn a_console_is_logged_and_a_guest_outlives_who_keeps_it() {
    run("a_console_is_logged_and_a_guest_outlives_who_keeps_it", || {
        let lab = lab_of(1);
        let folder = "/run/state/many/guests/vm1";
        lab.ok(&["create"]);
        let (none, code) = json(&lab, &["logs", "vm1"]);
        assert_eq!((code, none["help"].as_str().unwrap().contains("vmnet boot many/vm1")), (1, true), "{none:#}");
        lab.ok(&["boot", "vm1", "--wait=300s"]);
        shell_is_there("many", "vm1");
        lab.in_guest("vm1", r"printf 'first \033[2J\033[31mred\n'");
        let until = |word: &str| {
            sh(&format!("for i in $(seq 1200); do grep -q '{word}' {folder}/console.log && break; sleep 0.1; done"))
        };
        until("red");
        let text = lab.ok(&["logs", "vm1"]);
        assert!(text.contains("first red\n"), "{text}");
        assert!(lab.ok(&["logs", "vm1", "--raw"]).contains("first \u{1b}[2J\u{1b}[31mred"));
        assert_eq!(lab.ok(&["logs", "vm1", "--lines=1"]).lines().count(), 1);
        // More than one file holds: two at most, and the last words are there.
        lab.in_guest("vm1", "yes 0123456789abcdef0123456789abcdef | head -c 1300000; echo the last words");
        until("the last words");
        assert!(lab.ok(&["logs", "vm1", "--lines=5"]).contains("the last words"));
        let bytes = sh(&format!("cat {folder}/console* | wc -c"));
        let bytes: u64 = bytes.trim().parse().unwrap();
        assert!(bytes > 1 << 20 && bytes <= 2 << 20, "{bytes}");
        assert!(sh(&format!("stat -c '%U %a' {folder}/console.log")).ends_with(" 600\n"));
        // A keeper that is killed costs the log, nothing else.
        let keeper = sh("cd /proc; grep -lz '^keep-console-log$' [0-9]*/cmdline | cut -d / -f 1");
        let keeper = keeper.trim();
        assert_eq!(sh(&format!("awk '/^Uid/ {{ print $2 }} /^CapEff/ {{ print $2 }}' /proc/{keeper}/status")), {
            let uid = sh("id -u vmnet-qemu");
            format!("{uid}0000000000000000\n")
        });
        sh(&format!("kill -KILL {keeper}"));
        // More than a pipe holds, while nobody reads the console: who reads it slowly would miss some of it now.
        lab.in_guest("vm1", "(sleep 2; yes 0123456789abcdef | head -c 200000 >/dev/ttyS0; touch /done) &");
        std::thread::sleep(std::time::Duration::from_secs(5));
        let done = (0..50).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(200));
            lab.in_guest("vm1", "test -e /done").1 == 0
        });
        assert!(done, "the guest does not get rid of what it says");
        lab.ok(&["stop", "vm1"]);
        let (after, _) = json(&lab, &["logs", "vm1"]);
        assert_eq!(after["running"], false);
        assert!(after["text"].as_str().unwrap().contains("the last words"), "it stays when the guest has ended");
        lab.ok(&["boot", "vm1"]);
        until("Linux\\|boot\\|tiny\\|login\\|#");
        assert!(!lab.ok(&["logs", "vm1"]).contains("the last words"));
        assert!(lab.ok(&["logs", "vm1", "--previous"]).contains("the last words"));
        lab.ok(&["stop", "vm1"]);
        assert!(!succeeds("cd /proc; grep -lz '^keep-console-log$' [0-9]*/cmdline"), "a keeper ends with its guest");
        lab.ok(&["destroy", "--purge"]);
        assert!(!std::path::Path::new(folder).exists());
    });
}

/// Nothing is started where the memory of all can never be there; unless it is asked for.
#[test]
fn guests_that_have_no_room_are_refused_before_any_is_started() {
    run("guests_that_have_no_room_are_refused_before_any_is_started", || {
        let lab = Lab::from_text(&definition(3).replace("96MiB", "1000GiB"));
        lab.ok(&["create"]);
        let (refused, code) = json(&lab, &["boot", "vm1", "vm3"]);
        assert_eq!(code, 4, "{refused:#}");
        let error = refused["error"].as_str().unwrap();
        assert!(error.contains("the 2 guests need 2048128 MiB") && error.contains("--overcommit"), "{error}");
        assert!(!std::path::Path::new("/run/state/many/guests").exists());
        lab.ok(&["destroy"]);
    });
}
