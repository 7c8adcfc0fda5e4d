//! What has to stand around some labs.

use std::collections::BTreeSet;

use super::*;
use crate::definition::Definition;
use crate::model::{Lock, resolve};

fn of(text: &str) -> Stage {
    let definition = Definition::parse(text).unwrap();
    let model = resolve(&definition, &Lock::default()).unwrap_or_else(|problems| {
        panic!("{}", problems.render("net.toml", text, false));
    });
    stage(&model.model, &BTreeSet::new())
}

const TWO: &str = r#"
    lab = "campus"
    [uplink.trunk]
    device = "eno1"
    [defaults.vm]
    engine = "netns"
    [network.web]
    vlan = 10
    subnet = "192.168.10.0/24"
    mtu = 9000
    [network.office]
    mode = "bridged"
    bridge = "br0"
    subnet = "10.9.0.0/24"
    gateway = "10.9.0.1"
    [router]
    host = "h2"
    external = { via = "vlan", vlan = 100, address = "192.0.2.9/24", gateway = "192.0.2.1" }
    [vm.vm1]
    host = "h1"
    nic = ["web", "office"]
    [vm.vm4]
    host = "h2"
    nic = "web"
    [host.h1]
    underlay = "10.0.2.15"
    uplink.trunk.device = "52:54:00:12:34:56"
    [host.h2]
    uplink.trunk.device = "a-name-of-more-than-15"
"#;

#[test]
fn uplinks_of_one_name_are_plugged_into_one_switch() {
    let stage = of(TWO);
    let [h1, h2] = ["h1", "h2"].map(|host| &stage.hosts[host]);
    let (StandIn::Nic(first), StandIn::Nic(second)) = (&h1.devices[0], &h2.devices[0]) else { panic!("no NIC") };
    assert_eq!(first.segment, second.segment);
    assert_eq!(first.mac.to_string(), "52:54:00:12:34:56");
    assert_eq!((second.altname.as_deref(), second.name.as_str()), (Some("a-name-of-more-than-15"), "nic0"));
    assert_ne!(first.mac, second.mac);
    // A trunk carries what its largest network sends.
    assert_eq!(stage.switches[&first.segment].mtu, 9000);
    assert_eq!(stage.switches.len(), 3, "the trunk, the office, the underlay");
}

#[test]
fn a_foreign_bridge_is_there_where_it_is_needed() {
    let stage = of(TWO);
    let StandIn::Bridge { name, cable, .. } = &stage.hosts["h1"].devices[1] else { panic!("none") };
    assert_eq!(name.as_str(), "br0");
    assert_eq!(cable.segment, Segment::Network("office".parse().unwrap()));
    assert_eq!(stage.hosts["h2"].devices.len(), 1, "h2 has nobody there");
}

#[test]
fn the_outside_has_the_gateways_that_are_not_the_labs() {
    let stage = of(TWO);
    let leg = |segment: &Segment| stage.outside.iter().find(|leg| leg.cable.segment == *segment).unwrap();
    let trunk = leg(&Segment::Uplink("trunk".parse().unwrap()));
    let vlan = VlanId::try_from(100).unwrap();
    assert_eq!(trunk.tagged[&vlan], ["192.0.2.1/24".parse().unwrap()].into());
    assert!(trunk.untagged.is_empty());
    let office = leg(&Segment::Network("office".parse().unwrap()));
    assert_eq!(office.untagged, ["10.9.0.1/24".parse().unwrap()].into());
    let underlay = leg(&Segment::Underlay);
    assert_eq!(underlay.untagged, ["198.18.0.1/32".parse().unwrap()].into());
    assert_eq!(stage.answers, ["198.18.0.1".parse::<IpAddr>().unwrap()]);
}

#[test]
fn every_host_has_an_address_for_the_others() {
    let stage = of(TWO);
    let on: Vec<String> = stage.on_underlay().map(|address| address.to_string()).collect();
    assert_eq!(on, ["10.0.2.15", "198.18.0.11", "198.18.0.1"]);
}

#[test]
fn only_some_hosts_need_only_what_is_theirs() {
    let definition = Definition::parse(TWO).unwrap();
    let model = resolve(&definition, &Lock::default()).unwrap().model;
    let stage = stage(&model, &["h2".parse().unwrap()].into());
    assert_eq!(stage.hosts.len(), 1);
    assert_eq!(stage.switches.len(), 2);
}

#[test]
fn a_lab_without_hosts_is_one_host_and_what_it_knows_is_not_taken() {
    let stage = of(r#"
        lab = "one"
        [network.web]
        subnet = "198.18.0.0/24"
        [router]
        external = { via = "host", snat = "203.0.113.7" }
        [vm.vm1]
        engine = "netns"
        nic = "web"
    "#);
    let host = &stage.hosts[HERE];
    assert!(host.devices.is_empty());
    let [own, snat] = ["198.19.0.10", "203.0.113.7"].map(|text| text.parse::<IpAddr>().unwrap());
    assert_eq!(host.addresses, [own, snat]);
    assert_eq!(stage.answers, ["198.19.0.1".parse::<IpAddr>().unwrap()]);
}
