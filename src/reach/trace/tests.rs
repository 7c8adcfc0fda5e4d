//! Tests of ways, and of what is said of them.

use std::net::IpAddr;

use super::*;
use crate::definition::Definition;
use crate::model::{Lock, resolve, view};
use crate::reach::{Known, Seen as Outcome, expectations};

const LAB: &str = r#"
    lab = "t"
    [uplink.trunk]
    device = "nic0"
    [defaults.vm]
    engine = "netns"
    [network.web]
    mode = "routed"
    vlan = 10
    subnet = "10.1.0.0/24"
    [network.db]
    mode = "routed"
    vlan = 20
    subnet = "10.2.0.0/24"
    [network.quiet]
    mode = "isolated"
    vlan = 30
    subnet = "10.3.0.0/24"
    [vm.a]
    nic = "web"
    [vm.b]
    nic = "web"
    [vm.d]
    nic = "db"
    [vm.q]
    nic = "quiet"
"#;

fn resolved(text: &str) -> Model {
    let definition = Definition::parse(text).unwrap_or_else(|problems| panic!("{}", problems.render("t", text, false)));
    let resolved = resolve(&definition, &Lock::default());
    resolved.unwrap_or_else(|problems| panic!("{}", problems.render("t", text, false))).model
}

/// The lab on one host.
fn one() -> Model {
    resolved(LAB)
}

/// `a` and `d` on one host, `b` and `q` on another, the router on a third; seen from the first.
fn three_hosts() -> Model {
    let mut text = LAB.to_owned();
    for (vm, host) in [("a", "h1"), ("b", "h2"), ("d", "h1"), ("q", "h2")] {
        text = text.replace(&format!("[vm.{vm}]"), &format!("[vm.{vm}]\nhost = \"{host}\""));
    }
    let whole = resolved(&format!(
        "{text}\n[router]\nhost = \"h3\"\n[host.h1]\nunderlay = \"192.0.2.1\"\n[host.h2]\nunderlay = \"192.0.2.2\"\n\
         [host.h3]\nunderlay = \"192.0.2.3\"\n"
    ));
    view(&whole, Some(&host("h1")))
}

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

/// Hosts without a trunk, each with a share of `web`; seen from the first.
fn shares(external: [&str; 2]) -> Model {
    let [first, second] = external;
    let whole = resolved(&format!(
        r#"
        lab = "t"
        [defaults.vm]
        engine = "netns"
        [uplink.lan]
        device = "nic0"
        [network.web]
        across = "routed"
        subnet = "192.168.0.0/16"
        [vm.a]
        nic = "web"
        host = "h1"
        [vm.b]
        nic = "web"
        host = "h2"
        [host.h1]
        underlay = "198.51.100.1"
        {first}
        [host.h2]
        underlay = "198.51.100.2"
        {second}
        "#
    ));
    view(&whole, Some(&host("h1")))
}

/// One try, as `a -> b l3`.
struct Case {
    plan: Plan,
    expectation: Expectation,
    seen: Seen,
}

impl Case {
    fn new(model: &Model, what: &str) -> Self {
        let known = Known { host: Vec::new(), outside: vec!["198.51.100.1".parse().unwrap()], routes: Vec::new() };
        let is = |e: &&Expectation| format!("{} -> {} {}", e.from, e.to, e.how) == what;
        let all = expectations(model, &known);
        let expectation = all.iter().find(is).unwrap_or_else(|| panic!("no try {what}")).clone();
        let plan = Plan::new(model, 7, &[(3, &expectation)], |_| false);
        let devices = [("trunk".parse().unwrap(), "nic0".parse().unwrap())].into();
        let points = plan.tries[0].way.iter().flat_map(|stretch| &stretch.points).cloned();
        let mut points: Vec<Point> = points.collect();
        points.sort_unstable();
        points.dedup();
        let watched = |point: Point| {
            let link = point.spot.link(model, &devices).map(|link| link.name.to_string());
            Watched { point, link, trouble: None, sightings: Vec::new() }
        };
        Self { seen: Seen { points: points.into_iter().map(watched).collect() }, plan, expectation }
    }

    /// The way, in short: `h1:tap a`, …; segments apart by a bar.
    fn way(&self) -> String {
        let short = |point: &Point| {
            let host = point.host.as_ref().map(|host| format!("{host}:")).unwrap_or_default();
            let spot = match &point.spot {
                Spot::Tap { vm, .. } => format!("tap {vm}"),
                Spot::Bridge { network } => format!("bridge {network}"),
                Spot::SubInterface { network } => format!("sub {network}"),
                Spot::Nic { vlan: Some(vlan), .. } => format!("nic {vlan}"),
                Spot::Nic { vlan: None, .. } => "nic".to_owned(),
                Spot::RouterOuter { network } => format!("outer {network}"),
                Spot::RouterInner { network } => format!("inner {network}"),
                Spot::Outside => "outside".to_owned(),
                Spot::HostPort => "host port".to_owned(),
            };
            host + &spot
        };
        let stretch = |stretch: &Stretch| stretch.points.iter().map(short).collect::<Vec<_>>().join(", ");
        self.plan.tries[0].way.iter().map(stretch).collect::<Vec<_>>().join(" | ")
    }

    /// A frame passes the points of a segment from the first to `last`, or from the last to it where it is an answer.
    fn passes(&mut self, segment: usize, kind: Kind, count: usize) {
        let stretch = self.plan.tries[0].way[segment].clone();
        let question = stretch.question.unwrap();
        let other = Mac::try_from([2, 0, 0, 0, 0, 9]).unwrap();
        let (frame, from, to, back) = match kind {
            Kind::Asks => (Frame::Asks(question), question.by, None, false),
            Kind::Has => {
                let has = Frame::Has { by: Some(question.by), target: question.target };
                (has, other, Some(question.by), true)
            }
            Kind::Request => (Frame::Request { number: 3 }, question.by, Some(other), false),
            Kind::Reply => (Frame::Reply { number: 3 }, other, Some(question.by), true),
        };
        let mut points = stretch.points.clone();
        if back {
            points.reverse();
        }
        for point in points.iter().take(count) {
            let tag = match &point.spot {
                Spot::Nic { vlan, .. } => vlan.map(|vlan| vlan.get()),
                _ => None,
            };
            self.at(point).sightings.push(Sighting { frame, from, to, tag, outgoing: back });
        }
    }

    fn at(&mut self, point: &Point) -> &mut Watched {
        self.seen.points.iter_mut().find(|watched| watched.point == *point).unwrap()
    }

    fn spot(&mut self, wanted: impl Fn(&Spot) -> bool) -> &mut Watched {
        self.seen.points.iter_mut().find(|watched| wanted(&watched.point.spot)).unwrap()
    }

    fn stopped(&self, outcome: &Outcome) -> Stopped {
        self.seen.explain(&self.plan, 3, &self.expectation, outcome).unwrap()
    }

    fn text(&self) -> String {
        self.stopped(&Outcome::Silent).text
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Asks,
    Has,
    Request,
    Reply,
}

fn way(model: &Model, what: &str) -> String {
    Case::new(model, what).way()
}

#[test]
fn points_come_in_the_order_of_the_request() {
    let one = one();
    assert_eq!(way(&one, "a -> b l2"), "tap a, bridge web, tap b");
    assert_eq!(way(&one, "a -> b l3"), "tap a, bridge web, tap b");
    assert_eq!(way(&one, "gateway:web -> b l2"), "inner web, outer web, bridge web, tap b");
    assert_eq!(
        way(&one, "a -> d l3"),
        "tap a, bridge web, outer web, inner web | inner db, outer db, bridge db, tap d"
    );
    assert_eq!(way(&one, "a -> gateway:db l3"), "tap a, bridge web, outer web, inner web");
    assert_eq!(way(&one, "a -> outside l3"), "tap a, bridge web, outer web, inner web | outside, host port");
    assert_eq!(way(&one, "host -> a l3"), "host port, outside | inner web, outer web, bridge web, tap a");
}

#[test]
fn what_must_not_be_reached_is_looked_for_on_both_segments() {
    let one = one();
    let both = "tap a, bridge web, sub web, nic 10, nic 30, sub quiet, bridge quiet, tap q";
    assert_eq!(way(&one, "a -> q l2"), both);
    assert_eq!(
        way(&one, "a -> q l3"),
        "tap a, bridge web, outer web, inner web | outside, host port | nic 30, sub quiet, bridge quiet, tap q"
    );
    assert_eq!(way(&one, "host -> q forced"), "host port, outside | nic 30, sub quiet, bridge quiet, tap q");
}

#[test]
fn between_hosts_a_way_goes_over_the_wire() {
    let hosts = three_hosts();
    let there = "h1:tap a, h1:bridge web, h1:sub web, h1:nic 10, ";
    assert_eq!(way(&hosts, "a -> b l2"), format!("{there}h2:nic 10, h2:sub web, h2:bridge web, h2:tap b"));
    assert_eq!(
        way(&hosts, "a -> d l3"),
        format!(
            "{there}h3:nic 10, h3:sub web, h3:bridge web, h3:outer web, h3:inner web | h3:inner db, h3:outer db, \
             h3:bridge db, h3:sub db, h3:nic 20, h1:nic 20, h1:sub db, h1:bridge db, h1:tap d"
        )
    );
    let plan = Case::new(&hosts, "a -> b l2").plan;
    let spots = |name| plan.points(Some(&host(name))).len();
    assert_eq!((spots("h1"), spots("h2"), spots("h3"), plan.points(None).len()), (4, 4, 0, 0));
}

#[test]
fn between_hosts_without_a_trunk_a_way_leaves_by_one_router_and_comes_in_by_the_other() {
    let hosts = shares(["", ""]);
    let there = "h1:tap a, h1:bridge web, h1:outer web, h1:inner web | h1:outside, h1:host port | ";
    let arrives = "h2:host port, h2:outside";
    assert_eq!(
        way(&hosts, "a -> b l3"),
        format!("{there}{arrives} | h2:inner web, h2:outer web, h2:bridge web, h2:tap b")
    );
    assert_eq!(way(&hosts, "a -> gateway:web@h2 l3"), format!("{there}{arrives}"));
    let own = |number: u8| {
        format!(
            "router.external = {{ via = \"macvlan\", uplink = \"lan\", address = \"203.0.113.{number}/24\", gateway = \
             \"203.0.113.254\" }}"
        )
    };
    let hosts = shares([&own(1), &own(2)]);
    let case = Case::new(&hosts, "a -> b l3");
    assert_eq!(
        case.way(),
        "h1:tap a, h1:bridge web, h1:outer web, h1:inner web | h1:outside, h1:nic | h2:nic, h2:outside | h2:inner web, \
         h2:outer web, h2:bridge web, h2:tap b"
    );
    let out = case.plan.tries[0].way[1].question.unwrap();
    assert_eq!(out.target, "203.0.113.2".parse::<IpAddr>().unwrap());
}

#[test]
fn a_packet_that_stops_between_two_routers() {
    let mut case = Case::new(&shares(["", ""]), "a -> b l3");
    case.passes(0, Kind::Request, 4);
    case.passes(1, Kind::Request, 2);
    let text = case.text();
    assert!(
        text.starts_with("request seen last on rt-host-")
            && text.contains("(host's port to the router) on h1; never on rt-host-"),
        "{text}"
    );
    assert!(text.ends_with("(host's port to the router) on h2"), "{text}");
}

#[test]
fn a_plan_and_what_was_seen_travel_as_json() {
    let mut case = Case::new(&three_hosts(), "a -> d l3");
    case.passes(0, Kind::Asks, 3);
    case.passes(0, Kind::Request, 9);
    case.spot(|spot| matches!(spot, Spot::Outside | Spot::Tap { .. })).trouble = Some(Trouble::NoCarrier);
    let plan: Plan = serde_json::from_str(&serde_json::to_string(&case.plan).unwrap()).unwrap();
    assert_eq!(plan, case.plan);
    let seen: Seen = serde_json::from_str(&serde_json::to_string(&case.seen).unwrap()).unwrap();
    assert_eq!(seen, case.seen);
}

#[test]
fn what_several_hosts_saw_is_one_trail() {
    let mut case = Case::new(&three_hosts(), "a -> b l3");
    case.passes(0, Kind::Request, 4);
    let (here, there): (Vec<Watched>, Vec<Watched>) =
        case.seen.points.drain(..).partition(|watched| watched.point.host == Some(host("h1")));
    case.seen = Seen { points: there };
    case.seen.merge(Seen { points: here });
    assert_eq!(case.text(), "request seen last on nic0 (NIC of trunk) on h1; never on nic0 (NIC of trunk) on h2");
}

#[test]
fn a_request_stops_between_two_points() {
    let mut case = Case::new(&one(), "a -> d l3");
    assert!(case.text().starts_with("request never seen, not even on a-0-"), "{}", case.text());
    case.passes(0, Kind::Request, 2);
    let (tap, port) = (case.text(), "never on rt-web-");
    assert!(tap.starts_with("request seen last on brvlan-10 (bridge of web); ") && tap.contains(port), "{tap}");
    case.passes(0, Kind::Request, 4);
    assert_eq!(
        case.text(),
        "request seen last on web (in the router, port to web); the router did not send it on to db (in the router, \
         port to db)"
    );
    case.passes(1, Kind::Request, 3);
    case.spot(|spot| matches!(spot, Spot::Tap { vm, .. } if vm.as_str() == "d")).trouble =
        Some(Trouble::Astray { bridge: "brvlan-20".parse().unwrap() });
    let text = case.text();
    assert!(text.ends_with("(TAP of d), which is not a port of brvlan-20"), "{text}");
}

#[test]
fn a_reply_stops_too() {
    let mut case = Case::new(&one(), "a -> d l3");
    case.passes(0, Kind::Request, 4);
    case.passes(1, Kind::Request, 4);
    assert!(case.text().ends_with("(TAP of d); no reply came from it"), "{}", case.text());
    assert!(case.text().starts_with("request reached d-0-"), "{}", case.text());
    case.passes(1, Kind::Reply, 2);
    assert!(case.text().starts_with("reply seen last on brvlan-20 (bridge of db); never on rt-db-"), "{}", case.text());
    case.passes(1, Kind::Reply, 4);
    case.passes(0, Kind::Reply, 3);
    let stopped = case.stopped(&Outcome::Silent);
    assert!(stopped.text.starts_with("reply seen last on brvlan-10 (bridge of web); never on a-0-"), "{stopped:?}");
    assert!(matches!(stopped.reply_last.unwrap().point.spot, Spot::Bridge { .. }));
    assert!(matches!(stopped.request_last.unwrap().point.spot, Spot::Tap { .. }));
    case.passes(0, Kind::Reply, 4);
    assert!(case.text().ends_with("(TAP of a), and the sender did not take it"), "{}", case.text());
}

#[test]
fn without_an_answer_to_the_question_the_request_never_shows() {
    let mut case = Case::new(&one(), "a -> d l3");
    case.passes(0, Kind::Asks, 2);
    assert!(case.text().starts_with("the question who has 10.1.0.1 seen last on brvlan-10 (bridge of web); never on"));
    case.passes(0, Kind::Asks, 4);
    assert_eq!(
        case.text(),
        "the question who has 10.1.0.1 reached web (in the router, port to web); no answer came from it"
    );
    assert!(matches!(case.stopped(&Outcome::Silent).request_last.unwrap().point.spot, Spot::RouterInner { .. }));
    case.passes(0, Kind::Has, 2);
    assert!(case.text().starts_with("the answer to the question who has 10.1.0.1 seen last on rt-web-"));
    case.passes(0, Kind::Has, 4);
    assert_eq!(case.text(), "the question who has 10.1.0.1 was answered, and it was never sent");
    // The second segment has a question of its own.
    case.passes(0, Kind::Request, 4);
    case.passes(1, Kind::Asks, 4);
    let text = case.text();
    let begin = "request seen last on web (in the router, port to web); the question who has 10.2.0.10 reached d-0-";
    assert!(text.starts_with(begin) && text.ends_with("(TAP of d); no answer came from it"), "{text}");
}

#[test]
fn on_the_wire_only_frames_of_the_vlan_count() {
    let mut case = Case::new(&three_hosts(), "a -> b l2");
    case.passes(0, Kind::Asks, 5);
    let is_h2 = |watched: &&mut Watched| watched.point.host == Some(host("h2"));
    for watched in case.seen.points.iter_mut().filter(is_h2) {
        watched.sightings.iter_mut().for_each(|sighting| sighting.tag = None);
    }
    assert_eq!(
        case.text(),
        "request seen last on nic0 (NIC of trunk) on h1; never on nic0 (NIC of trunk) on h2, where it passed without a \
         tag and not with tag 10"
    );
}

#[test]
fn an_answer_of_somebody_else_is_told() {
    let mut case = Case::new(&one(), "a -> b l2");
    case.passes(0, Kind::Asks, 3);
    case.passes(0, Kind::Has, 3);
    let text = case.text();
    assert!(text.ends_with("(TAP of a), but from 02:00:00:00:00:09, which is somebody else"), "{text}");
}

#[test]
fn what_can_not_be_watched_says_nothing() {
    let mut case = Case::new(&one(), "a -> b l2");
    let blind = || Some(Trouble::Blind { why: "Operation not permitted".to_owned() });
    case.passes(0, Kind::Asks, 1);
    case.spot(|spot| matches!(spot, Spot::Bridge { .. })).trouble = blind();
    let text = case.text();
    assert!(text.starts_with("request seen last on a-0-") && text.contains("; never on b-0-"), "{text}");
    case.seen.points.iter_mut().for_each(|watched| watched.trouble = blind());
    assert_eq!(case.text(), "not known where it stopped: Operation not permitted");
}

#[test]
fn what_answers_the_second_time_is_told() {
    let case = Case::new(&one(), "a -> b l2");
    assert_eq!(case.stopped(&Outcome::Reached).text, "it answered when it was tried again");
    let case = Case::new(&one(), "a -> q l2");
    assert_eq!(case.text(), "no answer when it was tried again");
    let mut case = Case::new(&one(), "a -> q l2");
    case.passes(0, Kind::Asks, 2);
    let text = case.stopped(&Outcome::Reached).text;
    assert!(text.ends_with("(TAP of a), brvlan-10 (bridge of web); reply seen nowhere"), "{text}");
}

#[test]
fn a_probe_in_a_guests_place_begins_at_the_bridge() {
    let model = one();
    let all = expectations(&model, &Known::default());
    let is = |e: &&Expectation| format!("{} -> {}", e.from, e.to) == "a -> b";
    let expectation = all.iter().find(is).unwrap();
    let plan = |run| Plan::new(&model, run, &[(0, expectation)], |_| true);
    let way = &plan(1).tries[0].way[0];
    assert!(matches!(way.points[0].spot, Spot::Bridge { .. }), "{way:?}");
    let target: IpAddr = expectation.address;
    let question = way.question.unwrap();
    assert_eq!(question.target, target);
    assert!(plan(1).asks(Some(question.by), target) && plan(1).asks(None, target));
    assert!(!plan(2).asks(Some(question.by), target), "another run has another MAC");
}
