//! `create --confirm` over a real ssh connection that breaks in the middle.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{LEDGER, by_names, definition, same_names, until, watchers};
use crate::sandbox;
use crate::skip::skip_this;
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh, succeeds};

/// An sshd of the sandbox, at the host's end of a veth pair; its clients are in the namespace at the other end.
struct Sshd(Child);

impl Sshd {
    fn start() -> Self {
        fs::create_dir_all("/run/sshd").unwrap();
        fs::create_dir_all("/run/ssh").unwrap();
        sh("ssh-keygen -q -t ed25519 -N '' -f /run/ssh/host; ssh-keygen -q -t ed25519 -N '' -f /run/ssh/user");
        fs::set_permissions("/run/sshd", fs::Permissions::from_mode(0o755)).unwrap();
        let config = "ListenAddress 192.0.2.1\nPort 22\nHostKey /run/ssh/host\nAuthorizedKeysFile /run/ssh/user.pub\n\
                      PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\n";
        fs::write("/run/ssh/config", config).unwrap();
        let mut sshd = Command::new("/usr/sbin/sshd");
        let log = fs::File::create("/run/ssh/log").unwrap();
        let sshd = sshd.args(["-D", "-e", "-f", "/run/ssh/config"]).stderr(log).spawn().unwrap();
        until("sshd listens", || succeeds("ss -ltn | grep -q 192.0.2.1:22"));
        Self(sshd)
    }

    /// A client in the namespace `far` that runs the program on the host.
    fn client(lab: &Lab, terminal: bool, args: &str) -> Child {
        let remote = format!(
            "cd {} && VMNET_STATE_DIR=/run/state VMNET_RUN_DIR=/run/vmnet {} {args}",
            lab.folder().display(),
            env!("CARGO_BIN_EXE_vmnet")
        );
        let mut client = Command::new("ip");
        client.args(["netns", "exec", "far", "ssh", "-F", "none", "-i", "/run/ssh/user", "-o", "BatchMode=yes"]);
        client.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]);
        client.arg(if terminal { "-tt" } else { "-T" }).args(["root@192.0.2.1", &remote]);
        client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap()
    }

    /// Ends the daemon and its sessions.
    fn end(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            if let (true, Ok(number)) = (command.starts_with("sshd"), entry.file_name().to_string_lossy().parse()) {
                let number = nix::unistd::Pid::from_raw(number);
                // One that has just ended by itself is as good.
                let _ = nix::sys::signal::kill(number, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

/// How the connection breaks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Break {
    /// The client is killed: sshd is told.
    Client,
    /// The line is cut: nobody is told.
    Line,
}

#[test]
fn a_broken_connection_leads_back() {
    if !Path::new("/usr/sbin/sshd").exists() {
        return skip_this("needs sshd");
    }
    sandbox::run("confirm::ssh::a_broken_connection_leads_back", || {
        sh("ip netns add far; ip link add near0 type veth peer name far0 netns far");
        sh("ip address add 192.0.2.1/24 dev near0; ip link set near0 up");
        sh("ip -n far address add 192.0.2.2/24 dev far0; ip -n far link set far0 up; ip -n far link set lo up");
        let lab = Lab::from_text(&definition(60, 1));
        Snapshot::when_settled();
        let before = by_names();
        for (terminal, by) in [(false, Break::Client), (true, Break::Client), (false, Break::Line), (true, Break::Line)]
        {
            let sshd = Sshd::start();
            let mut client = Sshd::client(&lab, terminal, "create --confirm 3s");
            until("the change has begun", || {
                assert!(client.try_wait().unwrap().is_none(), "{}", fs::read_to_string("/run/ssh/log").unwrap());
                Path::new(LEDGER).exists()
            });
            assert_eq!(watchers().len(), 1);
            if by == Break::Line {
                sh("ip link set near0 down");
            } else {
                client.kill().unwrap();
            }
            until("the watcher is gone", || watchers().is_empty());
            client.kill().unwrap();
            client.wait().unwrap();
            sh("ip link set near0 up");
            sshd.end();
            sh("rm -r /run/ssh /run/sshd");
            same_names(&before);
        }
        // An unbroken one is as good as any: confirmed, it stays.
        let sshd = Sshd::start();
        assert!(Sshd::client(&lab, false, "create --confirm 20s").wait().unwrap().success());
        assert!(Sshd::client(&lab, false, "confirm").wait().unwrap().success());
        sshd.end();
        lab.ok(&["plan", "--check"]);
        lab.ok(&["destroy"]);
        sh("ip netns del far");
    });
}
