//! The client of `create --confirm` ends at some moment, in some way.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::pty::openpty;

use super::{CHANGE, LEDGER, definition, fails, gone_back, json, until, watchers};
use crate::sandbox;
use crate::snapshot::Snapshot;
use crate::world::{Lab, succeeds};

/// The moments at which a client is ended.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    /// The record is there, whether the watcher knows of it or not.
    Recorded,
    /// The watcher is ready, nothing is changed.
    Watched,
    /// Something is changed.
    Changed,
    /// Most is done.
    Later,
    /// All is done.
    Done,
}

const MOMENTS: [Moment; 5] = [Moment::Recorded, Moment::Watched, Moment::Changed, Moment::Later, Moment::Done];

fn wait_for(moment: Moment, client: &mut Child) {
    until("the moment", || match moment {
        Moment::Recorded => Path::new(CHANGE).exists(),
        Moment::Watched => Path::new(LEDGER).exists(),
        Moment::Changed => succeeds("ip link show br-net1"),
        Moment::Later => succeeds("ip -n vmnet-confirm link show net1"),
        Moment::Done => client.try_wait().unwrap().is_some(),
    });
}

/// Back to nothing at the end of the time, however the client ended.
#[test]
fn by_sigkill() {
    sandbox::run("confirm::ended::by_sigkill", || {
        let lab = Lab::from_text(&definition(60, 1));
        let before = Snapshot::when_settled();
        for moment in MOMENTS {
            let mut client = lab.command(&["create", "--confirm", "2s"]);
            let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            wait_for(moment, &mut client);
            client.kill().unwrap();
            client.wait().unwrap();
            if moment == Moment::Changed {
                let refused = fails(&lab, &["confirm"]);
                assert!(refused.contains("was interrupted") && refused.contains("vmnet undo"), "{refused}");
                assert_eq!(json(&lab, &["status"])["change"]["state"], "unconfirmed");
                // One description everywhere.
                for refused in [lab.ok(&["status"]), fails(&lab, &["create"]), fails(&lab, &["boot", "vm1"])] {
                    let same = refused.contains("was interrupted") && refused.contains("nothing whole to keep");
                    assert!(same && !refused.contains("vmnet confirm confirm keeps"), "{refused}");
                }
            }
            gone_back(&before);
        }
        lab.ok(&["create"]);
        lab.ok(&["plan", "--check"]);
        lab.ok(&["destroy"]);
    });
}

/// A client with a terminal of its own, whose other end is given back.
fn on_terminal(lab: &Lab, args: &[&str]) -> (Child, File) {
    let pty = openpty(None, None).unwrap();
    let mut command = lab.command(args);
    let slave = || Stdio::from(pty.slave.try_clone().unwrap());
    command.stdin(slave()).stdout(slave()).stderr(slave());
    let master = pty.master.as_raw_fd();
    // SAFETY: three system calls, on descriptors that are open until the child is there.
    unsafe {
        command.pre_exec(move || {
            libc::close(master);
            (libc::setsid() != -1 && libc::ioctl(0, libc::TIOCSCTTY, 0) != -1)
                .then_some(())
                .ok_or_else(std::io::Error::last_os_error)
        });
    }
    (command.spawn().unwrap(), pty.master.into())
}

/// The terminal goes: the client is told by SIGHUP and goes back by itself, or the watcher does.
#[test]
fn with_its_terminal() {
    sandbox::run("confirm::ended::with_its_terminal", || {
        let lab = Lab::from_text(&definition(60, 1));
        let before = Snapshot::when_settled();
        for moment in [Moment::Watched, Moment::Changed, Moment::Later, Moment::Done] {
            let (mut client, terminal) = on_terminal(&lab, &["create", "--confirm", "2s"]);
            wait_for(moment, &mut client);
            assert_eq!(watchers().len(), 1);
            drop(terminal);
            until("the client has ended", || client.try_wait().unwrap().is_some());
            gone_back(&before);
        }
    });
}

/// Without `--confirm` too: what can be undone is undone.
#[test]
fn a_hangup_leads_back_unless_it_is_ignored() {
    sandbox::run("confirm::ended::a_hangup_leads_back_unless_it_is_ignored", || {
        let lab = Lab::from_text(&definition(60, 1));
        let before = Snapshot::when_settled();
        let (mut client, terminal) = on_terminal(&lab, &["create"]);
        wait_for(Moment::Changed, &mut client);
        drop(terminal);
        let ended = client.wait().unwrap();
        assert_eq!(ended.code(), Some(1), "{ended:?}");
        gone_back(&before);

        let mut client = lab.command(&["create"]);
        // SAFETY: one system call.
        unsafe {
            client.pre_exec(|| {
                libc::signal(libc::SIGHUP, libc::SIG_IGN);
                Ok(())
            });
        }
        let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for(Moment::Changed, &mut client);
        let number = nix::unistd::Pid::from_raw(i32::try_from(client.id()).unwrap());
        nix::sys::signal::kill(number, nix::sys::signal::Signal::SIGHUP).unwrap();
        assert!(client.wait().unwrap().success());
        lab.ok(&["plan", "--check"]);
        lab.ok(&["destroy"]);
    });
}

/// The watcher is no one's child, in a session without a terminal, with nothing open and a small environment.
#[test]
fn the_watcher_depends_on_nobody() {
    sandbox::run("confirm::ended::the_watcher_depends_on_nobody", || {
        let lab = Lab::from_text(&definition(1, 1));
        let kept = File::open("/proc/self/status").unwrap();
        let mut client = lab.command(&["create", "--confirm", "60s"]);
        let number = kept.as_raw_fd();
        // SAFETY: one system call: a descriptor that the caller leaves open for its children.
        unsafe {
            client.pre_exec(move || {
                libc::fcntl(number, libc::F_SETFD, 0);
                Ok(())
            });
        }
        assert!(client.env("SECRET", "x").output().unwrap().status.success());
        let watcher = *watchers().first().unwrap();
        let of = |file: &str| std::fs::read_to_string(format!("/proc/{watcher}/{file}")).unwrap();
        let stat = of("stat");
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let [parent, group, session, terminal] = [fields[1], fields[2], fields[3], fields[4]];
        assert_eq!((parent, terminal), ("1", "0"));
        assert_eq!(group, session);
        assert_ne!(session, watcher.to_string());
        let mut environment: Vec<String> = of("environ").split_terminator('\0').map(str::to_owned).collect();
        environment.sort();
        assert_eq!(
            environment,
            [
                "LC_ALL=C",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "VMNET_RUN_DIR=/run/vmnet",
                "VMNET_STATE_DIR=/run/state"
            ]
        );
        assert_eq!(std::fs::read_link(format!("/proc/{watcher}/cwd")).unwrap(), Path::new("/"));
        for entry in std::fs::read_dir(format!("/proc/{watcher}/fd")).unwrap().flatten() {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            let target = target.to_string_lossy();
            let own = target.starts_with("anon_inode:") || target.starts_with("socket:") || target == "/dev/null";
            assert!(own, "{target}");
        }
        // Signals to everybody of a login leave it alone.
        for signal in [nix::sys::signal::Signal::SIGHUP, nix::sys::signal::Signal::SIGINT] {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(watcher), signal).unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(watchers(), [watcher]);
        lab.ok(&["undo"]);
    });
}
