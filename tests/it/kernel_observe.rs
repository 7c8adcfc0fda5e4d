//! Observation of the real kernel: whose is what.

use std::os::fd::AsRawFd;
use std::path::Path;

use vmnet::kernel::{Kernel, KernelError, netns, tap};
use vmnet::names::NsName;
use vmnet::plan::LinkChange;
use vmnet::rule;
use vmnet::state::{BridgeSettings, Feature, ForeignNamespace, Link, LinkId, LinkKind, Ns};

use crate::kernel_apply::{host, lab, link, name};
use crate::plan_apply::block_on;
use crate::private::{private, sh};

fn ns(text: &str) -> NsName {
    text.parse().unwrap()
}

#[test]
fn a_link_killed_before_its_mark_is_ours_and_a_foreign_mark_is_not() {
    private(|| {
        let group = rule::link_group(&lab());
        sh(&format!("ip link add br-a address 02:00:00:00:00:01 group {group} type bridge"));
        sh(&format!("ip link add br-b address 02:00:00:00:00:02 group {group} type bridge"));
        sh("ip link set br-b alias vmnet:other:bridge:b");
        sh("ip link add br-c address 02:00:00:00:00:03 type bridge; ip link set br-c alias vmnet:campus:bridge:c");
        let observed = host().look().unwrap();
        let ours: Vec<&str> = observed.state.links.keys().map(|id| id.name.as_str()).collect();
        assert_eq!(ours, ["br-a"]);
        assert_eq!(observed.state.links[&LinkId::host(name("br-a"))].alias, "");
        assert!(observed.facts.devices.contains_key("br-b") && observed.facts.devices.contains_key("br-c"));
    });
}

#[test]
fn hostile_names_are_facts_and_never_fail() {
    private(|| {
        for (i, hostile) in ["x$(id)", "q\"q", "-x", "*", "a;b", "\u{1b}[31m"].into_iter().enumerate() {
            sh(&format!("ip link add name t{i} type bridge"));
            let rename = ["link", "set", &format!("t{i}"), "name", hostile];
            let renamed = std::process::Command::new("ip").args(rename).status().unwrap();
            assert!(renamed.success(), "{hostile}");
        }
        // No UTF-8 at all.
        sh("ip link add tbytes type bridge; ip link set tbytes name \"$(printf '\\377\\376z')\"");
        let devices = host().look().unwrap().facts.devices;
        for hostile in ["x$(id)", "q\"q", "*"] {
            assert!(devices.contains_key(hostile), "{hostile}: {:?}", devices.keys());
        }
        assert!(devices.keys().any(|name| name.contains('\u{fffd}') && name.ends_with('z')), "{:?}", devices.keys());
    });
}

#[test]
fn a_tap_is_exclusive_marked_and_gone_with_its_descriptor() {
    private(|| {
        let id = LinkId::host(name("vm1-0-ab12"));
        let fd = tap::open(&id.name).unwrap();
        assert!(fd.as_raw_fd() >= 0);
        let wanted = Link { master: Some("br-a".into()), ..link(LinkKind::Tap, "nic", &id) };
        sh("ip link add br-a type bridge; ip link set br-a up");
        let change = LinkChange {
            alias: Some(wanted.alias.clone()),
            mac: Some(wanted.mac),
            group: Some(wanted.group),
            master: Some(wanted.master.clone()),
            up: Some(true),
            ..LinkChange::default()
        };
        block_on(async { Kernel::new().change_link(&id, &change).unwrap().send().await }).unwrap();
        sh("sysctl -qw net.ipv6.conf.vm1-0-ab12.disable_ipv6=1");
        let observed = host().look().unwrap();
        assert_eq!(observed.state.links.get(&id), Some(&wanted));

        let error = tap::open(&id.name).unwrap_err();
        assert!(
            matches!(&error, KernelError::Refused { text: Some(text), .. } if text.contains("not ours")),
            "{error}"
        );
        drop(fd);
        // A child that another test is starting may hold a copy until it has become another program.
        let gone = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            host().look().unwrap().state.links.is_empty()
        });
        assert!(gone);
        sh("ip tuntap add dev vm1-0-ab12 mode tap");
        tap::open(&id.name).unwrap_err();
    });
}

#[test]
fn namespaces_are_made_marked_and_removed() {
    private(|| {
        let router = ns("vmnet-campus");
        netns::make(&router, "vmnet:campus:router:campus").unwrap();
        assert_eq!(sh("ip netns list | cut -d' ' -f1"), "vmnet-campus\n");
        let lo = sh("ip -n vmnet-campus link show lo");
        assert!(lo.contains("alias vmnet:campus:router:campus") && lo.contains("LOOPBACK,UP"), "{lo}");
        assert!(netns::make(&router, "vmnet:campus:router:campus").is_err(), "one of that name is there");
        assert_eq!(host().look().unwrap().state.namespaces[&router].mark, "vmnet:campus:router:campus");
        // What ip-netns(8) makes is seen by us, and the other way round, whoever came first.
        sh("ip netns add other");
        let observed = host().look().unwrap();
        assert_eq!(observed.facts.namespaces["other"], ForeignNamespace::Namespace { mark: None });
        netns::remove(&router).unwrap();
        netns::remove(&router).unwrap();
        assert_eq!(sh("ip netns list"), "other\n");
    });
}

#[test]
fn what_is_no_namespace_is_refused_and_stays() {
    private(|| {
        sh("mkdir -p /run/netns; touch /run/netns/vmnet-campus; ln -s /proc/1/ns/net /run/netns/vmnet-campus.vm1");
        sh("mkfifo /run/netns/pipe");
        let observed = host().look().unwrap();
        assert!(observed.state.namespaces.is_empty());
        for file in ["vmnet-campus", "vmnet-campus.vm1", "pipe"] {
            assert_eq!(observed.facts.namespaces[file], ForeignNamespace::NotOne, "{file}");
        }
        for file in ["vmnet-campus", "vmnet-campus.vm1"] {
            assert!(netns::run_in(&Ns::Named(ns(file)), || panic!("ran in the wrong namespace")).is_err());
            assert!(netns::make(&ns(file), "vmnet:campus:router:campus").is_err());
            assert!(Path::new("/run/netns").join(file).symlink_metadata().is_ok());
        }
    });
}

#[test]
fn a_namespace_killed_before_its_mount_is_made_anew() {
    private(|| {
        sh("mkdir -p /run/netns; printf vmnet:campus:router:campus > /run/netns/vmnet-campus");
        let observed = host().look().unwrap();
        assert_eq!(observed.state.namespaces[&ns("vmnet-campus")].mark, "");
        assert!(observed.facts.namespaces.is_empty());
        netns::remove(&ns("vmnet-campus")).unwrap();
        netns::make(&ns("vmnet-campus"), "vmnet:campus:router:campus").unwrap();
    });
}

#[test]
fn a_foreign_namespace_of_our_name_is_a_fact_with_its_mark() {
    private(|| {
        sh("ip netns add vmnet-campus; ip -n vmnet-campus link set lo alias mine");
        let observed = host().look().unwrap();
        assert!(observed.state.namespaces.is_empty());
        let mark = Some("mine".into());
        assert_eq!(observed.facts.namespaces["vmnet-campus"], ForeignNamespace::Namespace { mark });
    });
}

#[test]
fn strangers_in_our_namespace_are_listed() {
    private(|| {
        netns::make(&ns("vmnet-campus"), "vmnet:campus:router:campus").unwrap();
        sh("ip -n vmnet-campus link add br9 type bridge");
        let observed = host().look().unwrap();
        let names: Vec<&String> = observed.strangers[&ns("vmnet-campus")].keys().collect();
        assert_eq!(names, ["br9"]);
        assert!(observed.state.links.is_empty());
    });
}

#[test]
fn a_thing_of_ours_that_was_turned_into_another_is_not_mistaken() {
    private(|| {
        let id = LinkId::host(name("br-a"));
        let wanted = link(LinkKind::Bridge(BridgeSettings::OURS), "bridge", &id);
        block_on(async { Kernel::new().add_link(&id, &wanted).unwrap().send().await }).unwrap();
        let row = host().look().unwrap().state.links[&id].clone();
        assert_eq!(row, Link { alias: String::new(), up: false, ipv6: true, ..wanted });
        sh("ip link set br-a name br-moved");
        let links = host().look().unwrap().state.links;
        assert_eq!(links.keys().map(|id| id.name.as_str()).collect::<Vec<_>>(), ["br-moved"]);
    });
}

#[test]
fn facts_of_the_host_are_found() {
    private(|| {
        sh(
            "ip link add nic0 address 02:00:00:00:00:09 type veth peer name far0; ip link set nic0 up; ip link set far0 up",
        );
        sh(
            "ip addr add 203.0.113.5/24 dev nic0; ip route add default via 203.0.113.1; ip link property add dev nic0 altname enpx0",
        );
        let mut host = host();
        host.scope.sysctls.insert("ipv4/conf/nic0/forwarding".into());
        let facts = host.look().unwrap().facts;
        let nic = &facts.devices["nic0"];
        assert_eq!((nic.kind.as_deref(), nic.altnames.as_slice()), (Some("veth"), ["enpx0".to_owned()].as_slice()));
        assert!(nic.up && nic.carrier && nic.addresses.contains(&"203.0.113.5/24".parse().unwrap()));
        assert!(facts.routes.iter().any(|route| route.to.prefix_len() == 0 && route.dev.as_deref() == Some("nic0")));
        assert!(facts.features.contains(&Feature::Bridge) && facts.features.contains(&Feature::Nftables));
        assert!(facts.capabilities.contains("CAP_NET_ADMIN"));
        assert!(facts.sysctls.contains_key("ipv4/conf/nic0/forwarding"));
        assert!(facts.tools.values().all(|path| path.is_absolute()));
    });
}

#[test]
fn a_forward_chain_that_drops_is_found_and_its_remedy_works() {
    private(|| {
        let mut host = host();
        host.scope.forwards.insert(name("rt-host"));
        assert!(host.look().unwrap().facts.forward_drops.is_empty());
        sh(
            "nft 'add table inet filter; add chain inet filter forward { type filter hook forward priority 0; policy drop; }'",
        );
        let drops = host.look().unwrap().facts.forward_drops;
        assert_eq!(drops.len(), 1, "{drops:?}");
        assert_eq!(drops[0].chain, "inet filter forward");
        sh(&drops[0].remedy.replace("{dev}", "rt-host"));
        assert!(host.look().unwrap().facts.forward_drops.is_empty());
    });
}
