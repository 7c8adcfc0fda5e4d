//! The cloud-init NoCloud seed of a guest: `meta-data`, `network-config` and `user-data`.
//!
//! All three are JSON, which cloud-init reads as YAML, so that no value can break out of its place. Pure: the
//! guest's own ssh host key is not known here; two markers stand for it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::{ETHERNET_MTU, GuestView};
use crate::model::Mode;
use crate::names::Mac;

/// The JSON string that stands where the guest's private host key goes.
pub const HOST_KEY_PRIVATE: &str = "{host-key-private}";
/// The JSON string that stands where the guest's public host key goes.
pub const HOST_KEY_PUBLIC: &str = "{host-key-public}";

/// The files of a guest's seed, name and text.
pub fn files(view: &GuestView<'_>) -> Vec<(String, String)> {
    vec![
        ("meta-data".into(), json(&MetaData::of(view))),
        ("network-config".into(), json(&NetworkConfig::of(view))),
        // cloud-init tells the kinds of user-data apart by the first line.
        ("user-data".into(), format!("#cloud-config\n{}", json(&UserData::of(view)))),
    ]
}

/// A guest's instance-id: `<lab>-<vm>-<number of its disk>`. cloud-init does its once-per-instance work again when
/// it changes, which is right exactly when the disk is a fresh one.
pub fn instance_id(view: &GuestView<'_>) -> String {
    format!("{}-{}", view.full_name(), view.instance)
}

fn json(value: &impl Serialize) -> String {
    // These types hold strings, numbers and lists, and maps with string keys only.
    let text = serde_json::to_string_pretty(value).expect("plain data serializes");
    // To YAML some characters that JSON takes are line breaks (U+2028) or not allowed at all (U+007F). Those beyond
    // U+FFFF are none of them, and their escapes in JSON, two halves, are not what YAML reads.
    let escaped = |c: char| (c == '\u{7f}' || !c.is_ascii()) && u32::from(c) <= 0xffff;
    let write = |c: char| if escaped(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(write).chain(["\n".to_owned()]).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct MetaData {
    instance_id: String,
    local_hostname: String,
}

impl MetaData {
    fn of(view: &GuestView<'_>) -> Self {
        Self { instance_id: instance_id(view), local_hostname: view.vm.name().to_string() }
    }
}

/// Network configuration, version 2 (netplan's form, which cloud-init translates for distributions without netplan).
#[derive(Serialize)]
struct NetworkConfig {
    version: u8,
    ethernets: BTreeMap<String, Ethernet>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Ethernet {
    #[serde(rename = "match")]
    matches: Match,
    set_name: String,
    dhcp4: bool,
    dhcp6: bool,
    accept_ra: bool,
    /// Boot does not wait for it: so for a nic without an address, which never counts as configured.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    optional: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpNet>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nameservers: Option<NameServers>,
}

#[derive(Serialize)]
struct Match {
    macaddress: Mac,
}

/// A default route. `0.0.0.0/0` rather than `default`, which older netplan does not know.
#[derive(Serialize)]
struct Route {
    to: &'static str,
    via: IpAddr,
}

#[derive(Serialize)]
struct NameServers {
    addresses: Vec<IpAddr>,
}

impl NetworkConfig {
    fn of(view: &GuestView<'_>) -> Self {
        let defaults = view.model.default_routes(view.vm);
        let ethernets = view.model.nics(view.vm).map(|(number, nic, network)| {
            // A bridged network without a subnet here has its addresses from the physical segment.
            let automatic = *network.mode() == Mode::Bridged && nic.addresses().is_empty();
            let mtu = view.mtu(number);
            let routes = defaults
                .iter()
                .filter(|(on, _)| *on == number)
                .map(|(_, via)| Route { to: if via.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, via: *via });
            let ethernet = Ethernet {
                matches: Match { macaddress: *nic.mac() },
                set_name: format!("eth{number}"),
                dhcp4: automatic,
                dhcp6: false,
                accept_ra: automatic,
                optional: nic.addresses().is_empty() && !automatic,
                mtu: (mtu != ETHERNET_MTU).then_some(mtu),
                addresses: nic.addresses().clone(),
                routes: routes.collect(),
                nameservers: (!network.dns().is_empty()).then(|| NameServers { addresses: network.dns().clone() }),
            };
            (format!("eth{number}"), ethernet)
        });
        Self { version: 2, ethernets: ethernets.collect() }
    }
}

#[derive(Serialize)]
struct UserData {
    hostname: String,
    fqdn: String,
    prefer_fqdn_over_hostname: bool,
    manage_etc_hosts: &'static str,
    users: Vec<User>,
    disable_root: bool,
    ssh_pwauth: bool,
    ssh_deletekeys: bool,
    ssh_keys: SshKeys,
}

#[derive(Serialize)]
struct User {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sudo: Option<&'static str>,
    shell: &'static str,
    lock_passwd: bool,
    ssh_authorized_keys: Vec<String>,
}

#[derive(Serialize)]
struct SshKeys {
    ed25519_private: &'static str,
    ed25519_public: &'static str,
}

impl UserData {
    fn of(view: &GuestView<'_>) -> Self {
        let root = view.vm.user() == "root";
        let user = User {
            name: view.vm.user().clone(),
            sudo: (!root).then_some("ALL=(ALL) NOPASSWD:ALL"),
            shell: "/bin/bash",
            lock_passwd: true,
            ssh_authorized_keys: view.keys.to_vec(),
        };
        Self {
            hostname: view.vm.name().to_string(),
            fqdn: format!("{}.{}", view.vm.name(), view.model.lab()),
            prefer_fqdn_over_hostname: false,
            manage_etc_hosts: "localhost",
            users: vec![user],
            disable_root: !root,
            ssh_pwauth: false,
            ssh_deletekeys: true,
            ssh_keys: SshKeys { ed25519_private: HOST_KEY_PRIVATE, ed25519_public: HOST_KEY_PUBLIC },
        }
    }
}
