//! Tests of what several hosts expect, and of what a definition says by `[[expect]]`.

use super::*;

/// Two hosts with shares of a translated and of a routed network, and one segment that both are on.
const HOSTS: &str = r#"
    [uplink.trunk]
    device = "nic0"
    [network.web]
    across = "routed"
    subnet = "192.168.0.0/16"
    [network.db]
    mode = "routed"
    across = "routed"
    subnet = "10.20.0.0/16"
    [network.quiet]
    mode = "isolated"
    vlan = 30
    subnet = "10.3.0.0/24"
    [router]
    host = "h1"
    [vm.vm1]
    nic = ["web", "quiet"]
    host = "h1"
    [vm.vm2]
    nic = "db"
    host = "h1"
    [vm.vm4]
    nic = "web"
    host = "h2"
    [vm.vm5]
    nic = "quiet"
    host = "h2"
    [host.h1]
    underlay = "198.51.100.1"
    [host.h2]
    underlay = "198.51.100.2"
"#;

fn of_host(text: &str, host: &str) -> Vec<Expectation> {
    let known = Known { host: vec!["198.51.100.9".parse().unwrap()], ..Known::default() };
    expectations(&crate::model::view(&model(text), Some(&host.parse().unwrap())), &known)
}

fn lines_of(all: &[Expectation]) -> BTreeSet<String> {
    let line =
        |e: &Expectation| format!("{} -> {} {} {}: {:?}", e.from, e.to, e.address, e.how, e.expect).to_lowercase();
    all.iter().map(line).collect()
}

#[test]
fn each_host_tries_its_own_senders_at_everybody() {
    let (h1, h2) = (of_host(HOSTS, "h1"), of_host(HOSTS, "h2"));
    let senders = |all: &[Expectation]| all.iter().map(|e| e.from.to_string()).collect::<BTreeSet<_>>();
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(senders(&h1), set(&["vm1", "vm2", "gateway:web@h1", "gateway:db@h1", "host@h1"]));
    assert_eq!(senders(&h2), set(&["vm4", "vm5", "gateway:web@h2", "host@h2"]));
    has(
        &lines_of(&h1),
        &[
            "vm1 -> vm4 192.168.2.10 l3: reach",
            "vm1 -> vm4 192.168.2.10 l2: deny",
            "vm1 -> gateway:web@h2 192.168.2.1 l3: reach",
            "vm1 -> gateway:web@h1 192.168.1.1 l2: reach",
            "vm1 -> vm5 10.3.0.11 l2: reach",
            "vm2 -> vm4 192.168.2.10 l3: reach",
            "host@h1 -> vm4 192.168.2.10 forced: deny",
            "host@h1 -> vm2 10.20.1.10 l3: reach",
            "vm1 -> host@h1 198.51.100.9 l3: reach",
        ],
    );
    has(
        &lines_of(&h2),
        &[
            "vm4 -> vm1 192.168.1.10 l3: reach",
            "vm4 -> vm2 10.20.1.10 l3: reach",
            "vm5 -> vm1 10.3.0.10 l2: reach",
            "vm5 -> vm4 192.168.2.10 l3: deny",
            "host@h2 -> vm2 10.20.1.10 l3: unknown",
            "host@h2 -> vm4 192.168.2.10 forced: deny",
        ],
    );
    // Networks go by the definition's names.
    assert!(
        h1.iter()
            .chain(&h2)
            .filter_map(|e| e.network.as_ref())
            .all(|name| ["web", "db", "quiet"].contains(&name.as_str()))
    );
}

#[test]
fn a_router_elsewhere_is_asked_by_its_host_alone() {
    let text = "[uplink.trunk]
        device = \"nic0\"
        [network.web]
        vlan = 10
        subnet = \"10.1.0.0/24\"
        [router]
        host = \"h3\"
        [vm.a]
        nic = \"web\"
        host = \"h1\"
        [vm.b]
        nic = \"web\"
        host = \"h2\"
        [host.h1]
        [host.h2]
        [host.h3]";
    let of = |host: &str| lines_of(&of_host(text, host));
    has(
        &of("h1"),
        &["a -> b 10.1.0.11 l2: reach", "a -> gateway:web 10.1.0.1 l2: reach", "a -> host@h1 198.51.100.9 l3: unknown"],
    );
    has(&of("h3"), &["gateway:web -> a 10.1.0.10 l2: reach", "host@h3 -> b 10.1.0.11 forced: deny"]);
    assert!(of("h1").iter().chain(&of("h2")).all(|line| !line.starts_with("gateway") && !line.starts_with("host@")));
    let whole = model(text);
    let free = |host: &str| {
        let view = crate::model::view(&whole, Some(&host.parse().unwrap()));
        let network = &view.networks()["web"];
        free_addresses(&view, network, *network.subnets()[0].net()).take(2).map(|a| a.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        (free("h1"), free("h2")),
        (vec!["10.1.0.254".into(), "10.1.0.252".into()], vec!["10.1.0.253".into(), "10.1.0.251".into()])
    );
}

#[test]
fn what_the_definition_says_comes_first() {
    let expects = "
        [[expect]]
        from = \"w\"
        to = \"d\"
        service = \"tcp/22\"
        result = \"deny\"
        [[expect]]
        from = \"w\"
        to = \"d\"
        result = \"deny\"
        [[expect]]
        from = \"d\"
        to = \"outside\"
        address = \"203.0.113.7\"
        service = \"udp/53\"
        result = \"reach\"
        [[expect]]
        from = \"w\"
        to = \"gateway:db\"
        result = \"deny\"";
    let all = expectations(&model(&format!("{TWO_NETWORKS}{expects}")), &Known::default());
    let lines = lines_of(&all);
    has(
        &lines,
        &[
            "w -> d 10.2.0.10 tcp/22: deny",
            "w -> d 10.2.0.10 l3: deny",
            "d -> outside 203.0.113.7 udp/53: reach",
            "w -> gateway:db 10.2.0.1 l3: deny",
            "d -> w 10.1.0.10 l3: reach",
        ],
    );
    assert!(!lines.contains("w -> d 10.2.0.10 l3: reach"));
}

#[test]
fn a_service_is_there_refuses_or_is_silent() {
    let expects = "
        [[expect]]
        from = \"w\"
        to = \"d\"
        service = \"SERVICE\"
        result = \"RESULT\"";
    let verdict = |service: &str, result: &str, seen: Seen| {
        let text = expects.replace("SERVICE", service).replace("RESULT", result);
        let all = expectations(&model(&format!("{TWO_NETWORKS}{text}")), &Known::default());
        Row::new(all.last().unwrap().clone(), seen).verdict
    };
    use Verdict::{Differs, Met, Open};
    for (service, result, verdicts) in [
        ("tcp/22", "reach", [Met, Differs, Differs]),
        ("tcp/22", "deny", [Differs, Differs, Met]),
        ("udp/53", "reach", [Met, Differs, Differs]),
        ("udp/514", "reach", [Met, Differs, Open]),
        ("udp/514", "deny", [Differs, Differs, Met]),
    ] {
        let all = [Seen::Reached, Seen::Refused, Seen::Silent].map(|seen| verdict(service, result, seen));
        assert_eq!(all, verdicts, "{service} {result}");
    }
}
