//! Tests of the expectations on whole definitions.

use std::collections::BTreeSet;

use super::*;
use crate::definition::Definition;
use crate::model::{Lock, resolve};

mod hosts;

fn model(text: &str) -> Model {
    let text = format!("lab = \"t\"\n[defaults.vm]\nengine = \"netns\"\n{text}");
    let definition =
        Definition::parse(&text).unwrap_or_else(|problems| panic!("{}", problems.render("t", &text, false)));
    let resolved = resolve(&definition, &Lock::default());
    resolved.unwrap_or_else(|problems| panic!("{}", problems.render("t", &text, false))).model
}

/// All expectations as `from -> to address how: expect`.
fn lines(text: &str) -> BTreeSet<String> {
    lines_with(text, &Known::default())
}

fn lines_with(text: &str, known: &Known) -> BTreeSet<String> {
    let line = |e: &Expectation| {
        let network = e.network.as_ref().filter(|_| e.how == How::L2).map(|n| format!("@{n}")).unwrap_or_default();
        format!("{} -> {} {} {}{network}: {:?}", e.from, e.to, e.address, e.how, e.expect).to_lowercase()
    };
    expectations(&model(text), known).iter().map(line).collect()
}

#[track_caller]
fn has(lines: &BTreeSet<String>, wanted: &[&str]) {
    for line in wanted {
        assert!(lines.contains(*line), "missing: {line}\nin: {lines:#?}");
    }
}

const TWO_NETWORKS: &str = r#"
    [network.web]
    subnet = "10.1.0.0/24"
    [network.db]
    mode = "routed"
    subnet = "10.2.0.0/24"
    [network.quiet]
    mode = "isolated"
    subnet = "10.3.0.0/24"
    [vm.w]
    nic = "web"
    [vm.d]
    nic = "db"
    [vm.q]
    nic = "quiet"
"#;

#[test]
fn networks_with_gateways_reach_each_other_and_isolated_ones_nobody() {
    let lines = lines(TWO_NETWORKS);
    has(
        &lines,
        &[
            "w -> d 10.2.0.10 l3: reach",
            "w -> d 10.2.0.10 l2@web: deny",
            "d -> w 10.1.0.10 l3: reach",
            "w -> gateway:web 10.1.0.1 l2@web: reach",
            "w -> gateway:web 10.1.0.1 l3: reach",
            "w -> gateway:db 10.2.0.1 l3: reach",
            "w -> gateway:db 10.2.0.1 l2@web: deny",
            "w -> q 10.3.0.10 l3: deny",
            "q -> w 10.1.0.10 l3: deny",
            "q -> gateway:web 10.1.0.1 l2@quiet: deny",
            "q -> gateway:web 10.1.0.1 l3: deny",
        ],
    );
    // A gateway asks the guests of its own segment, and nobody else.
    let asked: Vec<&String> = lines.iter().filter(|line| line.starts_with("gateway:")).collect();
    assert_eq!(asked, ["gateway:db -> d 10.2.0.10 l2: reach", "gateway:web -> w 10.1.0.10 l2: reach"]);
}

#[test]
fn the_host_reaches_routed_guests_and_no_others() {
    let lines = lines(TWO_NETWORKS);
    has(
        &lines,
        &[
            "host -> d 10.2.0.10 l3: reach",
            "host -> gateway:db 10.2.0.1 l3: reach",
            "host -> w 10.1.0.10 forced: deny",
            "host -> q 10.3.0.10 forced: deny",
        ],
    );
    let host = model(TWO_NETWORKS).router().as_ref().map(|router| router.external().clone());
    let Some(External::Host(host)) = host else { panic!("no host") };
    let transit = host.host_address().addr();
    has(&lines, &[&format!("w -> host {transit} l3: reach"), &format!("d -> host {transit} l3: reach")]);
    has(&lines, &[&format!("q -> host {transit} l3: deny")]);
}

#[test]
fn addresses_that_the_caller_knows_are_tried_too() {
    let known = Known {
        host: vec!["192.0.2.1".parse().unwrap()],
        outside: vec!["198.51.100.1".parse().unwrap()],
        ..Known::default()
    };
    has(
        &lines_with(TWO_NETWORKS, &known),
        &[
            "w -> host 192.0.2.1 l3: reach",
            "d -> host 192.0.2.1 l3: reach",
            "w -> outside 198.51.100.1 l3: reach",
            "d -> outside 198.51.100.1 l3: unknown",
            "q -> outside 198.51.100.1 l3: deny",
            // Linux would answer for all its addresses on every interface, the bridges' too.
            "w -> host 192.0.2.1 l2@web: deny",
            "q -> host 192.0.2.1 l2@quiet: deny",
        ],
    );
    let text = format!("{TWO_NETWORKS}\n[router]\nexternal = {{ via = \"none\" }}");
    has(&lines_with(&text, &known), &["w -> host 192.0.2.1 l2@web: deny", "w -> host 192.0.2.1 l3: deny"]);
}

#[test]
fn an_address_of_its_own_outside_reaches_the_next_hop() {
    let text = format!(
        "{TWO_NETWORKS}
        [uplink.trunk]
        device = \"nic0\"
        [router]
        external = {{ via = \"macvlan\", address = \"192.168.1.109/24\", gateway = \"192.168.1.1\" }}"
    );
    has(
        &lines(&text),
        &[
            "w -> outside 192.168.1.1 l3: reach",
            "d -> outside 192.168.1.1 l3: unknown",
            "q -> outside 192.168.1.1 l3: deny",
            "outside -> w 10.1.0.10 forced: deny",
            "outside -> d 10.2.0.10 l3: unknown",
        ],
    );
}

#[test]
fn without_a_way_outside_nobody_outside_is_named() {
    let text = format!("{TWO_NETWORKS}\n[router]\nexternal = {{ via = \"none\" }}");
    assert!(!lines(&text).iter().any(|line| line.contains("host") || line.contains("outside")));
}

#[test]
fn the_same_subnet_in_two_vlans_is_two_networks() {
    let lines = lines(
        r#"
        [uplink.trunk]
        device = "nic0"
        [network.a]
        mode = "isolated"
        vlan = 10
        subnet = "10.0.0.0/24"
        [network.b]
        mode = "isolated"
        vlan = 20
        subnet = "10.0.0.0/24"
        [vm.vm1]
        nic = [{ network = "a", address = "10.0.0.11" }]
        [vm.vm2]
        nic = [{ network = "b", address = "10.0.0.12" }]
        [vm.vm3]
        nic = [{ network = "b", address = "10.0.0.13" }]
        "#,
    );
    has(
        &lines,
        &[
            "vm1 -> vm2 10.0.0.12 l2@a: deny",
            "vm1 -> vm2 10.0.0.12 l3: deny",
            "vm3 -> vm2 10.0.0.12 l2@b: reach",
            "vm3 -> vm2 10.0.0.12 l3: reach",
        ],
    );
}

#[test]
fn a_twin_address_in_another_network_is_not_the_one_that_is_meant() {
    let lines = lines(
        r#"
        [network.a]
        mode = "isolated"
        subnet = "10.0.0.0/24"
        [network.b]
        mode = "isolated"
        subnet = "10.0.0.0/24"
        [vm.vm1]
        nic = [{ network = "a", address = "10.0.0.11" }]
        [vm.vm2]
        nic = [{ network = "a", address = "10.0.0.12" }]
        [vm.vm3]
        nic = [{ network = "b", address = "10.0.0.12" }]
        "#,
    );
    // By ARP the answer's MAC tells them apart; by ICMP nothing does.
    has(
        &lines,
        &[
            "vm1 -> vm2 10.0.0.12 l2@a: reach",
            "vm1 -> vm2 10.0.0.12 l3: reach",
            "vm1 -> vm3 10.0.0.12 l2@a: deny",
            "vm1 -> vm3 10.0.0.12 l3: unknown",
        ],
    );
}

#[test]
fn an_isolated_network_may_have_the_subnet_of_another_one() {
    let networks = r#"
        [network.db]
        mode = "routed"
        subnet = "10.2.0.0/24"
        [network.quiet]
        mode = "isolated"
        subnet = ["10.2.0.0/24", "192.168.1.0/24"]
        [vm.d]
        nic = "db"
        [vm.q1]
        nic = { network = "quiet", address = "10.2.0.10" }
        [vm.q2]
        nic = { network = "quiet", address = "10.2.0.1" }
        [vm.q3]
        nic = { network = "quiet", address = ["10.2.0.13", "192.168.1.20"] }
    "#;
    // What is handed to the router for them reaches somebody else.
    has(
        &lines(networks),
        &[
            "host -> d 10.2.0.10 l3: reach",
            "host -> q1 10.2.0.10 forced: unknown",
            "host -> q2 10.2.0.1 forced: unknown",
            "host -> q3 10.2.0.13 forced: deny",
            "d -> q3 192.168.1.20 l3: deny",
        ],
    );
    let known = Known { routes: vec!["192.168.1.0/24".parse().unwrap()], ..Known::default() };
    has(&lines_with(networks, &known), &["d -> q3 192.168.1.20 l3: unknown", "host -> q3 192.168.1.20 forced: deny"]);
    let outside = r#"
        [uplink.lan]
        device = "nic0"
        [router]
        external = { via = "macvlan", address = "192.168.1.109/24", gateway = "192.168.1.1" }
    "#;
    has(&lines(&format!("{networks}{outside}")), &["d -> q3 192.168.1.20 l3: unknown"]);
}

#[test]
fn two_subnets_of_one_network_meet_in_the_router() {
    let lines = lines(
        r#"
        [network.lan]
        mode = "routed"
        subnet = ["192.168.0.0/24", "192.168.1.0/24"]
        [vm.a]
        nic = [{ network = "lan", address = "192.168.0.88" }]
        [vm.b]
        nic = [{ network = "lan", address = "192.168.1.88" }]
        "#,
    );
    has(
        &lines,
        &[
            "a -> b 192.168.1.88 l3: reach",
            "a -> b 192.168.1.88 l2@lan: reach",
            "a -> gateway:lan 192.168.0.1 l3: reach",
            "a -> gateway:lan 192.168.1.1 l3: reach",
        ],
    );
}

#[test]
fn a_guest_on_two_networks_is_certain_only_where_its_answer_takes_the_same_way() {
    let lines = lines(&format!(
        "{TWO_NETWORKS}
        [vm.zboth]
        nic = [\"web\", \"quiet\"]
        [vm.zrim]
        nic = [\"web\", \"db\"]"
    ));
    has(
        &lines,
        &[
            // By its default route's nic, there and back.
            "d -> zboth 10.1.0.11 l3: reach",
            "zboth -> d 10.2.0.10 l3: reach",
            // Its address on the isolated network can't be reached from elsewhere, nor does it forward.
            "d -> zboth 10.3.0.11 l3: deny",
            "q -> zboth 10.3.0.11 l3: reach",
            "q -> w 10.1.0.10 l3: deny",
            "zboth -> q 10.3.0.10 l3: reach",
            // The router hands it over in db, and it would answer by web.
            "w -> zrim 10.2.0.11 l3: unknown",
            "w -> zrim 10.1.0.12 l3: reach",
            "d -> zrim 10.2.0.11 l3: reach",
            // Linux answers on any nic for all its addresses: nothing is claimed of that.
            "w -> zrim 10.1.0.12 l2@web: reach",
        ],
    );
    assert!(!lines.iter().any(|line| line.starts_with("w -> zrim 10.2.0.11 l2")));
}

#[test]
fn a_bridged_segment_is_somebody_elses() {
    let lines = lines(
        r#"
        [network.office]
        mode = "bridged"
        bridge = "br0"
        subnet = "192.168.1.0/24"
        gateway = "192.168.1.1"
        [network.web]
        subnet = "10.1.0.0/24"
        [network.quiet]
        mode = "isolated"
        subnet = "10.3.0.0/24"
        [vm.o]
        nic = "office"
        [vm.p]
        nic = "office"
        [vm.w]
        nic = "web"
        [vm.q]
        nic = "quiet"
        "#,
    );
    has(
        &lines,
        &[
            "o -> p 192.168.1.11 l2@office: reach",
            "o -> p 192.168.1.11 l3: reach",
            "o -> gateway:office 192.168.1.1 l3: unknown",
            "o -> w 10.1.0.10 l3: deny",
            "o -> w 10.1.0.10 l2@office: deny",
            "o -> q 10.3.0.10 l3: deny",
            "w -> o 192.168.1.10 l3: unknown",
            "q -> o 192.168.1.10 l3: deny",
        ],
    );
    assert!(!lines.iter().any(|line| line.contains("gateway:office 192.168.1.1 l2")));
}

#[test]
fn both_families_and_networks_without_addresses() {
    let lines = lines(
        r#"
        [network.a]
        mode = "routed"
        subnet = ["10.1.0.0/24", "2001:db8:1::/64"]
        [network.b]
        mode = "routed"
        subnet = "2001:db8:2::/64"
        [network.bare]
        mode = "isolated"
        [router]
        external = { via = "none" }
        [vm.x]
        nic = "a"
        [vm.y]
        nic = "b"
        [vm.z]
        nic = "bare"
        "#,
    );
    has(
        &lines,
        &["x -> y 2001:db8:2::a l3: reach", "y -> x 2001:db8:1::a l3: reach", "x -> y 2001:db8:2::a l2@a: deny"],
    );
    // Nothing to send from, so nothing is claimed; on its segment it must hear nobody.
    assert!(!lines.iter().any(|line| line.starts_with("y -> x 10.1.0.10 l3")));
    assert!(!lines.iter().any(|line| line.contains("-> z")));
    has(&lines, &["z -> x 10.1.0.10 l2@bare: deny"]);
}

fn seen_as_expected(expectation: &Expectation) -> Seen {
    match expectation.expect {
        Expect::Reach => Seen::Reached,
        Expect::Deny | Expect::Unknown => Seen::Silent,
    }
}

#[test]
fn a_report_finds_what_differs() {
    let model = model(TWO_NETWORKS);
    let wanted = expectations(&model, &Known::default());
    let mut seen: Vec<Seen> = wanted.iter().map(seen_as_expected).collect();
    let report = Report::new(model.lab(), wanted.clone(), seen.clone());
    assert!(report.passed(), "{:?}", report.totals);
    let wrong = wanted.iter().position(|e| e.from.to_string() == "w" && e.to.to_string() == "q").unwrap();
    seen[wrong] = Seen::Reached;
    seen[0] = Seen::Untested { reason: "a <reason> & more".into() };
    let report = Report::new(model.lab(), wanted, seen);
    assert!(!report.passed());
    assert_eq!(report.differences().count(), 1);
    insta::assert_snapshot!("report", report.text(100));
    let narrow = report.text(30);
    assert!(narrow.starts_with("Not as expected:\n  w -> q (10.3.0.10"), "{narrow}");
    let xml = report.junit().unwrap();
    assert!(xml.contains("a &lt;reason&gt; &amp; more"), "{xml}");
    assert!(xml.contains("failures=\"1\""), "{xml}");
    let json = serde_json::to_value(&report).unwrap();
    insta::assert_json_snapshot!("rows", [&json["rows"][0], &json["rows"][wrong], &json["totals"]]);
}

/// A guest with an address on two networks: to one of them its answer takes another way.
#[test]
fn what_is_open_is_not_hidden_behind_what_was_reached() {
    let model = model(&TWO_NETWORKS.replace("[vm.w]\n    nic = \"web\"", "[vm.w]\n    nic = [\"web\", \"db\"]"));
    let wanted = expectations(&model, &Known::default());
    let seen: Vec<Seen> = wanted.iter().map(seen_as_expected).collect();
    let report = Report::new(model.lab(), wanted, seen);
    assert!(report.totals.open > 0 && report.passed(), "{:?}", report.totals);
    let text = report.text(100);
    let of_d = text.lines().find(|line| line.starts_with("│ d ")).unwrap();
    assert!(of_d.contains("✓?") && text.contains("✓? some of both"), "{text}");
    let expected = "unknown: 2 (its answer takes another way): d -> w 10.1.0.10, host -> w 10.2.0.11";
    assert!(text.lines().any(|line| line == expected), "{text}");
}

const ROUTED_ASIDE: &str = r#"
    [network.web]
    subnet = "10.1.0.0/24"
    [network.db]
    mode = "routed"
    subnet = "10.2.0.0/24"
    [network.quiet]
    mode = "isolated"
    subnet = "10.3.0.0/24"
    [network.office]
    mode = "bridged"
    bridge = "br0"
    [image.i]
    kernel = "/k"
    [vm.d]
    nic = "db"
    [vm.q]
    nic = "quiet"
"#;

#[test]
fn a_route_of_a_guests_own_comes_before_its_default_one() {
    let by_router = format!(
        "{ROUTED_ASIDE}[vm.a]\nnic = [\"quiet\", {{ network = \"web\", gateway = false, \
         routes = {{ to = \"10.2.0.0/24\", via = \"10.1.0.1\" }} }}]\n"
    );
    has(&lines(&by_router), &["a -> d 10.2.0.10 l3: reach", "a -> gateway:db 10.2.0.1 l3: reach"]);
    let without = format!("{ROUTED_ASIDE}[vm.a]\nnic = [\"quiet\", {{ network = \"web\", gateway = false }}]\n");
    has(&lines(&without), &["a -> d 10.2.0.10 l3: deny"]);
    // What a guest does with what is not for it is its own business.
    let by_guest = format!(
        "{ROUTED_ASIDE}[vm.a]\nnic = [\"web\", {{ network = \"quiet\", \
         routes = {{ to = \"10.2.0.0/24\", via = \"10.3.0.11\" }} }}]\n"
    );
    has(&lines(&by_guest), &["a -> d 10.2.0.10 l3: unknown"]);
    let by_nobody = by_guest.replace("via = \"10.3.0.11\"", "via = \"10.3.0.99\"");
    has(&lines(&by_nobody), &["a -> d 10.2.0.10 l3: deny"]);
}

#[test]
fn what_a_segment_gives_a_guest_is_not_known() {
    let guest = "engine = \"qemu\"\nimage = \"i\"\n";
    let text = |nics: &str| format!("{ROUTED_ASIDE}[vm.a]\n{guest}nic = [{nics}]\n");
    let known = Known { outside: vec!["192.0.2.1".parse().unwrap()], ..Known::default() };
    let found = lines_with(&text("\"web\", \"office\""), &known);
    // The lab's own subnets are reached as said; beyond them its other nic may know a nearer way.
    has(&found, &["a -> d 10.2.0.10 l3: reach", "a -> outside 192.0.2.1 l3: unknown"]);
    has(&lines_with(&text("\"web\""), &known), &["a -> outside 192.0.2.1 l3: reach"]);
    let found = lines(&text("\"web\", { network = \"quiet\", address = \"dhcp\" }"));
    has(&found, &["a -> q 10.3.0.10 l3: unknown", "a -> d 10.2.0.10 l3: reach"]);
    // Nobody is looked for at an address that nobody knows, and a namespace asks for none.
    let only = lines(&text("{ network = \"quiet\", address = \"dhcp\" }"));
    assert!(
        !only.iter().any(|line| line.contains("-> a ") || line.starts_with("a -> ") && line.contains(" l3")),
        "{only:#?}"
    );
    let namespace = text("\"web\", \"office\"").replace(guest, "");
    has(&lines_with(&namespace, &known), &["a -> outside 192.0.2.1 l3: reach"]);
}
