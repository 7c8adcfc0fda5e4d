//! Folders of vmnet's that somebody else could lead elsewhere or write to: refused, and not followed.

use crate::matrix::promise::{ends, keep};
use crate::matrix::row;
use crate::snapshot::Snapshot;
use crate::world::{Lab, output, sh};

const LAB: &str = "lab = \"ground\"\n[defaults.vm]\nengine = \"netns\"\n[network.web]\nmode = \"isolated\"\n\
                   subnet = \"10.1.0.0/24\"\n[vm.a]\nnic = \"web\"\n";

/// Links, addresses, namespaces and rules, and everything of vmnet's and beside it with owners, modes and contents.
fn tree() -> String {
    output(
        "ip -o -br link; ip -o addr; ip netns; nft -s list ruleset; exec 2>/dev/null; cd /run; find elsewhere state vmnet aside -exec stat -c '%n %F %u:%g %a' {} + | sort
         find elsewhere state vmnet aside -type f -exec cat {} +; true",
    )
}

/// Puts everything odd in the place of each folder in turn, runs these commands, and puts back what was there. Gives
/// the number of commands.
fn odd_folders(lab: &Lab, commands: &[&[&str]]) -> usize {
    let below = ["state/ground", "state/ground/ledger", "state/ground/guests", "state/ground/by-hand"];
    let run = ["vmnet/ground", "vmnet/ground/hooks", "vmnet/ground/guests"];
    let odd = [
        ("ln -s /run/elsewhere $F", "it is a link"),
        ("mkdir $F; chown 1000:1000 $F", "belongs to "),
        ("mkdir $F; chmod 777 $F", "others may write to "),
        ("echo precious >$F", "no folder"),
    ];
    let mut tried = 0;
    for folder in ["state", "vmnet"].iter().chain(&below).chain(&run) {
        let path = format!("/run/{folder}");
        let root = !folder.contains('/');
        // A root may be reached by a link; what it leads to counts.
        for (make, says) in odd.iter().filter(|(make, _)| !(root && make.starts_with("ln"))) {
            sh(&format!("mkdir -p $(dirname {path}); [ ! -e {path} ] || mv {path} /run/aside; F={path}; {make}"));
            let found = tree();
            assert!(found.contains("precious"), "{found}");
            for args in commands {
                // Without its ledger the lab has no guest to stop.
                if args[0] == "stop"
                    && folder.starts_with("state")
                    && !folder.ends_with("guests")
                    && !folder.ends_with("by-hand")
                {
                    continue;
                }
                let text = ends(lab, args, 1, &[&path, says]);
                assert!(text.contains("nothing was changed"), "{args:?}, {path}: {text}");
                assert_eq!(tree(), found, "{args:?}, {path}");
                tried += 1;
            }
            sh(&format!("rm -rf {path}; [ ! -e /run/aside ] || mv /run/aside {path}"));
        }
    }
    sh("rmdir /run/state/ground /run/state /run/vmnet/ground /run/vmnet 2>/dev/null || true");
    tried
}

/// Each folder that a change writes to is a link, another user's, writable for others or no folder: every change is
/// refused, names it, and touches neither it nor what it leads to.
#[test]
fn row_49_links_and_foreign_owners() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        sh("mkdir /run/elsewhere; echo precious >/run/elsewhere/file");
        let mut tried = odd_folders(&lab, &[&["create"], &["destroy", "--stop", "ground"]]);
        lab.ok(&["create"]);
        lab.ok(&["boot", "a"]);
        tried += odd_folders(&lab, &[&["create"], &["destroy", "--stop", "ground"], &["stop", "ground/a"]]);
        lab.ok(&["plan", "--check"]);
        lab.ok(&["destroy", "--stop"]);
        crate::matrix::tally("commands on odd folders", tried, 0);
        sh("rm -r /run/elsewhere");
        keep(&lab, &before);
    });
}

/// A root that a link leads to is fine; one in a folder where everybody may rename things is not.
#[test]
fn row_49_roots() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        sh("mkdir /run/real /run/open; chmod 777 /run/open; ln -s /run/real /run/state");
        lab.ok(&["create"]);
        lab.ok(&["destroy"]);
        sh("rm /run/state; rm -r /run/real");
        let refused = lab.command(&["create"]).env("VMNET_STATE_DIR", "/run/open/state").output().unwrap();
        let text = crate::matrix::promise::said(&refused);
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains("others may write to /run/open ") && text.contains("nothing was changed"), "{text}");
        assert_eq!(sh("ls /run/open"), "");
        sh("chmod 1777 /run/open");
        let sticky = lab.command(&["create"]).env("VMNET_STATE_DIR", "/run/open/state").output().unwrap();
        assert!(sticky.status.success(), "{}", crate::matrix::promise::said(&sticky));
        let gone = lab.command(&["destroy", "ground"]).env("VMNET_STATE_DIR", "/run/open/state").output().unwrap();
        assert!(gone.status.success());
        keep(&lab, &before);
    });
}
