//! What vmnet must know of the XML of a domain or network that libvirt gives: whose it is, and what it is plugged
//! into. What of it does not concern networks is passed over. Pure.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::Owner;

/// The XML namespace of vmnet's mark in the metadata of domains and networks.
pub const METADATA_NAMESPACE: &str = "urn:x-vmnet:guest";

/// What a domain's XML says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    /// Whose it is; `None` for what vmnet did not make.
    pub owner: Option<Owner>,
    /// What vmnet wrote beside its mark, for itself.
    pub made: Option<String>,
    /// The TAPs that vmnet wrote beside its mark, those of the guest's own nics in their order.
    pub taps: Option<Vec<String>>,
    /// Its interfaces, in their order.
    pub nics: Vec<Nic>,
    /// The pseudoterminal of its serial console, while it runs.
    pub console: Option<String>,
}

/// An interface of a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nic {
    /// Its MAC as it is written there.
    pub mac: Option<String>,
    /// The libvirt network that it is on.
    pub network: Option<String>,
    /// The bridge that it is on: where it says so, or while it runs where its network says so.
    pub bridge: Option<String>,
    /// Its device on the host, while it runs or where it is fixed.
    pub tap: Option<String>,
    /// Its MTU in bytes, where it says one.
    pub mtu: Option<u32>,
    /// Whether it has no boot ROM, because its definition says so.
    pub rom_off: bool,
}

/// Reads the XML of a domain. What can't be read further says nothing more.
pub fn domain(text: &str) -> Described {
    let mut found = Described::default();
    let mut path: Vec<String> = Vec::new();
    elements(text, &mut path, &mut |path, tag| {
        let attribute = |name| attribute(tag, name);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            [.., "metadata", "guest"] => {
                if let Some(owner) = mark(tag) {
                    found.owner = Some(owner);
                    found.made = attribute("made");
                    let taps = attribute("taps");
                    found.taps = taps.map(|taps| taps.split_whitespace().map(str::to_owned).collect());
                }
            }
            [.., "devices", "interface"] => found.nics.push(Nic::default()),
            [.., "devices", "interface", part] => {
                let Some(nic) = found.nics.last_mut() else { return };
                match *part {
                    "mac" => nic.mac = attribute("address"),
                    "mtu" => nic.mtu = attribute("size").and_then(|size| size.parse().ok()),
                    "target" => nic.tap = attribute("dev"),
                    "rom" => nic.rom_off = attribute("enabled").as_deref() == Some("no"),
                    "source" => {
                        nic.network = attribute("network");
                        nic.bridge = attribute("bridge");
                    }
                    _ => {}
                }
            }
            [.., "devices", "console", "source"] if found.console.is_none() => found.console = attribute("path"),
            _ => {}
        }
    });
    found
}

/// What a network's XML says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribedNetwork {
    /// Its name, where it is a text of one piece.
    pub name: Option<String>,
    /// The lab that it is of; `None` for one that vmnet did not make.
    pub lab: Option<String>,
    /// The network of the lab.
    pub network: Option<String>,
    /// What it does with packets: `bridge`, `nat`, …
    pub forward: Option<String>,
    /// Its bridge.
    pub bridge: Option<String>,
}

/// Reads the XML of a network. What can't be read further says nothing more.
pub fn network(text: &str) -> DescribedNetwork {
    let mut found = DescribedNetwork::default();
    elements(text, &mut Vec::new(), &mut |path, tag| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            [.., "metadata", "network"] if is_ours(tag) && found.lab.is_none() => {
                found.lab = attribute(tag, "lab");
                found.network = attribute(tag, "network");
            }
            [.., "network", "forward"] => found.forward = attribute(tag, "mode"),
            [.., "network", "bridge"] => found.bridge = attribute(tag, "name"),
            _ => {}
        }
    });
    found.name = child(text, "name");
    found
}

/// The UUID that a domain or network says it has.
pub fn uuid(text: &str) -> Option<String> {
    child(text, "uuid")
}

/// The memory that a domain has, in bytes. libvirt itself writes it in KiB whatever was said; so does who says no unit.
pub fn memory(text: &str) -> Option<u64> {
    child(text, "memory")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The text of an element right below the outermost one.
fn child(text: &str, name: &str) -> Option<String> {
    let mut reader = Reader::from_str(text);
    let mut depth = 0;
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) if depth == 1 && tag.local_name().as_ref() == name => {
                return Some(reader.read_text(tag.name()).ok()?.trim().to_owned());
            }
            Event::Start(_) => depth += 1,
            Event::End(_) => depth -= 1,
            Event::Eof => return None,
            _ => {}
        }
    }
}

/// Every element with the local names of those around it and its own.
fn elements(text: &str, path: &mut Vec<String>, see: &mut dyn FnMut(&[String], &BytesStart<'_>)) {
    let mut reader = Reader::from_str(text);
    loop {
        match reader.read_event() {
            Ok(Event::Start(tag)) => {
                path.push(tag.local_name().as_ref().to_owned());
                see(path, &tag);
            }
            Ok(Event::Empty(tag)) => {
                path.push(tag.local_name().as_ref().to_owned());
                see(path, &tag);
                path.pop();
            }
            Ok(Event::End(_)) => drop(path.pop()),
            Ok(Event::Eof) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn mark(tag: &BytesStart<'_>) -> Option<Owner> {
    is_ours(tag).then(|| Some(Owner { lab: attribute(tag, "lab")?, vm: attribute(tag, "vm")? }))?
}

/// Whether an element is vmnet's: by its namespace, declared on it, as libvirt writes it.
fn is_ours(tag: &BytesStart<'_>) -> bool {
    tag.attributes().flatten().any(|attribute| attribute.value == METADATA_NAMESPACE)
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = tag.try_get_attribute(name).ok()??;
    Some(attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "<domain type='kvm' id='3'><name>campus-vm1</name><metadata><vmnet:guest \
        xmlns:vmnet='urn:x-vmnet:guest' lab='campus' vm='vm1' made='abc' taps='t0 t1'/></metadata><devices>\
        <interface type='network'>\
        <mac address='52:54:00:aa:00:01'/><source network='campus-web' portid='1' bridge='br-web'/><target dev='vnet0'/>\
        </interface><interface type='bridge'><mac address='52:54:00:aa:00:02'/><source bridge='br&amp;x'/>\
        <rom enabled='no'/></interface>\
        <serial type='pty'><source path='/dev/pts/9'/></serial><console type='pty' tty='/dev/pts/3'>\
        <source path='/dev/pts/3'/></console></devices></domain>";

    #[test]
    fn a_domain_says_whose_it_is_and_what_it_is_plugged_into() {
        let said = domain(RUNNING);
        assert_eq!(said.owner, Some(Owner { lab: "campus".into(), vm: "vm1".into() }));
        assert_eq!(said.made.as_deref(), Some("abc"));
        assert_eq!(said.taps, Some(vec!["t0".into(), "t1".into()]));
        assert_eq!(said.console.as_deref(), Some("/dev/pts/3"));
        let [web, other] = said.nics.as_slice() else { panic!("{said:?}") };
        assert_eq!((web.network.as_deref(), web.bridge.as_deref()), (Some("campus-web"), Some("br-web")));
        assert_eq!((web.tap.as_deref(), web.mac.as_deref()), (Some("vnet0"), Some("52:54:00:aa:00:01")));
        assert_eq!((other.network.as_deref(), other.bridge.as_deref()), (None, Some("br&x")));
        assert!(other.rom_off && !web.rom_off);
    }

    #[test]
    fn a_mark_in_another_namespace_or_place_is_none() {
        for text in [
            "<domain><metadata><x:guest xmlns:x='urn:other' lab='campus' vm='vm1'/></metadata></domain>",
            "<domain><title><vmnet:guest xmlns:vmnet='urn:x-vmnet:guest' lab='campus' vm='vm1'/></title></domain>",
            "<domain><metadata><vmnet:guest xmlns:vmnet='urn:x-vmnet:guest' lab='campus'/></metadata></domain>",
        ] {
            assert_eq!(domain(text).owner, None, "{text}");
        }
    }

    #[test]
    fn a_network_says_its_lab_and_its_bridge() {
        let of = |namespace: &str| {
            format!(
                "<network><name>campus-web</name><metadata><vmnet:network xmlns:vmnet='{namespace}' lab='campus' \
                 network='web'/></metadata><forward mode='bridge'/><bridge name='br-web'/></network>"
            )
        };
        let said = network(&of(METADATA_NAMESPACE));
        assert_eq!((said.lab.as_deref(), said.network.as_deref()), (Some("campus"), Some("web")));
        assert_eq!((said.forward.as_deref(), said.bridge.as_deref()), (Some("bridge"), Some("br-web")));
        assert_eq!(said.name.as_deref(), Some("campus-web"));
        assert_eq!(network(&of("urn:other")).lab, None);
        assert_eq!(network("<network><name>default</name></network>").lab, None);
    }

    #[test]
    fn its_memory_is_the_domains_own() {
        let text = "<domain type='kvm'><metadata><x:a xmlns:x='urn:x'><memory>7</memory></x:a></metadata>\
                    <memory unit='KiB'>65536</memory><currentMemory unit='KiB'>1024</currentMemory></domain>";
        assert_eq!(memory(text), Some(64 << 20));
        for text in [RUNNING, "<domain><memory>much</memory></domain>", "<domain><memory>99999999999999999999", ""] {
            assert_eq!(memory(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_xml_says_nothing() {
        for text in ["", "<", "<a><b>", "not xml <interface"] {
            assert_eq!(domain(text), Described::default(), "{text}");
        }
    }
}
