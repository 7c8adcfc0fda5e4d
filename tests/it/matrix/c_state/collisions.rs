//! Rows 31 to 37: somebody else's things have our names, sit on our bridges, or are in our namespaces.

use std::sync::atomic::AtomicBool;

use vmnet::apply::{self, Host, KernelHost, OpError, Work};
use vmnet::observe::{ObserveError, Scope};
use vmnet::paths::Paths;
use vmnet::plan::{Found, Op, diff, own_groups};
use vmnet::state::HostState;

use crate::matrix::row;
use crate::matrix::rows::{LAB, as_applied, fails, holds, index, refused, status, texts};
use crate::plan_apply::block_on;
use crate::sandbox;
use crate::scenarios::has_kind;
use crate::skip::skip;
use crate::world::{Lab, sh, succeeds};

/// A foreign bridge, sub-interface or namespace has our name: refused, untouched.
#[test]
fn row_31_name_taken() {
    row!(|| {
        holds(LAB, |lab| {
            for (make, remove, name) in [
                ("ip link add br-web type bridge", "ip link del br-web", "br-web"),
                ("ip link add br-web type bridge; ip link set br-web alias mine", "ip link del br-web", "br-web"),
                (
                    "ip link property add dev br9 altname br-web",
                    "ip link property del dev br9 altname br-web",
                    "br-web",
                ),
                ("ip netns add vmnet-row", "ip netns del vmnet-row", "vmnet-row"),
                (
                    "nft add table inet vmnet-row; nft add table bridge vmnet-row",
                    "nft flush ruleset",
                    "bridge vmnet-row",
                ),
            ] {
                sh(make);
                for verb in ["plan", "create"] {
                    refused(lab, &[verb], &[name, "exists already"]);
                }
                // Nor does it go by the name.
                let before = sh("ip link; ip netns; nft list ruleset");
                lab.ok(&["destroy", "row"]);
                assert_eq!(sh("ip link; ip netns; nft list ruleset"), before, "{make}");
                sh(remove);
            }
        });
    });
}

/// A link that carries the lab's mark and lost its group is not proven to be the lab's: it stays, and the message says
/// how it becomes the lab's again.
#[test]
fn row_31_group_lost() {
    row!(|| {
        holds(LAB, |lab| {
            lab.ok(&["create"]);
            let group = vmnet::rule::link_group(&"row".parse().unwrap());
            sh("ip link set br-quiet group 0");
            let remedy = format!("ip link set br-quiet group {group}");
            refused(lab, &["create"], &["br-quiet", "exists already (lab row's)", &remedy]);
            sh(&remedy);
            as_applied(lab);
        });
    });
}

/// A foreign sub-interface has the name of ours.
#[test]
fn row_31_sub_interface_name_taken() {
    row!(|| {
        if !has_kind("vlan") {
            return skip(&sandbox::test(), "the kernel has no links of kind vlan");
        }
        holds(&LAB.replace("[network.web]\n", "[network.web]\nvlan = 10\n"), |lab| {
            sh("ip link add link nic0 name nic0.10 type vlan id 11");
            refused(lab, &["create"], &["nic0.10", "exists already"]);
            sh("ip link del nic0.10");
        });
    });
}

/// A host on which somebody does something between plan and apply.
struct Meddled<F> {
    host: KernelHost,
    meddle: Option<F>,
}

impl<F: FnOnce()> Host for Meddled<F> {
    async fn run(&mut self, ops: &[Op]) -> Vec<Result<(), OpError>> {
        self.meddle.take().into_iter().for_each(|meddle| meddle());
        self.host.run(ops).await
    }

    async fn observe(&mut self) -> Result<HostState, ObserveError> {
        Host::observe(&mut self.host).await
    }
}

/// Carries out the plan from what is there to `wanted`, with something done in between.
fn apply_meddled(wanted: impl FnOnce(&HostState) -> HostState, meddle: impl FnOnce()) -> bool {
    let paths = Paths { state: "/run/state".into(), run: "/run/vmnet".into() };
    let mut host = KernelHost::new(Scope::new(&"row".parse().unwrap(), paths));
    let seen = host.look().unwrap();
    let wanted = wanted(&seen.state);
    let found = Found::new();
    let groups = own_groups(&seen.state, &seen.facts, &seen.strangers);
    let plan = diff(&seen.state, &wanted, &found, &groups);
    assert!(!plan.is_empty());
    let cancel = AtomicBool::new(false);
    let work = Work {
        before: &seen.state,
        desired: &wanted,
        plan: &plan,
        found: &found,
        cancel: &cancel,
        apart: &Default::default(),
    };
    let mut host = Meddled { host, meddle: Some(meddle) };
    block_on(async { apply::run(&mut host, &work, &mut |_| {}).await }).is_ok()
}

/// An ifindex reused after a deletion: the new device is safe.
#[test]
fn row_32_index_reused() {
    row!(|| {
        holds(LAB, |lab| {
            // In a removal of everything, and in a repair that wants indexes for masters, addresses and routes.
            let removal = |_: &HostState| HostState::default();
            let repair = |state: &HostState| {
                let mut wanted = state.clone();
                wanted.links.values_mut().filter(|link| link.master.is_none()).for_each(|link| link.mtu = 1400);
                wanted
            };
            let mut tried = 0;
            for link in ["br-web", "br-db", "br-quiet"] {
                for removes in [true, false] {
                    lab.ok(&["create"]);
                    let index = index(link);
                    let meddle = || {
                        let sits = "type bridge; ip address add 198.51.100.1/24 dev other0; ip link set other0 up";
                        sh(&format!("ip link del {link}; ip link add other0 index {index} mtu 1480 {sits}"));
                    };
                    let worked = if removes { apply_meddled(removal, meddle) } else { apply_meddled(repair, meddle) };
                    let other = sh("ip -o link show other0; ip -o address show other0");
                    assert!(other.starts_with(&format!("{index}: other0: ")), "{link}: {other}");
                    assert!(other.contains("mtu 1480") && other.contains("198.51.100.1/24"), "{link}: {other}");
                    assert!(!other.contains("vmnet:"), "{link}: {other}");
                    assert_eq!(worked, removes, "what is gone needs no removal, and can't be changed");
                    lab.ok(&["create"]);
                    as_applied(lab);
                    lab.ok(&["destroy"]);
                    assert!(succeeds("ip link show other0"), "{link}");
                    sh("ip link del other0");
                    tried += 1;
                }
            }
            crate::matrix::tally("indexes reused", tried, 0);
        });
    });
}

/// A foreign device in our namespace: warned, `destroy` refuses without `--force`.
#[test]
fn row_33_stranger_in_namespace() {
    row!(|| {
        holds(LAB, |lab| {
            lab.ok(&["create"]);
            sh("ip -n vmnet-row link add mine0 type bridge");
            let found = texts(&status(lab)["foreign"]);
            assert_eq!(found, ["mine0 is in namespace vmnet-row"]);
            assert!(lab.ok(&["status"]).contains("mine0 is in namespace vmnet-row"));
            refused(lab, &["destroy"], &["mine0 is in namespace vmnet-row", "nothing was changed"]);
            sh("ip -n vmnet-row link del mine0");
            // In a guest's namespace the same holds for stop, and it has its own way.
            lab.ok(&["boot", "vm2"]);
            sh("ip -n vmnet-row.vm2 link add mine0 type bridge");
            refused(lab, &["stop", "vm2"], &["mine0 is in namespace vmnet-row.vm2"]);
            lab.ok(&["stop", "--force", "vm2"]);
            assert!(!succeeds("ip netns exec vmnet-row.vm2 true"));
            sh("ip -n vmnet-row link add mine0 type bridge");
            lab.ok(&["destroy", "--force"]);
            assert!(!succeeds("ip netns exec vmnet-row true"));
        });
    });
}

/// A foreign TAP on our bridge: `destroy` refuses and lists it.
#[test]
fn row_34_foreign_tap_on_bridge() {
    row!(|| {
        holds(LAB, |lab| {
            lab.ok(&["create"]);
            sh("ip netns add container");
            for (make, says, remove) in [
                (
                    "ip tuntap add vnet0 mode tap; ip link set vnet0 master br-web",
                    "vnet0 is a port of br-web",
                    "ip link del vnet0",
                ),
                (
                    "ip link add veth0 type veth peer name eth0 netns container; ip link set veth0 master br-quiet",
                    "veth0 is a port of br-quiet",
                    "ip link del veth0",
                ),
                ("ip link add link br-db name mv0 type macvlan", "mv0 is stacked on br-db", "ip link del mv0"),
                // On our bridge from the namespace of a container: the host's own list does not show it.
                (
                    "ip link add link br-db name mv0 type macvlan; ip link set mv0 netns container",
                    "mv0 is in namespace container, stacked on br-db",
                    "ip -n container link del mv0",
                ),
            ] {
                sh(make);
                refused(lab, &["destroy"], &[says, "nothing was changed"]);
                let found = texts(&status(lab)["foreign"]);
                let device = says.split(' ').next().unwrap();
                assert!(found.len() == 1 && found[0].starts_with(device), "{says}: {found:?}");
                as_applied(lab);
                sh(remove);
            }
            // Where the other end of a pair is, as far as it can be seen.
            sh("ip link add veth0 type veth peer name eth0 netns container; ip link set veth0 master br-quiet");
            let found = texts(&status(lab)["foreign"]);
            assert_eq!(found, ["veth0 is a port of br-quiet; its other end is eth0 in namespace container"]);
            sh("ip link del veth0; ip netns del container");
        });
    });
}

/// A foreign persistent TAP has the name of a guest's: refused.
#[test]
fn row_35_persistent_tap() {
    row!(|| {
        holds(LAB, |lab| {
            lab.ok(&["create"]);
            let tap = lab.tap("vm1");
            sh(&format!("ip tuntap add {tap} mode tap"));
            refused(lab, &["boot", "vm1"], &[tap.as_str(), "exists already"]);
            // One that appears between the plan and the start: the kernel is asked for a new one, never for that one.
            let error = vmnet::kernel::tap::open(&tap.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains(&tap), "{error}");
            let kind = sh(&format!("ip -d link show {tap}"));
            assert!(kind.contains("persist on") && !kind.contains("vmnet:"), "{kind}");
            sh(&format!("ip link del {tap}"));
            lab.ok(&["boot", "vm1"]);
        });
    });
}

/// The VLAN is already on the NIC under another name, here or in another namespace: refused, named.
#[test]
fn row_36_vlan_taken() {
    row!(|| {
        if !has_kind("vlan") {
            return skip(&sandbox::test(), "the kernel has no links of kind vlan");
        }
        holds(&LAB.replace("[network.web]\n", "[network.web]\nvlan = 10\n"), |lab| {
            sh("ip link add link nic0 name tenth type vlan id 10");
            for verb in ["plan", "create"] {
                refused(lab, &[verb], &["VLAN 10 is on nic0 already, as tenth"]);
            }
            // In another namespace it keeps the number, and the host's own list does not show it.
            sh("ip link set tenth netns outside");
            for verb in ["plan", "create"] {
                refused(lab, &[verb], &["VLAN 10 is on nic0 already, as tenth in namespace outside"]);
            }
            sh("ip -n outside link del tenth");
        });
    });
}

/// The namespace's file is a plain file or a link.
#[test]
fn row_37_no_namespace() {
    row!(|| {
        holds(LAB, |lab| {
            let makes = ["echo precious >", "mkdir", "ln -s /etc/passwd", "ln -s /run/netns/outside", "mkfifo"];
            for make in makes {
                let path = "/run/netns/vmnet-row";
                sh(&format!("{make} {path}"));
                let looks = sh("ls -ld /run/netns/vmnet-row; ls -l /etc/passwd");
                // No snapshots: ip netns would wait for a FIFO's writer.
                for verb in ["plan", "create"] {
                    fails(lab, &[verb], &["/run/netns/vmnet-row", "exists already"]);
                }
                lab.ok(&["destroy", "row"]);
                assert!(!succeeds("ip link show br-web"), "{make}");
                assert_eq!(sh("ls -ld /run/netns/vmnet-row; ls -l /etc/passwd"), looks, "{make}");
                sh(&format!("rm -d {path}"));
            }
            lab.ok(&["create"]);
            for make in makes {
                sh(&format!("{make} /run/netns/vmnet-row.vm2"));
                fails(lab, &["boot", "vm2"], &["/run/netns/vmnet-row.vm2"]);
                as_applied(lab);
                sh("rm -d /run/netns/vmnet-row.vm2");
            }
        });
    });
}

/// Without the lab's own bridges nobody is in the way: a port of somebody else's bridge is no matter of the lab.
#[test]
fn row_34_ports_of_others() {
    row!(|| {
        holds(LAB, |lab: &Lab| {
            sh("ip link add veth0 type veth peer name veth1; ip link set veth0 master br9");
            lab.ok(&["create"]);
            assert_eq!(status(lab)["foreign"], serde_json::json!([]));
            lab.ok(&["destroy"]);
            sh("ip link del veth0");
        });
    });
}
