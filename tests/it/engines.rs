//! What every engine does alike: one set of tests, run with namespaces, with QEMU and with libvirt.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::private_libvirt::{self, Libvirt};
use crate::sandbox;
use crate::skip::skip;
use crate::world::{Engine, Lab, sh};

/// Guest a boots; b is a machine that boots nothing, which is enough to run and to crash; the image of c is none.
const LAB: &str = r#"
lab = "eng"
[defaults.vm]
engine = "netns"
[network.web]
subnet = "192.168.10.0/24"
[router]
external = { via = "none" }
[image.empty]
file = "empty.qcow2"
[image.broken]
file = "broken.qcow2"
[vm.a]
nic = { network = "web", address = "192.168.10.10" }
description = "the first"
[vm.b]
nic = "web"
image = "empty"
[vm.c]
nic = "web"
image = "broken"
"#;

#[test]
fn guests_are_namespaces() {
    sandbox::run("engines::guests_are_namespaces", || contract(Engine::Netns));
}

#[test]
fn guests_are_qemus() {
    const NAME: &str = "engines::guests_are_qemus";
    if !lacks_images(NAME) {
        sandbox::run(NAME, || contract(Engine::Qemu("tcg")));
    }
}

#[test]
fn guests_are_libvirts() {
    const NAME: &str = "engines::guests_are_libvirts";
    if lacks_images(NAME) || private_libvirt::missing(NAME) {
        return;
    }
    sandbox::run(NAME, || {
        let libvirt = Libvirt::start();
        contract(Engine::Libvirt("tcg"));
        assert_eq!(libvirt.domains(), "");
    });
}

fn lacks_images(name: &str) -> bool {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/vm-images/tiny");
    let lacks = !images.join("vmlinuz").exists();
    if lacks {
        skip(name, "needs the small guest: make vm-images");
    }
    lacks
}

fn contract(engine: Engine) {
    let lab = Lab::of(LAB, engine);
    sh("cd /run/lab; qemu-img create -q -f qcow2 empty.qcow2 1M; echo no image >broken.qcow2; chmod 644 *.qcow2");
    lab.ok(&["create"]);
    lab.ok(&["boot", "a", "--wait=300s"]);
    says_what_it_is(&lab);
    ways_in(&lab);
    if engine != Engine::Netns {
        a_crash_is_nobody_elses(&lab);
        what_cannot_boot_leaves_nothing(&lab);
    }
    stops_and_begins_anew(&lab);
    goes_with_the_lab(&lab);
}

/// What `vmnet ps` says of a guest.
fn ps(lab: &Lab, vm: &str) -> Value {
    let said: Value = serde_json::from_str(&lab.ok(&["ps", "eng", "--json"])).unwrap();
    said["vms"].as_array().unwrap().iter().find(|guest| guest["name"] == vm).unwrap().clone()
}

/// The exit code, and all that was printed.
fn said(lab: &Lab, args: &[&str]) -> (i32, String) {
    let output = lab.vmnet(args);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text.into_owned())
}

#[track_caller]
fn refuses(lab: &Lab, args: &[&str], word: &str) {
    let (code, text) = said(lab, args);
    assert!(code == 1 && text.contains(word), "vmnet {args:?} exits {code}: {text}");
}

#[track_caller]
fn as_applied(lab: &Lab) {
    let status: Value = serde_json::from_str(&lab.ok(&["status", "eng", "--json"])).unwrap();
    assert_eq!(status["condition"], "as-applied", "{status:#}");
    lab.ok(&["plan", "--check"]);
}

fn word(lab: &Lab) -> &'static str {
    match lab.engine {
        Engine::Netns => "netns",
        Engine::Qemu(_) => "qemu",
        Engine::Libvirt(_) => "libvirt",
    }
}

fn says_what_it_is(lab: &Lab) {
    let a = ps(lab, "a");
    let is = (&a["engine"], &a["running"], &a["outdated"], &a["description"]);
    assert_eq!(is, (&word(lab).into(), &true.into(), &false.into(), &"the first".into()), "{a:#}");
    assert_eq!(a["pid"].is_i64(), lab.engine != Engine::Netns, "{a:#}");
    let tap = sh(&format!("ip -d link show {}", lab.tap("a")));
    assert!(tap.contains("vmnet:eng:nic:a.0") && tap.contains("master br-web"), "{tap}");
    assert_eq!(ps(lab, "b")["running"], false);
    as_applied(lab);
    assert!(lab.ok(&["list", "--json"]).contains("\"a\""));
    refuses(lab, &["boot", "a"], "runs already");
    refuses(lab, &["destroy", "eng"], "guests of lab eng run: a");
    refuses(lab, &["reset", "a"], "runs");
}

fn ways_in(lab: &Lab) {
    if lab.engine == Engine::Netns {
        assert!(lab.in_guest("a", "ip -br addr").0.contains("192.168.10.10/24"));
        refuses(lab, &["console", "a"], "no console");
        refuses(lab, &["xml", "a"], "no machine");
        return;
    }
    refuses(lab, &["exec", "a", "--", "true"], "a machine of its own");
    let mut console = lab.command(&["console", "a"]);
    console.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut console = console.spawn().unwrap();
    console.stdin.take().unwrap().write_all(b"echo $((6*7))-is-it\n").unwrap();
    let output = console.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("42-is-it"), "{output:?}");
    // What it wrote is kept, soon after.
    let is_kept = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        lab.ok(&["logs", "a"]).contains("42-is-it")
    });
    assert!(is_kept, "{}", lab.ok(&["logs", "a"]));
    if let Engine::Libvirt(_) = lab.engine {
        refuses(lab, &["logs", "a", "--previous"], "one log over all starts");
    }
    assert!(lab.ok(&["xml", "a"]).contains("<description>the first</description>"));
}

/// Boots b, and ends its process as a fault of it would.
fn crash_b(lab: &Lab) {
    lab.ok(&["boot", "b"]);
    let pid = ps(lab, "b")["pid"].as_i64().unwrap();
    sh(&format!("kill -9 {pid}"));
    let deadline = Instant::now() + Duration::from_secs(60);
    while ps(lab, "b")["running"] == true {
        assert!(Instant::now() < deadline, "b still runs");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn disk_of_b() -> u64 {
    std::fs::metadata("/run/state/eng/guests/b/disk-1.qcow2").unwrap().ino()
}

fn a_crash_is_nobody_elses(lab: &Lab) {
    let a = ps(lab, "a")["pid"].clone();
    crash_b(lab);
    assert!(!sh("ip -br link").contains(&lab.tap("b")));
    assert_eq!(ps(lab, "a")["pid"], a);
    as_applied(lab);
    let disk = disk_of_b();
    crash_b(lab);
    assert_eq!(disk_of_b(), disk, "it has another disk");
}

fn what_cannot_boot_leaves_nothing(lab: &Lab) {
    let before = sh("ip -br link");
    refuses(lab, &["boot", "c"], "broken.qcow2");
    assert_eq!(sh("ip -br link"), before);
    assert!(!Path::new("/run/state/eng/guests/c/disk-1.qcow2").exists());
    as_applied(lab);
}

fn stops_and_begins_anew(lab: &Lab) {
    if let Engine::Libvirt(_) = lab.engine {
        // As the host does when it goes down; those of QEMU have a test of their own.
        let report: Value = serde_json::from_str(&lab.ok(&["shutdown", "--json"])).unwrap();
        assert_eq!(report["guests"].as_array().map(Vec::len), Some(1), "{report:#}");
        assert_eq!((&report["guests"][0]["vm"], &report["guests"][0]["in_order"]), (&"a".into(), &true.into()));
    } else {
        assert!(lab.ok(&["stop", "a"]).contains("stopped in"));
    }
    assert!(lab.ok(&["stop", "a"]).contains("is stopped already"));
    assert!(!sh("ip -br link").contains(&lab.tap("a")));
    assert_eq!(ps(lab, "a")["running"], false);
    as_applied(lab);
    lab.ok(&["reset", "a"]);
    assert!(!Path::new("/run/state/eng/guests/a/disk-1.qcow2").exists());
    lab.ok(&["boot", "a", "--wait=300s"]);
    assert_eq!(Path::new("/run/state/eng/guests/a/disk-2.qcow2").exists(), lab.engine != Engine::Netns);
}

fn goes_with_the_lab(lab: &Lab) {
    refuses(lab, &["destroy", "eng"], "guests of lab eng run: a");
    lab.ok(&["destroy", "--stop", "--purge", "eng"]);
    let left = sh("ip -br link; ls /run/netns; find /var/log/libvirt -name 'eng-*-console.log*' 2>/dev/null || true");
    assert_eq!(left.lines().count(), 1, "{left}");
    assert!(!Path::new("/run/state/eng").exists() && !Path::new("/run/vmnet/eng").exists());
    assert!(lab.ok(&["list"]).contains("there is no lab"));
}
