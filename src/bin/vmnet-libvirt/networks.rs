//! Networks: all of them to look at, the lab's own to add and remove.

use virt::connect::Connect;
use virt::error::Error;
use virt::network::Network;
use vmnet::libvirt::{self, Answer, Refusal, RefusalKind, xml};

use super::refusal::{from, own};

/// All, by name. One that goes while it is looked at is passed over.
pub(super) fn all(connect: &Connect) -> Result<Vec<libvirt::Network>, Error> {
    let mut all: Vec<_> = connect.list_all_networks(0)?.iter().filter_map(|network| about(network).ok()).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn about(network: &Network) -> Result<libvirt::Network, Error> {
    let persistent = network.is_persistent()?;
    Ok(libvirt::Network {
        name: network.get_name()?,
        uuid: network.get_uuid_string()?,
        active: network.is_active()?,
        persistent,
        autostart: persistent && network.get_autostart()?,
        xml: network.get_xml_desc(0)?,
    })
}

/// Defines a network, starts it, and sets it to start by itself. On a failure it is gone again.
pub(super) fn add(connect: &Connect, text: &str) -> Result<Answer, Refusal> {
    let Some(lab) = xml::lab_of_network(text) else {
        return Err(own(RefusalKind::Foreign, "a network without vmnet's mark is not vmnet's to define".to_owned()));
    };
    // libvirt would replace anybody's.
    if let Some(uuid) = xml::uuid(text) {
        of_it(connect, &uuid, &lab)?;
    }
    let network = Network::define_xml(connect, text).map_err(from)?;
    let begin = || -> Result<(), Error> {
        if !network.is_active()? {
            network.create()?;
        }
        network.set_autostart(true).map(drop)
    };
    begin().map_err(|error| {
        // What was half made is no use to anybody; the first failure is the one that counts.
        let _: Result<_, _> = network.destroy();
        let _: Result<_, _> = network.undefine();
        from(error)
    })?;
    Ok(Answer::Defined { uuid: network.get_uuid_string().map_err(from)? })
}

pub(super) fn remove(connect: &Connect, uuid: &str, lab: &str) -> Result<Answer, Refusal> {
    let Some(network) = of_it(connect, uuid, lab)? else { return Ok(Answer::Done) };
    let persistent = network.is_persistent().map_err(from)?;
    if network.is_active().map_err(from)? {
        network.destroy().map_err(from)?;
    }
    if persistent {
        network.undefine().map_err(from)?;
    }
    Ok(Answer::Done)
}

/// The network with this UUID, once its metadata say that it is this lab's; `None` where there is none.
fn of_it(connect: &Connect, uuid: &str, lab: &str) -> Result<Option<Network>, Refusal> {
    if uuid.contains('\0') {
        return Err(own(RefusalKind::NotThere, "no UUID".to_owned()));
    }
    let network = match Network::lookup_by_uuid_string(connect, uuid).map_err(from) {
        Ok(network) => network,
        Err(refusal) if refusal.kind == RefusalKind::NotThere => return Ok(None),
        Err(refusal) => return Err(refusal),
    };
    let text = network.get_xml_desc(0).map_err(from)?;
    if xml::lab_of_network(&text).as_deref() == Some(lab) {
        return Ok(Some(network));
    }
    let name = network.get_name().unwrap_or_else(|_| uuid.to_owned());
    Err(own(RefusalKind::Foreign, format!("network {name} is not of lab {lab}")))
}
