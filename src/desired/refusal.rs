//! [`Refusal`]: what stands in the way on a host, with its remedy. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::names::{HostName, IfName, LabName, Mac, NetName, NsName, UplinkName, VlanId, VmName};
use crate::state::{Feature, NO_MODULES, Tool};

/// Something that makes a lab impossible on this host as it is. Display names the thing, the place and the remedy;
/// foreign names in it are escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "kebab-case")]
pub enum Refusal {
    /// The host lacks something.
    #[error("{0}")]
    Lacks(Lack),
    /// No device answers to what an uplink says.
    #[error("uplink {uplink}: there is no device {device} on this host; {candidates}")]
    NoDevice {
        /// The uplink.
        uplink: UplinkName,
        /// What it says.
        device: String,
        /// What there is, as a sentence.
        candidates: String,
    },
    /// The device has a name that can't stand in rules and files.
    #[error(
        "uplink {uplink}: device {device} has a name that vmnet can't write into rules; rename it (ip link set … name …)"
    )]
    OddDevice {
        /// The uplink.
        uplink: UplinkName,
        /// Its name, escaped.
        device: String,
    },
    /// Two uplinks are one device.
    #[error("uplinks {first} and {second} are the same device, {device}; keep one of them")]
    SameDevice {
        /// One.
        first: UplinkName,
        /// The other.
        second: UplinkName,
        /// The device.
        device: String,
    },
    /// The VLAN exists on the device already.
    #[error("{wanted}: VLAN {vlan} is on {device} already, as {holder}{owner}; {remedy}")]
    VlanTaken {
        /// What wants it, for example `network web`.
        wanted: String,
        /// The VLAN.
        vlan: VlanId,
        /// The device.
        device: String,
        /// The sub-interface that has it, escaped.
        holder: String,
        /// Whose it is, where it says so; begins with a separator.
        owner: String,
        /// What to do.
        remedy: String,
    },
    /// A segment wants a larger MTU than its device has.
    #[error(
        "network {network}: an MTU of {mtu} bytes does not fit through {device}, which has {limit}; lower mtu, or raise \
         the device's (ip link set {device} mtu {mtu})"
    )]
    MtuTooLarge {
        /// The network.
        network: NetName,
        /// What it wants, in bytes.
        mtu: u32,
        /// The device.
        device: String,
        /// What the device has, in bytes.
        limit: u32,
    },
    /// `bridge =` names something that is no bridge.
    #[error("network {network}: {bridge} {problem}")]
    NoBridge {
        /// The network.
        network: NetName,
        /// What it says.
        bridge: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// macvlan on a port of a bridge: the kernel refuses it (EBUSY).
    #[error(
        "router.external: {device} is a port of {master}, where the kernel allows no macvlan; name {master} as the uplink's device"
    )]
    MacvlanOnPort {
        /// The device.
        device: String,
        /// Its bridge, escaped.
        master: String,
    },
    /// Something foreign has a name that we need.
    #[error("{what} {name} exists already{owner}, and the lab needs the name for {wanted}; {remedy}")]
    NameTaken {
        /// Link, namespace, table, file.
        what: &'static str,
        /// Its name.
        name: String,
        /// What we need it for.
        wanted: String,
        /// Whose it is, where it says so; begins with a separator.
        owner: String,
        /// What to do.
        remedy: String,
    },
    /// Somebody made a route in one of the lab's namespaces where one of the lab's has to be.
    #[error(
        "a route to {to} in {ns} exists already{dev}, and is not the lab's, which needs one there; remove it (ip -n \
         {ns} {family}route del {to})"
    )]
    RouteTaken {
        /// The namespace.
        ns: NsName,
        /// The destination, as `ip` writes it.
        to: String,
        /// `-6 ` for `ip`, where it has to be told.
        family: &'static str,
        /// The device that it leads out of, escaped, with a separator.
        dev: String,
    },
    /// Two links of the lab would have one name on this host.
    #[error("{name} would be the name of {first} and of {second}; give one of them another ifname or tap")]
    NameTwice {
        /// The name.
        name: String,
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// A subnet is one of the host's own.
    #[error("{wanted} {subnet} overlaps the host's own route to {route}{dev}; choose another in the definition")]
    SubnetTaken {
        /// What it is, for example `network web: subnet`.
        wanted: String,
        /// The subnet.
        subnet: IpNet,
        /// The route.
        route: IpNet,
        /// Its device, escaped, with a separator.
        dev: String,
    },
    /// Somebody answers already for an address that the router would take.
    #[error("{}", claimed(.address, .network, .device, .vlan, .mac, .remedy))]
    AddressClaimed {
        /// The address.
        address: IpAddr,
        /// The network whose gateway it is; `None`: it is the router's own, outside.
        network: Option<NetName>,
        /// The device that carries the segment.
        device: String,
        /// The VLAN of the segment; `None`: its frames have no tag.
        vlan: Option<VlanId>,
        /// Who answers.
        mac: Mac,
        /// What to do.
        remedy: String,
    },
    /// The router of another lab of this host has an address that this one would take.
    #[error(
        "router.external: address {address} is taken on {device}: the router of lab {lab} has it; choose another in the \
         definition, or destroy that lab (vmnet destroy {lab})"
    )]
    AddressOfLab {
        /// The address.
        address: IpAddr,
        /// The device outside.
        device: IfName,
        /// The lab.
        lab: LabName,
    },
    /// Another host of the lab can't be reached from this one.
    #[error("host {host}, at {via}: {problem}")]
    NoWay {
        /// The other host.
        host: HostName,
        /// Its address for this one.
        via: IpAddr,
        /// Why, and what to do; foreign names in it are escaped.
        problem: String,
    },
    /// A MAC is in use.
    #[error("vm {vm}: MAC {mac} is used by {holder} on this host; give the nic another mac")]
    MacTaken {
        /// The guest.
        vm: VmName,
        /// The MAC.
        mac: Mac,
        /// Who uses it, escaped.
        holder: String,
    },
    /// Somebody else's domain of libvirt stands where a guest's shall be.
    #[error("vm {vm}: {}", domain_taken(domain, what, *by_hand))]
    DomainTaken {
        /// The guest.
        vm: VmName,
        /// The domain, escaped.
        domain: String,
        /// `name` or `UUID`.
        what: &'static str,
        /// Whether it was made by hand, of what `vmnet xml` printed.
        by_hand: bool,
    },
    /// The hooks of a network can't be written.
    #[error("network {network}: {problem}; install iproute2 from the distribution's package")]
    NoHooks {
        /// The network.
        network: NetName,
        /// Why.
        problem: String,
    },
    /// A guest runs whose network would go.
    #[error("vm {vm} runs and {problem}; stop it first (vmnet stop {lab}/{vm}), or put it back into the definition")]
    GuestInTheWay {
        /// Its lab.
        lab: LabName,
        /// The guest.
        vm: VmName,
        /// What would happen to it.
        problem: String,
    },
}

/// What a host can lack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "lack", rename_all = "kebab-case")]
pub enum Lack {
    /// A kernel feature.
    #[error(
        "this host's kernel has no module {module} ({why}); {}",
        remedy(.feature.module(), .why),
        module = .feature.module()
    )]
    Feature {
        /// Which.
        feature: Feature,
        /// Why it is not there.
        why: String,
    },
    /// A program.
    #[error(
        "the program {} was not found on this host; install the package {} (apt-get install {})",
        .tool.program(), .tool.package(), .tool.package()
    )]
    Tool {
        /// Which.
        tool: Tool,
    },
    /// A capability.
    #[error("vmnet runs without the capability {capability}; run it as root (sudo vmnet …)")]
    Capability {
        /// Which, as capabilities(7) writes it.
        capability: String,
    },
}

/// What helps where a kernel lacks a module: one that loads none needs another kernel.
fn remedy(module: &str, why: &str) -> String {
    if why.contains(NO_MODULES) {
        return format!("boot a kernel that has {module} (Debian: linux-image-amd64, Ubuntu: linux-image-generic)");
    }
    format!(
        "load it (modprobe {module}), or install the package that has it (Debian: linux-image-amd64, Ubuntu: \
         linux-modules-extra-$(uname -r))"
    )
}

/// Whose a domain is that stands in the way, and what to do about it.
fn domain_taken(domain: &str, what: &str, by_hand: bool) -> String {
    let taken = format!("the libvirt domain {domain} has the {what} that the guest gets");
    match by_hand {
        true => format!(
            "{taken}, and was defined by hand from vmnet xml; shut it down and virsh undefine {domain}: vmnet boot defines \
             the guest anew, with a disk of its own"
        ),
        false => format!(
            "{taken}, and is not this lab's; rename the guest or the lab, or virsh undefine {domain} if nobody needs it"
        ),
    }
}

/// Who has an address that the router would take, and where.
fn claimed(
    address: &IpAddr,
    network: &Option<NetName>,
    device: &str,
    vlan: &Option<VlanId>,
    mac: &Mac,
    remedy: &str,
) -> String {
    let what = match network {
        Some(network) => format!("network {network}: gateway"),
        None => "router.external: address".to_owned(),
    };
    let tag = vlan.map(|vlan| format!("VLAN {vlan} of ")).unwrap_or_default();
    format!("{what} {address} is taken: {mac} answers for it on {tag}{device}; {remedy}")
}

impl Refusal {
    /// The host lacks a package, a module or a capability (exit code 4), rather than something being in the way.
    pub fn is_lack(&self) -> bool {
        matches!(self, Refusal::Lacks(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_loads_no_module_is_not_asked_to_load_one() {
        let lacks = |why: &str| Lack::Feature { feature: Feature::Vlan, why: why.to_owned() }.to_string();
        let text = lacks(&format!("this kernel was built without 8021q and {NO_MODULES}"));
        assert!(text.contains("boot a kernel that has 8021q") && !text.contains("modprobe"), "{text}");
        assert!(lacks("it is not there").contains("modprobe 8021q"));
    }
}
