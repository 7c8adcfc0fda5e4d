//! What libvirt is told of a lab's networks: each as one of its own networks, and an interface on one. Serialized, never
//! pasted together. Pure.

use quick_xml::se::SeError;
use serde::Serialize;

use super::domain::{MacElement, ModelElement, Mtu};
use super::{ETHERNET_MTU, element};
use crate::kinds::NicModel;
use crate::libvirt::xml::METADATA_NAMESPACE;
use crate::names::{LabName, Mac};
use crate::state::LibvirtNetwork;

#[derive(Serialize)]
struct Network<'a> {
    name: &'a str,
    uuid: &'a str,
    metadata: Metadata<'a>,
    forward: Forward,
    bridge: Named<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(rename = "vmnet:network")]
    network: Mark<'a>,
}

#[derive(Serialize)]
struct Mark<'a> {
    #[serde(rename = "@xmlns:vmnet")]
    namespace: &'static str,
    #[serde(rename = "@lab")]
    lab: &'a str,
    #[serde(rename = "@network")]
    network: &'a str,
}

#[derive(Serialize)]
struct Forward {
    #[serde(rename = "@mode")]
    mode: &'static str,
}

#[derive(Serialize)]
struct Named<'a> {
    #[serde(rename = "@name")]
    name: &'a str,
}

/// The XML of a network. The MTU is the bridge's: libvirt takes none for a bridge that is not its own.
///
/// # Errors
/// When the serializer gives up.
pub fn network(lab: &LabName, name: &str, network: &LibvirtNetwork) -> Result<String, SeError> {
    let mark = Mark { namespace: METADATA_NAMESPACE, lab: lab.as_str(), network: &network.network };
    let network = Network {
        name,
        uuid: &network.uuid,
        metadata: Metadata { network: mark },
        forward: Forward { mode: "bridge" },
        bridge: Named { name: &network.bridge },
    };
    element("network", &network)
}

/// What an interface is plugged into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Socket {
    /// A network of libvirt.
    Network(String),
    /// A bridge.
    Bridge(String),
}

#[derive(Serialize)]
struct Interface<'a> {
    #[serde(rename = "@type")]
    kind: &'static str,
    mac: MacElement,
    source: Source<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelElement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<Mtu>,
}

#[derive(Serialize)]
struct Source<'a> {
    #[serde(rename = "@network", skip_serializing_if = "Option::is_none")]
    network: Option<&'a str>,
    #[serde(rename = "@bridge", skip_serializing_if = "Option::is_none")]
    bridge: Option<&'a str>,
}

/// The XML of an interface: with its model and its segment's MTU to plug it in, without to name one that is there.
///
/// # Errors
/// When the serializer gives up.
pub fn interface(mac: Mac, socket: &Socket, made: Option<(NicModel, u32)>) -> Result<String, SeError> {
    let (kind, network, bridge) = match socket {
        Socket::Network(name) => ("network", Some(name.as_str()), None),
        Socket::Bridge(name) => ("bridge", None, Some(name.as_str())),
    };
    let interface = Interface {
        kind,
        mac: MacElement { address: mac.to_string() },
        source: Source { network, bridge },
        model: made.map(|(model, _)| ModelElement { kind: model.word() }),
        mtu: made.map(|(_, mtu)| mtu).filter(|mtu| *mtu != ETHERNET_MTU).map(|size| Mtu { size }),
    };
    element("interface", &interface)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::xml;

    #[test]
    fn a_network_reads_back_as_it_was_written() {
        let lab: LabName = "campus".parse().unwrap();
        let web = LibvirtNetwork {
            uuid: "5b1b2c3d-0000-8000-8000-000000000001".into(),
            network: "web".into(),
            bridge: "br-<&'\"".into(),
            active: true,
            autostart: true,
        };
        let text = network(&lab, "campus-web", &web).unwrap();
        let said = xml::network(&text);
        assert_eq!((said.name.as_deref(), said.forward.as_deref()), (Some("campus-web"), Some("bridge")));
        assert_eq!((said.lab.as_deref(), said.network.as_deref()), (Some("campus"), Some("web")));
        assert_eq!(said.bridge.as_deref(), Some("br-<&'\""));
        assert_eq!(xml::uuid(&text).as_deref(), Some(web.uuid.as_str()));
    }

    #[test]
    fn an_interface_says_where_it_is_plugged_in() {
        let mac: Mac = "52:54:00:aa:00:01".parse().unwrap();
        let of = |text: &str| xml::domain(&format!("<domain><devices>{text}</devices></domain>")).nics;
        let on_network = interface(mac, &Socket::Network("campus-web".into()), Some((NicModel::E1000, 9000))).unwrap();
        let [nic] = of(&on_network).try_into().unwrap();
        assert_eq!((nic.mac.as_deref(), nic.network.as_deref()), (Some("52:54:00:aa:00:01"), Some("campus-web")));
        assert_eq!((nic.bridge, nic.mtu), (None, Some(9000)));
        assert!(on_network.contains("<model type=\"e1000\"/>"), "{on_network}");
        let named = interface(mac, &Socket::Bridge("br-web".into()), None).unwrap();
        assert_eq!(of(&named)[0].bridge.as_deref(), Some("br-web"));
        assert!(!named.contains("model") && !named.contains("mtu"), "{named}");
    }
}
