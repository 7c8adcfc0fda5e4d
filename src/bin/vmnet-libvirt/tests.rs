//! Against libvirt's own test driver, which needs no daemon: one host of which nothing is real, and which all tests of
//! this process share.

use vmnet::libvirt::xml::{self, METADATA_NAMESPACE};
use vmnet::libvirt::{Domain, DomainState, Network, Owner, Scope};

use super::*;

struct Asked {
    connection: Option<Connect>,
}

impl Asked {
    fn open() -> Self {
        virt::error::clear_error_callback();
        let mut asked = Self { connection: None };
        let open = Ask::Open { version: VERSION, uri: "test:///default".into() };
        assert!(matches!(asked.ask(open), Ok(Answer::Open { libvirt }) if libvirt >= 9_000_000));
        asked
    }

    fn ask(&mut self, ask: Ask) -> Result<Answer, Refusal> {
        answer(&mut self.connection, ask)
    }

    fn kind(&mut self, ask: Ask) -> RefusalKind {
        self.ask(ask).unwrap_err().kind
    }

    fn domain(&mut self, name: &str) -> Option<Domain> {
        let Ok(Answer::Domains { domains }) = self.ask(Ask::Domains) else { panic!("no domains") };
        domains.into_iter().find(|domain| domain.name == name)
    }

    fn network(&mut self, name: &str) -> Option<Network> {
        let Ok(Answer::Networks { networks }) = self.ask(Ask::Networks) else { panic!("no networks") };
        networks.into_iter().find(|network| network.name == name)
    }
}

const UUID: &str = "5b1b2c3d-0000-4000-8000-000000000001";

fn owner() -> Owner {
    Owner { lab: "campus".into(), vm: "vm1".into() }
}

fn guest(name: &str, vm: &str) -> String {
    format!(
        "<domain type='test'><name>{name}</name><uuid>{UUID}</uuid><metadata><vmnet:guest \
         xmlns:vmnet='{METADATA_NAMESPACE}' lab='campus' vm='{vm}'/></metadata><memory>8192</memory><os><type>hvm</type>\
         </os></domain>"
    )
}

#[test]
fn a_guest_comes_and_goes() {
    let mut asked = Asked::open();
    let define = Ask::Define { xml: guest("campus-vm1", "vm1"), autostart: true };
    assert_eq!(asked.ask(define.clone()), Ok(Answer::Defined { uuid: UUID.into() }));
    assert_eq!(asked.ask(define), Ok(Answer::Defined { uuid: UUID.into() }), "again is no error");
    let is = asked.domain("campus-vm1").unwrap();
    assert_eq!((is.state, is.persistent, is.autostart), (DomainState::Off, true, true));
    let start = Ask::Start { uuid: UUID.into(), mark: owner() };
    assert_eq!(asked.ask(start.clone()), Ok(Answer::Done));
    assert_eq!(asked.kind(start), RefusalKind::State);
    let state = |state| Ok(Answer::State { state });
    assert_eq!(asked.ask(Ask::State { uuid: UUID.into() }), state(Some(DomainState::Running)));
    let runs = asked.domain("campus-vm1").unwrap();
    assert_eq!(runs.state, DomainState::Running);
    assert_eq!(xml::domain(&runs.xml).owner, Some(owner()));
    assert!(runs.next.is_some());
    for _ in 0..2 {
        assert_eq!(asked.ask(Ask::Destroy { uuid: UUID.into(), mark: owner() }), Ok(Answer::Done));
    }
    for _ in 0..2 {
        assert_eq!(asked.ask(Ask::Undefine { uuid: UUID.into(), mark: owner() }), Ok(Answer::Done));
    }
    assert_eq!(asked.domain("campus-vm1"), None);
    assert_eq!(asked.ask(Ask::State { uuid: UUID.into() }), state(None));
}

#[test]
fn anybody_elses_domain_is_left_alone() {
    let mut asked = Asked::open();
    let test = asked.domain("test").unwrap();
    let (uuid, mark) = (test.uuid.clone(), owner());
    for ask in [
        Ask::Start { uuid: uuid.clone(), mark: mark.clone() },
        Ask::Shutdown { uuid: uuid.clone(), mark: mark.clone() },
        Ask::Destroy { uuid: uuid.clone(), mark: mark.clone() },
        Ask::Undefine { uuid: uuid.clone(), mark: mark.clone() },
        Ask::Define { xml: guest("test", "vm1").replace(UUID, &uuid), autostart: false },
        Ask::Define { xml: "<domain type='test'><name>x</name></domain>".into(), autostart: false },
    ] {
        assert_eq!(asked.kind(ask.clone()), RefusalKind::Foreign, "{ask:?}");
    }
    let taken = guest("test", "vm1").replace(UUID, &UUID.replace("0001", "0003"));
    assert_eq!(asked.kind(Ask::Define { xml: taken, autostart: false }), RefusalKind::Taken);
    assert_eq!(asked.domain("test").unwrap(), test);
    // Another guest of the lab is another one's, too.
    let other = UUID.replace("0001", "0002");
    let vm2 = guest("campus-vm2", "vm2").replace(UUID, &other);
    asked.ask(Ask::Define { xml: vm2, autostart: false }).unwrap();
    assert_eq!(asked.kind(Ask::Undefine { uuid: other, mark: owner() }), RefusalKind::Foreign);
}

#[test]
fn networks_come_change_and_go_and_others_stay() {
    let mut asked = Asked::open();
    let xml = format!(
        "<network><name>campus-web</name><uuid>{UUID}</uuid><metadata><vmnet:network xmlns:vmnet='{METADATA_NAMESPACE}' \
         lab='campus'/></metadata><forward mode='bridge'/><bridge name='br-web'/></network>"
    );
    let define = |xml: String, active| Ask::DefineNetwork { xml, active, autostart: active };
    let of = |network: &Network| xml::network(&network.xml).bridge;
    // A started one this driver does not change.
    for (active, bridge) in [(true, "br-web"), (false, "br-web"), (false, "br-other"), (true, "br-other")] {
        let xml = xml.replace("br-web", bridge);
        assert_eq!(asked.ask(define(xml, active)), Ok(Answer::Defined { uuid: UUID.into() }));
        let is = asked.network("campus-web").unwrap();
        assert_eq!((is.active, is.persistent, is.autostart), (active, true, active));
        assert_eq!(of(&is).as_deref(), Some(bridge));
    }
    let default = asked.network("default").unwrap();
    let remove = |uuid: &str, lab: &str| Ask::RemoveNetwork { uuid: uuid.into(), lab: lab.into() };
    assert_eq!(asked.kind(remove(&default.uuid, "campus")), RefusalKind::Foreign);
    assert_eq!(asked.kind(remove(UUID, "other")), RefusalKind::Foreign);
    assert_eq!(asked.kind(define(xml.replace(UUID, &default.uuid), true)), RefusalKind::Foreign);
    for _ in 0..2 {
        assert_eq!(asked.ask(remove(UUID, "campus")), Ok(Answer::Done));
    }
    assert_eq!(asked.network("campus-web"), None);
    assert_eq!(asked.network("default").unwrap(), default);
}

#[test]
fn what_is_not_there_and_what_can_not_be_said() {
    let mut asked = Asked::open();
    let uuid = "5b1b2c3d-0000-4000-8000-0000000000ff".to_owned();
    assert_eq!(asked.kind(Ask::Start { uuid: uuid.clone(), mark: owner() }), RefusalKind::NotThere);
    let scope = Scope { live: true, persistent: true };
    assert_eq!(asked.kind(Ask::Attach { uuid, xml: "<interface/>".into(), scope }), RefusalKind::NotThere);
    let nul = Ask::Define { xml: "<domain\0/>".into(), autostart: false };
    assert_eq!(asked.kind(nul), RefusalKind::Xml);
    let markup = Ask::Define { xml: guest("a", "vm1").replace("</os>", ""), autostart: false };
    assert!(matches!(asked.ask(markup), Err(refusal) if refusal.code != 0 && refusal.domain != 0));
}

#[test]
fn every_line_gets_an_answer() {
    let mut said = Vec::new();
    let lines = "nonsense\n{\"ask\":\"domains\"}\n{\"ask\":\"open\",\"version\":0,\"uri\":\"test:///default\"}\n";
    serve(lines.as_bytes(), &mut said).unwrap();
    let said = String::from_utf8(said).unwrap();
    let kinds: Vec<Answer> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(kinds.len(), 3);
    assert!(kinds.iter().all(|answer| matches!(answer, Answer::Refused { .. })), "{said}");
}
