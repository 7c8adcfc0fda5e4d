//! Hosts for tests: each a network and a mount namespace of the sandbox, with an sshd of its own, joined by a switch.
//!
//! `h1`, `h2`, … have the addresses 10.99.0.1, 10.99.0.2, … on a network for management, on which ssh runs, and a device
//! `nic0` on the switch, without an address, for labs. `/run`, `/usr/local/bin` and `/sys` are each host's own; what
//! vmnet keeps there is below `/run/state` and `/run/vmnet`. `ssh h1` works in the sandbox, whose `/root/.ssh` is its own.

mod bad;
mod cut;
mod fleet;
mod named;
mod remote;
mod store;
mod verify;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};

use crate::skip::skip;
use crate::world::{output, sh, succeeds};

/// How long anything may take to come about.
const PATIENCE: Duration = Duration::from_secs(20);

/// Hosts that run.
pub(crate) struct Hosts {
    all: Vec<Host>,
}

/// One of them.
struct Host {
    /// The process that holds its namespaces.
    holder: Child,
    sshd: Option<Child>,
}

/// Whether there is an sshd; says so where there is none.
pub(crate) fn can(name: &str) -> bool {
    let there = Path::new("/usr/sbin/sshd").exists();
    if !there {
        skip(name, "needs sshd");
    }
    there
}

impl Hosts {
    /// Starts so many hosts. In a sandbox.
    pub(crate) fn start(count: usize) -> Self {
        sh("ip link add mgmt type bridge; ip link set mgmt up; ip address add 10.99.0.254/24 dev mgmt");
        sh("ip link add switch type bridge; ip link set switch up");
        let private = |folder: &str, mode: &str| {
            fs::create_dir_all(folder).unwrap();
            mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some(mode)).unwrap();
        };
        private("/root/.ssh", "mode=700");
        fs::create_dir_all("/run/hosts").unwrap();
        sh("ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519");
        let mut hosts = Self { all: Vec::new() };
        for number in 1..=count {
            hosts.add(number);
        }
        hosts.write_config();
        hosts
    }

    fn add(&mut self, number: usize) {
        let mut holder = Command::new("unshare");
        let holder = holder.args(["--net", "--mount", "sleep", "infinity"]).stdin(Stdio::null()).spawn().unwrap();
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        let theirs = format!("/proc/{}/ns/mnt", holder.id());
        until("the namespaces are there", || fs::read_link(&theirs).is_ok_and(|there| there != own));
        until("they are held", || {
            fs::read_to_string(format!("/proc/{}/comm", holder.id())).is_ok_and(|name| name.trim() == "sleep")
        });
        let pid = holder.id();
        self.all.push(Host { holder, sshd: None });
        for (ours, theirs, bridge) in
            [(format!("m{number}"), "mgmt0", "mgmt"), (format!("s{number}"), "nic0", "switch")]
        {
            sh(&format!(
                "ip link add {ours} type veth peer name {theirs} netns {pid}; ip link set {ours} master {bridge} up"
            ));
        }
        self.sh(
            number,
            &format!(
                "ip link set lo up; ip link set nic0 up; ip address add 10.99.0.{number}/24 dev mgmt0
                 ip link set mgmt0 up; echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
                 mount -t tmpfs -o mode=755 tmpfs /run; mount -t sysfs sysfs /sys
                 mount -t tmpfs -o mode=755 tmpfs /usr/local/bin; mkdir -p /run/netns /run/sshd /run/ssh /run/first
                 ln -s {} /usr/local/bin/vmnet; cp /root/.ssh/id_ed25519.pub /run/ssh/user
                 mount -t tmpfs -o mode=700 tmpfs /root/.ssh
                 ssh-keygen -q -t ed25519 -N '' -f /run/ssh/key",
                env!("CARGO_BIN_EXE_vmnet")
            ),
        );
        fs::write(self.path(number, "/run/ssh/config"), Self::sshd_config(number)).unwrap();
        self.start_sshd(number);
        self.know(number);
    }

    fn sshd_config(number: usize) -> String {
        format!(
            "ListenAddress 10.99.0.{number}\nPort 22\nHostKey /run/ssh/key\nAuthorizedKeysFile /run/ssh/user\n\
             PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\nMaxStartups 100\n\
             SetEnv VMNET_STATE_DIR=/run/state VMNET_RUN_DIR=/run/vmnet \
             PATH=/run/first:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        )
    }

    /// The user's configuration: `ssh h1` works.
    fn write_config(&self) {
        let mut text = String::new();
        for number in 1..=self.all.len() {
            text.push_str(&format!("Host h{number}\n  HostName 10.99.0.{number}\n  User root\n"));
        }
        fs::write("/root/.ssh/config", text).unwrap();
    }

    /// Starts sshd on a host.
    pub(crate) fn start_sshd(&mut self, number: usize) {
        let log = fs::File::create(format!("/run/hosts/h{number}.log")).unwrap();
        let mut sshd = self.on(number, "/usr/sbin/sshd", &["-D", "-e", "-f", "/run/ssh/config"]);
        self.all[number - 1].sshd = Some(sshd.stdin(Stdio::null()).stderr(log).spawn().unwrap());
        until("sshd listens", || self.succeeds(number, &format!("ss -ltn | grep -q 10.99.0.{number}:22")));
    }

    /// Ends the daemon of a host; sessions that it has go on.
    pub(crate) fn stop_sshd(&mut self, number: usize) {
        if let Some(mut sshd) = self.all[number - 1].sshd.take() {
            sshd.kill().unwrap();
            sshd.wait().unwrap();
        }
    }

    /// Writes the key that a host has into the user's known hosts.
    pub(crate) fn know(&self, number: usize) {
        let key = fs::read_to_string(self.path(number, "/run/ssh/key.pub")).unwrap();
        let known = fs::read_to_string("/root/.ssh/known_hosts").unwrap_or_default();
        fs::write("/root/.ssh/known_hosts", format!("{known}10.99.0.{number} {key}")).unwrap();
    }

    /// Gives a host another key.
    pub(crate) fn change_key(&mut self, number: usize) {
        self.stop_sshd(number);
        self.sh(number, "rm /run/ssh/key*; ssh-keygen -q -t ed25519 -N '' -f /run/ssh/key");
        self.start_sshd(number);
    }

    /// What a host's own path is called here.
    pub(crate) fn path(&self, number: usize, path: &str) -> String {
        format!("/proc/{}/root{path}", self.all[number - 1].holder.id())
    }

    /// A command in a host's namespaces, as sshd would start it.
    pub(crate) fn on(&self, number: usize, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--target", &self.all[number - 1].holder.id().to_string(), "--wdns=/"]);
        command.arg(program).args(args);
        command.env("VMNET_STATE_DIR", "/run/state").env("VMNET_RUN_DIR", "/run/vmnet").env_remove("RUST_LOG");
        command.env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Runs a line of shell on a host, which must succeed, and gives its stdout.
    #[track_caller]
    pub(crate) fn sh(&self, number: usize, line: &str) -> String {
        let Output { status, stdout, stderr } = self.on(number, "sh", &["-euc", line]).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "h{number}: {line}: {out}{err}");
        out.into_owned()
    }

    /// Whether a line of shell succeeds there.
    pub(crate) fn succeeds(&self, number: usize, line: &str) -> bool {
        self.on(number, "sh", &["-c", line]).output().unwrap().status.success()
    }

    /// Cuts a host's management network: nobody is told.
    pub(crate) fn cut(&self, number: usize) {
        sh(&format!("ip link set m{number} down"));
    }

    /// Puts it right.
    pub(crate) fn restore(&self, number: usize) {
        sh(&format!("ip link set m{number} up"));
    }

    /// From now on, and for so long, nothing that is sent to a host arrives: answers come late.
    pub(crate) fn delay(&self, number: usize, time: Duration) -> std::thread::JoinHandle<()> {
        self.sh(
            number,
            "nft 'add table inet slow; add chain inet slow in { type filter hook input priority 0; policy drop; }'",
        );
        let mut end = self.on(number, "nft", &["delete", "table", "inet", "slow"]);
        std::thread::spawn(move || {
            std::thread::sleep(time);
            assert!(end.status().unwrap().success());
        })
    }

    /// Puts a script in the place of a host's vmnet; `None`: nothing.
    pub(crate) fn replace_vmnet(&self, number: usize, script: Option<&str>) {
        let path = self.path(number, "/usr/local/bin/vmnet");
        fs::remove_file(&path).unwrap();
        if let Some(script) = script {
            fs::write(&path, script).unwrap();
            sh(&format!("chmod 755 {path}"));
        }
    }

    /// How many connections sshd of a host has.
    pub(crate) fn connections(&self, number: usize) -> usize {
        let text = self.sh(number, "ss -Htn state established sport = :22");
        text.lines().count()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in &mut self.all {
            for child in host.sshd.iter_mut().chain([&mut host.holder]) {
                // The end of the sandbox would end them too.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// Waits for something to become true.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs something asynchronous.
pub(crate) fn wait_for<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The processes of ssh that hold connections.
pub(crate) fn masters() -> usize {
    output("ps -eo args").lines().filter(|line| line.starts_with("ssh ") && line.contains("vmnet-ssh.")).count()
}

/// Whether a command is there.
pub(crate) fn there_is(program: &str) -> bool {
    succeeds(&format!("command -v {program}"))
}
