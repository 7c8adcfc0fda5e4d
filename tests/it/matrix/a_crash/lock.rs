//! The lock: free when its holder is killed, named while it is held, inherited by nobody.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use vmnet::ledger::{ChangeLock, LockError};
use vmnet::paths::Paths;

use super::concurrency::assert_no_lock;
use crate::matrix::promise::{keep, said};
use crate::matrix::row;
use crate::snapshot::Snapshot;
use crate::world::{Lab, output, sh};

const LAB: &str = "lab = \"locked\"\n[defaults.vm]\nengine = \"netns\"\n[network.web]\nmode = \"routed\"\n\
                   subnet = \"10.1.0.0/24\"\n[router]\nexternal = { via = \"none\" }\n[vm.a]\nnic = \"web\"\n";

fn paths() -> Paths {
    Paths { state: "/run/state".into(), run: "/run/vmnet".into() }
}

fn take(limit: Duration) -> Result<ChangeLock, LockError> {
    ChangeLock::take(&paths(), "test locked", limit, |_| ())
}

/// Puts a program in nft's place that never ends, so that a create stands still while it holds the lock.
fn hang_at_nft() {
    std::fs::write("/run/slow-nft", "#!/bin/sh\necho $$ >>/run/slow-pids\nexec sleep 1000\n").unwrap();
    sh("chmod 755 /run/slow-nft; mount --bind /run/slow-nft \"$(readlink -f \"$(command -v nft)\")\"");
}

fn nft_again() {
    sh("umount \"$(readlink -f \"$(command -v nft)\")\"");
}

/// The children that hang, once they run: one for the host and one for the router.
fn slow_children() -> Vec<String> {
    for _ in 0..200 {
        let pids: Vec<String> = output("cat /run/slow-pids").lines().map(str::to_owned).collect();
        if pids.len() == 2 && pids.iter().all(|pid| output(&format!("cat /proc/{pid}/comm")).starts_with("sleep")) {
            return pids;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("create never came to nft: {}", output("cat /run/slow-pids"));
}

fn end_slow(children: &[String]) {
    let all = children.join(" ");
    sh(&format!("kill -KILL {all}; for pid in {all}; do while kill -0 $pid 2>/dev/null; do sleep 0.02; done; done"));
    sh("rm /run/slow-pids");
}

fn hanging_create(lab: &Lab) -> Child {
    lab.command(&["create"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// While one holds the lock another names it; when the holder is killed the lock is free at once, though children
/// of it live on, which have no part of the lock.
#[test]
fn row_10_holder_killed() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        for round in 0..3 {
            hang_at_nft();
            let mut holder = hanging_create(&lab);
            let children = slow_children();
            match take(Duration::from_millis(50)) {
                Err(error @ LockError::Held { .. }) => {
                    let text = error.to_string();
                    assert!(text.contains(&format!("vmnet create locked (process {})", holder.id())), "{text}");
                }
                other => panic!("the lock is held: {other:?}"),
            }
            if round == 0 {
                // Whoever waits is told for whom.
                let mut told = String::new();
                let none =
                    ChangeLock::take(&paths(), "test", Duration::from_millis(1200), |holder| told = holder.into());
                assert!(none.is_err() && told == format!("vmnet create locked (process {})", holder.id()), "{told}");
            }
            holder.kill().unwrap();
            holder.wait().unwrap();
            assert!(children.iter().all(|pid| Path::new("/proc").join(pid).exists()), "the children live on");
            let begun = Instant::now();
            drop(take(Duration::from_secs(5)).expect("the lock of a process that is gone"));
            assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
            end_slow(&children);
            nft_again();
            lab.ok(&["create"]);
            lab.ok(&["destroy"]);
        }
        crate::matrix::tally("holders killed", 3, 0);
        keep(&lab, &before);
    });
}

/// No child has the lock's file open: not nft while a change is under way, not a command in a guest.
#[test]
fn row_11_children_have_no_lock() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        hang_at_nft();
        let mut holder = hanging_create(&lab);
        let children = slow_children();
        let open = output(&format!("ls -l /proc/{}/fd", holder.id()));
        assert!(open.contains("/run/vmnet/lock"), "the holder itself has it, else this proves nothing:\n{open}");
        children.iter().for_each(|pid| assert_no_lock(pid));
        holder.kill().unwrap();
        holder.wait().unwrap();
        end_slow(&children);
        nft_again();
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        let mut inside = lab.command(&["exec", "a", "--", "sleep", "1000"]).spawn().unwrap();
        let in_guest =
            output("for i in $(seq 100); do ip netns pids vmnet-locked.a | grep . && break; sleep 0.05; done");
        assert_ne!(in_guest, "", "the command never ran");
        in_guest.lines().for_each(assert_no_lock);
        // A command that runs in a guest keeps nobody from changing the lab.
        let stopped = lab.vmnet(&["stop", "--all"]);
        assert!(stopped.status.success(), "{}", said(&stopped));
        sh(&format!("kill -KILL {}", in_guest.replace('\n', " ")));
        inside.wait().unwrap();
        lab.ok(&["destroy"]);
        keep(&lab, &before);
    });
}
