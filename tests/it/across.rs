//! Several hosts without a trunk: each a network and mount namespace of its own on one segment, the underlay.

use std::process::{Command, Output, Stdio};

use super::sandbox;
use super::world::{sh, succeeds};

/// A host: a process that holds its namespaces.
struct Host {
    holder: std::process::Child,
}

impl Host {
    /// One with `eth0` on the bridge `underlay` of this namespace.
    fn new(name: &str, address: &str) -> Self {
        let script = "mount -t tmpfs -o mode=755 tmpfs /run; mount -t sysfs sysfs /sys; mkdir -p /run/netns /run/lab; \
                      ip link set lo up; echo ready; exec sleep infinity";
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-euc", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut ready = [0; 6];
        let stdout = holder.stdout.as_mut().expect("it is a pipe");
        std::io::Read::read_exact(stdout, &mut ready).expect("the host gets ready");
        let host = Self { holder };
        let pid = host.holder.id();
        sh(&format!(
            "ip link add up-{name} type veth peer name eth0 netns {pid}; ip link set up-{name} master underlay up"
        ));
        host.sh(&format!("ip address add {address} dev eth0; ip link set eth0 up"));
        host
    }

    /// A command there.
    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--target", &self.holder.id().to_string(), "--", program]).args(args);
        command.stdin(Stdio::null());
        command
    }

    fn output(&self, line: &str) -> Output {
        self.command("sh", &["-euc", line]).output().expect("nsenter (util-linux) starts")
    }

    #[track_caller]
    fn sh(&self, line: &str) -> String {
        let output = self.output(line);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// The program there, which must succeed.
    #[track_caller]
    fn vmnet(&self, args: &str) -> String {
        let lab = "cd /run/lab && VMNET_STATE_DIR=/run/state VMNET_RUN_DIR=/run/vmnet";
        self.sh(&format!("{lab} {} {args}", env!("CARGO_BIN_EXE_vmnet")))
    }

    /// Everything of its network that outlasts no lab.
    fn picture(&self) -> String {
        self.sh(
            "ip -br address; ip route; ip -6 route; ip netns; nft list ruleset; grep . /proc/sys/net/ipv4/conf/*/forwarding; \
             find /run/vmnet /run/state -type f ! -name lock 2>/dev/null || true",
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The sandbox ends it otherwise.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Two hosts, each with a part of a translated and of a routed network.
const WIDE: &str = r#"
lab = "wide"
[defaults.vm]
engine = "netns"
[network.web]
across = "routed"
subnet = "192.168.0.0/16"
[network.db]
mode = "routed"
across = "routed"
subnet = "10.20.0.0/16"
[vm.vm1]
nic = "web"
host = "h1"
[vm.vm2]
nic = "db"
host = "h1"
[vm.vm4]
nic = "web"
host = "h2"
[vm.vm5]
nic = "db"
host = "h2"
[host.h1]
underlay = "198.51.100.1"
[host.h2]
underlay = "198.51.100.2"
"#;

const GUESTS: [(&str, &str); 4] =
    [("vm1", "192.168.1.10"), ("vm2", "10.20.1.10"), ("vm4", "192.168.2.10"), ("vm5", "10.20.2.10")];

struct World {
    h1: Host,
    h2: Host,
    outsider: Host,
}

fn world(definition: &str) -> World {
    sh("ip link add underlay type bridge; ip link set underlay up");
    let host = |name: &str, address: &str| {
        let host = Host::new(name, address);
        // As some distributions have it: a source must come in where its answer would go out.
        host.sh("ip route add default via 198.51.100.9; echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter");
        std::fs::write(format!("/proc/{}/root/run/lab/net.toml", host.holder.id()), definition)
            .expect("net.toml is written");
        host
    };
    let outsider = Host::new("out", "198.51.100.9/24");
    // It would reach the lab's subnets, were it let in.
    outsider.sh("ip route add 192.168.1.0/24 via 198.51.100.1; ip route add 10.20.1.0/24 via 198.51.100.1");
    World { h1: host("h1", "198.51.100.1/24"), h2: host("h2", "198.51.100.2/24"), outsider }
}

impl World {
    fn create(&self) {
        for (host, name) in [(&self.h1, "h1"), (&self.h2, "h2")] {
            host.vmnet(&format!("create --here {name} net.toml"));
            host.vmnet("boot --all --of wide");
            host.vmnet(&format!("plan --check --here {name} net.toml"));
            assert!(host.vmnet("status wide").contains("as applied"), "{}", host.vmnet("status wide"));
        }
    }

    fn of(&self, vm: &str) -> &Host {
        if ["vm1", "vm2"].contains(&vm) { &self.h1 } else { &self.h2 }
    }

    fn in_guest(&self, vm: &str, line: &str) -> Output {
        self.of(vm).output(&format!("ip netns exec vmnet-wide.{vm} {line}"))
    }

    #[track_caller]
    fn pings(&self, vm: &str, address: &str) {
        let output = self.in_guest(vm, &format!("ping -q -c 3 -i 0.3 -W 2 {address}"));
        assert!(output.status.success(), "{vm} to {address}: {}", String::from_utf8_lossy(&output.stdout));
    }

    /// The sources that a host's `eth0` sees while something goes on.
    fn sources(&self, host: &Host, filter: &str, during: impl FnOnce()) -> String {
        let line = format!("timeout 20 tcpdump -lnni eth0 -c 1 '{filter}' 2>/dev/null");
        let mut tcpdump = host.command("sh", &["-c", &line]).stdout(Stdio::piped()).spawn().expect("tcpdump starts");
        // It says nothing when it has begun.
        std::thread::sleep(std::time::Duration::from_millis(800));
        during();
        let mut text = String::new();
        let stdout = tcpdump.stdout.as_mut().expect("it is a pipe");
        std::io::Read::read_to_string(stdout, &mut text).expect("tcpdump's output is text");
        tcpdump.wait().expect("tcpdump ends");
        text
    }
}

#[test]
fn labs_without_a_trunk_reach_each_other_by_static_routes() {
    sandbox::run("across::labs_without_a_trunk_reach_each_other_by_static_routes", || {
        if !succeeds("command -v tcpdump traceroute nsenter") {
            return super::skip::skip("across::labs_without_a_trunk…", "needs tcpdump and traceroute");
        }
        let world = world(WIDE);
        let before = [world.h1.picture(), world.h2.picture()];
        world.create();
        everybody_reaches_everybody(&world);
        the_outside_is_kept_apart(&world);
        hop_by_hop(&world);
        another_lab_sees_the_routes(&world);
        a_route_that_is_gone_shows(&world);
        for (host, before) in [&world.h1, &world.h2].into_iter().zip(before) {
            host.vmnet("destroy wide --stop --purge");
            assert_eq!(host.picture(), before);
        }
    });
}

/// Two hosts whose routers have addresses of their own on the underlay, of both families.
const OWN: &str = r#"
lab = "wide"
[defaults.vm]
engine = "netns"
[uplink.lan]
device = "eth0"
[router]
external = { via = "macvlan", gateway = "198.51.100.9" }
[network.web]
across = "routed"
subnet = ["192.168.0.0/16", "fd00:1::/48"]
[vm.vm1]
nic = "web"
host = "h1"
[vm.vm4]
nic = "web"
host = "h2"
[host.h1]
router.external.address = ["198.51.100.101/24", "2001:db8::101/64"]
[host.h2]
router.external.address = ["198.51.100.102/24", "2001:db8::102/64"]
"#;

#[test]
fn routers_with_addresses_of_their_own_reach_each_other() {
    sandbox::run("across::routers_with_addresses_of_their_own_reach_each_other", || {
        let world = world(OWN);
        let before = [world.h1.picture(), world.h2.picture()];
        world.create();
        world.pings("vm1", "192.168.2.10");
        world.pings("vm4", "192.168.1.10");
        world.pings("vm1", "fd00:1:0:2::a");
        world.pings("vm4", "fd00:1:0:1::a");
        let seen = world.sources(&world.h2, "icmp and dst 192.168.2.10", || world.pings("vm1", "192.168.2.10"));
        assert!(seen.contains("192.168.1.10 > 192.168.2.10"), "{seen}");
        let seen = world.sources(&world.outsider, "icmp and dst 198.51.100.9", || world.pings("vm1", "198.51.100.9"));
        assert!(seen.contains("198.51.100.101 > 198.51.100.9"), "{seen}");
        world.outsider.sh("ip route replace 192.168.1.0/24 via 198.51.100.101");
        assert!(!world.outsider.output("ping -q -c 1 -W 1 192.168.1.10").status.success());
        for (host, before) in [&world.h1, &world.h2].into_iter().zip(before) {
            host.vmnet("destroy wide --stop --purge");
            assert_eq!(host.picture(), before);
        }
    });
}

/// A lab without a ledger is found by its marks, and its routes with it.
#[test]
fn routes_that_were_left_are_known_by_their_metric() {
    sandbox::run("across::routes_that_were_left_are_known_by_their_metric", || {
        let world = world(WIDE);
        world.h1.vmnet("create --here h1 net.toml");
        let routes = || world.h1.sh("ip route show proto 118 dev eth0");
        assert_eq!(routes().lines().count(), 2, "{}", routes());
        // One of somebody else who likes the number.
        world.h1.sh("ip route add 203.0.113.0/24 via 198.51.100.9 dev eth0 proto 118");
        world.h1.sh("rm -r /run/state/wide/ledger");
        let text = world.h1.vmnet("gc");
        assert!(text.contains("203.0.113.0/24") && !text.contains("10.20.2.0/24"), "{text}");
        assert!(routes().starts_with("203.0.113.0/24 ") && routes().lines().count() == 1, "{}", routes());
    });
}

fn everybody_reaches_everybody(world: &World) {
    for (vm, _) in GUESTS {
        for (_, address) in GUESTS {
            world.pings(vm, address);
        }
    }
    // Untranslated, whatever the network's mode.
    let seen = world.sources(&world.h2, "icmp and dst 192.168.2.10", || world.pings("vm1", "192.168.2.10"));
    assert!(seen.contains("192.168.1.10 > 192.168.2.10"), "{seen}");
    let seen = world.sources(&world.h1, "icmp and dst 10.20.1.10", || world.pings("vm4", "10.20.1.10"));
    assert!(seen.contains("192.168.2.10 > 10.20.1.10"), "{seen}");
}

fn the_outside_is_kept_apart(world: &World) {
    let seen = world.sources(&world.outsider, "icmp and dst 198.51.100.9", || world.pings("vm1", "198.51.100.9"));
    assert!(seen.contains("198.51.100.1 > 198.51.100.9"), "a translated network: {seen}");
    // The outsider has a route to 10.20.1.0/24.
    world.pings("vm2", "198.51.100.9");
    assert!(world.outsider.output("ping -q -c 1 -W 1 10.20.1.10").status.success(), "a routed network");
    assert!(!world.outsider.output("ping -q -c 1 -W 1 192.168.1.10").status.success(), "a translated network");
    // A source of the lab's own here comes from inside or not at all.
    world.h1.sh("echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter");
    world.outsider.sh("ip address add 192.168.1.77/32 dev lo");
    assert!(!world.outsider.output("ping -q -c 1 -W 1 -I 192.168.1.77 10.20.1.10").status.success());
    let spoofed = world.h1.sh("ip netns exec vmnet-wide nft list counter inet vmnet-wide spoofed");
    assert!(spoofed.contains("packets 1 "), "{spoofed}");
    world.outsider.sh("ip address del 192.168.1.77/32 dev lo");
    // From another device than the underlay's, an address of the other host's part does not get in.
    world.h1.sh(
        "ip link add side type veth peer name far; ip netns add side; ip link set far netns side; \
         ip address add 172.31.9.1/24 dev side; ip link set side up; echo 0 > /proc/sys/net/ipv4/conf/side/rp_filter; echo 1 > /proc/sys/net/ipv4/conf/side/forwarding; \
         ip -n side address add 172.31.9.2/24 dev far; ip -n side address add 192.168.2.77/32 dev far; \
         ip -n side link set far up; ip -n side route add default via 172.31.9.1",
    );
    let refused = || {
        let text = world.h1.sh("nft list counter inet vmnet-wide refused-forward");
        text.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok()).expect("a number")
    };
    let already = refused();
    for to in ["192.168.1.10", "10.20.1.10"] {
        let output = world.h1.output(&format!("ip netns exec side ping -q -c 1 -W 1 -I 192.168.2.77 {to}"));
        assert!(!output.status.success());
    }
    assert_eq!(refused(), already + 2);
    world.h1.sh("ip netns del side; ip link del side || true; echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter");
}

/// Gateway, host, other host, its router, guest.
fn hop_by_hop(world: &World) {
    let output = world.in_guest("vm1", "traceroute -n -q 2 -w 2 -m 8 192.168.2.10");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let hops: Vec<&str> = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    let transit = |host: &Host, number: &str| {
        let net =
            host.sh("ip -br address show dev rt-host-$(ip -br link | sed -n 's/^rt-host-\\([0-9a-f]*\\).*/\\1/p')");
        let address =
            net.split_whitespace().nth(2).and_then(|net| net.split('/').next()).expect("an address").to_owned();
        let address: std::net::Ipv4Addr = address.parse().expect("an address");
        if number == "host" {
            address.to_string()
        } else {
            (u32::from(address) + 1).to_be_bytes().map(|b| b.to_string()).join(".")
        }
    };
    let expected = [
        "192.168.1.1".to_owned(),
        transit(&world.h1, "host"),
        "198.51.100.2".to_owned(),
        transit(&world.h2, "router"),
        "192.168.2.10".to_owned(),
    ];
    assert_eq!(hops, expected, "{text}");
}

/// A route's number says that it is a lab's, its metric whose.
fn another_lab_sees_the_routes(world: &World) {
    let other = "lab = \"other\"\n[defaults.vm]\nengine = \"netns\"\n[network.mine]\nmode = \"routed\"\n\
                 subnet = \"192.168.2.0/24\"\n[vm.a]\nnic = \"mine\"\n";
    std::fs::write(format!("/proc/{}/root/run/lab/other.toml", world.h1.holder.id()), other).expect("it is written");
    let lab = "cd /run/lab && VMNET_STATE_DIR=/run/state VMNET_RUN_DIR=/run/vmnet";
    let output = world.h1.output(&format!("{lab} {} create other.toml", env!("CARGO_BIN_EXE_vmnet")));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("192.168.2.0/24 on eth0"), "{text}");
}

fn a_route_that_is_gone_shows(world: &World) {
    world.h1.sh("ip route del 10.20.2.0/24");
    let lab = "cd /run/lab && VMNET_STATE_DIR=/run/state VMNET_RUN_DIR=/run/vmnet";
    let output = world.h1.output(&format!("{lab} {} status wide", env!("CARGO_BIN_EXE_vmnet")));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("10.20.2.0/24 via 198.51.100.2 dev eth0 is missing"), "{text}");
    world.h1.vmnet("create --here h1 net.toml");
    world.pings("vm2", "10.20.2.10");
}
