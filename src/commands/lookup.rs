//! Names on the command line: which lab, which guest, which network.

use std::path::Path;

use super::failure::Failure;
use super::output::shown;
use super::session::{boot_id, paths};
use super::source::Source;
use super::standing::undone;
use crate::cli::{self, GuestName};
use crate::ledger::{self, Ledger, change};
use crate::names::{LabName, NetName, VmName};
use crate::paths::Paths;

/// The definition that is meant where none is named.
pub(super) const DEFAULT_FILE: &str = "net.toml";

/// What a command line names: its argument, or with `--lab` the name that the definition runs under.
pub(super) fn meant(lab: &cli::Lab) -> Result<String, Failure> {
    under_name(&lab.lab, lab.named.as_ref())
}

/// As [`meant`], of several.
pub(super) fn all_meant(labs: Vec<String>, named: Option<LabName>) -> Result<Vec<String>, Failure> {
    match (labs.as_slice(), named) {
        (_, None) => Ok(labs),
        ([only], Some(named)) => Ok(vec![under_name(only, Some(&named))?]),
        _ => Err(Failure::Usage("--lab is for one definition: name its file".to_owned())),
    }
}

/// What a command line says of the lab that its guests are in.
pub(super) fn of(guests: &cli::Guests) -> Result<Option<String>, Failure> {
    match (&guests.of, &guests.named) {
        (of, None) => Ok(of.clone()),
        (of, Some(named)) => under_name(of.as_deref().unwrap_or(DEFAULT_FILE), Some(named)).map(Some),
    }
}

/// Refuses a lab of this name that runs from another file: it is not the one that is meant.
fn under_name(argument: &str, named: Option<&LabName>) -> Result<String, Failure> {
    let Some(named) = named else { return Ok(argument.to_owned()) };
    if !argument.ends_with(".toml") {
        return match argument == named.as_str() {
            true => Ok(argument.to_owned()),
            false => Err(Failure::Usage(format!("{argument} is a lab's name: --lab is for a definition's file"))),
        };
    }
    let path =
        std::path::absolute(argument).map_err(|error| Failure::failed("the working directory is gone", error))?;
    // Where no definition is here and none is said, the name alone is.
    let is_said = argument != DEFAULT_FILE || path.exists();
    // One that can't be read is told by whoever needs it.
    let ledger = ledger::read(&paths()?, named).ok().flatten();
    match ledger.filter(|ledger| is_said && !ledger.is_of_leftovers() && ledger.path != path) {
        None => Ok(named.to_string()),
        Some(ledger) => Err(Failure::Usage(format!(
            "lab {named} was created from {}, and not from {}: leave out --lab and say {named} instead of the file",
            shown(&ledger.path),
            shown(&path)
        ))),
    }
}

/// The lab that an argument means: a definition ends in `.toml`, anything else is a name.
///
/// A definition that was applied is known by its path, so that an edited or broken or deleted file still names its
/// lab.
pub(super) fn lab(argument: &str) -> Result<LabName, Failure> {
    lab_or(argument, |_, _| Ok(None))
}

/// As [`lab`]; where no definition is here and none is said, the only lab of the host. For what changes nothing.
pub(super) fn lab_or_only(argument: &str) -> Result<LabName, Failure> {
    lab_or(argument, |_, labs| match labs {
        [only] => Ok(Some(only.clone())),
        _ => Ok(None),
    })
}

/// As [`lab`]; where no definition is here and none is said, the only lab with a change that is not confirmed or not
/// done. Whoever is in a hurry need not know its name.
pub(super) fn lab_with_change(argument: &str) -> Result<LabName, Failure> {
    lab_or(argument, |paths, labs| {
        let boot_id = boot_id()?;
        let mut found = Vec::new();
        for lab in labs {
            let ledger = ledger::read(paths, lab)?;
            found.extend(change::read(paths, lab, ledger.as_ref(), &boot_id)?.map(|_| lab.clone()));
        }
        Ok(found.pop().filter(|_| found.is_empty()))
    })
}

fn lab_or(
    argument: &str,
    choose: impl Fn(&Paths, &[LabName]) -> Result<Option<LabName>, Failure>,
) -> Result<LabName, Failure> {
    if !argument.ends_with(".toml") {
        return argument.parse().map_err(|error| Failure::Usage(format!("{error}; a definition's name ends in .toml")));
    }
    let path =
        std::path::absolute(argument).map_err(|error| Failure::failed("the working directory is gone", error))?;
    let paths = paths()?;
    // What another host sent stands at its path there, whatever stands here.
    let is_of_path = |ledger: Ledger| ledger.path == path && !ledger.origin.sent;
    let is_of_it = |lab: &LabName| ledger::read(&paths, lab).is_ok_and(|ledger| ledger.is_some_and(is_of_path));
    let mut applied: Vec<LabName> = ledger::labs(&paths)?.into_iter().filter(is_of_it).collect();
    match (applied.pop(), applied.is_empty()) {
        (Some(only), true) => return Ok(only),
        // The file had one lab's name, and has another's by now.
        (Some(last), false) => {
            applied.push(last);
            let now = Source::read_whole(Path::new(argument), None).ok().map(|source| source.model.lab().clone());
            let file = path.display();
            return now.filter(|now| applied.contains(now)).ok_or_else(|| {
                Failure::Usage(format!("several labs were created from {file}: name one of {}", names(&applied)))
            });
        }
        (None, _) => {}
    }
    if argument == DEFAULT_FILE && !path.exists() {
        let labs = ledger::labs(&paths)?;
        if let Some(lab) = choose(&paths, &labs)? {
            return Ok(lab);
        }
        return Err(Failure::Usage(match labs.is_empty() {
            true => format!("there is no {DEFAULT_FILE} here; name a definition or a lab (vmnet list shows labs)"),
            false => format!("there is no {DEFAULT_FILE} here; name one of this host's labs: {}", names(&labs)),
        }));
    }
    Source::lab_in(Path::new(argument))
}

fn names(labs: &[LabName]) -> String {
    labs.iter().map(LabName::as_str).collect::<Vec<_>>().join(", ")
}

/// That a lab was never applied on this host.
pub(super) fn not_created(lab: &LabName) -> Result<Failure, Failure> {
    let known = ledger::labs(&paths()?)?;
    let known = if known.is_empty() { "no lab is".to_owned() } else { format!("labs: {}", names(&known)) };
    let undone = undone(lab).map(|undone| format!("; its last {undone}")).unwrap_or_default();
    Ok(Failure::advised(format!("lab {lab} is not created on this host ({known}){undone}"), "run vmnet create first"))
}

/// A lab that was applied on this host, as it was.
pub(super) fn applied(lab: &LabName) -> Result<(Ledger, Source), Failure> {
    let paths = paths()?;
    let Some(ledger) = ledger::read(&paths, lab)? else {
        return Err(not_created(lab)?);
    };
    let source = Source::applied(&ledger)?;
    Ok((ledger, source))
}

/// A guest: `campus/vm1`, or `vm1` in the working directory's lab, else in the only lab that has one of that name.
pub(super) fn guest(argument: &str) -> Result<(LabName, VmName), Failure> {
    let GuestName { lab, vm } = argument.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
    if let Some(lab) = lab {
        let (_, source) = applied(&lab)?;
        return has(&source, &vm).map(|()| (lab, vm));
    }
    let here = Path::new(DEFAULT_FILE).exists().then(|| self::lab(DEFAULT_FILE)).transpose().unwrap_or(None);
    let paths = paths()?;
    let mut found = Vec::new();
    for lab in ledger::labs(&paths)? {
        let Ok((_, source)) = applied(&lab) else { continue };
        if source.model.vms().contains_key(&vm) {
            if here.as_ref() == Some(&lab) {
                return Ok((lab, vm));
            }
            found.push(lab);
        }
    }
    match found.as_slice() {
        [lab] => Ok((lab.clone(), vm)),
        [] => Err(no_guest(&vm, here)?),
        labs => {
            let names: Vec<String> = labs.iter().map(|lab| format!("{lab}/{vm}")).collect();
            Err(Failure::Usage(format!("several labs have a guest {vm}: say {}", names.join(" or "))))
        }
    }
}

/// A network: `campus/web`, or `web` in the working directory's lab, else in the only lab that has one of that name.
pub(super) fn network(argument: &str) -> Result<(LabName, NetName), Failure> {
    let usage = |error: crate::names::NameError| Failure::Usage(error.to_string());
    let (lab, name) = match argument.split_once('/') {
        Some((lab, name)) => (Some(lab.parse::<LabName>().map_err(usage)?), name),
        None => (None, argument),
    };
    let network: NetName = name.parse().map_err(usage)?;
    let labs = match lab {
        Some(lab) => vec![lab],
        None => ledger::labs(&paths()?)?,
    };
    let here = Path::new(DEFAULT_FILE).exists().then(|| self::lab(DEFAULT_FILE)).transpose().unwrap_or(None);
    let mut found: Vec<LabName> = Vec::new();
    for lab in &labs {
        match applied(lab) {
            Ok((_, source)) if source.model.networks().contains_key(&network) => found.push(lab.clone()),
            Ok(_) => {}
            Err(failure) if labs.len() == 1 => return Err(failure),
            Err(_) => {}
        }
    }
    found = match here.filter(|here| found.contains(here)) {
        Some(here) => vec![here],
        None => found,
    };
    match (found.as_slice(), labs.as_slice()) {
        ([lab], _) => Ok((lab.clone(), network)),
        ([], [only]) => {
            let (_, source) = applied(only)?;
            let all: Vec<&str> = source.model.networks().keys().map(NetName::as_str).collect();
            let here = source.origin.here.as_ref().map(|host| format!(" on host {host}")).unwrap_or_default();
            Err(Failure::because(format!("lab {only} has no network {network}{here}; it has {}", all.join(", "))))
        }
        ([], []) => Err(Failure::because(format!("no lab on this host has a network {network}: none is created"))),
        ([], labs) => {
            Err(Failure::because(format!("no lab on this host has a network {network} (labs: {})", names(labs))))
        }
        (labs, _) => {
            let said: Vec<String> = labs.iter().map(|lab| format!("{lab}/{network}")).collect();
            Err(Failure::Usage(format!("several labs have a network {network}: say {}", said.join(" or "))))
        }
    }
}

/// That no lab has a guest of this name, and which there are. `here` is the lab of the working directory.
fn no_guest(vm: &VmName, here: Option<LabName>) -> Result<Failure, Failure> {
    let labs = ledger::labs(&paths()?)?;
    if let Some(lab) = labs.iter().find(|lab| lab.as_str() == vm.as_str()) {
        let help = format!("name one of its guests ({}), or all: --all --of {lab}", guests_of(&applied(lab)?.1));
        return Ok(Failure::advised(format!("{vm} is a lab, not a guest"), help));
    }
    let in_question = here.as_ref().filter(|here| labs.contains(here)).or(match labs.as_slice() {
        [only] if here.is_none() => Some(only),
        _ => None,
    });
    if let Some(lab) = in_question {
        return Ok(lacks(&applied(lab)?.1, vm));
    }
    Ok(Failure::because(match here {
        Some(lab) => format!("no lab on this host has a guest {vm}; lab {lab} of {DEFAULT_FILE} is not created yet"),
        None if labs.is_empty() => format!("no lab on this host has a guest {vm}: none is created"),
        None => format!("no lab on this host has a guest {vm} (labs: {})", names(&labs)),
    }))
}

fn lacks(source: &Source, vm: &VmName) -> Failure {
    Failure::because(format!("lab {} has no guest {vm}; it has {}", source.model.lab(), guests_of(source)))
}

/// The first dozen of a lab's guests.
fn guests_of(source: &Source) -> String {
    const SHOWN: usize = 12;
    let all = source.model.vms();
    let mut names: Vec<&str> = all.keys().map(VmName::as_str).take(SHOWN).collect();
    let more = format!("{} more", all.len().saturating_sub(SHOWN));
    if all.len() > SHOWN {
        names.push(&more);
    }
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Guests of one lab; without names all of it.
pub(super) fn guests(names: &[String], of: Option<&str>) -> Result<(LabName, Source, Vec<VmName>), Failure> {
    if let (None, true) = (of, names.is_empty()) {
        return all_of(&default_lab()?);
    }
    if let (Some(of), true) = (of, names.is_empty()) {
        return all_of(&lab(of)?);
    }
    let mut vms = Vec::new();
    let mut lab = of.map(lab).transpose()?;
    for name in names {
        let in_lab = match &lab {
            Some(lab) if !name.contains('/') => format!("{lab}/{name}"),
            _ => name.clone(),
        };
        let (found, vm) = guest(&in_lab)?;
        if let Some(other) = lab.replace(found.clone()).filter(|other| *other != found) {
            return Err(Failure::Usage(format!(
                "these guests are in two labs, {other} and {found}: name those of one"
            )));
        }
        if !vms.contains(&vm) {
            vms.push(vm);
        }
    }
    let lab = lab.ok_or_else(|| Failure::Usage("name a guest, or say --all".to_owned()))?;
    let (_, source) = applied(&lab)?;
    Ok((lab, source, vms))
}

fn all_of(lab: &LabName) -> Result<(LabName, Source, Vec<VmName>), Failure> {
    let (_, source) = applied(lab)?;
    let vms = source.model.vms().keys().cloned().collect();
    Ok((lab.clone(), source, vms))
}

fn default_lab() -> Result<LabName, Failure> {
    if Path::new(DEFAULT_FILE).exists() {
        return lab(DEFAULT_FILE);
    }
    match ledger::labs(&paths()?)?.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Failure::because("no lab is created on this host; run vmnet create first")),
        several => Err(Failure::Usage(format!("there are several labs: say --of with one of {}", names(several)))),
    }
}

fn has(source: &Source, vm: &VmName) -> Result<(), Failure> {
    if source.model.vms().contains_key(vm) {
        return Ok(());
    }
    Err(lacks(source, vm))
}
