//! What a rehearsal does on its hosts: the real `create`, `boot` and `verify`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::outcome::{paragraph, worst};
use super::{Call, Fleet, Member, Options};
use crate::commands::failure::Failure;
use crate::commands::output::{BOLD, WARN, count, visible};

/// How long real guests may take to answer: they may be emulated.
const PATIENCE: Duration = Duration::from_secs(300);

/// What came of it.
pub(in crate::commands) struct Rehearsed {
    /// What each host said.
    pub(in crate::commands) hosts: BTreeMap<String, OfHost>,
    /// The same for people.
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
    verify: Value,
}

impl Fleet {
    /// Creates, boots and probes; `guests` are waited for where they are machines. One JUnit report a host is written
    /// where that is asked for.
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
        let booted = self.start(&None, guests.then_some(PATIENCE)).await;
        self.whole(&booted)?;
        for (host, booted) in &booted {
            hosts.entry(host.clone()).or_default().boot = booted.document();
        }
        let verified = self.ask("probing", |member| Some(self.verify_call(member, junit))).await;
        self.whole(&verified)?;
        text.push('\n');
        for (host, verified) in &verified {
            text.push_str(&paragraph(host, &verified.text()));
            text.push('\n');
            hosts.entry(host.clone()).or_default().verify = verified.document();
        }
        Ok(Rehearsed { hosts, text, code: worst(&verified) })
    }

    fn verify_call(&self, member: &Member, junit: Option<&Path>) -> Call {
        let mut args = vec!["verify".to_owned(), self.lab().to_string()];
        args.extend(self.outside.iter().map(|address| format!("--outside={address}")));
        if let Some(junit) = junit {
            let file = match self.members.len() {
                1 => junit.to_owned(),
                _ => of_host(junit, &member.name),
            };
            args.push(format!("--junit={}", file.display()));
        }
        Call::of(args)
    }
}

/// `report.xml` is `report-h1.xml` for a host.
fn of_host(file: &Path, host: &str) -> std::path::PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let end = file.extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
    file.with_file_name(format!("{stem}-{host}{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_has_a_report_of_its_own() {
        assert_eq!(of_host(Path::new("/ci/report.xml"), "h1"), Path::new("/ci/report-h1.xml"));
        assert_eq!(of_host(Path::new("report"), "h1"), Path::new("report-h1"));
    }
}
