//! What each host gets: the definition with its lock file, and the files that its guests need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;

use super::board::Board;
use super::outcome::document;
use super::{Call, Fleet, Member, Way, listed};
use crate::commands::bundle::Bundle;
use crate::commands::failure::Failure;
use crate::commands::keys;
use crate::names::FileDigest;
use crate::remote::files;

/// What is in files of this machine, and how large they are.
pub(super) type Known = BTreeMap<PathBuf, (FileDigest, u64)>;

impl Fleet {
    /// Reads the files that guests need, each once. One that is not there is left out: `boot` will say so.
    pub(super) async fn files(&self) -> Result<Known, Failure> {
        let mut known = Known::new();
        for path in self.members.iter().flat_map(|member| self.needed(member).into_values()) {
            if !known.contains_key(&path) && path.is_file() {
                let digest = files::digest(&path).await;
                let failed = |error| Failure::failed(format!("{} can't be sent", path.display()), error);
                known.insert(path.clone(), digest.map_err(failed)?);
            }
        }
        Ok(known)
    }

    /// The files of one host's guests, by what the definition says.
    fn needed(&self, member: &Member) -> BTreeMap<String, PathBuf> {
        let mut needed = BTreeMap::new();
        if let Way::This { .. } = member.way {
            return needed;
        }
        for vm in member.model.vms().values() {
            // Images are where they are: a rehearsed host has this machine's files. What `~` means it does not know.
            let image = vm.image().as_ref().filter(|_| member.way != Way::Rehearsed);
            // What is downloaded each host fetches itself; what a guest writes to stays where it is.
            let disks = vm.disk_files().filter(|(_, readonly)| *readonly && member.way != Way::Rehearsed);
            let files = image.into_iter().flat_map(|image| image.files()).chain(disks.map(|(file, _)| file));
            let files = files.filter_map(|file| Some((file.to_str()?.to_owned(), self.source.files().find(file))));
            needed.extend(files);
            // A rehearsed host has no way outside.
            let downloaded = vm.image().as_ref().filter(|_| member.way == Way::Rehearsed);
            needed.extend(
                downloaded.and_then(|image| Some((image.url()?.to_string(), self.source.files().base(image)?))),
            );
            needed.extend(keys::entries(vm).map(|(_, entry)| (entry.clone(), keys::expand(&self.source, entry))));
        }
        needed
    }

    /// Refuses key files that are none, and user-data that is none, before anything of them leaves this machine.
    pub(super) fn check_keys(&self) -> Result<(), Failure> {
        let mut vms = self.members.iter().flat_map(|member| member.model.vms().values());
        vms.try_for_each(|vm| keys::check(&self.source, vm))
    }

    /// Sends each host the files that it lacks.
    pub(super) async fn send(&self, known: &Known) -> Result<(), Failure> {
        let names: Vec<&str> = self.members.iter().map(|member| member.name.as_str()).collect();
        let board = Board::new("files", &names, &self.output);
        let sent = self.members.iter().map(async |member| {
            let line = board.line(&member.name);
            let mut own = known.clone();
            let needed = self.needed(member);
            own.retain(|path, _| needed.values().any(|other| other == path));
            let shows = |path: &Path, done, total| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                line.sends(&name, done, total);
            };
            let place = member.place();
            let sent = files::send_known(&place, &own, shows).await;
            (member.name.clone(), sent)
        });
        let sent = join_all(sent).await;
        drop(board);
        let failed = sent.into_iter().filter_map(|(name, sent)| Some((name, document(&sent.err()?))));
        let failed: BTreeMap<_, _> = failed.collect();
        match failed.is_empty() {
            true => Ok(()),
            false => Err(Failure::Hosts {
                message: format!("files did not reach {}; nothing was changed", listed(failed.keys())),
                hosts: failed,
                help: None,
                code: 1,
            }),
        }
    }

    /// The command line and standard input of a verb that takes a definition.
    pub(super) fn with_definition(&self, member: &Member, args: &[&str], known: &Known) -> Result<Call, Failure> {
        let mut words: Vec<String> = args.iter().map(|word| (*word).to_owned()).collect();
        if let Way::This { here } = &member.way {
            words.extend(here.iter().map(|here| format!("--here={here}")));
            words.extend(self.source.origin.alias.iter().map(|lab| format!("--lab={lab}")));
            words.push(self.source.path.display().to_string());
            return Ok(Call::of(words));
        }
        if !self.source.whole.hosts().is_empty() {
            words.push(format!("--here={}", member.name));
        }
        words.push(Bundle::ARGUMENT.to_owned());
        let digest = |(entry, path)| Some((entry, known.get(&path)?.0.clone()));
        let bundle = Bundle {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            path: self.source.path.clone(),
            definition: self.source.text.clone(),
            lock: self.source.lock.to_string(),
            files: self.needed(member).into_iter().filter_map(digest).collect(),
            rehearsed: self.source.origin.rehearsed,
            alias: self.source.origin.alias.clone(),
        };
        let input = serde_json::to_vec(&bundle)
            .map_err(|error| Failure::failed("the definition can't be written as JSON", error))?;
        Ok(Call::of(words).with(input))
    }
}
