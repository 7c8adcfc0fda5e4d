//! Things that are not the lab's, in the way of every verb that could hurt them.

use std::process::Command;

use crate::sandbox;
use crate::world::{Lab, sh, succeeds};

/// Networks of one mode, with a guest each.
fn definition(networks: &[&str], mode: &str) -> String {
    let mut text = "lab = \"foreign\"\n[defaults.vm]\nengine = \"netns\"\n".to_owned();
    for (number, name) in (1..).zip(networks) {
        text.push_str(&format!("[network.{name}]\nmode = \"{mode}\"\nsubnet = \"10.{number}.0.0/24\"\n"));
        text.push_str(&format!("[vm.in-{name}]\nnic = \"{name}\"\n"));
    }
    text
}

/// Runs a verb that must be refused and change nothing.
#[track_caller]
fn refused(lab: &Lab, args: &[&str], says: &str) {
    let before = sh("ip link; ip netns; ls /run/lab");
    let output = lab.vmnet(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    assert!(text.contains(says) && text.contains("nothing was changed"), "{args:?}: {text}");
    assert_eq!(sh("ip link; ip netns; ls /run/lab"), before, "{args:?}");
}

#[test]
fn a_network_with_a_foreign_port_or_macvlan_stays() {
    sandbox::run("foreign::a_network_with_a_foreign_port_or_macvlan_stays", || {
        Lab::from_text(&definition(&["web", "db"], "routed")).ok(&["create"]);
        let less = Lab::from_text(&definition(&["db"], "routed"));
        for (make, says) in [
            ("ip tuntap add vnet0 mode tap; ip link set vnet0 master br-web", "vnet0 is a port of br-web"),
            ("ip link add link br-web name vnet0 type macvlan", "vnet0 is stacked on br-web"),
        ] {
            sh(make);
            let plan = less.vmnet(&["plan"]);
            assert!(String::from_utf8_lossy(&plan.stderr).contains("create refuses"), "{plan:?}");
            refused(&less, &["create"], says);
            refused(&less, &["destroy", "foreign"], says);
            sh("ip link del vnet0");
        }
        less.ok(&["create"]);
        assert!(!succeeds("ip link show br-web"));
        sh("ip link add link br-db name vnet0 type macvlan");
        less.ok(&["destroy", "--force", "foreign"]);
        assert!(!succeeds("ip link show br-db"));
    });
}

/// Containers have namespaces without a name, and processes in them that have rights which vmnet has given up.
#[test]
fn a_container_with_a_macvlan_on_a_network_keeps_it() {
    sandbox::run("foreign::a_container_with_a_macvlan_on_a_network_keeps_it", || {
        let lab = Lab::from_text(&definition(&["web"], "isolated"));
        lab.ok(&["create"]);
        let mut container = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let its = || std::fs::read_link(format!("/proc/{}/ns/net", container.id())).unwrap();
        while its() == own {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        sh(&format!("ip link add link br-web name mine0 type macvlan; ip link set mine0 netns {}", container.id()));
        let status = lab.ok(&["status"]);
        assert!(status.contains("mine0") && status.contains("(sleep)"), "{status}");
        refused(&lab, &["destroy", "foreign"], "mine0 is in the namespace of process");
        container.kill().unwrap();
        container.wait().unwrap();
        lab.ok(&["destroy", "foreign"]);
    });
}

#[test]
fn a_namespace_with_a_foreign_device_stays() {
    sandbox::run("foreign::a_namespace_with_a_foreign_device_stays", || {
        Lab::from_text(&definition(&["web"], "routed")).ok(&["create"]);
        sh("ip -n vmnet-foreign link add mine0 type bridge");
        let less = Lab::from_text(&definition(&["web"], "isolated"));
        refused(&less, &["create"], "mine0 is in namespace vmnet-foreign");
        sh("ip -n vmnet-foreign link del mine0");
        less.ok(&["create"]);
        less.ok(&["boot", "--all"]);
        sh("ip -n vmnet-foreign.in-web link add mine0 type bridge");
        refused(&less, &["stop", "in-web"], "mine0 is in namespace vmnet-foreign.in-web");
        sh("ip -n vmnet-foreign.in-web link del mine0");
        less.ok(&["stop", "in-web"]);
        less.ok(&["destroy", "foreign"]);
    });
}
