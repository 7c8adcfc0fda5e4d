//! Paths that lead elsewhere, files that never end: refused quickly, in little memory.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::matrix::promise::{keep, said, same};
use crate::matrix::row;
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh};

const LAB: &str = "lab = \"paths\"\n[network.web]\nmode = \"isolated\"\nsubnet = \"10.1.0.0/24\"\n";

/// Runs the program with 400 MB of address space and ten seconds, which must be far more than enough.
#[track_caller]
fn bounded(lab: &Lab, args: &[&str]) -> Output {
    let own = lab.command(args);
    let mut command = Command::new("prlimit");
    command.args(["--as=400000000", "timeout", "-s", "KILL", "10"]);
    command.arg(own.get_program()).args(own.get_args()).current_dir(lab.folder());
    for (name, value) in own.get_envs() {
        value.map(|value| command.env(name, value));
    }
    let begun = Instant::now();
    let output = command.output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{args:?} took {:?}", begun.elapsed());
    output
}

#[track_caller]
fn refused(lab: &Lab, args: &[&str], code: i32, says: &str) {
    let output = bounded(lab, args);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    assert!(text.contains(says), "{args:?} does not say «{says}»: {text}");
}

/// A place for each kind of file that is no text.
fn make_odd_files(lab: &Lab, ending: &str) -> Vec<(&'static str, &'static str)> {
    let folder = lab.folder().display();
    sh(&format!(
        "cd {folder}; mkfifo fifo.{ending}; mkdir folder.{ending}; truncate -s 1G huge.{ending}; ln -sf /dev/zero zero.{ending}
         ln -sf fifo.{ending} to-fifo.{ending}; ln -sf round.{ending} round.{ending}; ln -sf /dev/tty tty.{ending}
         python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket.{ending}\")'"
    ));
    vec![
        ("fifo", "is not a regular file"),
        ("folder", "is not a regular file"),
        ("huge", "a definition has at most"),
        ("zero", "is not a regular file"),
        ("to-fifo", "is not a regular file"),
        ("round", "Too many levels of symbolic links"),
        ("tty", ""),
        ("socket", "No such device or address"),
    ]
}

/// A definition, and a lock file beside one, that is a FIFO, a folder, a device, a socket, a link to itself, or a
/// gigabyte: refused at once by every verb that reads it.
#[test]
fn row_47_definitions() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        let mut tried = 0;
        for (name, says) in make_odd_files(&lab, "toml") {
            for verb in ["check", "plan", "create", "destroy", "status", "verify", "ps"] {
                refused(&lab, &[verb, &format!("{name}.toml")], 2, says);
                tried += 1;
            }
        }
        for (name, says) in make_odd_files(&lab, "lock") {
            std::fs::copy(lab.folder().join("net.toml"), lab.folder().join("locked.toml")).unwrap();
            sh(&format!("cd {}; rm -rf locked.lock; cp -a {name}.lock locked.lock", lab.folder().display()));
            // A link that leads nowhere is no lock file; one is put in its place.
            if name != "round" && name != "to-fifo" {
                refused(&lab, &["plan", "locked.toml"], 2, says);
                refused(&lab, &["create", "locked.toml"], 2, says);
                tried += 2;
            }
        }
        same(&before, "after all these");
        // The definition of a lab that exists is something else by now: whatever it is, the lab's ledger counts.
        for name in ["fifo", "zero", "huge", "folder"] {
            lab.ok(&["create"]);
            sh(&format!("cd {}; mv net.toml good; cp -a {name}.toml net.toml", lab.folder().display()));
            for args in [["status", "paths"], ["ps", "paths"], ["status", "net.toml"], ["destroy", "net.toml"]] {
                let output = bounded(&lab, &args);
                assert!(output.status.success(), "{name} {args:?}: {}", said(&output));
                tried += 1;
            }
            sh(&format!("cd {}; rm -r net.toml; mv good net.toml", lab.folder().display()));
        }
        // What is not readable: for root that is only what another user's rights forbid.
        sh(&format!("cd {}; cp net.toml secret.toml; chmod 000 secret.toml", lab.folder().display()));
        let vmnet = env!("CARGO_BIN_EXE_vmnet");
        let text = sh(&format!(
            "cd {}; setpriv --bounding-set=-dac_override,-dac_read_search {vmnet} check secret.toml 2>&1 || echo $?",
            lab.folder().display()
        ));
        assert!(text.contains("Permission denied") && text.trim().ends_with('2'), "{text}");
        crate::matrix::tally("files that are no definition", tried, 0);
        keep(&lab, &before);
    });
}

/// What stands at the places of vmnet's own files, and of drop-ins, is no such file: nothing waits for it or reads it to
/// an end that it does not have.
#[test]
fn row_47_files_of_vmnets_own() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        lab.ok(&["create"]);
        sh("mkdir -p /run/vmnet/paths/guests /run/NetworkManager/conf.d");
        let places = [
            ("/run/vmnet/paths/undone.json", 0),
            ("/run/NetworkManager/conf.d/90-vmnet-paths.conf", 0),
            ("/run/vmnet/paths/guests/x.json", 1),
            ("/run/state/paths/ledger/change.json", 1),
        ];
        let mut tried = 0;
        for (place, code) in places {
            for make in ["mkfifo", "ln -s /dev/zero", "truncate -s 3G", "ln -s nowhere", "mkdir"] {
                sh(&format!("{make} {place}"));
                for args in [&["status", "paths"][..], &["list"], &["gc"], &["create"]] {
                    let output = bounded(&lab, args);
                    // What can't be read stands in the way of a change, or matters to nobody.
                    let is_fine = [Some(0), Some(code)].contains(&output.status.code());
                    assert!(is_fine, "{args:?} after {make} {place}: {}", said(&output));
                    tried += 1;
                }
                sh(&format!("rm -d {place}"));
            }
        }
        crate::matrix::tally("files that are not vmnet's", tried, 0);
        lab.ok(&["destroy"]);
        sh("rm -d /run/NetworkManager/conf.d /run/NetworkManager");
        keep(&lab, &before);
    });
}

fn with_image(image: &str, extra: &str) -> String {
    format!(
        "{LAB}[image.i]\n{image}\n[vm.q]\naccel = \"tcg\"\nmemory = \"64MiB\"\nimage = \"i\"\nnic = \"web\"\n{extra}"
    )
}

/// An image, a kernel or a file of keys that is no such thing: refused at `boot` and `xml`, nothing of it is shown, and
/// no guest is left.
#[test]
fn row_47_images() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        make_odd_files(&lab, "raw");
        let folder = lab.folder().display().to_string();
        sh(&format!(
            "cd {folder}; printf 'root:$y$secret:1\\nme:x:2\\n' >shadow; chmod 600 shadow; truncate -s 1M good.raw
                     printf 'secret' >short.raw; : >empty.raw; truncate -s 100M many-keys.pub"
        ));
        let mut tried = 0;
        for (image, says) in [
            ("file = \"fifo.raw\"", "is no file"),
            ("file = \"folder.raw\"", "is no file"),
            ("file = \"zero.raw\"", "is no file"),
            ("file = \"to-fifo.raw\"", "is no file"),
            ("file = \"/dev/zero\"\nformat = \"raw\"", "is no file"),
            ("file = \"../lab/socket.raw\"", "is no file"),
            ("file = \"shadow\"\nformat = \"raw\"", "whole sectors"),
            ("file = \"shadow\"\nformat = \"qcow2\"", "no qcow2 image"),
            ("file = \"empty.raw\"", "whole sectors"),
            ("file = \"good.raw\"\nformat = \"qcow2\"", "no qcow2 image"),
            ("kernel = \"fifo.raw\"", "is no file"),
            ("kernel = \"/dev/zero\"", "is no file"),
            ("kernel = \"/bin/true\"\ninitrd = \"zero.raw\"", "is no file"),
            ("kernel = \"shadow\"", "may not read"),
        ] {
            Lab::from_text(&with_image(image, ""));
            lab.ok(&["create"]);
            // The kernel's word that a bridge without ports has no carrier comes up to a second late.
            sh("until ip -o link show br-web | grep -q NO-CARRIER; do sleep 0.05; done");
            let created = Snapshot::take();
            for verb in ["boot", "xml"] {
                // By xml alone nothing is opened but the disk's base.
                if verb == "xml" && image == "kernel = \"shadow\"" {
                    continue;
                }
                let output = bounded(&lab, &[verb, "q"]);
                let text = said(&output);
                assert_eq!(output.status.code(), Some(1), "{verb} {image}: {text}");
                assert!(text.contains(says), "{verb} {image} does not say «{says}»: {text}");
                assert!(!text.contains("secret"), "{verb} {image}: {text}");
                tried += 1;
            }
            same(&created, image);
        }
        tried += keys_refused(&lab);
        crate::matrix::tally("files that are no image or key", tried, 0);
        lab.ok(&["destroy", "--purge"]);
        Lab::from_text(LAB);
        keep(&lab, &before);
    });
}

/// The same for files of keys.
fn keys_refused(lab: &Lab) -> usize {
    let mut tried = 0;
    for (keys, says) in [
        ("shadow", "holds no public key"),
        ("/dev/zero", "is no file of public keys"),
        ("fifo.raw", "is no file of public keys"),
        ("many-keys.pub", "is no file of public keys"),
        ("../../etc", "is no file of public keys"),
        ("nowhere", "can't be read"),
    ] {
        Lab::from_text(&with_image("file = \"good.raw\"", &format!("ssh_keys = \"{keys}\"\n")));
        lab.ok(&["create"]);
        for verb in ["boot", "xml"] {
            let output = bounded(lab, &[verb, "q"]);
            let text = said(&output);
            assert!(!output.status.success() && text.contains(says), "{verb} {keys}: {text}");
            assert!(!text.contains("secret"), "{verb} {keys}: {text}");
            tried += 1;
        }
    }
    tried
}
