//! What a kernel holds, as text, for a comparison of before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::world::output;

/// Everything of the sandbox that a lab could have changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(BTreeMap<String, String>);

impl Snapshot {
    pub(crate) fn take() -> Self {
        let mut parts = BTreeMap::new();
        let mut namespaces = vec![None];
        namespaces.extend(namespace_names().into_iter().map(Some));
        let names: Vec<&str> = namespaces.iter().map(|ns: &Option<String>| ns.as_deref().unwrap_or("host")).collect();
        parts.insert("namespaces".into(), names.join("\n"));
        for ns in namespaces {
            let ns = ns.as_deref();
            let place = ns.unwrap_or("host");
            const ALL: [&str; 5] = ["link", "address", "rule", "route show table all", "-6 route show table all"];
            // One line of JSON each, also from a kernel that lacks what is asked for.
            let target = ns.map_or_else(String::new, |ns| format!("-n {ns} "));
            let lines = ALL.map(|what| format!("echo \"$(ip {target}-d -j {what})\""));
            for (what, json) in ALL.iter().zip(output(&lines.join("; ")).lines()) {
                parts.insert(format!("{place}: {what}"), tidy(json, ns.is_some()));
            }
            // Without counters: whoever sends moves those.
            let rules = output(&inside(ns, "nft -s list ruleset"));
            parts.insert(format!("{place}: ruleset"), rules);
        }
        let mut sysctls = BTreeMap::new();
        read_tree(Path::new("/proc/sys/net"), &mut sysctls);
        parts.extend(sysctls);
        parts.insert("processes".into(), processes());
        Self(parts)
    }

    /// One without what runs, for a sandbox where several tests are under way.
    pub(crate) fn of_the_network() -> Self {
        let Self(mut parts) = Self::take();
        parts.remove("processes");
        Self(parts)
    }

    /// What was there and is not any more, or is something else: what came in between does not matter.
    pub(crate) fn lost(&self, later: &Self) -> Vec<String> {
        let mut lost = Vec::new();
        for (key, text) in &self.0 {
            let there: BTreeSet<&str> = later.0.get(key).into_iter().flat_map(|text| text.lines()).collect();
            for line in text.lines().filter(|line| !there.contains(line)) {
                lost.push(format!("{key}: {}", changes(line, &there).unwrap_or_else(|| line.to_owned())));
            }
        }
        lost
    }

    /// The first differences, for people; empty when there is none.
    pub(crate) fn differences(&self, later: &Self) -> Vec<String> {
        let keys: BTreeSet<&String> = self.0.keys().chain(later.0.keys()).collect();
        // A kernel module that was loaded meanwhile brings settings of its own; a device's go with the device.
        let by_module = |key: &String| key.starts_with("/proc/sys") && !self.0.contains_key(key);
        let differs = |key: &&String| self.0.get(*key) != later.0.get(*key) && !by_module(key);
        keys.into_iter()
            .filter(differs)
            .map(|key| {
                let lines = |snapshot: &Self| -> BTreeSet<String> {
                    snapshot.0.get(key).into_iter().flat_map(|text| text.lines()).map(ToOwned::to_owned).collect()
                };
                let (before, after) = (lines(self), lines(later));
                let gone: Vec<&String> = before.difference(&after).collect();
                let come: Vec<&String> = after.difference(&before).collect();
                format!("{key}\n  gone: {gone:#?}\n  come: {come:#?}")
            })
            .collect()
    }

    /// Takes one when links have their carrier and addresses are usable: surroundings need a moment.
    pub(crate) fn when_settled() -> Self {
        for _ in 0..50 {
            // A bridge without ports has no carrier, and stays like that.
            let text = output("ip -o address; ip -o -d link show up | grep -v ' bridge forward_delay ' || true");
            if !text.contains("tentative") && !text.contains("NO-CARRIER") {
                return Self::take();
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("the surroundings do not settle: {}", output("ip address"));
    }
}

/// What differs in the row about the same link, where there is one.
fn changes(row: &str, later: &BTreeSet<&str>) -> Option<String> {
    let row: Value = serde_json::from_str(row).ok()?;
    let rows = later.iter().filter_map(|row| serde_json::from_str::<Value>(row).ok());
    let now = rows.into_iter().find(|now| now["ifname"].is_string() && now["ifname"] == row["ifname"])?;
    let mut found = row["ifname"].to_string();
    compare("", &row, &now, &mut found);
    Some(found)
}

fn compare(path: &str, old: &Value, new: &Value, found: &mut String) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                compare(&format!("{path}.{key}"), &old[key], &new[key], found);
            }
        }
        _ if old != new => found.push_str(&format!(" {path}: {old} now {new}")),
        _ => {}
    }
}

/// The names below `/run/netns`.
pub(crate) fn namespace_names() -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A command in a named namespace, or as it is.
pub(crate) fn inside(ns: Option<&str>, command: &str) -> String {
    ns.map_or_else(|| command.to_owned(), |ns| format!("ip netns exec {ns} {command}"))
}

/// JSON without what changes by itself: timers, and the numbers by which namespaces are known; in `others`'
/// namespaces also without what the carrier of the host's NIC brings about.
fn tidy(json: &str, others: bool) -> String {
    let mut value: Value = serde_json::from_str(json).unwrap_or(Value::Null);
    strip(&mut value, others);
    let mut rows: Vec<String> = value.as_array().into_iter().flatten().map(ToString::to_string).collect();
    rows.sort();
    rows.join("\n")
}

fn strip(value: &mut Value, others: bool) {
    const VOLATILE: [&str; 3] = ["link_netnsid", "topology_change", "topology_change_detected"];
    match value {
        Value::Object(map) => {
            // A bridge has a carrier as long as a port has one; the kernel's link watch says so a second later.
            if map.get("linkinfo").is_some_and(|info| info["info_kind"] == "bridge") {
                map.remove("operstate");
                if let Some(Value::Array(flags)) = map.get_mut("flags") {
                    flags.retain(|flag| flag != "NO-CARRIER" && flag != "LOWER_UP");
                }
            }
            map.retain(|key, _| {
                let carrier = others && ["flags", "operstate"].contains(&&**key);
                !carrier && !key.ends_with("_timer") && !VOLATILE.contains(&&**key)
            });
            // Until the kernel's link watch comes round, a link that is up is UNKNOWN (RFC 2863 has both).
            if let Some(state) = map.get_mut("operstate").filter(|state| **state == "UNKNOWN") {
                *state = "UP".into();
            }
            map.values_mut().for_each(|value| strip(value, others));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| strip(value, others)),
        _ => {}
    }
}

fn read_tree(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_tree(&path, found);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            // Counters, not settings.
            if !path.ends_with("nf_conntrack_count") && !path.ends_with("nf_conntrack_max") {
                found.insert(path.display().to_string(), text);
            }
        }
    }
}

/// What runs in the sandbox, by command name; zombies and kernel threads have none.
fn processes() -> String {
    let mut names = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let is_process = entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
        let command = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if is_process && !command.is_empty() {
            names.push(command.replace('\0', " "));
        }
    }
    names.sort();
    names.join("\n")
}
