//! Domains: all of them to look at, the lab's own to start and end, anybody's to plug a nic into.

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;
use vmnet::libvirt::{self, Answer, DomainState, Owner, Refusal, RefusalKind, Scope, xml};

use super::refusal::{from, own, still_there};

/// All, by name.
pub(super) fn all(connect: &Connect) -> Result<Vec<libvirt::Domain>, Error> {
    let listed = connect.list_all_domains(0)?;
    let mut all = listed.iter().filter_map(|domain| still_there(|| about(domain))).collect::<Result<Vec<_>, _>>()?;
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn about(domain: &Domain) -> Result<libvirt::Domain, Error> {
    let state = state(domain)?;
    let persistent = domain.is_persistent()?;
    let mut now = domain.get_xml_desc(0)?;
    let mut inactive = sys::VIR_DOMAIN_XML_INACTIVE;
    // What vmnet may define again has to be whole, with the passwords of its displays. Nobody else's are looked at.
    if xml::domain(&now).owner.is_some() {
        now = domain.get_xml_desc(sys::VIR_DOMAIN_XML_SECURE)?;
        inactive |= sys::VIR_DOMAIN_XML_SECURE;
    }
    let next = (state.has_process() && persistent).then(|| domain.get_xml_desc(inactive));
    Ok(libvirt::Domain {
        name: domain.get_name()?,
        uuid: domain.get_uuid_string()?,
        state,
        persistent,
        // What is gone when it is off never starts by itself, and libvirt refuses the question.
        autostart: persistent && domain.get_autostart()?,
        xml: now,
        next: next.transpose()?,
    })
}

fn state(domain: &Domain) -> Result<DomainState, Error> {
    Ok(match domain.get_state()?.0 {
        sys::VIR_DOMAIN_SHUTOFF => DomainState::Off,
        sys::VIR_DOMAIN_CRASHED => DomainState::Crashed,
        sys::VIR_DOMAIN_PAUSED | sys::VIR_DOMAIN_PMSUSPENDED => DomainState::Paused,
        _ => DomainState::Running,
    })
}

/// What the domain with this UUID does, anybody's.
pub(super) fn state_of(connect: &Connect, uuid: &str) -> Result<Answer, Refusal> {
    let state = match find(connect, uuid).and_then(|domain| state(&domain).map_err(from)) {
        Ok(state) => Some(state),
        Err(refusal) if refusal.kind == RefusalKind::NotThere => None,
        Err(refusal) => return Err(refusal),
    };
    Ok(Answer::State { state })
}

/// The domain with this UUID.
fn find(connect: &Connect, uuid: &str) -> Result<Domain, Refusal> {
    if uuid.contains('\0') {
        return Err(own(RefusalKind::NotThere, "no UUID".to_owned()));
    }
    Domain::lookup_by_uuid_string(connect, uuid).map_err(from)
}

/// The domain with this UUID, once its metadata say that it is this owner's.
pub(super) fn of(connect: &Connect, uuid: &str, owner: &Owner) -> Result<Domain, Refusal> {
    let domain = find(connect, uuid)?;
    // Read anew at each question: it may have been defined again, by somebody else.
    let text = domain.get_xml_desc(sys::VIR_DOMAIN_XML_INACTIVE).map_err(from)?;
    if xml::domain(&text).owner.as_ref() == Some(owner) {
        return Ok(domain);
    }
    let name = domain.get_name().unwrap_or_else(|_| uuid.to_owned());
    Err(own(RefusalKind::Foreign, format!("domain {name} is not guest {} of lab {}", owner.vm, owner.lab)))
}

/// As [`of`]; `None` where there is no such domain.
fn of_it(connect: &Connect, uuid: &str, owner: &Owner) -> Result<Option<Domain>, Refusal> {
    match of(connect, uuid, owner) {
        Ok(domain) => Ok(Some(domain)),
        Err(refusal) if refusal.kind == RefusalKind::NotThere => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// Defines a domain. One with its UUID has to be the same guest already: libvirt would replace anybody's.
pub(super) fn define(connect: &Connect, text: &str, autostart: bool) -> Result<Answer, Refusal> {
    let Some(owner) = xml::domain(text).owner else {
        return Err(own(RefusalKind::Foreign, "a domain without vmnet's mark is not vmnet's to define".to_owned()));
    };
    if let Some(uuid) = xml::uuid(text) {
        of_it(connect, &uuid, &owner)?;
    }
    let flags = sys::VIR_DOMAIN_DEFINE_VALIDATE;
    let domain = Domain::define_xml_flags(connect, text, flags).map_err(from)?;
    if domain.get_autostart().map_err(from)? != autostart {
        domain.set_autostart(autostart).map_err(from)?;
    }
    Ok(Answer::Defined { uuid: domain.get_uuid_string().map_err(from)? })
}

pub(super) fn destroy(connect: &Connect, uuid: &str, owner: &Owner) -> Result<Answer, Refusal> {
    if let Some(domain) = of_it(connect, uuid, owner)? {
        match domain.destroy().map_err(from) {
            // It is off already.
            Err(refusal) if refusal.kind == RefusalKind::State => {}
            answer => answer?,
        }
    }
    Ok(Answer::Done)
}

pub(super) fn undefine(connect: &Connect, uuid: &str, owner: &Owner) -> Result<Answer, Refusal> {
    let Some(domain) = of_it(connect, uuid, owner)? else { return Ok(Answer::Done) };
    // With what hangs on it, or libvirt refuses; UEFI variables are the guest's, as its disk is.
    let all = sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
        | sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;
    match domain.undefine_flags(all).map_err(from) {
        // Drivers that don't know them.
        Err(refusal) if refusal.kind == RefusalKind::Unsupported => domain.undefine().map_err(from)?,
        answer => answer?,
    }
    Ok(Answer::Done)
}

pub(super) fn attach(connect: &Connect, uuid: &str, xml: &str, scope: Scope) -> Result<Answer, Refusal> {
    find(connect, uuid)?.attach_device_flags(xml, flags(scope)).map_err(from)?;
    Ok(Answer::Done)
}

pub(super) fn detach(connect: &Connect, uuid: &str, xml: &str, scope: Scope) -> Result<Answer, Refusal> {
    find(connect, uuid)?.detach_device_flags(xml, flags(scope)).map_err(from)?;
    Ok(Answer::Done)
}

fn flags(scope: Scope) -> u32 {
    let live = if scope.live { sys::VIR_DOMAIN_AFFECT_LIVE } else { 0 };
    live | if scope.persistent { sys::VIR_DOMAIN_AFFECT_CONFIG } else { 0 }
}
