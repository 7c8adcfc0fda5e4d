//! A lab that grows and shrinks while its guests talk.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

use crate::matrix::promise::keep;
use crate::matrix::row;
use crate::skip::skip;
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh, succeeds};

/// Two networks that talk, and others.
fn definition(vlans: bool, others: &[u8]) -> String {
    let line = |vlan: u8| if vlans { format!("vlan = {vlan}\n") } else { String::new() };
    let mut text =
        String::from("lab = \"grow\"\n[defaults.vm]\nengine = \"netns\"\n[router]\nexternal = { via = \"none\" }\n");
    if vlans {
        text.push_str("[uplink.t]\ndevice = \"nic0\"\n");
    }
    for number in [1, 2].iter().chain(others) {
        text.push_str(&format!(
            "[network.n{number}]\nmode = \"routed\"\nsubnet = \"10.{number}.0.0/24\"\n{}[vm.g{number}]\nnic = \"n{number}\"\n",
            line(*number)
        ));
    }
    text + "[vm.near]\nnic = \"n1\"\n"
}

/// Five hundred packets a second from a guest.
fn stream(lab: &Lab, vm: &str, to: &str) -> Child {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.guest_ns(vm), "ping", "-q", "-i", "0.002", "-c", "1500", "-W", "3", to]);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Number and carrier changes of every link of the lab, in the host and in the router.
fn links() -> BTreeMap<String, String> {
    let text = sh("for l in $(ip -o link | grep alias.vmnet: | sed 's/^[0-9]*: //; s/[@:].*//'); do
                   echo host/$l $(cat /sys/class/net/$l/ifindex /sys/class/net/$l/carrier_changes); done
                   ip netns exec vmnet-grow sh -c 'for l in /sys/class/net/n*; do echo router/${l##*/} $(cat $l/ifindex $l/carrier_changes); done'");
    text.lines().filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

fn grows(vlans: bool) {
    let before = Snapshot::when_settled();
    let lab = Lab::from_text(&definition(vlans, &[]));
    lab.ok(&["create"]);
    lab.ok(&["boot", "--all"]);
    // Every neighbour is known by then.
    assert!(lab.pings("g1", "10.2.0.10") && lab.pings("g1", "10.1.0.11"));
    let was = links();
    assert!(was.len() >= 7, "{was:?}");
    let streams =
        [("g1", "10.2.0.10"), ("near", "10.1.0.10"), ("g2", "10.1.0.1")].map(|(vm, to)| (vm, stream(&lab, vm, to)));
    for others in [&[3][..], &[3, 4, 5], &[3, 5], &[], &[6]] {
        // A guest must be stopped before its network goes.
        for vm in [3, 4, 5, 6].iter().filter(|number| !others.contains(number)).map(|number| format!("g{number}")) {
            if succeeds(&format!("ip -n {} link show eth0", lab.guest_ns(&vm))) {
                lab.ok(&["stop", &vm]);
            }
        }
        Lab::from_text(&definition(vlans, others));
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        let now = links();
        for (link, state) in &was {
            assert_eq!(now.get(link), Some(state), "{link} is another one, or was down, with networks {others:?}");
        }
    }
    for (vm, stream) in streams {
        let output = stream.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("1500 packets transmitted, 1500 received"), "{vm}: {text}");
    }
    crate::matrix::tally("packets", 4500, 0);
    Lab::from_text(&definition(vlans, &[]));
    lab.ok(&["destroy", "--stop", "grow"]);
    keep(&lab, &before);
}

/// Networks come and go while guests of others talk, through the router and within a bridge: the others' links keep
/// their numbers and their carrier, and no packet is lost.
#[test]
fn row_39_networks_come_and_go() {
    row!(|| grows(false));
}

/// The same with VLANs of one NIC.
#[test]
fn row_39_vlans_come_and_go() {
    row!(|| {
        sh("ip link add nic0 type veth peer name far0; ip link set far0 up; ip link set nic0 up");
        if !succeeds("ip link add link nic0 name try0 type vlan id 9 && ip link del try0") {
            return skip(&crate::sandbox::test(), "the kernel has no links of kind vlan");
        }
        grows(true);
    });
}

/// The lab's tables without counters, the elements of each set in order: the kernel lists them in any.
fn tables() -> String {
    let text = sh("nft -s list table bridge vmnet-grow; nft -s list table inet vmnet-grow
                   ip netns exec vmnet-grow nft -s list table inet vmnet-grow");
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let mut rest = words.as_mut_slice();
    while let Some(start) = rest.windows(3).position(|three| three == ["elements", "=", "{"]) {
        let (_, list) = rest.split_at_mut(start + 3);
        let end = list.iter().position(|word| *word == "}").unwrap();
        let (list, after) = list.split_at_mut(end);
        // Elements of two parts: the blocks between commas are compared as they stand.
        list.sort_by_key(|word| word.trim_end_matches(',').to_owned());
        list.iter_mut().for_each(|word| *word = word.trim_end_matches(','));
        rest = after;
    }
    words.join(" ")
}

/// Subnets that overlap those they replace, networks that come and go: tables that were changed element by element say
/// what those say that are written at once.
#[test]
fn row_39_elements_of_tables() {
    row!(|| {
        sh("ip link add ext type veth peer name far; ip link set ext up; ip link set far up
            ip addr add 192.0.2.1/24 dev ext; ip route add default via 192.0.2.254 dev ext");
        let text = |nets: &[(&str, &str, &str)]| {
            let mut text = String::from("lab = \"grow\"\n[router]\nexternal = { via = \"host\" }\n");
            for (name, mode, subnet) in nets {
                text.push_str(&format!("[network.{name}]\nmode = \"{mode}\"\nsubnet = \"{subnet}\"\n"));
            }
            text
        };
        let small = [("a", "nat", "10.1.0.0/24"), ("b", "routed", "10.2.0.0/24"), ("c", "nat", "10.3.0.0/24")];
        let big = [("a", "nat", "10.1.0.0/16"), ("c", "nat", "10.2.0.0/20"), ("d", "routed", "10.2.128.0/17")];
        for (from, to) in [(&small, &big), (&big, &small)] {
            let lab = Lab::from_text(&text(from));
            lab.ok(&["create"]);
            Lab::from_text(&text(to));
            let plan = lab.ok(&["plan"]);
            assert!(plan.contains("change table inet vmnet-grow in vmnet-grow"), "{plan}");
            assert!(!plan.contains("write table"), "{plan}");
            lab.ok(&["create"]);
            let changed = tables();
            assert!(changed.contains("10.2.") && changed.contains("vmnet:grow:table:router"), "{changed}");
            lab.ok(&["destroy", "grow"]);
            lab.ok(&["create"]);
            assert_eq!(tables(), changed);
            lab.ok(&["destroy", "grow"]);
        }
    });
}
