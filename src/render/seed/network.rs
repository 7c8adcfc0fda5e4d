//! Network configuration, version 2: netplan's form, which cloud-init translates for distributions without netplan.
//! Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::model::{Network, Nic};
use crate::names::{DomainName, Mac};
use crate::render::{ETHERNET_MTU, GuestView};

#[derive(Serialize)]
pub(super) struct NetworkConfig {
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
    #[serde(skip_serializing_if = "Option::is_none")]
    dhcp4_overrides: Option<Overrides>,
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

/// What the DHCP server says and the guest does not listen to.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Overrides {
    #[serde(skip_serializing_if = "Option::is_none")]
    use_routes: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_dns: Option<bool>,
}

/// A route. `0.0.0.0/0` rather than `default`, which older netplan does not know.
#[derive(Serialize)]
struct Route {
    to: IpNet,
    via: IpAddr,
}

#[derive(Serialize)]
struct NameServers {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    search: Vec<DomainName>,
}

impl NetworkConfig {
    pub(super) fn of(view: &GuestView<'_>) -> Self {
        let defaults = view.model.default_routes(view.vm);
        let ethernets = view.model.nics(view.vm).map(|(number, nic, network)| {
            let own = defaults.iter().filter(|(on, _)| *on == number).map(|(_, via)| *via);
            let ethernet = Ethernet::of(nic, network, view.mtu(number), own, format!("eth{number}"));
            (format!("eth{number}"), ethernet)
        });
        Self { version: 2, ethernets: ethernets.collect() }
    }
}

impl Ethernet {
    fn of(nic: &Nic, network: &Network, mtu: u32, defaults: impl Iterator<Item = IpAddr>, name: String) -> Self {
        let automatic = nic.automatic();
        let default = |via: IpAddr| Route { to: default_of(via), via };
        let further = nic.further_routes().map(|route| Route { to: route.to, via: route.via });
        Self {
            matches: Match { macaddress: *nic.mac() },
            set_name: name,
            dhcp4: automatic.dhcp,
            dhcp4_overrides: overrides(nic),
            dhcp6: false,
            accept_ra: automatic.slaac,
            optional: nic.addresses().is_empty() && automatic.is_none(),
            mtu: (mtu != ETHERNET_MTU).then_some(mtu),
            addresses: nic.addresses().clone(),
            routes: defaults.map(default).chain(further).collect(),
            nameservers: name_servers(nic, network),
        }
    }
}

fn default_of(via: IpAddr) -> IpNet {
    match via {
        IpAddr::V4(_) => ipnet::Ipv4Net::default().into(),
        IpAddr::V6(_) => ipnet::Ipv6Net::default().into(),
    }
}

fn overrides(nic: &Nic) -> Option<Overrides> {
    let overrides =
        Overrides { use_routes: (!nic.gateway()).then_some(false), use_dns: nic.dns().is_some().then_some(false) };
    let says_any = overrides.use_routes.is_some() || overrides.use_dns.is_some();
    (nic.automatic().dhcp && says_any).then_some(overrides)
}

fn name_servers(nic: &Nic, network: &Network) -> Option<NameServers> {
    let (addresses, search) = (nic.name_servers(network), nic.search_domains(network));
    let says_any = !addresses.is_empty() || !search.is_empty();
    says_any.then(|| NameServers { addresses: addresses.to_vec(), search: search.to_vec() })
}
