//! `vmnet shutdown`, which a systemd unit runs when the host goes down, and the order in which systemd ends guests.

use std::os::unix::fs::PermissionsExt;

use crate::faults::place::{BOOT_QEMU, LAB, Place, vmnet};
use crate::sandbox;
use crate::skip::skip;
use crate::world::sh;

/// Puts a program in busctl's place that writes down what it is asked for, and pretends that systemd runs.
fn pretend_systemd() -> bool {
    let Ok(busctl) = std::fs::canonicalize("/usr/bin/busctl") else { return false };
    std::fs::write("/run/busctl", "#!/bin/sh\necho \"$@\" >>/run/asked\n").unwrap();
    std::fs::set_permissions("/run/busctl", std::fs::Permissions::from_mode(0o755)).unwrap();
    sh(&format!("mkdir -p /run/systemd/system; mount --bind /run/busctl {}", busctl.display()));
    true
}

/// Guests in QEMU shut down, whatever stands in the way of other commands; everything else stays.
#[test]
fn guests_are_shut_down_and_nothing_else() {
    const NAME: &str = "shutdown::guests_are_shut_down_and_nothing_else";
    sandbox::run(NAME, || {
        Place::with(|place| {
            let idle = vmnet(&["shutdown"]);
            assert!(idle.code() == 0 && idle.said.contains("no guest runs"), "{}", idle.said);
            assert!(!std::path::Path::new("/run/vmnet").exists());
            if !pretend_systemd() {
                return skip(NAME, "needs busctl");
            }
            place.prepare(&BOOT_QEMU);
            for args in [&["boot", "a"][..], BOOT_QEMU.args] {
                let booted = vmnet(args);
                assert_eq!(booted.code(), 0, "{}", booted.said);
            }
            let asked = std::fs::read_to_string("/run/asked").unwrap();
            // QEMU, and what keeps its console's log.
            assert!(asked.contains("vmnet-all.q.scope fail 3 PIDs au 2 "), "{asked}");
            assert!(asked.contains(" Before as 1 vmnet-guests.service 0"), "{asked}");
            // SeaBIOS does not hear the button.
            std::thread::sleep(std::time::Duration::from_secs(2));
            // Not even the ledger has to be whole.
            let ledger = format!("/run/state/{LAB}/ledger/ledger.json");
            let text = std::fs::read_to_string(&ledger).unwrap();
            std::fs::write(&ledger, "{").unwrap();
            // And another command that does not end is not waited for beyond the units' time.
            let mut holder = std::process::Command::new("flock")
                .args(["--no-fork", "/run/vmnet/lock", "sleep", "60"])
                .spawn()
                .unwrap();
            std::thread::sleep(std::time::Duration::from_millis(200));
            let report = vmnet(&["shutdown", "--json"]);
            assert!(holder.try_wait().unwrap().is_none(), "the lock was free");
            holder.kill().unwrap();
            holder.wait().unwrap();
            let json: serde_json::Value = serde_json::from_str(&report.said).unwrap();
            let guest = &json["guests"][0];
            assert_eq!(
                (report.code(), &guest["lab"], &guest["vm"], &guest["in_order"]),
                (0, &LAB.into(), &"q".into(), &true.into()),
                "{}",
                report.said
            );
            assert_eq!(json["guests"].as_array().unwrap().len(), 1, "{}", report.said);
            std::fs::write(&ledger, text).unwrap();
            let planned = vmnet(&["plan", "--check"]);
            assert_eq!(planned.code(), 0, "{}", planned.said);
            assert!(sh("ls /run/netns").contains("vmnet-all.a"));
            assert_eq!(vmnet(&["destroy", "--stop", "--purge", LAB]).code(), 0);
        });
    });
}
