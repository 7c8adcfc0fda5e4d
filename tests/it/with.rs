//! `vmnet with`: a lab for the time that a command takes, and whatever comes of the command, nothing stays.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::hosts::until;
use super::matrix::rows::{LAB, WORLD};
use super::sandbox;
use super::snapshot::Snapshot;
use super::world::{Lab, sh, succeeds};

/// A lab that asks nothing of the host.
const SMALL: &str = r#"
lab = "own"
[defaults.vm]
engine = "netns"
[network.web]
subnet = "10.1.0.0/24"
[network.quiet]
mode = "isolated"
subnet = "10.3.0.0/24"
[router]
external = { via = "none" }
[vm.vm1]
nic = ["web", "quiet"]
[vm.vm2]
nic = "web"
"#;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a line of shell with the lab.
fn with(lab: &Lab, args: &[&str], line: &str) -> Output {
    lab.vmnet(&[&["with", "net.toml"], args, &["--", "sh", "-c", line]].concat())
}

/// In a sandbox, with a lab; what was there before is all that is there afterwards.
fn check(test: &str, text: &str, work: impl FnOnce(&Lab)) {
    sandbox::run(&format!("with::{test}"), || {
        sh(WORLD);
        let lab = Lab::from_text(text);
        let before = Snapshot::when_settled();
        work(&lab);
        let differences = before.differences(&Snapshot::when_settled());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        for folder in ["/run/state/own", "/run/vmnet/own"] {
            assert!(!Path::new(folder).exists(), "{folder} is left");
        }
    });
}

#[test]
fn the_command_has_the_lab_and_the_streams_to_itself() {
    check("the_command_has_the_lab_and_the_streams_to_itself", SMALL, |lab| {
        let line = r#"read word; echo "$word $VMNET_LAB $VMNET_FILE"; echo to-error >&2
                      "$VMNET" exec "$VMNET_LAB/vm1" -- ping -c 1 -W 2 10.1.0.11 >/dev/null && echo reached"#;
        let mut command = lab.command(&["with", "--", "sh", "-c", line]);
        command.env("VMNET", env!("CARGO_BIN_EXE_vmnet")).stdin(Stdio::piped());
        let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut running.stdin.take().unwrap(), b"typed\n").unwrap();
        let output = running.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "typed own /run/lab/net.toml\nreached\n");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        for word in ["created", "2 guests", "to-error", "lab own: removed"] {
            assert!(errors.contains(word), "{word}: {errors}");
        }
        // What was chosen stays, as after `create`: the same addresses next time.
        assert!(lab.folder().join("net.lock").exists());
    });
}

#[test]
fn its_code_is_the_commands() {
    check("its_code_is_the_commands", SMALL, |lab| {
        let output = with(lab, &[], "exit 7");
        assert_eq!(output.status.code(), Some(7), "{}", said(&output));
        let output = with(lab, &[], "kill -KILL $$");
        assert_eq!(output.status.code(), Some(128 + 9), "{}", said(&output));
        // What only the kernel sees is found out when the lab is there.
        sh("printf '#!/nowhere\n' >/run/bad; chmod 755 /run/bad");
        for (program, code, word) in [
            ("no-such-program", 127, "nothing was done"),
            ("/run/lab/net.toml", 126, "can't be run; nothing was done"),
            ("/run/bad", 127, "removed"),
        ] {
            let output = lab.vmnet(&["with", "net.toml", "--", program]);
            assert_eq!(output.status.code(), Some(code), "{}", said(&output));
            assert!(said(&output).contains(program) && said(&output).contains(word), "{}", said(&output));
        }
        let output = lab.vmnet(&["with", "net.toml"]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    });
}

#[test]
fn a_failure_can_be_looked_at() {
    check("a_failure_can_be_looked_at", SMALL, |lab| {
        let output = with(lab, &["--keep-on-failure"], "exit 3");
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        assert!(said(&output).contains("vmnet destroy --stop --purge own"), "{}", said(&output));
        assert!(lab.pings("vm1", "10.1.0.11"));
        lab.ok(&["destroy", "--stop", "--purge"]);
        let output = with(lab, &["--keep-on-failure"], "true");
        assert!(output.status.success(), "{}", said(&output));
    });
}

/// The signal is for the command and all that it started; when these have ended, everything goes.
#[test]
fn a_signal_ends_the_command_and_then_the_lab() {
    check("a_signal_ends_the_command_and_then_the_lab", SMALL, |lab| {
        for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
            let _ = fs::remove_file("/run/began");
            let line = "sleep 600 >/dev/null 2>&1 & echo $! > /run/began; wait";
            let mut command = lab.command(&["with", "net.toml", "--", "sh", "-c", line]);
            // Without a terminal, as in CI.
            let running = setsid(&mut command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            until("the command runs", || fs::read_to_string("/run/began").is_ok_and(|pid| pid.ends_with('\n')));
            kill(Pid::from_raw(running.id().try_into().unwrap()), signal).unwrap();
            let output = running.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{signal}: {}", said(&output));
            // A background process of a shell without job control ignores SIGINT.
            let child = fs::read_to_string("/run/began").unwrap();
            let lives = || succeeds(&format!("grep -q '^State:.*[SRD] ' /proc/{}/status", child.trim()));
            if signal == Signal::SIGINT {
                sh(&format!("kill {child}"));
            }
            until("all of it has ended", || !lives());
        }
    });
}

/// In a session of its own: there is no terminal.
fn setsid(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: setsid(2) may be called between fork and exec.
    unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into)) }
}

/// A command that handles the signal itself says what comes of it, and takes the time that it needs.
#[test]
fn a_command_may_take_its_time() {
    check("a_command_may_take_its_time", SMALL, |lab| {
        let line = "trap 'sleep 1; exit 5' TERM; echo > /run/began; while :; do sleep 0.1; done";
        let mut command = lab.command(&["with", "net.toml", "--", "sh", "-c", line]);
        let running = setsid(&mut command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("the command runs", || Path::new("/run/began").exists());
        let pid = Pid::from_raw(running.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(succeeds("ip netns | grep -q vmnet-own"), "the lab is there as long as the command is");
        let output = running.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    });
}

/// Whatever is there of a lab of this name is somebody's.
#[test]
fn a_lab_that_is_there_is_left_alone() {
    check("a_lab_that_is_there_is_left_alone", SMALL, |lab| {
        lab.ok(&["create"]);
        let before = Snapshot::when_settled();
        let output = with(lab, &[], "touch /run/ran");
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let text = said(&output);
        assert!(text.contains("there is a lab own already") && text.contains("--lab NAME"), "{text}");
        // Who comes between the look and the change is seen by the one who holds the lock.
        let output = lab.vmnet(&["create", "--new"]);
        assert!(!output.status.success() && said(&output).contains("already"), "{}", said(&output));
        let differences = before.differences(&Snapshot::when_settled());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        // It may be gone by the end, and that is said.
        let output =
            with(lab, &["--lab", "other"], &format!("{} destroy --stop --purge other", env!("CARGO_BIN_EXE_vmnet")));
        let text = said(&output);
        assert!(output.status.success() && text.contains("lab other: somebody has removed it already"), "{text}");
        // Under another name it is another lab.
        let output = with(lab, &["--lab", "other"], "echo \"$VMNET_LAB\"");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "other\n", "{}", said(&output));
        let differences = before.differences(&Snapshot::when_settled());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        lab.ok(&["destroy"]);
        // Disks that were kept are somebody's work.
        fs::create_dir_all("/run/state/own/guests/vm1").unwrap();
        fs::write("/run/state/own/guests/vm1/disk.qcow2", "work").unwrap();
        for args in [vec!["with", "net.toml", "--", "true"], vec!["create", "--new"]] {
            let output = lab.vmnet(&args);
            assert_eq!(output.status.code(), Some(1), "{}", said(&output));
            let text = said(&output);
            assert!(text.contains("/run/state/own/guests") && text.contains("--purge own"), "{text}");
        }
        assert!(!Path::new("/run/ran").exists());
        fs::remove_dir_all("/run/state/own").unwrap();
    });
}

#[test]
fn what_cant_be_made_or_started_leaves_nothing() {
    check("what_cant_be_made_or_started_leaves_nothing", LAB, |lab| {
        let taken = LAB.replace("[network.quiet]", "[network.quiet]\nifname = \"br9\"");
        fs::write(lab.folder().join("net.toml"), taken).unwrap();
        let output = with(lab, &[], "touch /run/ran");
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("br9"), "{}", said(&output));
        // Nobody can start this guest: its image is not there.
        let qemu = LAB
            .replace("[vm.vm2]", "[image.none]\nfile = \"none.qcow2\"\n[vm.vm2]\nengine = \"qemu\"\nimage = \"none\"");
        fs::write(lab.folder().join("net.toml"), qemu).unwrap();
        let output = with(lab, &[], "touch /run/ran");
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(
            said(&output).contains("none.qcow2") && said(&output).contains("lab row: removed"),
            "{}",
            said(&output)
        );
        fs::write(lab.folder().join("net.toml"), "lab = 1").unwrap();
        assert_eq!(with(lab, &[], "touch /run/ran").status.code(), Some(2));
        assert!(!Path::new("/run/ran").exists());
    });
}

/// The command may have done anything to the lab.
#[test]
fn one_that_cant_be_removed_is_told_loudly() {
    check("one_that_cant_be_removed_is_told_loudly", SMALL, |lab| {
        let plug = "ip link add plugged type veth peer name other; ip link set plugged master br-quiet";
        for (line, code) in [(plug.to_owned(), 1), (format!("{plug}; exit 9"), 9)] {
            let output = with(lab, &[], &line);
            let text = said(&output);
            assert_eq!(output.status.code(), Some(code), "{text}");
            for word in ["STILL THERE", "plugged", "vmnet destroy --stop --purge own"] {
                assert!(text.contains(word), "{word}: {text}");
            }
            sh("ip link del plugged");
            lab.ok(&["destroy", "--stop", "--purge"]);
        }
        // It may be gone already, too.
        let vmnet = env!("CARGO_BIN_EXE_vmnet");
        let output = with(lab, &[], &format!("{vmnet} destroy --stop own >&2"));
        assert!(output.status.success(), "{}", said(&output));
    });
}

/// On a terminal Ctrl-C is the terminal's: the command gets it once, and what it makes of it counts.
#[test]
fn what_is_typed_reaches_the_command_once() {
    check("what_is_typed_reaches_the_command_once", SMALL, |lab| {
        let line = "trap \"echo came >> /run/came\" INT; echo > /run/began; \
                    while ! test -e /run/came; do sleep 0.1; done; sleep 1; exit 4";
        let vmnet = format!("exec {} with net.toml -- sh -c '{line}'", env!("CARGO_BIN_EXE_vmnet"));
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &vmnet, "/run/typescript"]).current_dir(lab.folder());
        script.env("VMNET_STATE_DIR", "/run/state").env("VMNET_RUN_DIR", "/run/vmnet").env("SHELL", "/bin/sh");
        let mut running = script.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        until("the command runs", || Path::new("/run/began").exists());
        let mut keyboard = running.stdin.take().unwrap();
        std::io::Write::write_all(&mut keyboard, b"\x03").unwrap();
        let status = running.wait().unwrap();
        drop(keyboard);
        let text = fs::read_to_string("/run/typescript").unwrap();
        assert_eq!(status.code(), Some(4), "{text}");
        assert_eq!(fs::read_to_string("/run/came").unwrap(), "came\n", "{text}");
        assert!(text.contains("removed"), "{text}");
    });
}
