//! What is in the way of the names that the plan will use: foreign links, namespaces, tables and files. Pure.

use std::collections::BTreeMap;

use super::Refusal;
use super::context::Context;
use crate::mark::Mark;
use crate::names::{LabName, NsName};
use crate::state::{Device, ForeignNamespace, FoundRoute, LinkId, LinkKind, Ns, Route};

/// Nothing foreign has a name that the plan will use, and no two things of the lab have one.
pub(super) fn names_are_free(context: &mut Context<'_>) {
    let mut refusals = links(context);
    refusals.extend(waiting_taps(context));
    refusals.extend(namespaces(context));
    refusals.extend(routes(context));
    refusals.extend(tables(context));
    refusals.extend(files(context));
    context.refusals.extend(refusals);
}

fn links(context: &Context<'_>) -> Vec<Refusal> {
    let facts = context.facts();
    let mut by_altname = BTreeMap::new();
    for found in &facts.devices {
        by_altname.extend(found.1.altnames.iter().map(|altname| (altname.as_str(), found)));
    }
    let mut refusals = Vec::new();
    for (id, link) in context.state.links.iter().filter(|(id, _)| id.ns == Ns::Host) {
        let name = id.name.as_str();
        let (device, by_altname) = match (facts.devices.get_key_value(name), by_altname.get(name)) {
            (Some(found), _) => (found, false),
            (None, Some(found)) => (*found, true),
            (None, None) => continue,
        };
        // The VLAN itself is taken then, and that was said.
        if let (LinkKind::Vlan { parent, id }, Some((on, vlan))) = (&link.kind, &device.1.vlan)
            && (parent.as_str(), id) == (on.as_str(), vlan)
        {
            continue;
        }
        refusals.push(Refusal::NameTaken {
            what: "link",
            name: name.to_owned(),
            wanted: role(&link.alias),
            owner: whose(device, by_altname),
            remedy: match (lab_of(device.1.alias.as_deref()), by_altname) {
                (Some(lab), _) if lab == *context.lab() => format!(
                    "its alias says that it is this lab's, its link group is {} and the lab's is {}: if another tool \
                     changed that, change it back (ip link set {} group {}); else rename or remove it",
                    device.1.group,
                    link.group,
                    device.0.escape_default(),
                    link.group
                ),
                (Some(_), _) => match other_name(&link.alias).strip_prefix(", or ") {
                    Some(other) => format!("{other}, or destroy that lab"),
                    None => "rename one of the two labs".to_owned(),
                },
                (None, true) => format!(
                    "remove it (ip link property del dev {} altname {name}){}",
                    device.0.escape_default(),
                    other_name(&link.alias)
                ),
                (None, false) => {
                    format!("rename it (ip link set {name} name …) or remove it{}", other_name(&link.alias))
                }
            },
        });
    }
    refusals
}

/// TAPs of guests that don't run yet: their names must not be those of other links of the lab.
fn waiting_taps(context: &Context<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for vm in context.model.vms().values() {
        for (number, nic) in vm.nics().iter().enumerate() {
            let full_name = format!("{}.{number}", vm.name());
            let alias = Mark::new(context.lab(), "nic", full_name).to_string();
            let link = context.state.links.get(&LinkId::host(nic.tap().clone()));
            if let Some(link) = link.filter(|link| link.alias != alias) {
                refusals.push(name_twice(nic.tap().as_str(), &link.alias, &alias));
            }
        }
    }
    refusals
}

/// Two links of the lab would have one name.
pub(super) fn name_twice(name: &str, first: &str, second: &str) -> Refusal {
    Refusal::NameTwice { name: name.to_owned(), first: role(first), second: role(second) }
}

fn namespaces(context: &Context<'_>) -> Vec<Refusal> {
    let taken = |ns: &NsName| {
        let found = context.facts().namespaces.get(ns.as_str())?;
        let (what, name, owner, remove) = match found {
            ForeignNamespace::Namespace { mark } => {
                ("namespace", ns.to_string(), owner(mark.as_deref()), format!("ip netns delete {ns}"))
            }
            ForeignNamespace::NotOne => {
                ("file", format!("/run/netns/{ns}"), String::new(), format!("rm /run/netns/{ns}"))
            }
        };
        let wanted = context.state.namespaces.get(ns).map_or_else(String::new, |namespace| role(&namespace.mark));
        let of_a_lab = matches!(found, ForeignNamespace::Namespace { mark } if lab_of(mark.as_deref()).is_some());
        let remedy = match of_a_lab {
            true => "rename one of the two labs".to_owned(),
            false => format!("remove it ({remove}), or rename the lab"),
        };
        Some(Refusal::NameTaken { what, name, wanted, owner, remedy })
    };
    context.state.namespaces.keys().filter_map(taken).collect()
}

/// Routes of others in the lab's namespaces: where one of the lab's is missing, they would let no other in.
fn routes(context: &Context<'_>) -> Vec<Refusal> {
    let taken = context.facts().routes_inside.iter().filter(|(ns, found)| {
        let there = |route: &&Route| route.ns.name() == Some(ns) && route.to == found.to;
        context.state.routes.iter().any(|route| there(&route))
    });
    let refusal = |(ns, FoundRoute { to, dev, via: _ }): &(NsName, FoundRoute)| Refusal::RouteTaken {
        ns: ns.clone(),
        to: if to.prefix_len() == 0 { "default".to_owned() } else { to.to_string() },
        family: if to.addr().is_ipv4() { "" } else { "-6 " },
        dev: dev.as_ref().map_or_else(String::new, |dev| format!(" (out of {})", dev.escape_default())),
    };
    taken.map(refusal).collect()
}

fn tables(context: &Context<'_>) -> Vec<Refusal> {
    let ids = context.state.tables.keys().filter(|id| id.ns == Ns::Host);
    let names = ids.map(|id| format!("{} {}", id.family, id.name));
    let taken = names.filter(|name| context.facts().tables.contains(name));
    let refusal = |name: String| {
        let remedy = format!("remove it (nft delete table {name}), or rename the lab");
        Refusal::NameTaken { what: "nftables table", name, wanted: "its rules".into(), owner: String::new(), remedy }
    };
    taken.map(refusal).collect()
}

fn files(context: &Context<'_>) -> Vec<Refusal> {
    let taken = context.state.files.keys().filter(|path| context.facts().foreign_files.contains(*path));
    let refusal = |path: &std::path::PathBuf| Refusal::NameTaken {
        what: "file",
        name: path.display().to_string(),
        wanted: "a file of its own".into(),
        owner: String::new(),
        remedy: "move it elsewhere or remove it, or rename the lab".into(),
    };
    taken.map(refusal).collect()
}

/// What a thing with this mark is there for, for people.
fn role(mark: &str) -> String {
    let Ok(Mark { lab: _, role, name }) = mark.parse() else { return "something of its own".into() };
    match role.as_str() {
        "bridge" => format!("the bridge of network {name}"),
        "uplink" => format!("the uplink port of network {name}"),
        "router-port" => format!("the router's port in network {name}"),
        "transit" => "the router's way to the host".into(),
        "nic" => match name.rsplit_once('.') {
            Some((vm, number)) => format!("nic {number} of vm {vm}"),
            None => format!("the nic {name}"),
        },
        "namespace" if name == "router" => "the router".into(),
        "namespace" => format!("vm {name}"),
        _ => format!("{role} {name}"),
    }
}

/// Where the definition can give a link another name.
fn other_name(mark: &str) -> &'static str {
    match mark.parse::<Mark>().map(|mark| mark.role) {
        Ok(role) if role == "bridge" => ", or give the network an ifname",
        Ok(role) if role == "nic" => ", or give the nic a tap",
        _ => "",
    }
}

fn whose((name, device): (&String, &Device), by_altname: bool) -> String {
    let owner = owner(device.alias.as_deref());
    if by_altname { format!(", an altname of {}{owner}", name.escape_default()) } else { owner }
}

/// The lab that a mark names.
pub(super) fn lab_of(alias: Option<&str>) -> Option<LabName> {
    Some(alias?.parse::<Mark>().ok()?.lab)
}

/// Whose a foreign thing is, where it says so, as the rest of a sentence.
pub(super) fn owner(alias: Option<&str>) -> String {
    match (alias, lab_of(alias)) {
        (_, Some(lab)) => format!(" (lab {lab}'s)"),
        (Some(alias), None) if !alias.is_empty() => format!(" (its alias is \"{}\")", alias.escape_default()),
        _ => String::new(),
    }
}
