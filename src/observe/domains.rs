//! The MACs of libvirt's domains, read from where libvirt keeps them. No daemon is asked, and none need run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Scope;
use crate::libvirt::xml;
use crate::names::{LabName, Mac, VmName};
use crate::rule;

/// Where the system's libvirt keeps domains: those that are defined, and those that run.
pub(super) const FOLDERS_OF_DOMAINS: [&str; 2] = ["/etc/libvirt/qemu", "/run/libvirt/qemu"];

/// No domain is longer.
const LONGEST: u64 = 1 << 20;

/// The MACs of all domains that are not the lab's own guests, each with its domain's name.
pub(super) fn macs(scope: &Scope, folders: [&str; 2]) -> BTreeMap<Mac, String> {
    let mut found = BTreeMap::new();
    for folder in folders {
        for (name, text) in texts(folder) {
            found.extend(macs_of(&text, &scope.lab).into_iter().map(|mac| (mac, name.clone())));
        }
    }
    found
}

/// A domain of a lab's guest, by libvirt's own files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OnDisk {
    /// The lab.
    pub lab: LabName,
    /// The guest.
    pub vm: VmName,
    /// The domain's name.
    pub name: String,
    /// Whether it runs.
    pub runs: bool,
    /// Bytes of its memory, as far as it says so.
    pub memory: u64,
}

/// The domains of all labs' guests, by lab and guest. One that runs and is defined is there once.
pub fn domains() -> Vec<OnDisk> {
    let mut found = BTreeMap::new();
    for (folder, runs) in FOLDERS_OF_DOMAINS.into_iter().zip([false, true]) {
        for (name, text) in texts(folder) {
            let Some(domain) = domain_in(&text) else { continue };
            if let Some((lab, vm)) = guest_of(domain) {
                let memory = xml::memory(domain).unwrap_or_default();
                found.insert((lab.clone(), vm.clone()), OnDisk { lab, vm, name, runs, memory });
            }
        }
    }
    found.into_values().collect()
}

/// Those of one lab.
pub fn domains_of(lab: &LabName) -> Vec<OnDisk> {
    domains().into_iter().filter(|domain| domain.lab == *lab).collect()
}

/// Of a domain that runs, it stands in what libvirt knows of its state.
fn domain_in(text: &str) -> Option<&str> {
    text.find("<domain ").and_then(|start| text.get(start..))
}

/// The guest that a domain is: it says so, and what it was made of, and has its UUID.
fn guest_of(domain: &str) -> Option<(LabName, VmName)> {
    let said = xml::domain(domain);
    let owner = said.owner.filter(|_| said.made.is_some())?;
    let (lab, vm) = (owner.lab.parse().ok()?, owner.vm.parse().ok()?);
    (xml::uuid(domain)? == rule::guest_uuid(&lab, &vm)).then_some((lab, vm))
}

/// The domains or networks in a folder of libvirt's, each by its name.
pub(super) fn texts(folder: &str) -> Vec<(String, String)> {
    // Who may not read them may not make a lab either.
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    let domains = paths.filter(|path| path.extension().is_some_and(|extension| extension == "xml"));
    let text = |path: PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Some((name, read(&path)?))
    };
    domains.filter_map(text).collect()
}

fn read(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok().filter(|meta| meta.is_file() && meta.len() < LONGEST)?;
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).ok()?);
    std::io::Read::read_to_end(&mut fs::File::open(path).ok()?, &mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The MACs of one domain; none when its metadata say that it is a guest of this lab.
fn macs_of(text: &str, lab: &LabName) -> Vec<Mac> {
    let said = xml::domain(text);
    if said.owner.is_some_and(|owner| owner.lab == lab.as_str()) {
        return Vec::new();
    }
    said.nics.into_iter().filter_map(|nic| nic.mac?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::xml::METADATA_NAMESPACE;

    fn macs(text: &str) -> Vec<String> {
        macs_of(text, &"campus".parse().unwrap()).iter().map(Mac::to_string).collect()
    }

    #[test]
    fn every_interface_of_a_foreign_domain_counts() {
        let domain = "<domain type='kvm'><name>x</name><devices><interface type='bridge'>\
            <mac address='52:54:00:AA:00:01'/></interface><interface><mac address=\"52:54:00:aa:00:02\"></mac>\
            </interface></devices></domain>";
        assert_eq!(macs(domain), ["52:54:00:aa:00:01", "52:54:00:aa:00:02"]);
        let running = format!("<domstatus state='running'>{domain}</domstatus>");
        assert_eq!(macs(&running).len(), 2);
    }

    #[test]
    fn a_guest_of_this_lab_is_no_foreign_domain() {
        let of = |lab: &str| {
            format!(
                "<domain><metadata><vmnet:guest xmlns:vmnet=\"{METADATA_NAMESPACE}\" lab=\"{lab}\" vm=\"vm1\"/>\
                 </metadata><devices><interface><mac address='52:54:00:aa:00:01'/></interface></devices></domain>"
            )
        };
        assert!(macs(&of("campus")).is_empty());
        assert_eq!(macs(&of("other")).len(), 1);
    }

    #[test]
    fn what_is_no_domain_has_none() {
        for text in ["", "<", "<mac address='x'/>", "<a><b>", "not xml <mac"] {
            assert!(macs(text).is_empty(), "{text}");
        }
    }
}
