//! What must hold after a point: each function gives what does not, in words.

use nix::errno::Errno;

use super::calls::{Call, Kind};
use super::place::{self, Ended, LAB, Place, Scenario, define, vmnet};
use super::tracer::Deed;
use crate::snapshot::Snapshot;

/// Every foreign thing is as it was.
pub(crate) fn nothing_foreign_changed(place: &Place) -> Vec<String> {
    // What a lab asks of the host for as long as it is there: to forward where it has a default route, and the kernel
    // counts what listens on its NIC, the router's macvlan and the bridges behind its sub-interfaces.
    let counts = |line: &String| {
        let changes = line.split_once("\"nic0\" ").map(|(_, changes)| changes);
        let counted = |change: &str| ["promiscuity:", "allmulti:"].iter().any(|count| change.starts_with(count));
        changes.is_some_and(|changes| changes.trim_start_matches('.').split(" .").all(counted))
    };
    let asked_for = |line: &String| line.starts_with("/proc/sys/net/ipv4/conf/nic0/forwarding") || counts(line);
    let lost = place.bare.lost(&Snapshot::of_the_network());
    lost.into_iter().filter(|line| !asked_for(line)).map(|line| format!("foreign and changed: {line}")).collect()
}

/// `create` makes of it what the definition says, and then has nothing to do.
pub(crate) fn converges(definition: &str) -> Vec<String> {
    define(definition);
    let created = vmnet(&["create"]);
    if created.code() != 0 {
        return vec![format!("create afterwards exits {}: {}", created.code(), created.said)];
    }
    settled(definition, "create afterwards does not converge")
}

/// Nothing is to be done for a definition.
fn settled(definition: &str, otherwise: &str) -> Vec<String> {
    define(definition);
    let planned = vmnet(&["plan", "--check"]);
    if planned.code() == 0 { Vec::new() } else { vec![format!("{otherwise}: {}", planned.said)] }
}

/// `destroy`, twice, leaves nothing.
pub(crate) fn destroys(place: &Place) -> Vec<String> {
    for _ in 0..2 {
        let destroyed = vmnet(&["destroy", "--stop", "--purge", LAB]);
        if destroyed.code() != 0 {
            return vec![format!("destroy afterwards exits {}: {}", destroyed.code(), destroyed.said)];
        }
    }
    nothing_left(place)
}

/// The host is as it was before the lab.
pub(crate) fn nothing_left(place: &Place) -> Vec<String> {
    let mut wrong = place.bare.differences(&Snapshot::of_the_network());
    let files = place::files();
    wrong.extend(files.symmetric_difference(&place.bare_files).map(|file| format!("a file that came or went: {file}")));
    wrong.extend(place::processes().into_iter().map(|process| format!("still runs: {process}")));
    wrong
}

/// The host is as it was before the command, which failed.
pub(crate) fn rolled_back(place: &Place, scenario: &Scenario, before: &Before) -> Vec<String> {
    let mut wrong = if scenario.begins_with_nothing() { nothing_left(place) } else { nothing_foreign_changed(place) };
    if !scenario.begins_with_nothing() {
        wrong.extend(settled(scenario.undone(), "not rolled back"));
        let now = Before::look();
        if now.guests != before.guests {
            wrong.push(format!("other guests run: {:?} before, {:?} now", before.guests, now.guests));
        }
        // A guest's folder is the guest's, not this boot's: its host key is there for the next one.
        // And what was found out of an image is so, whatever became of the boot.
        let kept = |file: &&String| {
            let stay = ["/run/state/all/guests", "/run/state/.files"];
            !stay.iter().any(|stay| file.starts_with(stay)) && !file.ends_with("/run/vmnet/all/guests")
        };
        let differing = now.files.symmetric_difference(&before.files).filter(kept);
        wrong.extend(differing.map(|file| format!("a file that came or went: {file}")));
        if now.ledger != before.ledger {
            wrong.push(format!("the ledger differs: {}", now.ledger));
        }
    }
    wrong
}

/// The host is as it was before the command, but for guests that it has started.
fn without_one(place: &Place, scenario: &Scenario, before: &Before) -> Vec<String> {
    let now = Before::look();
    let mut files = before.files.clone();
    // Each that runs has its namespace, and no other one has.
    files.extend(now.guests.iter().map(|vm| format!("vmnet-{LAB}.{vm}")));
    let before = Before { guests: now.guests, files, ledger: before.ledger.clone() };
    rolled_back(place, scenario, &before)
}

/// What a failed command must leave as it is, beside the objects of the lab.
pub(crate) struct Before {
    /// Those that run.
    guests: Vec<String>,
    files: std::collections::BTreeSet<String>,
    /// Definition and progress, as the ledger has them.
    ledger: String,
}

impl Before {
    /// As it is now.
    pub(crate) fn look() -> Self {
        let ps = vmnet(&["ps", "--json", LAB]);
        let rows: serde_json::Value = serde_json::from_str(&ps.said).unwrap_or_default();
        let rows = rows["vms"].as_array().cloned().unwrap_or_default();
        let runs = |row: &&serde_json::Value| row["running"] == true;
        let name = |row: &serde_json::Value| row["name"].as_str().unwrap_or_default().to_owned();
        let ledger = std::fs::read_to_string(format!("/run/state/{LAB}/ledger/ledger.json")).unwrap_or_default();
        let ledger: serde_json::Value = serde_json::from_str(&ledger).unwrap_or_default();
        Self {
            guests: rows.iter().filter(runs).map(name).collect(),
            files: place::files(),
            ledger: format!("{} {} {}", ledger["progress"], ledger["definition"], ledger["lock"]),
        }
    }
}

/// A call failed: the command says so and has undone what it did; or it does not matter, and all is done.
pub(crate) fn after_failure(
    place: &Place,
    scenario: &Scenario,
    before: &Before,
    (call, deed): (&Call, Deed),
    ended: &Ended,
) -> Vec<String> {
    match ended.code() {
        // The folder of labs that can't be removed stays, without a lab: the next destroy takes it.
        0 if scenario.args[0] == "destroy"
            && call.kind == Kind::Remove
            && (call.text.starts_with("rmdir(/run/state") || call.text.contains("/run/state/.files")) =>
        {
            vmnet(&["destroy", LAB]);
            nothing_left(place)
        }
        0 => match harmless(scenario, call, deed) {
            Some(_) => done(scenario, place),
            None => vec![format!("exits 0 although that failed: {}", call.text)],
        },
        // What is left of a lab that is gone are files, and the next destroy takes them.
        1 | 4
            if scenario.args[0] == "destroy"
                && call.kind == Kind::Remove
                && place.bare.differences(&Snapshot::of_the_network()).is_empty() =>
        {
            says(ended, deed)
        }
        // 4: the host lacks something, a permission too.
        1 | 4 => {
            // Of several guests one fails alone; what runs is as it should be, and nothing is left of that one.
            let is_alone = scenario.args[0] == "boot" && scenario.args.len() > 2 && ended.said.contains(" not started");
            let mut wrong = match is_alone {
                true => without_one(place, scenario, before),
                false => rolled_back(place, scenario, before),
            };
            wrong.extend(says(ended, deed));
            wrong
        }
        code => vec![format!("exits {code}")],
    }
}

/// A signal came: rolled back, or what was asked for was done already; and `destroy` goes on to its end.
///
/// Before there is anything to undo, the signal may simply end the program.
pub(crate) fn after_signal(place: &Place, scenario: &Scenario, before: &Before, ended: &Ended) -> Vec<String> {
    let is_destroy = scenario.args[0] == "destroy";
    match (ended.code(), ended.status.code()) {
        (0, _) => done(scenario, place),
        (1, _) if !is_destroy && !ended.said.contains("interrupted") => vec!["does not say why".to_owned()],
        (1, _) if !is_destroy => rolled_back(place, scenario, before),
        (_, None) => rolled_back(place, scenario, before),
        (code, _) => vec![format!("exits {code}")],
    }
}

/// The command has done its work.
pub(crate) fn done(scenario: &Scenario, place: &Place) -> Vec<String> {
    match scenario.args[0] {
        "destroy" => nothing_left(place),
        _ => settled(scenario.definition(), "exits 0, but not all is done"),
    }
}

/// Why the failure of a call need not fail the command.
fn harmless(scenario: &Scenario, call: &Call, deed: Deed) -> Option<&'static str> {
    let text = &call.text;
    let is_full = deed == Deed::Fail(libc::ENOSPC);
    let rules = [
        (text.contains("vmnet-probe"), "a question to the kernel, which has no such link: does it know the kind?"),
        (
            scenario.args[0] == "boot" && text == "mkdir(/run/state)",
            "it is there, and is asked for before its folder of files",
        ),
        (text.contains("/run/state/.files"), "what is in an image is found out again next time"),
        (call.kind == Kind::Thread, "others, or the same one, do its work"),
        (
            call.kind == Kind::Monitor && scenario.args[0] == "boot" && text.contains("qmp_capabilities"),
            "a QEMU that does not answer yet is asked again",
        ),
        (
            matches!(call.kind, Kind::Enter | Kind::Fork | Kind::Exec),
            "a table that can't be read back is written once more",
        ),
        (
            call.kind == Kind::Remove && (text.contains("/run/vmnet/") || text.contains("/run/state/")),
            "an empty folder, or a record beside a ledger that is applied: the next one or destroy takes it",
        ),
        (
            call.kind == Kind::Sync && text.ends_with("/ledger)"),
            "the removal of that record, which a power cut would bring back, and it would say nothing",
        ),
        (
            is_full && scenario.args[0] == "destroy" && text.contains("/run/state"),
            "removing is how people make room: it goes on without a record",
        ),
        (
            is_full && call.kind == Kind::Write && text.contains("/run/vmnet/lock"),
            "the name of who holds the lock; it is held all the same",
        ),
    ];
    rules.into_iter().find(|(applies, _)| *applies).map(|(_, why)| why)
}

/// The message names what was tried and on what, and why it failed.
fn says(ended: &Ended, deed: Deed) -> Vec<String> {
    let mut wrong = Vec::new();
    let said = &ended.said;
    if let Deed::Fail(errno) = deed {
        let reason = std::io::Error::from_raw_os_error(errno).to_string();
        let reason = reason.split(" (os").next().unwrap_or_default().to_owned();
        // pthread_create(3) calls each lack EAGAIN.
        let as_thread = errno == libc::ENOMEM && said.contains("Resource temporarily unavailable");
        if !said.contains(&reason) && !as_thread {
            wrong.push(format!("the message does not say {reason:?} ({:?})", Errno::from_raw(errno)));
        }
    }
    let objects = [
        "vmnet-all",
        "/run/",
        "br-",
        "brvlan-",
        "rt-",
        "nic0",
        "in host",
        "-d769",
        "systemd-networkd",
        "10.50.",
        "lock",
        "journal",
        "ledger",
        "guest",
        "nft",
        " in host",
        "namespace host",
        "the lab's namespaces",
    ];
    if !objects.iter().any(|object| said.contains(object)) {
        wrong.push("the message names no object".to_owned());
    }
    if said.contains("panicked") {
        wrong.push("vmnet panics".to_owned());
    }
    wrong
}
