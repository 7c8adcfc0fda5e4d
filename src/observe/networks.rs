//! Networks of libvirt: those of a lab, and the others.
//!
//! One is a lab's where its metadata name lab and network, and its UUID is the one that this network gets: a copy has the
//! metadata, too.

use std::collections::{BTreeMap, BTreeSet};

use super::domains::texts;
use crate::libvirt::Network;
use crate::libvirt::xml::{self, DescribedNetwork};
use crate::names::{LabName, NetName};
use crate::rule;
use crate::state::{ForeignNetwork, LibvirtNetwork};

/// Where the system's libvirt keeps networks: those that are defined, and those that are started.
const FOLDERS: [&str; 2] = ["/etc/libvirt/qemu/networks", "/run/libvirt/network"];

/// The networks that carry a lab's mark, by libvirt's own files: the lab, and the name. libvirt need not run.
pub(super) fn networks() -> BTreeSet<(LabName, String)> {
    let texts = FOLDERS.into_iter().flat_map(texts);
    texts.filter_map(|(name, text)| Some((owner(&xml::network(&text), &uuid(&text)?)?.0, name))).collect()
}

/// The UUID of a network in a file of libvirt's: of one that is started, it stands in what is known of its state.
fn uuid(text: &str) -> Option<String> {
    let mut tags = text.match_indices("<network");
    let (start, _) = tags.find(|(at, tag)| text[at + tag.len()..].starts_with(['>', ' ']))?;
    xml::uuid(&text[start..])
}

/// The names of those of one lab.
pub fn networks_of(lab: &LabName) -> Vec<String> {
    networks().into_iter().filter(|(of, _)| of == lab).map(|(_, name)| name).collect()
}

/// What libvirt said of networks: the lab's by name, and the others.
pub(super) fn sort(lab: &LabName, all: Vec<Network>) -> (BTreeMap<String, LibvirtNetwork>, Vec<ForeignNetwork>) {
    let (mut own, mut foreign) = (BTreeMap::new(), Vec::new());
    for network in all {
        let described = xml::network(&network.xml);
        let Some((_, of)) = owner(&described, &network.uuid).filter(|(of, _)| of == lab) else {
            foreign.push(ForeignNetwork { name: network.name, uuid: network.uuid, lab: described.lab });
            continue;
        };
        let now = bridge_of(&network.xml);
        // What is not in force yet will be, at the latest when the host boots.
        let next = network.next.as_deref().map(bridge_of).filter(|next| *next != now);
        let (active, autostart) = (network.active, network.autostart);
        let (uuid, of, bridge) = (network.uuid, of.to_string(), next.unwrap_or(now));
        own.insert(network.name, LibvirtNetwork { uuid, network: of, bridge, active, autostart });
    }
    (own, foreign)
}

/// The lab and the network that one of libvirt's is of.
fn owner(described: &DescribedNetwork, uuid: &str) -> Option<(LabName, NetName)> {
    let (lab, network) = (described.lab.as_ref()?.parse().ok()?, described.network.as_ref()?.parse().ok()?);
    (rule::libvirt_network_uuid(&lab, &network) == uuid).then_some((lab, network))
}

/// The bridge that a network hands out. One that does anything else with packets than that has none of the lab's.
fn bridge_of(text: &str) -> String {
    let said = xml::network(text);
    said.bridge.filter(|_| said.forward.as_deref() == Some("bridge")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::xml::METADATA_NAMESPACE;

    fn network((name, lab, of): (&str, &str, &str), mode: &str, next: Option<&str>) -> Network {
        let xml = |bridge: &str| {
            format!(
                "<network><name>{name}</name><metadata><vmnet:network xmlns:vmnet='{METADATA_NAMESPACE}' lab='{lab}' \
                 network='{of}'/></metadata><forward mode='{mode}'/><bridge name='{bridge}'/></network>"
            )
        };
        let uuid = rule::libvirt_network_uuid(&lab.parse().unwrap(), &of.parse().unwrap());
        let name = name.to_owned();
        let next = next.map(xml);
        Network { name, uuid, active: true, persistent: true, autostart: false, xml: xml("br-web"), next }
    }

    #[test]
    fn a_uuid_is_that_of_the_network() {
        let text = "<network><name>n</name><uuid>u</uuid></network>";
        for text in [
            format!("<!-- of libvirt -->\n{text}"),
            format!("<networkstatus><class_id bitmap='0'/>{}</networkstatus>", text.replacen('>', " ipv6='yes'>", 1)),
        ] {
            assert_eq!(uuid(&text).as_deref(), Some("u"), "{text}");
        }
        assert_eq!(uuid("<networkstatus/>"), None);
    }

    #[test]
    fn the_labs_own_are_told_by_their_mark() {
        let uuid = "00000000-0000-4000-8000-000000000001";
        let all = vec![
            network(("campus-web", "campus", "web"), "bridge", Some("br-web")),
            network(("edited", "campus", "db"), "bridge", Some("br-other")),
            network(("turned", "campus", "out"), "nat", None),
            network(("theirs", "other", "web"), "bridge", None),
            Network { uuid: uuid.into(), ..network(("copy", "campus", "web"), "bridge", None) },
        ];
        let (own, foreign) = sort(&"campus".parse().unwrap(), all);
        let bridges: Vec<_> = own.iter().map(|(name, network)| (name.as_str(), network.bridge.as_str())).collect();
        assert_eq!(bridges, [("campus-web", "br-web"), ("edited", "br-other"), ("turned", "")]);
        let web = &own["campus-web"];
        assert_eq!((web.network.as_str(), web.active, web.autostart), ("web", true, false));
        let foreign: Vec<_> = foreign.iter().map(|found| (found.name.as_str(), found.lab.as_deref())).collect();
        assert_eq!(foreign, [("theirs", Some("other")), ("copy", Some("campus"))]);
    }
}
