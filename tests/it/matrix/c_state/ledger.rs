//! Rows 29, 30 and 38: what is remembered is damaged or gone, or the definition is.

use vmnet::ledger::{self, LedgerError};
use vmnet::paths::Paths;

use crate::matrix::row;
use crate::matrix::rows::{LAB, as_applied, fails, gone, holds, json, refused};
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh, succeeds};

const LEDGER: &str = "/run/state/row/ledger/ledger.json";

fn paths() -> Paths {
    Paths { state: "/run/state".into(), run: "/run/vmnet".into() }
}

/// Ledger truncated, garbage or of a newer version: never guessed at.
#[test]
fn row_29_damaged_ledger() {
    row!(|| {
        holds(LAB, |lab| {
            lab.ok(&["create"]);
            lab.ok(&["boot", "--all"]);
            let whole = std::fs::read(LEDGER).unwrap();
            let name = "row".parse().unwrap();
            // Without its last line feed it is whole.
            for length in 0..whole.len() - 1 {
                std::fs::write(LEDGER, &whole[..length]).unwrap();
                let read = ledger::read(&paths(), &name);
                assert!(matches!(read, Err(LedgerError::Damaged { .. })), "{length} bytes: {read:?}");
            }
            let text = String::from_utf8(whole.clone()).unwrap();
            let newer = text.replacen("\"version\": 1", "\"version\": 2", 1);
            let unknown_key = text.replacen("\"version\": 1", "\"version\": 1, \"more\": true", 1);
            let cases: [(&[u8], &str); 8] = [
                (b"", "is damaged"),
                (&whole[..whole.len() / 2], "is damaged"),
                (b"\0\0\0\0\0\0\0\0", "is damaged"),
                (b"garbage \xff\xfe \x1b[31m", "is damaged"),
                (b"null", "is damaged"),
                (b"{\"version\": 1}", "is damaged"),
                (newer.as_bytes(), "has version 2"),
                (unknown_key.as_bytes(), "is damaged"),
            ];
            // By the lengths above a second has passed, and carriers are what they are.
            let before = Snapshot::take();
            for (content, says) in cases {
                std::fs::write(LEDGER, content).unwrap();
                for verb in ["status", "create", "destroy", "ps"] {
                    let of = if verb == "create" { "net.toml" } else { "row" };
                    fails(lab, &[verb, of], &[LEDGER, says]);
                }
                assert_eq!(std::fs::read(LEDGER).unwrap(), content, "it stays as it is");
                let listed = json(&lab.ok(&["list", "--json"]));
                assert_eq!(listed["labs"][0]["state"], "damaged", "{listed:#}");
                let left = json(&lab.ok(&["gc", "--force", "--stop", "--json"]));
                assert_eq!(left["labs"], serde_json::json!([]), "a lab with a ledger is not touched");
            }
            let differences = before.differences(&Snapshot::take());
            assert!(differences.is_empty(), "{}", differences.join("\n"));
            // As the message says: away with it, and the marks are enough.
            sh(&format!("mv {LEDGER} /run/damaged"));
            lab.ok(&["destroy", "--stop", "row"]);
            assert!(!succeeds("ip link show br-web"));
            crate::matrix::tally("lengths of a ledger", whole.len(), 0);
        });
    });
}

/// Ledger deleted: recovered from the marks.
#[test]
fn row_30_no_ledger() {
    row!(|| {
        holds(LAB, |lab| {
            let before = Snapshot::take();
            for how in ["rm -r /run/state/row/ledger", "rm -r /run/state", "rm -r /run/state /run/vmnet"] {
                lab.ok(&["create"]);
                lab.ok(&["boot", "--all"]);
                sh(how);
                let listed = json(&lab.ok(&["list", "--json"]));
                assert_eq!(listed["labs"][0]["state"], "leftovers", "{how}: {listed:#}");
                assert_eq!(listed["labs"][0]["guests"], serde_json::json!(["vm1", "vm2"]), "{how}");
                refused(lab, &["status", "row"], &["is not created on this host"]);
                // A guest runs on, and `create` finds everything as it should be.
                lab.ok(&["create"]);
                as_applied(lab);
                assert!(lab.pings("vm1", "10.2.0.10"), "{how}");
                sh(how);
                refused(lab, &["destroy", "row"], &["guests of lab row run: vm1, vm2"]);
                gone(lab, &before);
            }
        });
    });
}

/// A second state folder knows nothing of a lab that stands: it is not taken over by its marks. Where the first one's
/// ledger is gone, the marks count.
#[test]
fn row_30_another_state_folder() {
    row!(|| {
        holds(LAB, |lab| {
            lab.ok(&["create"]);
            let whole = Snapshot::when_settled();
            let apart = |args: &[&str]| lab.command(args).env("VMNET_STATE_DIR", "/run/apart").output().unwrap();
            for args in [&["create"][..], &["destroy", "row"], &["destroy", "--force", "row"], &["plan"], &["gc"]] {
                let output = apart(args);
                let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
                assert!(said.contains("is kept in the state folder /run/state"), "{args:?}: {said}");
            }
            assert_eq!(whole.differences(&Snapshot::take()), Vec::<String>::new());
            as_applied(lab);
            sh("rm -r /run/state/row/ledger");
            let output = apart(&["create"]);
            assert!(output.status.success(), "{output:?}");
            fails(lab, &["create"], &["is kept in the state folder /run/apart"]);
            let output = apart(&["destroy", "row"]);
            assert!(output.status.success(), "{output:?}");
            crate::matrix::tally("verbs from another state folder", 6, 0);
        });
    });
}

/// The definition is edited or gone before `destroy`.
#[test]
fn row_38_definition_edited_or_gone() {
    row!(|| {
        holds(LAB, |lab| {
            let before = Snapshot::take();
            let file = lab.folder().join("net.toml");
            let other = "lab = \"row\"\n[network.else]\nmode = \"isolated\"\n".to_owned();
            let edits = [
                Some("lab = \"row".to_owned()),
                Some(String::new()),
                Some(other),
                Some(LAB.replace("lab = \"row\"", "lab = \"renamed\"")),
                None,
            ];
            for edit in &edits {
                for argument in ["net.toml", "row"] {
                    std::fs::write(&file, LAB).unwrap();
                    lab.ok(&["create"]);
                    lab.ok(&["boot", "--all"]);
                    match edit {
                        Some(text) => std::fs::write(&file, text).unwrap(),
                        None => std::fs::remove_file(&file).unwrap(),
                    }
                    lab.ok(&["status", argument]);
                    lab.ok(&["destroy", "--stop", argument]);
                    gone(lab, &before);
                }
            }
            std::fs::write(&file, LAB).unwrap();
            // Nothing is left that knows the file's path: an edited one names another lab.
            let renamed = Lab::from_text(&LAB.replace("lab = \"row\"", "lab = \"renamed\""));
            renamed.ok(&["destroy"]);
            std::fs::write(&file, LAB).unwrap();
        });
    });
}
