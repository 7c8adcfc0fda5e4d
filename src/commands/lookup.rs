//! Names on the command line: which lab, which guest, which network.

use std::path::Path;

use super::bundle::Bundle;
use super::failure::Failure;
use super::output::shown;
use super::session::{boot_id, paths};
use super::source::Source;
use super::standing::undone;
use crate::cli::{self, GuestName};
use crate::ledger::change::Standing;
use crate::ledger::{self, Ledger, change};
use crate::model::Model;
use crate::names::{LabName, NetName, VmName};

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
    if !is_file(argument) {
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
    match ledger.filter(|_| is_said).and_then(|ledger| of_another(&ledger, &path)) {
        None => Ok(named.to_string()),
        Some(failure) => Err(failure),
    }
}

/// That a lab is not this file's, though it has the name: it was created from another one that is still there, or by
/// another machine. What is done to it has to be meant.
fn of_another(ledger: &Ledger, path: &Path) -> Option<Failure> {
    let (lab, own) = (&ledger.lab, shown(path));
    let whose = match (ledger.is_of_leftovers(), ledger.origin.sent) {
        (true, _) => return None,
        (false, true) => "sent by another machine".to_owned(),
        (false, false) if ledger.path == path || !ledger.path.exists() => return None,
        (false, false) => format!("created from {}", shown(&ledger.path)),
    };
    let help = format!("where it is meant, say {lab} in the place of the file, and no --lab");
    Some(Failure::advised(format!("lab {lab} was {whose}, and not from {own}"), help))
}

/// Whether an argument is a definition's path: no lab's name has a dot or a slash.
pub(super) fn is_file(argument: &str) -> bool {
    argument.contains(['.', '/']) || argument == Bundle::ARGUMENT
}

/// The lab that an argument means, by its name or by its definition's file.
///
/// A definition that was applied is known by its path, so that an edited or broken or deleted file still names its
/// lab. One that runs under another name (`--lab`) is not the file's: it is meant where it is said.
pub(super) fn lab(argument: &str) -> Result<LabName, Failure> {
    lab_or(argument, |_| Ok(None))
}

/// As [`lab`]; where no definition is here and none is said, the only lab of the host. For what changes nothing.
pub(super) fn lab_or_only(argument: &str) -> Result<LabName, Failure> {
    lab_or(argument, |labs| Ok(the_only(labs)))
}

/// As [`lab`]; where no definition is here and none is said, the only lab with a change that is not confirmed or not
/// done. Whoever is in a hurry need not know its name.
pub(super) fn lab_with_change(argument: &str) -> Result<LabName, Failure> {
    lab_or(argument, |_| Ok(the_only(&labs_with_change(|_| true)?)))
}

fn the_only(labs: &[LabName]) -> Option<LabName> {
    if let [only] = labs { Some(only.clone()) } else { None }
}

/// Labs whose change is not confirmed or not done. Of one whose files can't be read it is not known.
pub(super) fn labs_with_change(is_meant: impl Fn(Standing) -> bool) -> Result<Vec<LabName>, Failure> {
    let (paths, boot_id) = (paths()?, boot_id()?);
    let standing = |lab: &LabName| {
        let ledger = ledger::read(&paths, lab).ok()?;
        Some(change::read(&paths, lab, ledger.as_ref(), &boot_id).ok()??.0)
    };
    Ok(ledger::labs(&paths)?.into_iter().filter(|lab| standing(lab).is_some_and(&is_meant)).collect())
}

fn lab_or(argument: &str, choose: impl Fn(&[LabName]) -> Result<Option<LabName>, Failure>) -> Result<LabName, Failure> {
    if !is_file(argument) {
        let file = "a definition's file is said with its ending, or as ./FILE";
        return argument.parse().map_err(|error| Failure::Usage(format!("{error}; {file}")));
    }
    let path =
        std::path::absolute(argument).map_err(|error| Failure::failed("the working directory is gone", error))?;
    let paths = paths()?;
    // What another host sent stands at its path there, whatever stands here.
    let of_path = |lab: LabName| ledger::read(&paths, &lab).ok()?.filter(|l| l.path == path && !l.origin.sent);
    let ledgers: Vec<Ledger> = ledger::labs(&paths)?.into_iter().filter_map(of_path).collect();
    if ledgers.len() > 1
        && let Ok(now) = Source::lab_in(Path::new(argument))
        && ledgers.iter().any(|ledger| ledger.lab == now)
    {
        return Ok(now);
    }
    let (others, own): (Vec<Ledger>, Vec<Ledger>) =
        ledgers.into_iter().partition(|ledger| ledger.origin.alias.is_some());
    let labs_of = |ledgers: Vec<Ledger>| ledgers.into_iter().map(|ledger| ledger.lab).collect::<Vec<LabName>>();
    let applied = labs_of(own);
    match applied.as_slice() {
        [] => {}
        [only] => return Ok(only.clone()),
        several => {
            let (file, labs) = (path.display(), names(several));
            return Err(Failure::Usage(format!("several labs were created from {file}: name one of {labs}")));
        }
    }
    if argument == DEFAULT_FILE && !path.exists() {
        let labs = ledger::labs(&paths)?;
        if let Some(lab) = choose(&labs)? {
            return Ok(lab);
        }
        return Err(Failure::Usage(match labs.is_empty() {
            true => format!("there is no {DEFAULT_FILE} here; name a definition or a lab (vmnet list shows labs)"),
            false => format!("there is no {DEFAULT_FILE} here; name one of this host's labs: {}", names(&labs)),
        }));
    }
    let lab = Source::lab_in(Path::new(argument))?;
    match ledger::read(&paths, &lab).ok().flatten() {
        Some(ledger) => return of_another(&ledger, &path).map_or(Ok(lab), Err),
        None if others.is_empty() => return Ok(lab),
        None => {}
    }
    let (others, file) = (names(&labs_of(others)), path.display());
    Err(Failure::advised(
        format!("lab {lab} is not created on this host; {file} runs here under another name: {others}"),
        "say which one: --lab NAME, or the name in the place of the file",
    ))
}

fn names(labs: &[LabName]) -> String {
    labs.iter().map(LabName::as_str).collect::<Vec<_>>().join(", ")
}

/// That a lab was never applied on this host.
pub(super) fn not_created(lab: &LabName) -> Result<Failure, Failure> {
    let known = ledger::labs(&paths()?)?;
    let known = if known.is_empty() { "no lab is".to_owned() } else { format!("labs: {}", names(&known)) };
    let undone = undone(lab).map(|undone| format!("; its last {undone}")).unwrap_or_default();
    Ok(Failure::advised(
        format!("lab {lab} is not created on this host ({known}){undone}"),
        "run vmnet create first; vmnet list shows what is there",
    ))
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

/// A guest: `campus/vm1`, or `vm1` in the working directory's lab, else in the only lab that has one of that name; but
/// where the definition that is here has it too, that one is meant.
pub(super) fn guest(argument: &str) -> Result<(LabName, VmName), Failure> {
    guest_or(argument, |lab, guests| format!("name one of its guests ({guests}): {lab}/VM"))
}

/// As [`guest`]; `of_lab` says what to do about a lab's name, given that and its guests.
fn guest_or(argument: &str, of_lab: impl Fn(&LabName, String) -> String) -> Result<(LabName, VmName), Failure> {
    let GuestName { lab, vm } = argument.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
    if let Some(lab) = lab {
        let (_, source) = applied(&lab)?;
        return has(&source, &vm).map(|()| (lab, vm));
    }
    let here = of_here();
    match the_one_with(&here, "guest", vm.as_str(), |model| model.vms().contains_key(&vm))? {
        Some(lab) => Ok((lab, vm)),
        None => Err(no_guest(&vm, here.and_then(Result::ok), of_lab)?),
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
    if let Some(lab) = lab {
        let (_, source) = applied(&lab)?;
        return match source.model.networks().contains_key(&network) {
            true => Ok((lab, network)),
            false => Err(lacks_network(&source, &network)),
        };
    }
    match the_one_with(&of_here(), "network", network.as_str(), |model| model.networks().contains_key(&network))? {
        Some(lab) => Ok((lab, network)),
        None => Err(match ledger::labs(&paths()?)?.as_slice() {
            [only] => lacks_network(&applied(only)?.1, &network),
            [] => Failure::because(format!("no lab on this host has a network {network}: none is created")),
            labs => Failure::because(format!("no lab on this host has a network {network} (labs: {})", names(labs))),
        }),
    }
}

fn lacks_network(source: &Source, network: &NetName) -> Failure {
    let all: Vec<&str> = source.model.networks().keys().map(NetName::as_str).collect();
    let here = source.origin.here.as_ref().map(|host| format!(" on host {host}")).unwrap_or_default();
    let lab = source.model.lab();
    Failure::because(format!("lab {lab} has no network {network}{here}; it has {}", all.join(", ")))
}

/// The lab of the definition that is here, where there is one.
fn of_here() -> Option<Result<LabName, Failure>> {
    Path::new(DEFAULT_FILE).exists().then(|| lab(DEFAULT_FILE))
}

/// The lab of this host that has something of a name: that of the definition that is here, or else the only one. Where
/// that definition has it and its lab has not got it yet, none is meant. A lab that can't be read is told by whoever
/// names it.
fn the_one_with(
    here: &Option<Result<LabName, Failure>>,
    what: &str,
    name: &str,
    has: impl Fn(&Model) -> bool,
) -> Result<Option<LabName>, Failure> {
    let labs = ledger::labs(&paths()?)?.into_iter();
    let found: Vec<LabName> = labs.filter(|lab| applied(lab).is_ok_and(|(_, source)| has(&source.model))).collect();
    // A file that has been given another name since is still that lab's.
    if let Some(here) = here.iter().flatten().find(|here| found.contains(here)) {
        return Ok(Some(here.clone()));
    }
    match found.as_slice() {
        [] => Ok(None),
        [only] => match here.as_ref().and_then(|_| Source::read_whole(Path::new(DEFAULT_FILE), None).ok()) {
            Some(source) if has(&source.whole) && source.whole.lab() == only => {
                // Of another file by that name it is none.
                lab(DEFAULT_FILE).map(|_| Some(only.clone()))
            }
            Some(source) if has(&source.whole) => Err(Failure::Usage(format!(
                "lab {} of {DEFAULT_FILE} has no {what} {name} here yet, though the file does; that of lab {only} is \
                 {only}/{name}",
                source.whole.lab()
            ))),
            _ => Ok(Some(only.clone())),
        },
        labs => {
            let said: Vec<String> = labs.iter().map(|lab| format!("{lab}/{name}")).collect();
            Err(Failure::Usage(format!("several labs have a {what} {name}: say {}", said.join(" or "))))
        }
    }
}

/// That no lab has a guest of this name, and which there are. `here` is the lab of the working directory.
fn no_guest(
    vm: &VmName,
    here: Option<LabName>,
    of_lab: impl Fn(&LabName, String) -> String,
) -> Result<Failure, Failure> {
    let labs = ledger::labs(&paths()?)?;
    if let Some(lab) = labs.iter().find(|lab| lab.as_str() == vm.as_str()) {
        let help = of_lab(lab, guests_of(&applied(lab)?.1));
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
    let message = format!("lab {} has no guest {vm}; it has {}", source.model.lab(), guests_of(source));
    match source.file_changed() {
        true => Failure::advised(message, format!("{} was edited since: run vmnet create", shown(&source.path))),
        false => Failure::because(message),
    }
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
        let all = |lab: &LabName, guests| format!("name one of its guests ({guests}), or all: --all --of {lab}");
        let (found, vm) = guest_or(&in_lab, all)?;
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
