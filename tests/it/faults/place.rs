//! A host of its own for each point: fresh network and mount namespaces, foreign things of every kind, and the
//! example labs.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::tracer::{self, Deed, Key, Run};
use crate::snapshot::Snapshot;
use crate::world::sh;

/// Names the lab of all scenarios.
pub(crate) const LAB: &str = "all";

/// Everything that the kernel can do without 802.1Q: through the host, each mode, two families, an own MTU, a foreign
/// bridge, guests of both kinds.
const BEFORE: &str = r#"lab = "all"
[uplink.trunk]
device = "nic0"
[image.sector]
file = "sector.raw"
[defaults.vm]
engine = "netns"
[router]
external = { via = "host" }
[network.web]
subnet = ["10.50.1.0/24", "fd50:1::/64"]
[network.srv]
mode = "routed"
subnet = "10.50.2.0/24"
mtu = 1400
[network.quiet]
mode = "isolated"
[network.lan]
mode = "bridged"
bridge = "br0"
[network.old]
mode = "routed"
subnet = "10.50.3.0/24"
[vm.a]
nic = ["web", "quiet"]
[vm.b]
nic = "srv"
[vm.c]
nic = "lan"
[vm.q]
engine = "qemu"
accel = "tcg"
memory = "32MiB"
image = "sector"
nic = "web"
"#;

/// [`BEFORE`], edited: the way out becomes a macvlan, one network goes and one comes, another subnet, mode and MTU.
/// The guests stay.
const AFTER: &str = r#"lab = "all"
[uplink.trunk]
device = "nic0"
[image.sector]
file = "sector.raw"
[defaults.vm]
engine = "netns"
[router]
external = { via = "macvlan", address = "192.0.2.7/24", gateway = "192.0.2.1" }
[network.web]
subnet = ["10.50.1.0/24", "fd50:2::/64"]
[network.srv]
mode = "nat"
subnet = "10.50.9.0/24"
mtu = 1380
[network.quiet]
mode = "isolated"
[network.lan]
mode = "bridged"
bridge = "br0"
[network.new]
subnet = "10.50.4.0/24"
[vm.a]
nic = ["web", "quiet"]
[vm.b]
nic = "srv"
[vm.c]
nic = "lan"
[vm.q]
engine = "qemu"
accel = "tcg"
memory = "32MiB"
image = "sector"
nic = "web"
"#;

/// Foreign things of every kind. IPv6 addresses are given, not made by the kernel some time later; upstream has none, since
/// even its multicast route comes late.
const FOREIGN: &str = "\
mkdir -p /run/lab /run/systemd/netif /run/systemd/network
ip netns add upstream
ip -batch - <<END
link add nic0 type veth peer name far0 netns upstream
link add br0 type bridge
link add alien0 type veth peer name alien1
link set nic0 addrgenmode none
link set br0 addrgenmode none
link set alien0 addrgenmode none
link set alien0 master br0
link set alien1 addrgenmode none
link add link nic0 name alien2 type macvlan mode bridge
link set alien2 addrgenmode none
link set nic0 up
link set br0 up
link set alien0 up
link set alien1 up
address add 192.0.2.2/24 dev nic0
address add fd00:1::2/64 dev nic0 nodad
address add 198.18.0.1/24 dev br0
route add default via 192.0.2.1
route add 203.0.113.0/24 via 192.0.2.1 metric 7
END
ip netns exec upstream sh -c 'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6'
ip -n upstream link set far0 up
ip -n upstream address add 192.0.2.1/24 dev far0
while ip -o link show up | grep -q NO-CARRIER; do sleep 0.01; done
nft -f - <<END
table inet alien {
  set ports { type inet_service; elements = { 22, 80 } }
  chain input { type filter hook input priority 10; policy accept; tcp dport @ports accept; }
}
END
echo '#!/bin/sh' > /run/networkctl
chmod 755 /run/networkctl
";

/// The same with networks and a way out on VLANs of a trunk, where the kernel has 802.1Q.
const VLANS: &str = r#"lab = "all"
[uplink.trunk]
device = "nic0"
[defaults.vm]
engine = "netns"
[router]
external = { via = "vlan", vlan = 100, address = "198.51.100.7/24", gateway = "198.51.100.1" }
[network.web]
vlan = 10
subnet = ["10.50.1.0/24", "fd50:1::/64"]
[network.srv]
mode = "routed"
vlan = 20
subnet = "10.50.2.0/24"
mtu = 1400
[network.phones]
mode = "bridged"
vlan = 30
[vm.a]
nic = ["web", "phones"]
[vm.b]
nic = "srv"
"#;

/// [`VLANS`], edited: one network on another VLAN, one gone, one new.
const OTHER_VLANS: &str = r#"lab = "all"
[uplink.trunk]
device = "nic0"
[defaults.vm]
engine = "netns"
[router]
external = { via = "vlan", vlan = 101, address = "198.51.100.7/24", gateway = "198.51.100.1" }
[network.web]
vlan = 11
subnet = ["10.50.1.0/24", "fd50:1::/64"]
[network.srv]
mode = "nat"
vlan = 20
subnet = "10.50.2.0/24"
mtu = 1380
[network.new]
vlan = 40
subnet = "10.50.4.0/24"
[network.phones]
mode = "bridged"
vlan = 31
[vm.a]
nic = ["web", "phones"]
[vm.b]
nic = "srv"
"#;

/// A command that is interrupted, and what comes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scenario {
    /// As failures name it.
    pub name: &'static str,
    /// The definition.
    before: &'static str,
    /// What it is edited to be, before the command.
    after: Option<&'static str>,
    /// Commands that make the host what it is before.
    ready: &'static [&'static [&'static str]],
    /// The command.
    pub args: &'static [&'static str],
}

const GUESTS: &[&str] = &["boot", "a", "b", "c"];
const DESTROY: &[&str] = &["destroy", "--stop", "--purge", LAB];

/// `create` on a host that has never seen the lab.
pub(crate) const CREATE: Scenario =
    Scenario { name: "create", before: BEFORE, after: None, ready: &[], args: &["create"] };
/// `create` of an edited definition while guests run.
pub(crate) const CHANGE: Scenario =
    Scenario { name: "change", after: Some(AFTER), ready: &[&["create"], GUESTS], ..CREATE };
/// `destroy` of all of it.
pub(crate) const DESTROYED: Scenario =
    Scenario { name: "destroy", ready: &[&["create"], GUESTS], args: DESTROY, ..CREATE };
/// `boot` of guests that are namespaces.
pub(crate) const BOOT: Scenario = Scenario { name: "boot", ready: &[&["create"]], args: GUESTS, ..CREATE };
/// `boot` of a guest in QEMU.
pub(crate) const BOOT_QEMU: Scenario =
    Scenario { name: "boot-qemu", ready: &[&["create"]], args: &["boot", "q"], ..CREATE };
/// `destroy` with a guest in QEMU running.
pub(crate) const DESTROYED_QEMU: Scenario =
    Scenario { name: "destroy-qemu", ready: &[&["create"], &["boot", "q"]], args: DESTROY, ..CREATE };
/// [`CREATE`] on VLANs.
pub(crate) const CREATE_VLANS: Scenario = Scenario { name: "create-vlans", before: VLANS, ..CREATE };
/// [`CHANGE`] on VLANs.
pub(crate) const CHANGE_VLANS: Scenario = Scenario {
    name: "change-vlans",
    before: VLANS,
    after: Some(OTHER_VLANS),
    ready: &[&["create"], &["boot", "--all"]],
    ..CREATE
};
/// [`DESTROYED`] on VLANs.
pub(crate) const DESTROYED_VLANS: Scenario = Scenario {
    name: "destroy-vlans",
    before: VLANS,
    ready: &[&["create"], &["boot", "--all"]],
    args: DESTROY,
    ..CREATE
};

impl Scenario {
    /// The definition that holds when the command is undone.
    pub(crate) fn undone(&self) -> &'static str {
        self.before
    }

    /// The definition that the command carries out.
    pub(crate) fn definition(&self) -> &'static str {
        self.after.unwrap_or(self.before)
    }

    /// Whether nothing of the lab is there before.
    pub(crate) fn begins_with_nothing(&self) -> bool {
        self.ready.is_empty()
    }
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How.
    pub status: ExitStatus,
    /// On both of its outputs.
    pub said: String,
}

impl Ended {
    /// The exit code, or 128 and the signal.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }
}

/// A host with foreign things on it, for one point. Lives on the thread that it was made on.
pub(crate) struct Place {
    /// What was there before the lab.
    pub bare: Snapshot,
    /// The files then.
    pub bare_files: BTreeSet<String>,
}

impl Place {
    /// Runs `work` on a thread in a place of its own.
    pub(crate) fn with<T: Send>(work: impl FnOnce(&Self) -> T + Send) -> T {
        std::thread::scope(|scope| {
            // systemd-networkd seems to run: the pid file names this thread, and a thread's name is a process's.
            let thread = std::thread::Builder::new().name("systemd-network".into());
            let started = thread.spawn_scoped(scope, || work(&Self::make())).expect("a thread");
            started.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn make() -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).expect("private mounts");
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755")).expect("a private /run");
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).expect("a private /sys");
        std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").expect("a setting");
        sh(&format!("mkdir /run/netns; ip link set lo up\n{FOREIGN}"));
        let networkctl = Path::new("/usr/bin/networkctl");
        if networkctl.exists() {
            mount(Some("/run/networkctl"), networkctl, none, MsFlags::MS_BIND, none).expect("a networkctl that works");
            let own = nix::unistd::gettid().to_string();
            std::fs::write("/run/systemd/netif/systemd-networkd.pid", own).expect("a pid file");
        }
        std::fs::write("/run/lab/sector.raw", boot_sector()).expect("a disk");
        define(BEFORE);
        Self { bare: Snapshot::of_the_network(), bare_files: files() }
    }

    /// Makes the host what it is before a scenario's command.
    pub(crate) fn prepare(&self, scenario: &Scenario) {
        define(scenario.undone());
        for args in scenario.ready {
            let ended = vmnet(args);
            assert!(ended.status.success(), "{args:?}: {}", ended.said);
        }
        define(scenario.definition());
    }

    /// Runs the command of a scenario, meddled with.
    pub(crate) fn run(&self, scenario: &Scenario, deed: Option<(&Key, Deed)>) -> (Run, Ended) {
        let mut command = program(scenario.args);
        let said = std::fs::File::create("/run/said").expect("a file for the output");
        command.stdout(said.try_clone().expect("a descriptor")).stderr(said);
        let run = tracer::run(&mut command, deed);
        let said = std::fs::read_to_string("/run/said").unwrap_or_default();
        std::fs::remove_file("/run/said").expect("the output's file");
        let status = run.status;
        (run, Ended { status, said })
    }
}

/// Writes the definition.
pub(crate) fn define(text: &str) {
    std::fs::write("/run/lab/net.toml", text).expect("a definition");
}

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmnet"));
    command.args(args).current_dir("/run/lab").stdin(Stdio::null()).env_remove("RUST_LOG").env("NO_COLOR", "1");
    command.env("VMNET_STATE_DIR", "/run/state").env("VMNET_RUN_DIR", "/run/vmnet");
    command
}

/// Runs vmnet as it is.
pub(crate) fn vmnet(args: &[&str]) -> Ended {
    let output = program(args).output().expect("vmnet starts");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ended { status: output.status, said: said.into_owned() }
}

/// Everything below `/run` by name, but what stays after a lab: the lock of all labs, and the lock file beside the
/// definition.
pub(crate) fn files() -> BTreeSet<String> {
    const STAY: [&str; 3] = ["/run/vmnet", "/run/vmnet/lock", "/run/lab/net.lock"];
    let listing = sh("find /run -mindepth 1 -not -path '/run/netns/*'; ls /run/netns");
    listing.lines().filter(|line| !STAY.contains(line)).map(ToOwned::to_owned).collect()
}

/// What runs in this thread's network namespace, beside the test itself.
pub(crate) fn processes() -> Vec<String> {
    let own = std::fs::read_link("/proc/thread-self/ns/net").expect("/proc");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let path = entry.path();
        let command = std::fs::read_to_string(path.join("cmdline")).unwrap_or_default().replace('\0', " ");
        if std::fs::read_link(path.join("ns/net")).is_ok_and(|ns| ns == own) && !command.is_empty() {
            found.push(command);
        }
    }
    found
}

/// A disk that boots in a second, sleeps, and powers off when the power button is pressed: ports 0x600 to 0x604 are
/// the PM1 event and control registers (ACPI 4.8.3), where SeaBIOS puts them on q35.
fn boot_sector() -> Vec<u8> {
    const CODE: &[u8] = &[
        0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef, // out 0x602, PWRBTN_EN
        0xfb, 0xf4, // sti, hlt
        0xba, 0x00, 0x06, 0xed, 0xf6, 0xc4, 0x01, 0x74, 0xf5, // until PWRBTN_STS is in 0x600
        0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, // out 0x604, SLP_EN with type 0: off
        0xeb, 0xec,
    ];
    let mut disk = CODE.to_vec();
    disk.resize(510, 0);
    disk.extend([0x55, 0xaa]);
    disk.resize(1 << 20, 0);
    disk
}
