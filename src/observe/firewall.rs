//! Foreign forward chains that would drop what the lab's devices send through the host.
//!
//! Asked in microseconds whether there are any; only then is their text read. Names of foreign tables and chains
//! are untrusted text.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::Scope;
use super::facts::find_tool;
use crate::kernel::caps::Caps;
use crate::kernel::child;
use crate::kernel::nft::{self, HookRow, Nft};
use crate::kernel::nftables;
use crate::names::IfName;
use crate::rule;
use crate::state::{ForwardDrop, Tool};

/// `NF_INET_FORWARD` and `NF_BR_FORWARD` of linux/netfilter.h.
const FORWARD: u32 = 2;

/// The chains that drop what one of the scope's devices forwards; none when it names no device.
pub(super) fn forward_drops(scope: &Scope) -> Vec<ForwardDrop> {
    if scope.forwards.is_empty() {
        return Vec::new();
    }
    let own = rule::router_namespace(&scope.lab);
    let chains = nftables::hooks().unwrap_or_default();
    let foreign = chains.into_iter().filter(|chain| chain.hook == FORWARD && chain.table != own.as_str());
    let mut drops: Vec<ForwardDrop> = match find_tool(Tool::Nft).map(|program| Nft::new(&program)) {
        Some(nft) => foreign.filter_map(|chain| nftables_drop(&nft, &chain, &scope.forwards)).collect(),
        None => Vec::new(),
    };
    drops.extend(legacy_drop(&scope.forwards));
    drops
}

fn nftables_drop(nft: &Nft, chain: &HookRow, devices: &BTreeSet<IfName>) -> Option<ForwardDrop> {
    let family = nft::family_word(chain.family);
    // What vanished since, or holds what nft can't print, is not known to drop.
    let listing = nft.json(family, &chain.table).ok()?;
    let table = Listing::new(&listing, &chain.name)?;
    if !table.drops() {
        return None;
    }
    let refused = |device: &&IfName| !table.accepts(&chain.name, device);
    let devices: BTreeSet<IfName> = devices.iter().filter(refused).cloned().collect();
    (!devices.is_empty()).then(|| ForwardDrop { chain: shown(chain), remedy: remedy(&listing, chain), devices })
}

/// One table as `nft -j` prints it: libnftables-json(5).
struct Listing<'a> {
    objects: Vec<&'a Value>,
    chain: &'a Value,
}

impl<'a> Listing<'a> {
    fn new(listing: &'a Value, chain: &str) -> Option<Self> {
        let objects: Vec<&Value> = listing.get("nftables")?.as_array()?.iter().collect();
        let named = |object: &&Value| object.get("chain").is_some_and(|found| text(found, "name") == Some(chain));
        let chain = objects.iter().copied().find(named)?.get("chain")?;
        Some(Self { objects, chain })
    }

    /// The statements of each rule of a chain, in order.
    fn rules(&self, chain: &str) -> impl Iterator<Item = &'a [Value]> {
        let rules = self.objects.iter().filter_map(|object| object.get("rule"));
        let rules: Vec<_> = rules.filter(|rule| text(rule, "chain") == Some(chain)).collect();
        rules.into_iter().filter_map(|rule| Some(rule.get("expr")?.as_array()?.as_slice()))
    }

    /// By its policy, or by a rule without condition.
    fn drops(&self) -> bool {
        let ends = |rule: &[Value]| {
            let refuses = rule.last().is_some_and(|end| end.get("drop").is_some() || end.get("reject").is_some());
            refuses && conditions(rule).next().is_none()
        };
        text(self.chain, "policy") == Some("drop")
            || text(self.chain, "name").is_some_and(|name| self.rules(name).any(ends))
    }

    /// Whether everything from and to the device passes, by rules that ask for nothing but the device.
    fn accepts(&self, chain: &str, device: &IfName) -> bool {
        let mut way = Way::default();
        self.follow(chain, device.as_str(), &mut way, 0);
        way.from && way.to
    }

    fn follow(&self, chain: &str, device: &str, way: &mut Way, depth: usize) {
        // The kernel allows 16 jumps (NFT_JUMP_STACK_SIZE).
        if depth > 16 {
            return;
        }
        for rule in self.rules(chain) {
            let conditions: Vec<_> = conditions(rule).collect();
            let Some(end) = rule.last() else { continue };
            let target = ["jump", "goto"].iter().find_map(|verb| text(end.get(*verb)?, "target"));
            match (conditions.as_slice(), target) {
                ([], Some(target)) => self.follow(target, device, way, depth + 1),
                ([one], None) if end.get("accept").is_some() => {
                    way.from |= is_device(one, &["iifname", "ibrname"], device);
                    way.to |= is_device(one, &["oifname", "obrname"], device) || is_reply(one);
                }
                _ => {}
            }
            if way.from && way.to {
                return;
            }
        }
    }
}

#[derive(Default)]
struct Way {
    from: bool,
    to: bool,
}

/// What a rule asks for. Counters and logs ask for nothing; what is not understood counts as a condition.
fn conditions(rule: &[Value]) -> impl Iterator<Item = &Value> {
    let verdicts = ["accept", "drop", "reject", "jump", "goto", "return", "counter", "log", "comment"];
    rule.iter().filter(move |part| !verdicts.iter().any(|verdict| part.get(*verdict).is_some()))
}

fn is_device(condition: &Value, keys: &[&str], device: &str) -> bool {
    let part = condition.get("match");
    let key = part.and_then(|part| text(part.get("left")?.get("meta")?, "key"));
    let right = part.and_then(|part| part.get("right")).and_then(Value::as_str);
    let equal = part.is_some_and(|part| matches!(text(part, "op"), Some("==" | "in")));
    equal && right == Some(device) && key.is_some_and(|key| keys.contains(&key))
}

/// `ct state established` alone or among others.
fn is_reply(condition: &Value) -> bool {
    let part = condition.get("match");
    let state = part.and_then(|part| text(part.get("left")?.get("ct")?, "key")) == Some("state");
    let right = part.and_then(|part| part.get("right"));
    let named = |value: &Value| value.as_str() == Some("established");
    let listed = right.is_some_and(|right| {
        let set = right.get("set").unwrap_or(right);
        named(set) || set.as_array().is_some_and(|states| states.iter().any(named))
    });
    state && listed
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

fn shown(chain: &HookRow) -> String {
    let family = nft::family_word(chain.family);
    let (table, name) = (chain.table.escape_debug(), chain.name.escape_debug());
    match (family, chain.table.as_str(), chain.name.as_str()) {
        ("ip", "filter", "FORWARD") => "iptables FORWARD".into(),
        ("ip6", "filter", "FORWARD") => "ip6tables FORWARD".into(),
        _ => format!("{family} {table} {name}"),
    }
}

/// The line that lets a device through, in the words of the tool that made the chain.
fn remedy(listing: &Value, chain: &HookRow) -> String {
    let family = nft::family_word(chain.family);
    let has_chain = |name: &str| Listing::new(listing, name).is_some();
    let both = |before: &str, (from, to): (&str, &str), after: &str| {
        format!("{before} {from} {{dev}} {after}; {before} {to} {{dev}} {after}")
    };
    if chain.table == "firewalld" {
        return "firewall-cmd --zone=trusted --add-interface={dev}".into();
    }
    if chain.table == "filter" && chain.name == "FORWARD" && matches!(family, "ip" | "ip6") {
        let program = if family == "ip" { "iptables" } else { "ip6tables" };
        if has_chain("ufw-user-forward") || has_chain("ufw6-user-forward") {
            return "ufw route allow in on {dev}; ufw route allow out on {dev}".into();
        }
        let place = if has_chain("DOCKER-USER") { "DOCKER-USER" } else { "FORWARD" };
        return both(&format!("{program} -I {place}"), ("-i", "-o"), "-j ACCEPT");
    }
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    if !plain(&chain.table) || !plain(&chain.name) {
        return "add rules to it that accept what comes from and goes to {dev}".into();
    }
    let keys = if family == "bridge" { ("meta ibrname", "meta obrname") } else { ("iifname", "oifname") };
    both(&format!("nft insert rule {family} {} {}", chain.table, chain.name), keys, "accept")
}

/// The old iptables, which nft does not show.
fn legacy_drop(devices: &BTreeSet<IfName>) -> Option<ForwardDrop> {
    // Reading this file loads nothing, where iptables-legacy itself would load its tables.
    let names = fs::read_to_string("/proc/thread-self/net/ip_tables_names").ok()?;
    if !names.lines().any(|name| name == "filter") {
        return None;
    }
    let caps = Caps::NET_ADMIN.and(Caps::NET_RAW);
    let output = child::command(&child::find("iptables-legacy")?, caps).args(["-S", "FORWARD"]).output().ok()?;
    let rules = String::from_utf8_lossy(&output.stdout).into_owned();
    legacy_drops(&rules, devices).then(|| ForwardDrop {
        chain: "iptables-legacy FORWARD".into(),
        remedy: "iptables-legacy -I FORWARD -i {dev} -j ACCEPT; iptables-legacy -I FORWARD -o {dev} -j ACCEPT".into(),
        devices: devices.clone(),
    })
}

fn legacy_drops(rules: &str, devices: &BTreeSet<IfName>) -> bool {
    let has = |line: String| rules.lines().any(|rule| rule.trim() == line);
    has("-P FORWARD DROP".into())
        && !devices.iter().all(|device| {
            has(format!("-A FORWARD -i {device} -j ACCEPT")) && has(format!("-A FORWARD -o {device} -j ACCEPT"))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn device() -> BTreeSet<IfName> {
        ["rt-host-1234".parse().unwrap()].into()
    }

    fn listing(policy: &str, rules: &[Value]) -> Value {
        let mut objects = vec![
            json!({"metainfo": {}}),
            json!({"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "policy": policy}}),
            json!({"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER"}}),
        ];
        objects.extend(rules.iter().map(|rule| json!({"rule": rule})));
        json!({ "nftables": objects })
    }

    fn drops(listing: &Value) -> bool {
        let table = Listing::new(listing, "FORWARD").unwrap();
        table.drops() && !device().iter().all(|device| table.accepts("FORWARD", device))
    }

    fn from() -> Value {
        json!({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "rt-host-1234"}})
    }

    fn replies() -> Value {
        json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}})
    }

    #[test]
    fn a_policy_or_a_last_rule_drops() {
        assert!(drops(&listing("drop", &[])));
        assert!(!drops(&listing("accept", &[])));
        let tail = json!({"chain": "FORWARD", "expr": [{"counter": null}, {"reject": {"type": "icmpx"}}]});
        assert!(drops(&listing("accept", &[tail])));
        let narrow = json!({"chain": "FORWARD", "expr": [from(), {"drop": null}]});
        assert!(!drops(&listing("accept", &[narrow])));
    }

    #[test]
    fn a_device_passes_when_both_directions_are_accepted() {
        let one = json!({"chain": "FORWARD", "expr": [from(), {"counter": {}}, {"accept": null}]});
        let back = json!({"chain": "FORWARD", "expr": [replies(), {"accept": null}]});
        assert!(drops(&listing("drop", std::slice::from_ref(&one))), "replies die");
        assert!(!drops(&listing("drop", &[one, back])));
    }

    #[test]
    fn an_accept_behind_a_jump_counts() {
        let jump = json!({"chain": "FORWARD", "expr": [{"jump": {"target": "DOCKER-USER"}}]});
        let one = json!({"chain": "DOCKER-USER", "expr": [from(), {"accept": null}]});
        let back = json!({"chain": "DOCKER-USER", "expr": [replies(), {"accept": null}]});
        assert!(!drops(&listing("drop", &[jump, one, back])));
        let endless = json!({"chain": "FORWARD", "expr": [{"jump": {"target": "FORWARD"}}]});
        assert!(drops(&listing("drop", &[endless])));
    }

    #[test]
    fn the_remedy_speaks_the_owners_language() {
        let row = |family, table: &str, name: &str| HookRow { family, table: table.into(), name: name.into(), hook: 2 };
        let docker = listing("drop", &[]);
        assert!(remedy(&docker, &row(2, "filter", "FORWARD")).starts_with("iptables -I DOCKER-USER -i {dev}"));
        assert!(remedy(&docker, &row(1, "firewalld", "filter_FORWARD")).starts_with("firewall-cmd"));
        assert!(remedy(&docker, &row(1, "filter", "forward")).contains("nft insert rule inet filter forward iifname"));
        assert!(!remedy(&docker, &row(1, "$(id)", "forward")).contains("$("));
    }

    #[test]
    fn the_old_iptables_prints_its_rules() {
        let open = "-P FORWARD DROP\n-A FORWARD -i rt-host-1234 -j ACCEPT\n-A FORWARD -o rt-host-1234 -j ACCEPT\n";
        assert!(!legacy_drops(open, &device()));
        assert!(legacy_drops("-P FORWARD DROP\n", &device()));
        assert!(!legacy_drops("-P FORWARD ACCEPT\n", &device()));
    }
}
