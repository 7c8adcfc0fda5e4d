//! Images by URL and what `boot`, `vmnet image` and the labs of a host make of them.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use vmnet::names::{Algorithm, Hasher};

use super::server::Server;
use crate::hosts::{Hosts, can};
use crate::matrix::rows::json;
use crate::sandbox;
use crate::world::{Lab, output, sh, with_empty_guest};

/// Runs a test with an empty image of 1 MiB at a server, and its digest, where guests can run.
fn with_image(name: &str, test: impl FnOnce(&Server, &str)) {
    let name = format!("images::commands::{name}");
    sandbox::with_qemu(&name, || {
        sh("qemu-img create -q -f qcow2 /run/empty.qcow2 1M");
        let image = fs::read("/run/empty.qcow2").unwrap();
        let mut hash = Hasher::of(Algorithm::Sha256);
        hash.update(&image);
        test(&Server::start(&image, &[]), hash.finish().as_str());
    });
}

fn by_url(lab: &str, server: &Server, digest: &str) -> String {
    let image = format!("url = \"{}\"\nsha256 = \"{digest}\"", server.url());
    with_empty_guest(lab).replace("file = \"empty.qcow2\"", &image)
}

/// What a failed command said.
fn refused(lab: &Lab, args: &[&str]) -> String {
    let said = lab.vmnet(args);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    String::from_utf8(said.stderr).unwrap()
}

/// Ends the one guest of a lab, that has nothing to listen to the power button.
fn pull_the_cord(lab: &Lab) {
    pull_the_cord_of(|| json(&lab.ok(&["ps", &lab.name, "--json"]))["vms"][0].clone());
}

/// Ends a guest, and waits until vmnet says that it is gone. `running` is what `vmnet ps` has of it.
fn pull_the_cord_of(running: impl Fn() -> Value) {
    sh(&format!("kill -9 {}", running()["pid"]));
    let end = Instant::now() + Duration::from_secs(20);
    while running()["running"] == true {
        assert!(Instant::now() < end, "QEMU was killed, and still runs");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The names in the store.
fn store() -> String {
    output("ls -A /run/state/.files | grep -v '^.digests'")
}

#[test]
fn boot_downloads_and_prune_takes_what_nothing_needs() {
    with_image("boot_downloads_and_prune_takes_what_nothing_needs", |server, digest| {
        let lab = Lab::from_text(&by_url("remote", server, digest));
        lab.ok(&["create"]);
        assert_eq!((store(), server.asked().len()), (String::new(), 0), "create needs no image");
        lab.ok(&["boot", "vm1"]);
        assert_eq!(store(), format!("{digest}\n"));
        let report = json(&lab.ok(&["image", "list", "--json"]));
        let image = &report["images"][0];
        assert_eq!((&image["state"], &image["digest"]), (&"stored".into(), &digest.into()), "{report:#}");
        assert_eq!(image["used_by"][0]["guests"], serde_json::json!(["vm1"]));
        assert_eq!(image["disks"], serde_json::json!(["remote/vm1"]));
        assert!(lab.ok(&["image", "list"]).contains("remote/empty"));
        assert_eq!(json(&lab.ok(&["ps", "remote", "--json"]))["vms"][0]["outdated"], false);
        pull_the_cord(&lab);
        lab.ok(&["boot", "vm1"]);
        assert_eq!(server.asked().len(), 1, "it is downloaded once");
        fs::write(format!("/run/state/.files/.part-{}", "0".repeat(64)), "half").unwrap();
        assert!(lab.ok(&["image", "prune", "--dry-run"]).contains("would be removed: unfinished 000000000000"));
        assert!(lab.ok(&["image", "prune"]).contains("1 file, 4 B; 1 file in use"));
        assert_eq!(store(), format!("{digest}\n"), "a lab needs it");
        pull_the_cord(&lab);
        lab.ok(&["destroy", "remote"]);
        assert!(lab.ok(&["image", "prune"]).contains("nothing to remove"), "a disk was made of it");
        lab.ok(&["gc", "--purge"]);
        lab.ok(&["image", "prune"]);
        assert_eq!(store(), "");
    });
}

#[test]
fn a_wrong_digest_changes_nothing() {
    with_image("a_wrong_digest_changes_nothing", |server, digest| {
        let wrong = "0".repeat(64);
        let lab = Lab::from_text(&by_url("wrong", server, &wrong));
        lab.ok(&["create"]);
        let said = refused(&lab, &["boot", "vm1"]);
        for word in [digest, &wrong, server.url().as_str(), "help"] {
            assert!(said.contains(word), "{word} is not in {said}");
        }
        assert_eq!(store(), "");
        assert_eq!(json(&lab.ok(&["ps", "wrong", "--json"]))["vms"][0]["running"], false);
        lab.ok(&["plan", "--check"]);
        lab.ok(&["destroy"]);
    });
}

#[test]
fn pull_needs_no_lab() {
    with_image("pull_needs_no_lab", |server, digest| {
        let lab = Lab::from_text(&by_url("ahead", server, digest));
        let report = json(&lab.ok(&["image", "pull", "--json"]));
        assert_eq!(report["images"][0]["downloaded"], true, "{report:#}");
        assert!(lab.ok(&["image", "pull", "net.toml", "empty"]).contains("here already"));
        let said = lab.vmnet(&["image", "pull", "net.toml", "other"]);
        assert_eq!(said.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&said.stderr).contains("their images: empty"), "{said:?}");
        assert!(refused(&lab, &["image", "pull", "empty"]).contains("vmnet image pull FILE empty"));
        lab.ok(&["create"]);
        lab.ok(&["xml", "vm1"]);
        assert_eq!(server.asked().len(), 1);
        // What another host needs is not known here, so a damaged ledger stops it.
        sh("echo '{' >/run/state/ahead/ledger/ledger.json");
        assert!(refused(&lab, &["image", "prune"]).contains("nothing was removed"));
        assert_eq!(store(), format!("{digest}\n"));
    });
}

#[test]
fn an_image_that_changed_is_refused_until_the_disk_is_fresh() {
    with_image("an_image_that_changed_is_refused_until_the_disk_is_fresh", |_, digest| {
        let lab = Lab::from_text(&with_empty_guest("local"));
        sh("cp /run/empty.qcow2 /run/lab/empty.qcow2");
        let file = lab.vmnet(&["image", "pull", "net.toml", "empty"]);
        let why = String::from_utf8_lossy(&file.stderr);
        assert!(file.status.code() == Some(2) && why.contains("image empty of lab local is a file"), "{why}");
        lab.ok(&["create"]);
        lab.ok(&["boot", "vm1"]);
        pull_the_cord(&lab);
        sh("touch -d 2001-01-01 /run/lab/empty.qcow2; mv /run/lab/empty.qcow2 /run/x; cp /run/x /run/lab/empty.qcow2");
        lab.ok(&["boot", "vm1"]);
        assert_eq!(json(&lab.ok(&["ps", "local", "--json"]))["vms"][0]["outdated"], false);
        pull_the_cord(&lab);
        sh("qemu-img create -q -f qcow2 /run/lab/empty.qcow2 2M");
        let said = refused(&lab, &["boot", "vm1"]);
        assert!(said.contains(digest) && said.contains("(vmnet reset)"), "{said}");
        lab.ok(&["reset", "vm1"]);
        lab.ok(&["boot", "vm1"]);
        pull_the_cord(&lab);
        // A digest that is said holds for a file, too.
        let said_digest = format!("file = \"empty.qcow2\"\nsha256 = \"{digest}\"");
        let text = with_empty_guest("local").replace("file = \"empty.qcow2\"", &said_digest);
        fs::write(lab.folder().join("net.toml"), text).unwrap();
        lab.ok(&["create"]);
        let said = refused(&lab, &["boot", "vm1"]);
        assert!(said.contains("and the definition says") && said.contains(digest), "{said}");
        lab.ok(&["destroy", "--purge"]);
    });
}

/// Hosts download by themselves what their guests boot; an image that is a file is sent, and is the same one when it
/// comes from another place.
#[test]
fn each_host_downloads_what_its_guests_need() {
    if !can("images::commands::each_host_downloads_what_its_guests_need") {
        return;
    }
    with_image("each_host_downloads_what_its_guests_need", |server, digest| {
        let hosts = Hosts::start(2);
        let text = format!(
            r#"lab = "far"
[host.h1]
[host.h2]
[defaults.vm]
accel = "tcg"
memory = "64MiB"
[image.far]
url = "{}"
sha256 = "{digest}"
[image.near]
file = "near.qcow2"
[network.a]
mode = "isolated"
[network.b]
mode = "isolated"
[vm.vm1]
host = "h1"
image = "far"
nic = "a"
[vm.vm2]
host = "h2"
image = "near"
nic = "b"
"#,
            server.url_at("10.99.0.254")
        );
        let lab = Lab::from_text(&text);
        sh("qemu-img create -q -f qcow2 /run/lab/near.qcow2 2M");
        let report = json(&lab.ok(&["image", "pull", "--json"]));
        assert_eq!(report["hosts"]["h1"]["images"][0]["downloaded"], true, "{report:#}");
        assert!(report["hosts"].get("h2").is_none(), "its guest boots a file: {report:#}");
        let there = |number, name: &str| hosts.succeeds(number, &format!("test -e /run/state/.files/{name}"));
        assert!(there(1, digest) && !there(2, digest));
        hosts.sh(1, &format!("rm /run/state/.files/{digest}"));
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        assert!(there(1, digest) && !there(2, digest));
        assert_eq!(server.asked().len(), 2);
        let cord = |host: &str| pull_the_cord_of(|| json(&lab.ok(&["ps", "--json"]))["hosts"][host]["vms"][0].clone());
        cord("h1");
        cord("h2");
        // Sent anew from another file of the same content: the same digest, the same disk.
        sh("mv /run/lab/near.qcow2 /run/lab/other.qcow2");
        fs::write(lab.folder().join("net.toml"), text.replace("near.qcow2", "other.qcow2")).unwrap();
        lab.ok(&["create"]);
        lab.ok(&["boot", "vm2"]);
        cord("h2");
        lab.ok(&["destroy", "--purge"]);
        assert!(hosts.sh(1, "VMNET_STATE_DIR=/run/state vmnet image prune").contains("1 file"));
        assert!(!there(1, digest));
    });
}
