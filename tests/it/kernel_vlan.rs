//! Sub-interfaces on the real kernel, where it has 802.1Q.

use vmnet::kernel::Kernel;
use vmnet::names::VlanId;
use vmnet::plan::Found;
use vmnet::rule;
use vmnet::state::{Address, BridgeSettings, Feature, HostState, Link, LinkId, LinkKind, Namespace};

use crate::kernel_apply::{create, host, lab, link, name, router_settings, settle};
use crate::plan_apply::block_on;
use crate::private::{private_with, sh};

fn vlan(number: i64) -> LinkKind {
    LinkKind::Vlan { parent: name("nic0"), id: VlanId::try_from(number).unwrap() }
}

/// VLAN 10 on a bridge of the host, VLAN 100 in the router.
fn desired() -> HostState {
    let mut state = HostState::default();
    let router = rule::router_namespace(&lab());
    state.namespaces.insert(router.clone(), Namespace { mark: "vmnet:campus:router:campus".into() });
    router_settings(&mut state, &router);
    let bridge = LinkId::host(name("brvlan-10"));
    state.links.insert(bridge.clone(), link(LinkKind::Bridge(BridgeSettings::OURS), "bridge", &bridge));
    let trunk = LinkId::host(name("nic0.10"));
    let port = Link { master: Some("brvlan-10".into()), ..link(vlan(10), "trunk", &trunk) };
    state.links.insert(trunk, port);
    let ext = LinkId::inside(&router, name("ext"));
    state.links.insert(ext.clone(), link(vlan(100), "external", &ext));
    state.addresses.insert(Address { link: ext, net: "192.0.2.9/24".parse().unwrap() });
    state
}

fn nic() {
    sh("ip link add nic0 type veth peer name far0; ip link set nic0 up; ip link set far0 up");
}

#[test]
fn sub_interfaces_come_stay_and_go_on_the_host_and_in_the_router() {
    private_with(Feature::Vlan, || {
        nic();
        let (mut host, desired) = (host(), desired());
        create(&mut host, &desired);
        assert_eq!(host.look().unwrap().state, desired);
        // The other end of the wire hears the external VLAN's tag.
        sh(
            "ip link add link far0 name far0.100 type vlan id 100; ip addr add 192.0.2.1/24 dev far0.100; ip link set far0.100 up",
        );
        sh("ping -c1 -W2 192.0.2.9");

        // The kernel lowers a sub-interface with its device, and never raises it again.
        sh("ip link set nic0 mtu 1400; ip link set nic0 mtu 1500");
        let (plan, report) = settle(&mut host, &desired, &Found::default());
        assert!(plan.ops().any(|op| op.to_string() == "set nic0.10: MTU 1500"), "{plan:?}");
        report.unwrap();
        assert_eq!(host.look().unwrap().state, desired);

        settle(&mut host, &HostState::default(), &Found::default()).1.unwrap();
        assert!(!sh("ip -d link show").contains("802.1Q id 10 "));
        sh("ip link add link nic0 name again type vlan id 100");
    });
}

#[test]
fn a_vlan_that_is_taken_is_a_fact_and_an_error_in_the_kernels_words() {
    private_with(Feature::Vlan, || {
        nic();
        sh("ip link add link nic0 name storage type vlan id 10");
        let facts = host().look().unwrap().facts;
        assert_eq!(facts.devices["storage"].vlan, Some(("nic0".into(), VlanId::try_from(10).unwrap())));
        let id = LinkId::host(name("nic0.10"));
        let error =
            block_on(async { Kernel::new().add_link(&id, &link(vlan(10), "trunk", &id)).unwrap().send().await });
        let text = error.unwrap_err().to_string();
        assert!(
            text.starts_with("cannot add vlan nic0.10 (") && text.ends_with("VLAN device already exists)"),
            "{text}"
        );
    });
}

#[test]
fn another_protocol_is_another_thing() {
    private_with(Feature::Vlan, || {
        nic();
        let group = rule::link_group(&lab());
        sh(&format!("ip link add link nic0 name nic0.10 group {group} type vlan id 10 protocol 802.1ad"));
        let (mut host, desired) = (host(), desired());
        let (plan, report) = settle(&mut host, &desired, &Found::default());
        assert!(plan.ops().any(|op| op.to_string() == "remove link nic0.10"), "{plan:?}");
        report.unwrap();
        assert_eq!(host.look().unwrap().state, desired);
    });
}
