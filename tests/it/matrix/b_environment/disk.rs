//! Disks without room, and rulesets that are refused.

use crate::matrix::promise::{ends, keep, same};
use crate::matrix::row;
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh};

const LAB: &str = "lab = \"room\"\n[defaults.vm]\nengine = \"netns\"\n[network.web]\nmode = \"routed\"\n\
                   subnet = \"10.1.0.0/24\"\n[network.db]\nmode = \"isolated\"\nsubnet = \"10.2.0.0/24\"\n\
                   [router]\nexternal = { via = \"none\" }\n[vm.a]\nnic = [\"web\", \"db\"]\n";

const STATE: &str = "/run/state";
const RUN: &str = "/run/vmnet";

/// State or run directory read-only: an error that names the place, before the first change of the kernel.
#[test]
fn row_12_read_only() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        for folder in [STATE, RUN] {
            sh(&format!("mkdir -p {folder}; mount -t tmpfs -o ro,mode=755 tmpfs {folder}"));
            ends(&lab, &["create"], 1, &[folder, "nothing was changed", "Read-only file system"]);
            same(&before, folder);
            sh(&format!("umount {folder}"));
        }
        crate::matrix::tally("folders", 2, 0);
        keep(&lab, &before);
    });
}

/// State or run directory with room for so many files and no more, from none to enough: nothing of the kernel's is
/// changed, no ledger says that a change began, and `create` succeeds as soon as there is room.
#[test]
fn row_12_full() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        let mut tried = 0;
        for folder in [STATE, RUN] {
            let enough = (1..40).find(|inodes| {
                sh(&format!("mkdir -p {folder}; mount -t tmpfs -o nr_inodes={inodes},mode=755 tmpfs {folder}"));
                let created = lab.vmnet(&["create"]);
                tried += 1;
                if created.status.success() {
                    lab.ok(&["plan", "--check"]);
                    // Its record needs room too, and more of it: there is something to lead back to.
                    sh(&format!("mount -o remount,nr_inodes=100 {folder}"));
                    lab.ok(&["destroy"]);
                    sh(&format!("umount {folder}"));
                    return true;
                }
                let text = String::from_utf8_lossy(&created.stderr).into_owned();
                assert_eq!(created.status.code(), Some(1), "{folder}, {inodes} files: {text}");
                assert!(text.contains("No space left on device"), "{folder}, {inodes} files: {text}");
                same(&before, &format!("{folder}, {inodes} files: {text}"));
                ends(&lab, &["status", "room"], 1, &["lab room is not created on this host"]);
                sh(&format!("umount {folder}"));
                false
            });
            assert!(enough.is_some_and(|inodes| inodes > 2), "{folder}: {enough:?} files are enough");
        }
        crate::matrix::tally("sizes of disks", tried, 0);
        keep(&lab, &before);
    });
}

/// The lab's own rules can't be written down: the disk is full for the second `create` of a lab. What was applied
/// stays applied, in the kernel and in the ledger.
#[test]
fn row_12_full_at_a_change() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        sh(&format!("mkdir -p {STATE}; mount -t tmpfs -o size=96k,mode=755 tmpfs {STATE}"));
        lab.ok(&["create"]);
        let applied = Snapshot::when_settled();
        Lab::from_text(&format!("{LAB}[network.new]\nmode = \"isolated\"\n"));
        sh(&format!("dd if=/dev/zero of={STATE}/full bs=1k 2>/dev/null || true"));
        ends(&lab, &["create"], 1, &["nothing was changed", "No space left on device", STATE]);
        same(&applied, "after a change that was not begun");
        let status = lab.ok(&["status", "room", "--json"]);
        assert!(status.contains("\"unfinished\": false"), "{status}");
        sh(&format!("rm {STATE}/full"));
        lab.ok(&["create"]);
        Lab::from_text(LAB);
        lab.ok(&["destroy"]);
        sh(&format!("umount {STATE}"));
        keep(&lab, &before);
    });
}

/// Puts a program in nft's place which adds to every text a line that the kernel refuses, when the switch is there.
fn spoil_nft() {
    const NFT: &str = "\"$(readlink -f \"$(command -v nft)\")\"";
    let spoiler = "#!/bin/sh\ncase \" $* \" in *' -f - '*) ;; *) exec /run/nft \"$@\" ;; esac\n\
                   [ -e /run/spoil ] || exec /run/nft \"$@\"\n\
                   { cat; echo 'add rule inet no-such-table input accept'; } | /run/nft \"$@\"\n";
    std::fs::write("/run/spoiler", spoiler).unwrap();
    sh(&format!("cp {NFT} /run/nft; chmod 755 /run/spoiler; mount --bind /run/spoiler {NFT}"));
}

/// The kernel refuses a ruleset: the old one is whole, in the host and in the router, and everything else is as it
/// was; guests go on.
#[test]
fn row_22_ruleset_refused() {
    row!(|| {
        let before = Snapshot::when_settled();
        spoil_nft();
        let lab = Lab::from_text(LAB);
        sh("touch /run/spoil");
        ends(&lab, &["create"], 1, &["everything is as it was before", "nft refuses", "No such file or directory"]);
        same(&before, "after a first create");
        sh("rm /run/spoil");
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        let (applied, rules) =
            (Snapshot::when_settled(), sh("nft list ruleset; ip netns exec vmnet-room nft list ruleset"));
        assert!(rules.contains("table inet vmnet-room") && rules.contains("table bridge vmnet-room"), "{rules}");
        // One network comes, and one goes: both are in the rules.
        let more = format!("{LAB}[network.new]\nmode = \"routed\"\nsubnet = \"10.3.0.0/24\"\n");
        for text in [LAB.replace("10.1.0.0", "10.9.0.0"), more] {
            Lab::from_text(&text);
            sh("touch /run/spoil");
            ends(&lab, &["create"], 1, &["everything is as it was before", "nft refuses"]);
            sh("rm /run/spoil");
            same(&applied, "after a change");
        }
        Lab::from_text(LAB);
        lab.ok(&["plan", "--check"]);
        assert!(lab.pings("a", "10.1.0.1"));
        crate::matrix::tally("rulesets refused", 3, 0);
        lab.ok(&["destroy", "--stop"]);
        keep(&lab, &before);
    });
}
