//! The host's own addresses, and hosts that look the same.

use std::collections::BTreeSet;

use crate::matrix::promise::{ends, keep, same};
use crate::matrix::row;
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh};

/// The NIC holds the host's address and its default route: it is shared by macvlan, and stays as it is.
#[test]
fn row_20_nic_with_the_hosts_address() {
    row!(|| {
        sh("ip link add nic0 type veth peer name far0; ip link set far0 up; ip link set nic0 up
            ip addr add 192.0.2.2/24 dev nic0; ip addr add 192.0.2.3/24 dev nic0; ip -6 addr add 2001:db8::2/64 dev nic0 nodad
            ip route add default via 192.0.2.1 dev nic0 proto static metric 100");
        let before = Snapshot::when_settled();
        let own = || {
            sh("ip -d -j address show nic0; ip -j route; ip -6 -j route; ip -j rule; sysctl -a 2>/dev/null | grep nic0")
        };
        let was = own();
        assert!(was.contains("192.0.2.3") && was.contains("192.0.2.1"), "{was}");
        let lab = Lab::from_text(
            "lab = \"own\"\n[defaults.vm]\nengine = \"netns\"\n[uplink.t]\ndevice = \"nic0\"\n[network.web]\n\
             subnet = \"10.1.0.0/24\"\n[router]\nexternal = { via = \"macvlan\", address = \"192.0.2.9/24\" }\n\
             [vm.a]\nnic = \"web\"\n",
        );
        lab.ok(&["create"]);
        let without_links =
            |text: String| text.lines().filter(|line| !line.contains("stats64")).collect::<Vec<_>>().join("\n");
        // A macvlan makes its parent promiscuous at most; addresses, routes, MAC and settings are the host's.
        let promiscuity = |text: String| text.replace("\"promiscuity\":1", "\"promiscuity\":0");
        let tidy = |text: String| without_links(promiscuity(text)).replace("\"allmulti\":1", "\"allmulti\":0");
        assert_eq!(tidy(own()), tidy(was));
        lab.ok(&["destroy"]);
        same(&before, "after destroy");
        // As a port of a bridge the NIC would lose all that: there is no way to ask for it.
        Lab::from_text(
            "lab = \"own\"\n[uplink.t]\ndevice = \"nic0\"\n[network.web]\nmode = \"bridged\"\nuplink = \"t\"\n",
        );
        ends(&lab, &["create"], 2, &["bridge ="]);
        same(&before, "after the refusal");
        // Nor does a bridge of the host's that has its address lose it.
        sh("ip link add br0 type bridge; ip link add port0 type veth peer name far1; ip link set port0 master br0 up
            ip link set far1 up; ip link set port0 up; ip link set br0 addrgenmode none
            ip addr add 198.51.100.2/24 dev br0; ip link set br0 up
            for i in $(seq 100); do ip -o link show br0 | grep -q LOWER_UP && break; sleep 0.1; done; sleep 0.5");
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(
            "lab = \"own\"\n[defaults.vm]\nengine = \"netns\"\n[network.web]\nmode = \"bridged\"\nbridge = \"br0\"\n\
             subnet = \"198.51.100.0/24\"\n[vm.a]\nnic = { network = \"web\", address = \"198.51.100.9\" }\n",
        );
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        assert!(lab.pings("a", "198.51.100.2"), "the host is still at its address");
        assert!(sh("ip -o addr show br0").contains("198.51.100.2/24"));
        lab.ok(&["destroy", "--stop"]);
        keep(&lab, &before);
    });
}

/// A NIC that was down came into use while a lab had it up: it is not set down under the host's address and routes, by
/// `destroy` no more than by a way back. One that nobody uses goes down again.
#[test]
fn row_20_nic_that_came_into_use() {
    row!(|| {
        sh("ip link add nic0 type veth peer name far0; ip link set nic0 addrgenmode none
            echo 1 >/proc/sys/net/ipv6/conf/far0/disable_ipv6; ip link set far0 up
            ip link set nic0 up; ip link set nic0 down");
        let before = Snapshot::take();
        let lab = Lab::from_text(
            "lab = \"own\"\n[uplink.t]\ndevice = \"nic0\"\n[network.web]\nsubnet = \"10.1.0.0/24\"\n[router]\n\
             external = { via = \"macvlan\", address = \"192.0.2.9/24\", gateway = \"192.0.2.1\" }\n",
        );
        let ways: [(&[&str], &[&str]); 3] = [
            (&["create"], &["destroy", "own"]),
            (&["create", "--confirm", "60s"], &["undo", "own"]),
            (&["create", "--confirm", "60s"], &["destroy", "own"]),
        ];
        for (forth, back) in ways {
            lab.ok(forth);
            assert!(sh("ip -br link show nic0").contains(",UP"));
            sh("ip address add 192.0.2.10/24 dev nic0; ip route add 203.0.113.0/24 via 192.0.2.1");
            let routes = sh("ip route");
            lab.ok(&["plan", "--check"]);
            ends(&lab, back, 0, &[]);
            assert!(sh("ip -br link show nic0").contains(",UP"), "{back:?}");
            assert_eq!(sh("ip route"), routes, "{back:?}");
            sh("ip address flush dev nic0; ip link set nic0 down");
            same(&before, "as it was found");
            lab.ok(forth);
            ends(&lab, back, 0, &[]);
            same(&before, "nobody used it");
        }
        lab.ok(&["create"]);
        sh("ip address add 192.0.2.10/24 dev nic0");
        ends(&lab, &["destroy", "own"], 0, &["the state of nic0 is left as it is"]);
        sh("ip address flush dev nic0; ip link set nic0 down");
        same(&before, "as it was found");
        // A container sits on it: nothing of the host's own says so.
        lab.ok(&["create"]);
        sh("ip netns add box; ip link add link nic0 name mv0 type macvlan; ip link set mv0 netns box");
        ends(&lab, &["destroy", "own"], 0, &["the state of nic0 is left as it is"]);
        assert!(sh("ip -br link show nic0").contains(",UP"), "the container keeps its network");
        sh("ip netns del box; ip link set nic0 down");
        crate::matrix::tally("ways back", 8, 0);
        keep(&lab, &before);
    });
}

/// The MACs of all links that carry a mark, in the host and in the lab's namespaces, and of the lab's guests. Each is
/// assigned, so that udev, which would make one of machine-id and name, leaves it.
fn macs(lab: &Lab) -> BTreeSet<String> {
    let assigned = sh("for link in $(ip -o link show | grep 'alias vmnet:' | sed 's/^[0-9]*: //; s/[@:].*//'); do
                       echo $(cat /sys/class/net/$link/addr_assign_type); done | sort -u");
    assert_eq!(assigned.trim(), "3", "addr_assign_type of the lab's links: set by somebody");
    let spaces = sh("ip netns list | cut -d ' ' -f 1");
    let mut text = sh("ip -o link show | grep 'alias vmnet:'");
    for ns in spaces.lines() {
        text += &sh(&format!("ip -n {ns} -o link show | grep -v ' lo: '"));
    }
    let found: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.split("link/ether ").nth(1))
        .filter_map(|rest| rest.split(' ').next().map(str::to_owned))
        .collect();
    let uuid = lab.ok(&["qemu-args", "q"]);
    let uuid = uuid.split_whitespace().skip_while(|word| *word != "-uuid").nth(1).unwrap_or_default();
    assert!(!uuid.is_empty());
    found.into_iter().chain([uuid.to_owned()]).collect()
}

/// Two hosts cloned from one image, with the same machine-id: labs of different names share no MAC and no UUID, and
/// one lab has the same ones whatever the machine-id is.
#[test]
fn row_27_same_machine_id() {
    row!(|| {
        sh("touch /run/id; [ -e /etc/machine-id ] && mount --bind /run/id /etc/machine-id || true");
        let definition = |lab: &str| {
            format!(
                "lab = \"{lab}\"\n[defaults.vm]\nengine = \"netns\"\n[network.web]\nmode = \"routed\"\n\
                 subnet = \"10.1.0.0/24\"\n[network.db]\nmode = \"isolated\"\n[router]\nexternal = {{ via = \"none\" }}\n\
                 [image.i]\nkernel = \"/bin/true\"\n[vm.a]\nnic = [\"web\", \"db\"]\n[vm.b]\nnic = \"web\"\n\
                 [vm.q]\nengine = \"qemu\"\naccel = \"tcg\"\nimage = \"i\"\nnic = \"web\"\n"
            )
        };
        let before = Snapshot::when_settled();
        let on_a_host = |name: &str, id: &str| {
            std::fs::write("/run/id", format!("{id}\n")).unwrap();
            let lab = Lab::from_text(&definition(name));
            lab.ok(&["create"]);
            lab.ok(&["boot", "a", "b"]);
            let found = macs(&lab);
            lab.ok(&["destroy", "--stop", "--purge"]);
            same(&before, name);
            found
        };
        let same_id = "0123456789abcdef0123456789abcdef";
        let (north, south) = (on_a_host("north", same_id), on_a_host("south", same_id));
        assert!(north.len() > 8, "{north:?}");
        assert!(north.is_disjoint(&south), "{north:?} {south:?}");
        assert_eq!(on_a_host("north", "fedcba9876543210fedcba9876543210"), north);
        crate::matrix::tally("MACs", north.len() + south.len(), 0);
        let lab = Lab::from_text(&definition("north"));
        keep(&lab, &before);
    });
}
