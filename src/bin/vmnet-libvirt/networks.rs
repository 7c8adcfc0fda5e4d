//! Networks: all of them to look at, the lab's own to add and remove.

use virt::connect::Connect;
use virt::error::Error;
use virt::network::Network;
use virt::sys;
use vmnet::libvirt::{self, Answer, Refusal, RefusalKind, xml};

use super::refusal::{self, from, own, still_there};

/// All, by name.
pub(super) fn all(connect: &Connect) -> Result<Vec<libvirt::Network>, Error> {
    let listed = connect.list_all_networks(0)?;
    let mut all = listed.iter().filter_map(|network| still_there(|| about(network))).collect::<Result<Vec<_>, _>>()?;
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
        next: next(network, persistent)?,
    })
}

/// How a network is defined, where that may differ from how it is in force.
fn next(network: &Network, persistent: bool) -> Result<Option<String>, Error> {
    if !persistent || !network.is_active()? {
        return Ok(None);
    }
    match network.get_xml_desc(sys::VIR_NETWORK_XML_INACTIVE) {
        Ok(xml) => Ok(Some(xml)),
        // Drivers that know of one form only.
        Err(error) if refusal::kind(&error) == RefusalKind::Unsupported => Ok(None),
        Err(error) => Err(error),
    }
}

/// Defines a network, and makes it so: what libvirt has in force of an earlier definition ends. Where that fails for
/// one that was not there before, it is gone again.
pub(super) fn define(connect: &Connect, text: &str, active: bool, autostart: bool) -> Result<Answer, Refusal> {
    let Some(lab) = xml::network(text).lab else {
        return Err(own(RefusalKind::Foreign, "a network without vmnet's mark is not vmnet's to define".to_owned()));
    };
    // libvirt would replace anybody's.
    let before = match xml::uuid(text) {
        Some(uuid) => of_it(connect, &uuid, &lab)?,
        None => None,
    };
    let network = Network::define_xml(connect, text).map_err(from)?;
    settle(&network, text, active, autostart).map_err(|error| {
        // What was half made is no use to anybody; the first failure is the one that counts.
        if before.is_none() {
            let _: Result<_, _> = network.destroy();
            let _: Result<_, _> = network.undefine();
        }
        from(error)
    })?;
    Ok(Answer::Defined { uuid: network.get_uuid_string().map_err(from)? })
}

fn settle(network: &Network, text: &str, active: bool, autostart: bool) -> Result<(), Error> {
    let in_force = |text: &str| {
        let said = xml::network(text);
        (said.forward, said.bridge)
    };
    if network.is_active()? {
        let stays = in_force(text) == in_force(&network.get_xml_desc(0)?);
        if !active || !stays {
            network.destroy()?;
        }
    }
    if active && !network.is_active()? {
        network.create()?;
    }
    if network.get_autostart()? != autostart {
        network.set_autostart(autostart)?;
    }
    Ok(())
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
    if xml::network(&text).lab.as_deref() == Some(lab) {
        return Ok(Some(network));
    }
    let name = network.get_name().unwrap_or_else(|_| uuid.to_owned());
    Err(own(RefusalKind::Foreign, format!("network {name} is not of lab {lab}")))
}
