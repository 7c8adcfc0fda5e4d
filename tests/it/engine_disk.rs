//! Disks and seeds in a guest's folder, and what may stand in the way. Needs no root: the folder is the caller's.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use vmnet::engine::folder::Owner;
use vmnet::engine::{self, BaseProblem, EngineError, GuestFiles};
use vmnet::names::VmName;
use vmnet::state::{FirmwareFiles, Kept, Overlay, OwnDisk, Uefi};

use crate::private::{private, sh};
use crate::skip::skip_this;

/// A folder for one test, with a base image of 1 MiB.
struct Place {
    root: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    /// `None`, and a visible line, where a program is missing that the tests need.
    fn new() -> Option<Self> {
        for program in ["qemu-img", "ssh-keygen"] {
            if Command::new(program).arg("-?").output().is_err() {
                skip_this(&format!("needs {program}"));
                return None;
            }
        }
        let root = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let place = Self { root, runtime };
        place.qemu_img(&["create", "-q", "-f", "qcow2", "base.qcow2", "1M"]);
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn qemu_img(&self, args: &[&str]) -> String {
        let output = Command::new("qemu-img").args(args).current_dir(self.root.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn folder(&self) -> PathBuf {
        self.path("state/lab/guests/vm1")
    }

    fn overlay(&self, base: &str, base_format: &str, size: Option<u64>) -> Overlay {
        let path = self.folder().join("disk-1.qcow2");
        Overlay { path, base: self.path(base), base_format: base_format.into(), size, digest: None }
    }

    fn prepare(&self, overlay: &Overlay) -> Result<(), EngineError> {
        let vm: VmName = "vm1".parse().unwrap();
        let owner = Owner { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() };
        let seed = [("meta-data".to_owned(), "{}\n".to_owned())];
        let files = GuestFiles { disk: Some(overlay), kept: &Kept::default(), seed: &seed };
        self.runtime.block_on(engine::prepare(&vm, &self.folder(), owner, files))
    }

    /// What a guest keeps beside disk and seed.
    fn prepare_kept(&self, kept: &Kept) -> Result<(), EngineError> {
        let vm: VmName = "vm1".parse().unwrap();
        let owner = Owner { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() };
        let files = GuestFiles { disk: None, kept, seed: &[] };
        self.runtime.block_on(engine::prepare(&vm, &self.folder(), owner, files))
    }

    fn problem(&self, overlay: &Overlay) -> BaseProblem {
        match self.prepare(overlay) {
            Err(EngineError::Base { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    }

    /// The names in the guest's folder.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn a_disk_is_made_once_and_stays() {
    let Some(place) = Place::new() else { return };
    let overlay = place.overlay("base.qcow2", "qcow2", Some(8 << 20));
    place.prepare(&overlay).unwrap();
    assert_eq!(place.names(), ["base", "disk-1.qcow2", "host-key", "host-key.pub", "seed.img"]);
    let info = place.qemu_img(&["info", "--output=json", overlay.path.to_str().unwrap()]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["virtual-size"], 8 << 20);
    assert_eq!(info["backing-filename"], place.path("base.qcow2").to_str().unwrap());
    assert_eq!(info["backing-filename-format"], "qcow2");
    for name in place.names() {
        assert_eq!(place.folder().join(name).metadata().unwrap().mode() & 0o777, 0o600);
    }
    let before = (overlay.path.metadata().unwrap().ino(), engine::public_host_key(&place.folder()).unwrap());
    let seed = fs::read(place.folder().join("seed.img")).unwrap();
    place.prepare(&overlay).unwrap();
    assert_eq!((overlay.path.metadata().unwrap().ino(), engine::public_host_key(&place.folder()).unwrap()), before);
    assert!(fs::read(place.folder().join("seed.img")).unwrap() == seed, "the same seed for the same files");
}

#[test]
fn a_disk_meets_no_other_base_than_its_own() {
    let Some(place) = Place::new() else { return };
    let overlay = place.overlay("base.qcow2", "qcow2", None);
    place.prepare(&overlay).unwrap();
    place.prepare(&overlay).unwrap();
    place.qemu_img(&["create", "-q", "-f", "qcow2", "other.qcow2", "2M"]);
    let other = place.overlay("other.qcow2", "qcow2", None);
    assert!(matches!(place.prepare(&other), Err(EngineError::OtherBase { .. })));
    // The same path, and another image by now.
    fs::rename(place.path("base.qcow2"), place.path("moved.qcow2")).unwrap();
    fs::rename(place.path("other.qcow2"), place.path("base.qcow2")).unwrap();
    let Err(error @ EngineError::OtherBase { .. }) = place.prepare(&overlay) else { panic!("it was taken") };
    // Both are named by what is in them, and there is a way on.
    let text = error.to_string();
    assert_eq!(text.matches("(qcow2, sha256 ").count(), 2, "{text}");
    assert!(error.help().unwrap().contains("(vmnet reset)"));
    // What is said beforehand of the content counts; it is not read again.
    let claimed = Overlay { digest: Some("0".repeat(64).parse().unwrap()), ..overlay.clone() };
    assert!(matches!(place.prepare(&claimed), Err(EngineError::OtherBase { .. })));
    engine::reset(&place.folder()).unwrap();
    let fresh = Overlay { path: place.folder().join("disk-2.qcow2"), ..overlay };
    place.prepare(&fresh).unwrap();
}

#[test]
fn the_content_of_a_base_counts_and_not_where_or_when() {
    let Some(place) = Place::new() else { return };
    let overlay = place.overlay("base.qcow2", "qcow2", None);
    place.prepare(&overlay).unwrap();
    let inode = overlay.path.metadata().unwrap().ino();
    let later = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(3600);
    fs::File::options().append(true).open(place.path("base.qcow2")).unwrap().set_modified(later).unwrap();
    place.prepare(&overlay).unwrap();
    // On another host it stands elsewhere; whoever starts QEMU by hand follows the name in the header.
    fs::rename(place.path("base.qcow2"), place.path("moved.qcow2")).unwrap();
    let moved = Overlay { base: place.path("moved.qcow2"), ..overlay.clone() };
    place.prepare(&moved).unwrap();
    assert_eq!(overlay.path.metadata().unwrap().ino(), inode);
    let info = place.qemu_img(&["info", "--output=json", overlay.path.to_str().unwrap()]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["backing-filename"], place.path("moved.qcow2").to_str().unwrap());
    // Whether the definition says the one digest or the other.
    let sha512 = Command::new("sha512sum").arg(place.path("moved.qcow2")).output().unwrap();
    let sha512 = String::from_utf8(sha512.stdout).unwrap()[..128].parse().unwrap();
    place.prepare(&Overlay { digest: Some(sha512), ..moved.clone() }).unwrap();
    // The same bytes, meant otherwise, are another disk.
    let raw = Overlay { base_format: "raw".into(), ..moved };
    assert!(matches!(place.prepare(&raw), Err(EngineError::OtherBase { .. })));
}

#[test]
fn further_disks_and_variables_are_made_once_and_survive_as_they_should() {
    let Some(place) = Place::new() else { return };
    fs::write(place.path("template.fd"), vec![7; 4096]).unwrap();
    let own = |name: &str| OwnDisk { path: place.folder().join(name), size: 2 << 20 };
    let firmware = FirmwareFiles { code: "/code".into(), variables: place.path("template.fd") };
    let uefi = Uefi { firmware, variables: place.folder().join("uefi-vars.fd") };
    let kept = Kept { uefi: Some(uefi), disks: vec![own("extra-data.qcow2")] };
    place.prepare_kept(&kept).unwrap();
    assert_eq!(place.names(), ["extra-data.qcow2", "uefi-vars.fd"]);
    let info = place.qemu_img(&["info", "--output=json", own("extra-data.qcow2").path.to_str().unwrap()]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!((&info["virtual-size"], &info["format"]), (&(2 << 20).into(), &"qcow2".into()));
    // What the guest wrote stays.
    fs::write(place.folder().join("uefi-vars.fd"), "boot entries").unwrap();
    let inode = own("extra-data.qcow2").path.metadata().unwrap().ino();
    place.prepare_kept(&kept).unwrap();
    assert_eq!(fs::read_to_string(place.folder().join("uefi-vars.fd")).unwrap(), "boot entries");
    engine::reset(&place.folder()).unwrap();
    assert_eq!(own("extra-data.qcow2").path.metadata().unwrap().ino(), inode);
    assert!(!place.names().contains(&"uefi-vars.fd".to_owned()));
    // One that can't be made leaves nothing of what was made with it.
    let too_large = OwnDisk { size: u64::MAX - 511, ..own("extra-huge.qcow2") };
    let bad = Kept { disks: vec![own("extra-new.qcow2"), too_large], ..kept };
    assert!(place.prepare_kept(&bad).is_err());
    assert!(!place.names().iter().any(|name| name.contains("new") || name.contains("huge")), "{:?}", place.names());
}

#[test]
fn on_a_full_disk_nothing_half_made_stays() {
    private(|| {
        let Some(place) = Place::new() else { return };
        fs::create_dir_all(place.path("state")).unwrap();
        let state = place.path("state").display().to_string();
        sh(&format!("mount -t tmpfs -o size=256k,mode=711 tmpfs {state}; mkdir -p {state}/lab/guests"));
        let overlay = place.overlay("base.qcow2", "qcow2", None);
        // Room for the folder, and not for a disk of 200 KiB.
        sh(&format!("head -c 128k /dev/zero >{state}/full"));
        let error = place.prepare(&overlay).unwrap_err();
        assert!(error.to_string().contains("No space left"), "{error}");
        assert_eq!(place.names(), Vec::<String>::new());
        let template = place.path("template.fd");
        fs::write(&template, vec![7; 500 << 10]).unwrap();
        let firmware = FirmwareFiles { code: "/code".into(), variables: template };
        let uefi = Uefi { firmware, variables: place.folder().join("uefi-vars.fd") };
        let kept = Kept { uefi: Some(uefi), disks: Vec::new() };
        let made = place.prepare_kept(&kept);
        assert!(matches!(made, Err(EngineError::File { .. })), "{made:?}");
        assert_eq!(place.names(), Vec::<String>::new());
        sh(&format!("rm {state}/full; mount -o remount,size=8m {state}"));
        place.prepare(&overlay).unwrap();
        drop(place.qemu_img(&["check", "-q", overlay.path.to_str().unwrap()]));
        sh(&format!("umount {state}"));
    });
}

#[test]
fn without_a_size_a_disk_has_its_bases() {
    let Some(place) = Place::new() else { return };
    fs::write(place.path("base.raw"), vec![0; 3 << 20]).unwrap();
    for (base, format, size) in [("base.qcow2", "qcow2", 1 << 20), ("base.raw", "raw", 3 << 20)] {
        let overlay = place.overlay(base, format, None);
        place.prepare(&overlay).unwrap();
        let info = place.qemu_img(&["info", "--output=json", overlay.path.to_str().unwrap()]);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&info).unwrap()["virtual-size"], size);
        fs::remove_file(&overlay.path).unwrap();
    }
}

#[test]
fn a_base_that_is_not_what_it_should_be_is_refused() {
    let Some(place) = Place::new() else { return };
    place.qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", "leans.qcow2"]);
    place.qemu_img(&["create", "-q", "-f", "qcow2", "-o", "data_file=data.raw", "split.qcow2", "1M"]);
    fs::write(place.path("base.raw"), "short").unwrap();
    let smaller = place.overlay("base.qcow2", "qcow2", Some(1 << 19));
    assert_eq!(place.problem(&smaller), BaseProblem::Larger { base: 1 << 20, wanted: 1 << 19 });
    assert_eq!(place.problem(&place.overlay("base.raw", "qcow2", None)), BaseProblem::NotQcow2);
    assert_eq!(place.problem(&place.overlay("base.qcow2", "raw", None)), BaseProblem::IsQcow2);
    assert_eq!(place.problem(&place.overlay("leans.qcow2", "qcow2", None)), BaseProblem::Backing);
    assert_eq!(place.problem(&place.overlay("split.qcow2", "qcow2", None)), BaseProblem::DataFile);
    // None of them may be waited for, either.
    nix::unistd::mkfifo(&place.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for base in ["fifo", "none", "state"] {
        let result = place.prepare(&place.overlay(base, "raw", None));
        assert!(matches!(result, Err(EngineError::Image { .. })), "{base}: {result:?}");
    }
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn half_of_a_disk_or_a_key_is_made_anew() {
    let Some(place) = Place::new() else { return };
    fs::create_dir_all(place.folder()).unwrap();
    fs::set_permissions(place.folder(), PermissionsExt::from_mode(0o700)).unwrap();
    for name in ["disk-1.qcow2.new", "host-key.new", "host-key.pub", "seed.img.new"] {
        fs::write(place.folder().join(name), "half").unwrap();
    }
    place.prepare(&place.overlay("base.qcow2", "qcow2", None)).unwrap();
    assert_eq!(place.names(), ["base", "disk-1.qcow2", "host-key", "host-key.pub", "seed.img"]);
    assert!(engine::public_host_key(&place.folder()).unwrap().unwrap().starts_with("ssh-ed25519 "));
}

#[test]
fn a_reset_counts_up_and_takes_the_disk_away() {
    let Some(place) = Place::new() else { return };
    assert_eq!(engine::instance(&place.folder()).unwrap(), 1);
    engine::reset(&place.folder()).unwrap();
    place.prepare(&place.overlay("base.qcow2", "qcow2", None)).unwrap();
    assert_eq!(engine::instance(&place.folder()).unwrap(), 1);
    let key = engine::public_host_key(&place.folder()).unwrap();
    engine::reset(&place.folder()).unwrap();
    assert_eq!(engine::instance(&place.folder()).unwrap(), 2);
    assert!(!place.names().contains(&"disk-1.qcow2".to_owned()));
    assert_eq!(engine::public_host_key(&place.folder()).unwrap(), key);
}

#[test]
fn links_and_folders_that_others_can_change_are_refused() {
    let refused = |break_it: &dyn Fn(&Place)| {
        let Some(place) = Place::new() else { return };
        fs::create_dir_all(place.path("state/lab/guests")).unwrap();
        fs::create_dir(place.path("elsewhere")).unwrap();
        break_it(&place);
        let result = place.prepare(&place.overlay("base.qcow2", "qcow2", None));
        assert!(matches!(result, Err(EngineError::Folder { .. })), "{result:?}");
        assert_eq!(fs::read_dir(place.path("elsewhere")).unwrap().count(), 0);
    };
    refused(&|place| symlink(place.path("elsewhere"), place.folder()).unwrap());
    refused(&|place| fs::write(place.folder(), "").unwrap());
    refused(&|place| {
        fs::remove_dir(place.path("state/lab/guests")).unwrap();
        symlink(place.path("elsewhere"), place.path("state/lab/guests")).unwrap();
    });
    refused(&|place| {
        fs::remove_dir_all(place.path("state/lab")).unwrap();
        symlink(place.path("elsewhere"), place.path("state/lab")).unwrap();
    });
    refused(&|place| {
        fs::set_permissions(place.path("state/lab/guests"), PermissionsExt::from_mode(0o777)).unwrap();
    });
}

#[test]
fn a_link_that_a_guest_left_is_not_followed() {
    let Some(place) = Place::new() else { return };
    let victim = place.path("victim");
    fs::write(&victim, "precious").unwrap();
    fs::create_dir_all(place.folder()).unwrap();
    for name in ["seed.img", "seed.img.new", "disk-1.qcow2.new", "host-key.new", "host-key.new.pub"] {
        symlink(&victim, place.folder().join(name)).unwrap();
    }
    place.prepare(&place.overlay("base.qcow2", "qcow2", None)).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    // One in the place of a file that is read gives nothing away.
    fs::remove_file(place.folder().join("host-key.pub")).unwrap();
    symlink(&victim, place.folder().join("host-key.pub")).unwrap();
    assert!(engine::public_host_key(&place.folder()).is_err());
    assert!(Path::new(&victim).exists());
}
