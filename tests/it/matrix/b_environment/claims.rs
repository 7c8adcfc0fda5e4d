//! Row 28: an address that the router would take on a wire has somebody already.

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::matrix::row;
use crate::matrix::rows::{LAB, holds, json, refused};
use crate::sandbox;
use crate::scenarios::has_kind;
use crate::skip::skip;
use crate::wire::{Capture, Frame};
use crate::world::sh;

/// The router's two addresses on the NIC's own network.
fn both() -> String {
    LAB.replace("address = \"192.0.2.109/24\"", "address = [\"192.0.2.109/24\", \"2001:db8:9::109/64\"]")
}

/// A neighbour of the NIC has the router's external address: the second refuses, until the first gives it up.
#[test]
fn row_28_external_address_claimed() {
    row!(|| {
        holds(&both(), |lab| {
            for (take, address) in
                [("192.0.2.109/24", "192.0.2.109"), ("2001:db8:9::109/64", "2001:db8:9::109"), ("192.0.2.109/24", "")]
            {
                sh(&format!("ip -n outside address add {take} dev wire0"));
                let text = format!("router.external: address {address}");
                for verb in ["plan", "create"] {
                    refused(lab, &[verb], &[&text, "is taken: 02:00:00:00:00:11 answers for it on nic0"]);
                }
                sh(&format!("ip -n outside address del {take} dev wire0"));
            }
            sh("ip -n outside address add 192.0.2.109/24 dev wire0");
            let failed = lab.vmnet(&["create", "--json"]);
            let said = json(&String::from_utf8_lossy(&failed.stdout));
            let refusal = &said["refusals"][0];
            assert_eq!(refusal["refusal"], "address-claimed", "{said:#}");
            assert_eq!(refusal["mac"], "02:00:00:00:00:11", "{said:#}");
            assert!(refusal["network"].is_null() && refusal["vlan"].is_null(), "{said:#}");
            sh("ip -n outside address del 192.0.2.109/24 dev wire0");
            lab.ok(&["create"]);
        });
    });
}

/// A repair that takes the address anew asks as well; whoever took it meanwhile keeps it.
#[test]
fn row_28_taken_meanwhile() {
    row!(|| {
        holds(LAB, |lab| {
            lab.ok(&["create"]);
            sh("ip -n vmnet-row address del 192.0.2.109/24 dev outside
                ip -n outside address add 192.0.2.109/24 dev wire0");
            for args in [["create", "net.toml"], ["boot", "vm1"]] {
                refused(lab, &args, &["192.0.2.109 is taken"]);
            }
            let restored = lab.vmnet(&["restore", "row", "--json"]);
            let said = String::from_utf8_lossy(&restored.stdout);
            assert!(restored.status.code() == Some(1) && said.contains("192.0.2.109 is taken"), "{said}");
            sh("ip -n outside address del 192.0.2.109/24 dev wire0");
            lab.ok(&["boot", "vm1"]);
            assert!(lab.pings("vm1", "192.0.2.1"), "repaired");
        });
    });
}

/// What is the lab's own already is not asked for again: by `create`, `boot` or `plan`, nor after `destroy` refused.
#[test]
fn row_28_asked_once() {
    row!(|| {
        holds(&both(), |lab| {
            let questions = |args: &[&str]| {
                let capture = Capture::start(Some("outside"), "wire0");
                lab.ok(args);
                capture.stop().iter().filter(|frame| asks(frame)).count()
            };
            assert!(questions(&["create"]) >= 4, "each address twice at least");
            for args in [&["create"][..], &["plan"], &["boot", "--all"], &["restore", "row"]] {
                assert_eq!(questions(args), 0, "{args:?}");
            }
            lab.ok(&["destroy", "--stop"]);
            assert!(questions(&["create"]) >= 4);
        });
    });
}

/// Whether it is the NIC's question that asks before an address is taken, from nobody's address.
fn asks(frame: &Frame) -> bool {
    if frame.source() != "02:00:00:00:00:10" {
        // A link that comes up asks for its own link-local address.
        return false;
    }
    match frame.0.get(12..14) {
        Some([0x08, 0x06]) => frame.0.get(28..32) == Some(&[0; 4]),
        // A neighbour solicitation.
        Some([0x86, 0xdd]) => frame.0.get(54) == Some(&135) && frame.0.get(22..38) == Some(&[0; 16]),
        _ => false,
    }
}

/// Where nobody can be asked that is said, and is no reason to refuse.
#[test]
fn row_28_nobody_to_ask() {
    row!(|| {
        holds(LAB, |lab| {
            let said = |output: Output| {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{text}");
                text
            };
            let plain = lab.command(&["plan"]);
            let mut without = Command::new("setpriv");
            without.arg("--bounding-set=-all,+net_admin,+sys_admin").arg(plain.get_program()).arg("plan");
            without.current_dir(lab.folder()).envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let text = said(without.output().expect("setpriv starts"));
            assert!(text.contains("nic0: nobody there was asked") && text.contains("CAP_NET_RAW"), "{text}");
            sh("ip -n outside link set wire0 down");
            sh(&has_carrier(0));
            let text = said(lab.vmnet(&["plan"]));
            assert!(text.contains("nic0: nobody there was asked") && text.contains("no carrier"), "{text}");
            sh(&format!("ip -n outside link set wire0 up; {}", has_carrier(1)));
            assert!(!said(lab.vmnet(&["plan"])).contains("nobody"));
        });
    });
}

/// Waits until the NIC has a carrier (1) or none (0).
fn has_carrier(is: u8) -> String {
    format!("for i in $(seq 250); do grep -q {is} /sys/class/net/nic0/carrier && exit; sleep 0.02; done; exit 1")
}

/// A machine of its own: network, mounts, `/run`.
struct Machine(Child);

impl Machine {
    /// Plugs its NIC into the switch `sw`.
    fn start(port: &str) -> Self {
        let inside = "mount -t tmpfs -o mode=755 tmpfs /run; mkdir -p /run/netns /run/lab; mount -t sysfs sysfs /sys
                      ip link set lo up; echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
                      touch /run/ready; exec sleep 1000";
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-euc", inside]).stdin(Stdio::null());
        let machine = Self(command.spawn().expect("unshare starts"));
        while !machine.run("test -e /run/ready").status.success() || !machine.root().join("run/ready").exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let pid = machine.0.id();
        sh(&format!(
            "ip link add {port} master sw type veth peer name nic0 netns {pid}; ip link set {port} up
             nsenter -t {pid} -n ip link set nic0 up
             nsenter -t {pid} -n -m sh -euc '{}'",
            has_carrier(1)
        ));
        machine
    }

    fn root(&self) -> std::path::PathBuf {
        format!("/proc/{}/root", self.0.id()).into()
    }

    fn run(&self, command: &str) -> Output {
        let pid = self.0.id().to_string();
        let mut all = Command::new("nsenter");
        all.args(["-t", &pid, "-n", "-m", "sh", "-euc", command]).stdin(Stdio::null());
        all.env("VMNET_STATE_DIR", "/run/state").env("VMNET_RUN_DIR", "/run/vmnet");
        all.output().expect("nsenter starts")
    }

    /// Runs a verb on this definition, which must end with this code, and gives what it says.
    #[track_caller]
    fn vmnet(&self, definition: &str, args: &str, code: i32) -> String {
        std::fs::write(self.root().join("run/lab/net.toml"), definition).expect("net.toml is written");
        let output = self.run(&format!("cd /run/lab; exec {} {args}", env!("CARGO_BIN_EXE_vmnet")));
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args}: {text}");
        text.into_owned()
    }

    #[track_caller]
    fn refuses(&self, definition: &str, says: &[&str]) {
        let look = || self.run("ip -d -o link show | sed 's/promiscuity.*//'; ip netns; ls /run/state").stdout;
        let before = look();
        for verb in ["plan", "create"] {
            let text = self.vmnet(definition, verb, 1);
            assert!(says.iter().all(|word| text.contains(word)), "{verb} does not say {says:?}: {text}");
        }
        assert_eq!(String::from_utf8_lossy(&look()), String::from_utf8_lossy(&before));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two hosts on one trunk claim one gateway address: the second refuses.
#[test]
fn row_28_two_hosts_claim_one_gateway() {
    row!(|| {
        if !has_kind("vlan") {
            return skip(&sandbox::test(), "the kernel has no links of kind vlan");
        }
        let definition = |lab: &str, vlan: u16, gateways: &str| {
            format!(
                "lab = \"{lab}\"\n[uplink.trunk]\ndevice = \"nic0\"\n[network.web]\nvlan = {vlan}\n\
                 subnet = [\"10.1.0.0/24\", \"2001:db8:1::/64\"]\n{gateways}\n[router]\nexternal.via = \"none\"\n"
            )
        };
        sh("ip link add sw type bridge forward_delay 0 mcast_snooping 0; ip link set sw up");
        let (first, second) = (Machine::start("sw1"), Machine::start("sw2"));
        let north = definition("north", 10, "");
        first.vmnet(&north, "create", 0);
        let gateway = sh(&format!("nsenter -t {} -m -n ip -n vmnet-north -o link show web", first.0.id()));
        let mac = gateway.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();

        let taken = |address: &str| format!("network web: gateway {address} is taken: {mac} answers for it on VLAN 10");
        second.refuses(&definition("south", 10, ""), &[&taken("10.1.0.1"), &taken("2001:db8:1::1")]);
        second.refuses(&north, &[&taken("10.1.0.1"), "this lab's own router, on another host", "vmnet destroy north"]);
        // Another VLAN is another segment, with or without a sub-interface.
        second.vmnet(&definition("south", 11, ""), "create", 0);
        let free = "gateway = [\"10.1.0.2\", \"2001:db8:1::2\"]";
        second.vmnet(&definition("south", 10, free), "create", 0);
        // Where bridge and sub-interface are there the answer is seen all the same.
        second.refuses(&definition("south", 10, "gateway = [\"10.1.0.2\"]"), &[&taken("2001:db8:1::1")]);
        second.refuses(&definition("south", 10, ""), &[&taken("10.1.0.1"), &taken("2001:db8:1::1")]);
        second.vmnet(&definition("south", 10, free), "plan --check", 0);
        // Each is itself to itself.
        for machine in [&first, &second] {
            let (lab, text) = if std::ptr::eq(machine, &first) {
                ("north", north.clone())
            } else {
                ("south", definition("south", 10, free))
            };
            assert!(machine.vmnet(&text, "create", 0).contains("nothing to do"));
            machine.vmnet(&text, &format!("destroy {lab}"), 0);
            machine.vmnet(&text, "create", 0);
            machine.vmnet(&text, &format!("destroy {lab}"), 0);
        }
        second.vmnet(&definition("south", 10, ""), "create", 0);
        first.refuses(&north, &["network web: gateway 10.1.0.1 is taken"]);
        second.vmnet(&definition("south", 10, ""), "destroy", 0);
        first.vmnet(&north, "create", 0);
        first.vmnet(&north, "destroy", 0);
    });
}

/// A network that gets a wire takes its gateway there, too.
#[test]
fn row_28_a_wire_comes_later() {
    row!(|| {
        if !has_kind("vlan") {
            return skip(&sandbox::test(), "the kernel has no links of kind vlan");
        }
        holds(LAB, |lab| {
            lab.ok(&["create"]);
            sh("ip -n outside link add link wire0 name wire0.10 type vlan id 10; ip -n outside link set wire0.10 up
                ip -n outside address add 10.1.0.1/24 dev wire0.10");
            let file = lab.folder().join("net.toml");
            std::fs::write(&file, LAB.replace("[network.web]\n", "[network.web]\nvlan = 10\n")).unwrap();
            refused(lab, &["create"], &["gateway 10.1.0.1 is taken", "on VLAN 10 of nic0"]);
            sh("ip -n outside link del wire0.10");
            lab.ok(&["create"]);
            std::fs::write(&file, LAB).unwrap();
        });
    });
}
