//! Row 40: parts of a lab are deleted by hand.

use serde_json::Value;

use crate::matrix::row;
use crate::matrix::rows::{LAB, both_families, holds, json, through_host};
use crate::snapshot::namespace_names;
use crate::world::{Lab, output, sh};

/// Every single object of the lab that runs, as the command that deletes it.
fn deletions(lab: &Lab) -> Vec<String> {
    let mut commands = Vec::new();
    let own: Vec<String> = namespace_names().into_iter().filter(|name| name.starts_with("vmnet-row")).collect();
    for ns in std::iter::once(None).chain(own.iter().map(Some)) {
        let ip = ns.map_or_else(|| "ip".to_owned(), |ns| format!("ip -n {ns}"));
        let list = |what: &str| json(&format!("{:0}", output(&format!("{ip} -d -j {what}")).trim_end()));
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        for link in list("address").as_array().unwrap() {
            let name = text(link, "ifname");
            if !text(link, "ifalias").starts_with("vmnet:row:") || name == "lo" {
                continue;
            }
            commands.push(format!("{ip} link del {name}"));
            for address in link["addr_info"].as_array().unwrap().iter().filter(|info| info["scope"] == "global") {
                commands.push(format!(
                    "{ip} address del {}/{} dev {name}",
                    text(address, "local"),
                    address["prefixlen"]
                ));
            }
        }
        for family in ["", "-6 "] {
            for route in list(&format!("{family}route show proto 118")).as_array().unwrap() {
                commands.push(format!("{ip} {family}route del {} dev {}", text(route, "dst"), text(route, "dev")));
            }
        }
        let inside = ns.map_or_else(String::new, |ns| format!("ip netns exec {ns} "));
        for table in output(&format!("{inside}nft list tables")).lines().filter(|line| line.ends_with("vmnet-row")) {
            commands.push(format!("{inside}nft delete {table}"));
        }
    }
    commands.extend(own.iter().map(|ns| format!("ip netns del {ns}")));
    commands.extend(output("find /run/vmnet/row -type f").lines().map(|file| format!("rm {file}")));
    commands
        .extend(["/run/vmnet/row", "/run/vmnet", "/run/state/row", "/run/state"].map(|path| format!("rm -r {path}")));
    assert!(commands.len() > 30, "{commands:#?}");
    commands.push(format!("rm {}", lab.folder().join("net.lock").display()));
    commands
}

/// What is there, in a few words: quicker than a whole snapshot, which ends the row.
fn there() -> String {
    sh("ip -o link | cut -d: -f2; ip netns; nft list tables; find /run -path '/run/vmnet/*' -type f -not -name lock")
}

/// Converges: `create` and guests, and a second plan is empty.
#[track_caller]
fn whole(lab: &Lab, after: &str) {
    for args in [&["create"][..], &["boot", "--all"], &["plan", "--check"]] {
        let output = lab.vmnet(args);
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?} after {after}:\n{text}");
    }
}

#[track_caller]
fn nothing(lab: &Lab, after: &str, before: &str) {
    let output = lab.vmnet(&["destroy", "--stop", "row"]);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "destroy after {after}:\n{text}");
    assert_eq!(there(), before, "destroy after {after}");
}

/// Deletes each object of those that are chosen, and none twice in the same way.
fn each_alone(definition: &str, chosen: impl Fn(&str) -> bool) {
    holds(definition, |lab| {
        let before = there();
        whole(lab, "nothing");
        let mut commands = deletions(lab);
        commands.retain(|command| chosen(command));
        for command in &commands {
            output(command);
            whole(lab, command);
            output(command);
            nothing(lab, command, &before);
            lab.ok(&["create"]);
            lab.ok(&["boot", "--all"]);
        }
        crate::matrix::tally("objects deleted by hand", commands.len() * 2, 0);
    });
}

/// Every single object of it deleted by hand: `create` and `destroy` both succeed.
#[test]
fn row_40_each_object() {
    row!(|| each_alone(&both_families(), |_| true));
}

/// The same with a router that goes through the host.
#[test]
fn row_40_each_object_through_host() {
    // What is not there in the other lab: all else has been tried with that.
    row!(|| each_alone(&through_host(), |command| command.contains("host")
        || command.contains("outside")
        || command.contains("inet")));
}

/// Half of it deleted by hand, in several ways.
#[test]
fn row_40_halves() {
    row!(|| {
        holds(LAB, |lab| {
            let before = there();
            whole(lab, "nothing");
            let commands = deletions(lab);
            // A linear congruential generator (Numerical Recipes): the same halves every time.
            let mut seed = 40_u32;
            let mut next = || {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                seed >> 31 == 0
            };
            for round in 0..12 {
                let half: Vec<&String> = commands.iter().filter(|_| next()).collect();
                // What went with another object can't be deleted again.
                half.iter().for_each(|command| drop(output(command)));
                let after = format!("half {round}: {half:#?}");
                if round % 2 == 0 {
                    nothing(lab, &after, &before);
                }
                whole(lab, &after);
            }
            crate::matrix::tally("halves deleted by hand", 12, 0);
        });
    });
}
