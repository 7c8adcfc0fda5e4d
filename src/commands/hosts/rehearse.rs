//! What a rehearsal does on its hosts: the real `create`, `boot` and `verify`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::verify::Verified;
use super::{Fleet, Options};
use crate::commands::boot;
use crate::commands::failure::Failure;
use crate::commands::output::{BOLD, WARN, count, visible};
use crate::commands::verify::write_junit;

/// How long real guests may take to answer: they may be emulated.
const PATIENCE: Duration = Duration::from_secs(300);

/// What came of it.
pub(in crate::commands) struct Rehearsed {
    /// What each host said.
    pub(in crate::commands) hosts: BTreeMap<String, OfHost>,
    /// Who reaches whom.
    pub(in crate::commands) verify: Verified,
    /// All of it for people.
    pub(in crate::commands) text: String,
    /// The exit code of `verify`.
    pub(in crate::commands) code: u8,
}

/// What a host said of each step.
#[derive(Debug, Default, Serialize)]
pub(in crate::commands) struct OfHost {
    create: Value,
    /// Null where it has no guests.
    boot: Value,
}

impl Fleet {
    /// Creates, boots and probes; `guests` are waited for where they are machines. A JUnit report is written where that
    /// is asked for.
    pub(in crate::commands) async fn rehearse(&self, guests: bool, junit: Option<&Path>) -> Result<Rehearsed, Failure> {
        let mut hosts: BTreeMap<String, OfHost> = BTreeMap::new();
        let mut text = String::new();
        for (host, create) in self.create(Options::default()).await?.hosts {
            let changes = usize::try_from(create["changes"].as_u64().unwrap_or_default()).unwrap_or(usize::MAX);
            let seconds = create["seconds"].as_f64().unwrap_or_default();
            text.push_str(&format!("{BOLD}{host}{BOLD:#}: created, {} in {seconds:.2} s\n", count(changes, "change")));
            for note in create["notes"].as_array().into_iter().flatten() {
                let [about, said] = ["about", "text"].map(|key| visible(note[key].as_str().unwrap_or_default()));
                text.push_str(&format!("  {WARN}note{WARN:#}: {about}: {said}\n"));
            }
            hosts.entry(host).or_default().create = create;
        }
        let boot = boot::Options { wait: guests.then_some(PATIENCE), jobs: None, overcommit: false };
        let booted = self.start(&None, boot).await;
        self.all_started(&booted)?;
        for (host, booted) in &booted {
            hosts.entry(host.clone()).or_default().boot = booted.document();
        }
        let verify = self.verified(&[]).await?;
        write_junit(&verify.report, junit)?;
        text.push_str(&format!("\n{}\n", verify.text()));
        if verify.code() > 0 {
            self.tell_notes(&verify);
        }
        Ok(Rehearsed { hosts, text, code: verify.code(), verify })
    }
}
