//! What `make install` puts where, and the systemd units among it.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::skip::skip_this;

fn make(target: &str, prefix: &Path, destdir: &str) -> Output {
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR")).arg(target).arg(format!("PREFIX={}", prefix.display()));
    make.arg(format!("DESTDIR={destdir}")).arg(concat!("BINARY=", env!("CARGO_BIN_EXE_vmnet")));
    // Tests may be built without it.
    make.arg(if has_libvirt() { "LIBVIRT=yes" } else { "LIBVIRT=no" });
    let output = make.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn has_libvirt() -> bool {
    Path::new(env!("CARGO_BIN_EXE_vmnet")).with_file_name(vmnet::engine::libvirt::PROGRAM).exists()
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path())),
            false => drop(found.insert(entry.path())),
        }
    }
    found
}

#[test]
fn what_is_installed_is_removed_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (prefix, destdir) in [(root, String::new()), (Path::new("/usr"), root.display().to_string())] {
        make("install", prefix, &destdir);
        let installed = files(root);
        let place = if destdir.is_empty() { root.to_owned() } else { root.join("usr") };
        let mut expected = vec![
            ("bin/vmnet", 0o755),
            ("lib/systemd/system/vmnet.service", 0o644),
            ("lib/systemd/system/vmnet-guests.service", 0o644),
            ("lib/systemd/system/vmnet-libvirt.service", 0o644),
            ("share/man/man1/vmnet.1", 0o644),
            ("share/bash-completion/completions/vmnet", 0o644),
            ("share/zsh/site-functions/_vmnet", 0o644),
            ("share/fish/vendor_completions.d/vmnet.fish", 0o644),
        ];
        if has_libvirt() {
            expected.push(("bin/vmnet-libvirt", 0o755));
        }
        for (file, mode) in expected.iter().copied() {
            let meta = place.join(file).metadata().unwrap_or_else(|error| panic!("{file}: {error}"));
            assert_eq!(meta.permissions().mode() & 0o7777, mode, "{file}");
            assert!(meta.len() > 100, "{file}");
        }
        assert_eq!(installed.len(), expected.len(), "{installed:?}");
        let unit = std::fs::read_to_string(place.join("lib/systemd/system/vmnet.service")).unwrap();
        assert!(unit.contains(&format!("ExecStart={}/bin/vmnet restore\n", prefix.display())), "{unit}");
        let unit = std::fs::read_to_string(place.join("lib/systemd/system/vmnet-guests.service")).unwrap();
        assert!(unit.contains(&format!("ExecStop={}/bin/vmnet shutdown\n", prefix.display())), "{unit}");
        let unit = std::fs::read_to_string(place.join("lib/systemd/system/vmnet-libvirt.service")).unwrap();
        assert!(unit.contains(&format!("ExecStart={}/bin/vmnet restore\n", prefix.display())), "{unit}");
        make("uninstall", prefix, &destdir);
        assert_eq!(files(root), BTreeSet::new());
    }
}

/// The names in a list of a unit.
fn list(unit: &str, key: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(unit);
    let text = std::fs::read_to_string(path).unwrap();
    let values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// Labs are there before libvirt starts its guests, after the network and what empties the ruleset; guests are shut down
/// before any of that goes.
#[test]
fn units_are_ordered() {
    let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let before = list("vmnet.service", "Before");
    assert!(before.is_superset(&names(&["libvirtd.service", "virtqemud.service", "libvirt-guests.service"])));
    let after = list("vmnet.service", "After");
    assert!(after.is_superset(&names(&["network-online.target", "nftables.service", "firewalld.service"])));
    assert!(list("vmnet.service", "Wants").contains("vmnet-guests.service"));
    let after = list("vmnet-guests.service", "After");
    assert!(after.is_superset(&names(&["vmnet.service", "libvirtd.service", "virtqemud.service"])));
    assert!(list("vmnet.service", "Wants").contains("vmnet-libvirt.service"));
    let after = list("vmnet-libvirt.service", "After");
    assert!(after.is_superset(&names(&["vmnet.service", "libvirtd.service", "virtqemud.service"])));
}

#[test]
fn systemd_has_nothing_against_the_units() {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        return skip_this("needs systemd-analyze");
    }
    let folder = tempfile::tempdir().unwrap();
    make("install", folder.path(), "");
    for name in ["vmnet.service", "vmnet-guests.service", "vmnet-libvirt.service"] {
        let unit = folder.path().join("lib/systemd/system").join(name);
        let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap();
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success() && !said.contains("vmnet"), "{said}");
    }
}
