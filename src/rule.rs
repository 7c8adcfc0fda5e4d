//! What is chosen by rule: hashes of names, and the group, MACs and device names made from them.
//!
//! The same names give the same result on every host, every time. Pure.

use sha2::{Digest, Sha256};

use crate::names::{HostName, IfName, LabName, Mac, NetName, NsName, VlanId, VmName};

/// The routing protocol number of vmnet's routes (`RTPROT_*`, rtnetlink(7)): in the range that no daemon of
/// iproute2's `rt_protos` claims.
pub const ROUTE_PROTOCOL: u8 = 118;

/// SHA-256 over length-prefixed parts, so that `("a", "bc")` and `("ab", "c")` differ.
fn hash(parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

fn hex(parts: &[&str], digits: usize) -> String {
    let mut text: String = hash(parts).iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    text
}

/// The link group (`IFLA_GROUP`) of a lab: 30 bits of a hash with bit 30 set, far from the small numbers that
/// people give by hand and positive in tools that print it signed.
pub fn link_group(lab: &LabName) -> u32 {
    let digest = hash(&["group", lab.as_str()]);
    0x4000_0000 | (u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) & 0x3fff_ffff)
}

/// A line that parts the texts of a message; `number` is 0 unless one of them holds it.
pub fn boundary(number: u32, texts: &[&str]) -> String {
    let number = number.to_string();
    let parts: Vec<&str> = ["boundary", &number].into_iter().chain(texts.iter().copied()).collect();
    format!("vmnet-{}", hex(&parts, 32))
}

/// Whether a link group can be that of a lab.
pub fn is_link_group(group: u32) -> bool {
    group & 0xc000_0000 == 0x4000_0000
}

/// The namespace that holds a lab's router.
pub fn router_namespace(lab: &LabName) -> NsName {
    namespace(format!("vmnet-{lab}"))
}

/// The namespace that plays a guest of the `netns` engine. Names have no dots, so none can be another lab's router.
pub fn guest_namespace(lab: &LabName, vm: &VmName) -> NsName {
    namespace(format!("vmnet-{lab}.{vm}"))
}

fn namespace(text: String) -> NsName {
    // A lab or guest name has at most 32 characters of [a-z0-9-], so this always is a namespace name.
    text.parse().expect("lab and guest names make namespace names")
}

/// The MAC of a guest's nic: `52:54:00` (QEMU's) and 24 bits of a hash of lab, vm, network and the nic's number on
/// that network. `attempt` is 0 unless a collision inside the definition is being settled.
pub fn guest_mac(lab: &LabName, vm: &VmName, network: &NetName, number: usize, attempt: u32) -> Mac {
    let digest = hash(&["mac", lab.as_str(), vm.as_str(), network.as_str(), &number.to_string(), &attempt.to_string()]);
    unicast([0x52, 0x54, 0x00, digest[0], digest[1], digest[2]])
}

/// The MAC of an interface that is plugged into somebody's domain: QEMU's prefix and 24 bits of a hash of lab, network
/// and the domain's UUID. `attempt` is 0 unless somebody has that one already.
pub fn attached_mac(lab: &LabName, network: &NetName, uuid: &str, attempt: u32) -> Mac {
    let digest = hash(&["attached", lab.as_str(), network.as_str(), uuid, &attempt.to_string()]);
    unicast([0x52, 0x54, 0x00, digest[0], digest[1], digest[2]])
}

/// The MAC of a device of ours (bridge, veth end, macvlan): locally administered, 40 bits of a hash of the lab and
/// the device's role and full name.
pub fn device_mac(lab: &LabName, role: &str, name: &str) -> Mac {
    let d = hash(&["device", lab.as_str(), role, name]);
    unicast([0x02, d[0], d[1], d[2], d[3], d[4]])
}

/// The MAC of the host's end of a guest's or probe's cable: high, since a bridge without a MAC of its own takes the
/// lowest one of its ports, and a foreign bridge must keep the one it has. `fe:ff` and 32 bits of the same hash.
pub fn port_mac(lab: &LabName, role: &str, name: &str) -> Mac {
    let d = hash(&["device", lab.as_str(), role, name]);
    unicast([0xfe, 0xff, d[0], d[1], d[2], d[3]])
}

/// The UUID of a guest for hypervisors that want one: 122 bits of a hash of lab and guest as version 8, which
/// RFC 9562 leaves to the maker's own rule.
pub fn guest_uuid(lab: &LabName, vm: &VmName) -> String {
    uuid(&["uuid", lab.as_str(), vm.as_str()])
}

/// What libvirt calls a network of a lab.
pub fn libvirt_network_name(lab: &LabName, network: &NetName) -> String {
    format!("{lab}-{network}")
}

/// The UUID of a network in libvirt, by the same rule.
pub fn libvirt_network_uuid(lab: &LabName, network: &NetName) -> String {
    uuid(&["network-uuid", lab.as_str(), network.as_str()])
}

fn uuid(parts: &[&str]) -> String {
    let digest = hash(parts);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = 0x80 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// What hypervisors call a guest. `a-b-c` may be guest `c` of lab `a-b` or guest `b-c` of lab `a`: who comes second is
/// told that the name is taken.
pub fn domain_name(lab: &LabName, vm: &VmName) -> String {
    format!("{lab}-{vm}")
}

/// Where libvirt logs what QEMU says of a domain, and what libvirt does with it.
pub const LIBVIRT_LOGS: &str = "/var/log/libvirt/qemu";

/// The file there that a domain's serial console is logged in.
pub fn console_log_of_domain(domain: &str) -> String {
    format!("{domain}-console.log")
}

/// The digest of a text, in hexadecimal digits.
pub fn digest(text: &str) -> String {
    hex(&["text", text], 64)
}

fn unicast(octets: [u8; 6]) -> Mac {
    // Both first bytes in use, 0x52 and 0x02, are even and not zero.
    Mac::try_from(octets).expect("an even first byte is unicast")
}

/// What a bridge's name is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeForm {
    /// The network alone: `brvlan-<vid>` or `br-<network>`.
    Plain,
    /// The lab, too: `br-<4 digits of the lab's hash>-<network>`, so that two labs of one file meet on one host.
    OfLab,
    /// A hash, since the readable name is not unique in the file.
    Hashed,
}

/// The bridge of a network.
pub fn bridge_name(lab: &LabName, network: &NetName, vlan: Option<VlanId>, form: BridgeForm) -> IfName {
    let readable = match (form, vlan) {
        (BridgeForm::Plain, Some(vid)) => Some(format!("brvlan-{vid}")),
        (BridgeForm::Plain, None) => Some(format!("br-{network}")),
        (BridgeForm::OfLab, _) => Some(format!("br-{}-{network}", hex(&["lab", lab.as_str()], 4))),
        (BridgeForm::Hashed, _) => None,
    };
    fit(readable, "br", &["bridge", lab.as_str(), network.as_str()])
}

/// The 802.1Q sub-interface of a device: `<device>.<vid>`.
pub fn sub_interface_name(device: &IfName, vlan: VlanId) -> IfName {
    fit(Some(format!("{device}.{vlan}")), "vl", &["vlan", device.as_str(), &vlan.to_string()])
}

/// The TAP of a guest's nic: `<vm>-<nic>-<4 digits of the lab's hash>`, so that two labs with a guest of the same
/// name meet on one host. libvirt renames TAPs that begin with `vnet`, so those get the hashed form.
pub fn tap_name(lab: &LabName, vm: &VmName, nic: usize) -> IfName {
    let readable = format!("{vm}-{nic}-{}", hex(&["lab", lab.as_str()], 4));
    let readable = Some(readable).filter(|text| !text.starts_with("vnet"));
    fit(readable, "tap", &["tap", lab.as_str(), vm.as_str(), &nic.to_string()])
}

/// The outer end of the router's veth pair for a network (or `host`): `rt-<network>-<4 digits of the lab's hash>`.
pub fn router_port_name(lab: &LabName, network: &str) -> IfName {
    let readable = format!("rt-{network}-{}", hex(&["lab", lab.as_str()], 4));
    fit(Some(readable), "rt", &["router", lab.as_str(), network])
}

/// How the names of all probe ports begin, so that a rule can name them without knowing them.
pub const PROBE_PORTS: &str = "vmnetp-";

/// The port that a probe puts on a bridge for a moment; process and number keep two probes apart.
pub fn probe_port_name(lab: &LabName, process: u32, number: u32) -> IfName {
    let digest = hex(&["probe", lab.as_str(), &process.to_string(), &number.to_string()], 8);
    format!("{PROBE_PORTS}{digest}").parse().expect("a short prefix and eight digits fit")
}

/// The router's inner veth end: the network's own name.
pub fn router_inner_name(network: &NetName) -> IfName {
    fit(Some(network.to_string()), "nw", &["inner", network.as_str()])
}

/// The readable name where there is one that fits; else prefix, `-` and eight digits of a hash.
fn fit(readable: Option<String>, prefix: &str, parts: &[&str]) -> IfName {
    readable
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| format!("{prefix}-{}", hex(parts, 8)).parse().expect("a prefix and a hash fit"))
}

/// A transit network of four addresses for the veth pair between router and host, from 100.64.0.0/10: shared
/// address space (RFC 6598), which is neither a private network of the lab's nor a public one.
///
/// Each host of a lab has its own: what a router says of a packet (its hops are used up, it is too large) has its transit
/// address as source, and the router of another host would take its own address for forged.
pub fn transit(lab: &LabName, host: Option<&HostName>) -> ipnet::Ipv4Net {
    let mut parts = vec!["transit", lab.as_str()];
    parts.extend(host.map(HostName::as_str));
    let digest = hash(&parts);
    let slot = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) >> (32 - 20);
    let base = u32::from_be_bytes([100, 64, 0, 0]) | (slot << 2);
    ipnet::Ipv4Net::new(base.into(), 30).expect("30 is a prefix length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab() -> LabName {
        "campus".parse().unwrap()
    }

    #[test]
    fn names_fit_the_kernel_however_long_their_parts_are() {
        let long: NetName = "a-very-long-network-name".parse().unwrap();
        let vm: VmName = "a-very-long-guest-name".parse().unwrap();
        for name in [
            bridge_name(&lab(), &long, None, BridgeForm::Plain),
            bridge_name(&lab(), &long, None, BridgeForm::OfLab),
            sub_interface_name(&"enp130s0f0np1".parse().unwrap(), VlanId::try_from(4094).unwrap()),
            tap_name(&lab(), &vm, 12),
            router_port_name(&lab(), long.as_str()),
            router_inner_name(&long),
        ] {
            assert!(name.as_str().len() <= 15, "{name}");
        }
    }

    #[test]
    fn readable_names_stay_readable() {
        let vm1: VmName = "vm1".parse().unwrap();
        let web: NetName = "web".parse().unwrap();
        let vid = VlanId::try_from(10).unwrap();
        assert_eq!(bridge_name(&lab(), &web, Some(vid), BridgeForm::Plain).as_str(), "brvlan-10");
        assert_eq!(bridge_name(&lab(), &web, None, BridgeForm::Plain).as_str(), "br-web");
        assert_eq!(sub_interface_name(&"eno1".parse().unwrap(), vid).as_str(), "eno1.10");
        assert!(tap_name(&lab(), &vm1, 0).as_str().starts_with("vm1-0-"));
        assert!(router_port_name(&lab(), "web").as_str().starts_with("rt-web-"));
    }

    #[test]
    fn bridges_of_two_labs_of_one_file_differ() {
        let other: LabName = "ci-7".parse().unwrap();
        let vid = VlanId::try_from(10).unwrap();
        for (network, vlan) in [("web", None), ("web", Some(vid)), ("a-very-long-network-name", None)] {
            let name = |lab: &LabName| bridge_name(lab, &network.parse().unwrap(), vlan, BridgeForm::OfLab);
            assert_ne!(name(&lab()), name(&other), "{network}");
        }
        let web = bridge_name(&other, &"web".parse().unwrap(), Some(vid), BridgeForm::OfLab);
        assert!(web.as_str().starts_with("br-") && web.as_str().ends_with("-web"), "{web}");
    }

    #[test]
    fn libvirt_never_sees_a_tap_of_ours_as_its_own() {
        assert!(!tap_name(&lab(), &"vnet0".parse().unwrap(), 0).as_str().starts_with("vnet"));
    }

    #[test]
    fn a_port_never_has_the_lowest_mac_of_a_bridge() {
        let port = port_mac(&lab(), "nic", "vm1.0");
        assert!(port.to_string().starts_with("fe:ff:"));
        assert_ne!(port, port_mac(&lab(), "nic", "vm2.0"));
        // libvirt's own TAPs
        assert!(port.octets() > [0xfe, 0x54, 0, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn guest_macs_have_qemus_prefix_and_differ() {
        let net: NetName = "web".parse().unwrap();
        let mac = |vm: &str, number, attempt| guest_mac(&lab(), &vm.parse().unwrap(), &net, number, attempt);
        assert!(mac("vm1", 0, 0).to_string().starts_with("52:54:00:"));
        let all = [mac("vm1", 0, 0), mac("vm2", 0, 0), mac("vm1", 1, 0), mac("vm1", 0, 1)];
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn transit_is_shared_address_space() {
        let shared: ipnet::Ipv4Net = "100.64.0.0/10".parse().unwrap();
        assert!(shared.contains(&transit(&lab(), None)));
        assert_eq!(transit(&lab(), None).prefix_len(), 30);
    }
}
