//! Who may run what: each command with the capabilities that `docs/security.md` names and no others, and without one
//! of them; what vmnet has while it runs; folders that others can change.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::sandbox;
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh};

const LAB: &str = "lab = \"caps\"\n[defaults.vm]\nengine = \"netns\"\n[network.web]\nmode = \"routed\"\n\
                   subnet = \"192.168.10.0/24\"\n[router]\nexternal = { via = \"host\" }\n[vm.vm1]\nnic = \"web\"\n\
                   [vm.vm2]\nnic = \"web\"\n";

/// As root with these capabilities alone.
fn with(caps: &[&str], lab: &Lab, args: &[&str]) -> Output {
    let set: String = caps.iter().map(|cap| format!(",+{cap}")).collect();
    let plain = lab.command(args);
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set=-all{set}")).arg(plain.get_program()).args(args);
    command.current_dir(lab.folder()).stdin(Stdio::null());
    command.env("VMNET_STATE_DIR", "/run/state").env("VMNET_RUN_DIR", "/run/vmnet");
    command.output().unwrap()
}

#[track_caller]
fn works(caps: &[&str], lab: &Lab, args: &[&str]) {
    let ran = with(caps, lab, args);
    assert!(ran.status.success(), "vmnet {args:?} with {caps:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// Exit 4, and one error that names what is missing.
#[track_caller]
fn lacks(caps: &[&str], missing: &[&str], lab: &Lab, args: &[&str]) {
    let ran = with(caps, lab, args);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(4), "vmnet {args:?} with {caps:?}: {said}");
    assert!(missing.iter().all(|name| said.contains(name)), "vmnet {args:?} with {caps:?}: {said}");
    assert_eq!(said.matches("this needs").count(), 1, "{said}");
}

/// A watcher of a change that was undone or confirmed notices a moment later.
fn watchers_are_gone() {
    while sh("ps -e -o args=").lines().any(|line| line.starts_with("vmnet await-confirm")) {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn each_command_works_with_what_it_needs_and_not_with_less() {
    sandbox::run("privilege::each_command_works_with_what_it_needs_and_not_with_less", || {
        let lab = Lab::from_text(LAB);
        let both = ["net_admin", "sys_admin"];
        works(&[], &lab, &["check"]);
        works(&[], &lab, &["completions", "bash"]);
        works(&[], &lab, &["man"]);
        let empty = Snapshot::take();
        let commands: [&[&str]; 15] = [
            &["plan"],
            &["create", "--confirm", "60s"],
            &["undo"],
            &["create"],
            &["boot", "--all"],
            &["status"],
            &["list"],
            &["ps"],
            &["verify"],
            &["plan", "--check"],
            &["shutdown"],
            &["stop", "--all"],
            &["reset", "--all"],
            &["destroy", "--purge"],
            &["gc"],
        ];
        for args in commands {
            let all = if args == ["verify"] { &["net_admin", "sys_admin", "net_raw"][..] } else { &both[..] };
            let before = Snapshot::take();
            for missing in all {
                let left: Vec<&str> = all.iter().filter(|cap| cap != &missing).copied().collect();
                lacks(&left, &[&format!("CAP_{}", missing.to_uppercase())], &lab, args);
            }
            lacks(&[], &["CAP_NET_ADMIN", "CAP_SYS_ADMIN"], &lab, args);
            let differences = before.differences(&Snapshot::take());
            assert!(differences.is_empty(), "vmnet {args:?} without: {}", differences.join("\n"));
            works(all, &lab, args);
            if args == ["undo"] {
                watchers_are_gone();
            }
        }
        works(&both, &lab, &["create", "--confirm", "60s"]);
        works(&[], &lab, &["confirm"]);
        works(&both, &lab, &["restore"]);
        works(&both, &lab, &["destroy"]);
        watchers_are_gone();
        let differences = empty.differences(&Snapshot::take());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    });
}

#[test]
fn somebody_with_two_capabilities_and_folders_of_their_own_needs_no_root() {
    sandbox::run("privilege::somebody_with_two_capabilities_and_folders_of_their_own_needs_no_root", || {
        let lab = Lab::from_text("lab = \"own\"\n[network.web]\nmode = \"isolated\"\n");
        let (program, nobody) = (Path::new("/run/lab/vmnet"), Some(65534));
        fs::copy(env!("CARGO_BIN_EXE_vmnet"), program).unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        for folder in ["/run/state", "/run/vmnet"] {
            fs::create_dir(folder).unwrap();
            chown(folder, nobody, nobody).unwrap();
        }
        let run = |caps: &str, args: &str| {
            let line = format!(
                "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all{caps} --ambient-caps=-all{caps} \
                 env VMNET_STATE_DIR=/run/state VMNET_RUN_DIR=/run/vmnet {} {args}",
                program.display()
            );
            Command::new("sh").args(["-c", &line]).current_dir(lab.folder()).output().unwrap()
        };
        let ran = run("", "create");
        assert_eq!(ran.status.code(), Some(4), "{ran:?}");
        assert!(run("", "check").status.success());
        for args in ["create", "status", "create", "destroy"] {
            let ran = run(",+net_admin,+sys_admin", args);
            assert!(ran.status.success(), "{args}: {ran:?}");
        }
        assert!(!sh("ip -o link").contains("br-web"));
    });
}

/// The capabilities of a process, as `/proc` has them.
fn sets(pid: u32) -> Vec<(String, String)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let wanted = |line: &&str| line.starts_with("Cap") || line.starts_with("NoNewPrivs") || line.starts_with("Umask");
    let pair = |line: &str| line.split_once(":\t").map(|(name, value)| (name.to_owned(), value.to_owned()));
    status.lines().filter(wanted).filter_map(pair).collect()
}

#[test]
fn what_a_command_never_needs_it_has_not() {
    sandbox::run("privilege::what_a_command_never_needs_it_has_not", || {
        let lab = Lab::from_text(LAB);
        // It waits for this lock while it is looked at.
        fs::create_dir("/run/vmnet").unwrap();
        let lock = fs::File::create("/run/vmnet/lock").unwrap();
        lock.lock().unwrap();
        let plain = lab.command(&["create"]);
        let mut command = Command::new("sh");
        command.args(["-c", "exec 7</proc/version; umask 0; exec \"$@\"", "sh"]).arg(plain.get_program()).arg("create");
        command.current_dir(lab.folder()).env("VMNET_STATE_DIR", "/run/state").env("VMNET_RUN_DIR", "/run/vmnet");
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let has = |sets: &[(String, String)], name: &str, value: &str| {
            sets.iter().any(|(found, is)| found == name && is == value)
        };
        let mut found = Vec::new();
        for _ in 0..500 {
            found = sets(child.id());
            if has(&found, "NoNewPrivs", "1") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let inherited = fs::read_to_string(format!("/proc/{}/fdinfo/7", child.id())).unwrap();
        let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        drop(lock);
        // O_CLOEXEC: what the caller left open for its children goes to none of vmnet's.
        assert!(inherited.contains("flags:\t0") && inherited.contains("2100000"), "{inherited}");
        let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert!(cores.split_whitespace().filter(|word| *word == "0").count() == 2, "{cores}");
        assert!(child.wait().unwrap().success());
        // chown, dac_override, fowner, kill, setgid, setuid, setpcap, net_admin, net_raw, sys_module, sys_ptrace,
        // sys_admin
        let kept = "00000000002931eb";
        for (name, value) in [("CapPrm", kept), ("CapEff", kept), ("CapBnd", kept), ("CapAmb", "0000000000000000")] {
            assert!(has(&found, name, value), "{name} is not {value}: {found:?}");
        }
        assert!(has(&found, "CapInh", "0000000000000000") && has(&found, "Umask", "0022"), "{found:?}");
        lab.ok(&["destroy"]);
    });
}

#[test]
fn a_guest_in_qemu_needs_its_users_capabilities_too() {
    sandbox::run("privilege::a_guest_in_qemu_needs_its_users_capabilities_too", || {
        let text = LAB
            .replace("engine = \"netns\"", "engine = \"qemu\"\nimage = \"tiny\"\nmemory = \"160MiB\"\naccel = \"tcg\"");
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/vm-images/tiny");
        let image = ["disk.qcow2", "vmlinuz", "initrd.img"].map(|name| tiny.join(name).display().to_string());
        let [disk, kernel, initrd] = image;
        let image = format!("[image.tiny]\nfile = \"{disk}\"\nkernel = \"{kernel}\"\ninitrd = \"{initrd}\"\n");
        let lab = Lab::from_text(&(text + &image));
        lab.ok(&["create"]);
        let network = ["net_admin", "sys_admin"];
        let guests = ["chown", "dac_override", "fowner", "kill", "setgid", "setuid"];
        let all: Vec<&str> = network.into_iter().chain(guests).collect();
        for missing in guests {
            let left: Vec<&str> = all.iter().filter(|cap| **cap != missing).copied().collect();
            lacks(&left, &[&format!("CAP_{}", missing.to_uppercase())], &lab, &["boot", "vm1"]);
            assert!(!Path::new("/run/state/caps/guests").exists(), "nothing was made without {missing}");
        }
        works(&all, &lab, &["boot", "vm1"]);
        works(&network, &lab, &["ps"]);
        works(&all, &lab, &["xml", "vm1"]);
        works(&network, &lab, &["qemu-args", "vm1"]);
        works(&["dac_override"], &lab, &["console", "vm1"]);
        lacks(&network, &["CAP_KILL"], &lab, &["stop", "vm1"]);
        works(&all, &lab, &["destroy", "--stop", "--purge"]);
    });
}

#[test]
fn closed_standard_streams_do_no_harm() {
    sandbox::run("privilege::closed_standard_streams_do_no_harm", || {
        let lab = Lab::from_text(LAB);
        let program = env!("CARGO_BIN_EXE_vmnet");
        let there = "cd /run/lab; export VMNET_STATE_DIR=/run/state VMNET_RUN_DIR=/run/vmnet";
        for streams in ["<&- >&- 2>&-", "<&- >/dev/null", ">/dev/null 2>&-"] {
            sh(&format!("{there}; {program} create {streams}"));
            sh(&format!("{there}; {program} destroy {streams}"));
        }
        lab.ok(&["destroy"]);
    });
}

#[test]
fn folders_that_others_can_change_are_refused() {
    sandbox::run("privilege::folders_that_others_can_change_are_refused", || {
        let lab = Lab::from_text(LAB);
        let refused = |remedy: &str| {
            let ran = lab.vmnet(&["create"]);
            let said = String::from_utf8_lossy(&ran.stderr).into_owned();
            assert!(ran.status.code() == Some(1) && said.contains(remedy), "{:?}: {said}", ran.status);
            assert!(!sh("ip -o link").contains("vmnet:"), "nothing was changed");
        };
        let nobody = Some(65534);
        fs::create_dir("/run/state").unwrap();
        chown("/run/state", nobody, nobody).unwrap();
        refused("chown root");
        chown("/run/state", Some(0), Some(0)).unwrap();
        fs::set_permissions("/run/state", fs::Permissions::from_mode(0o777)).unwrap();
        refused("chmod go-w");
        fs::remove_dir("/run/state").unwrap();
        fs::create_dir("/run/theirs").unwrap();
        chown("/run/theirs", nobody, nobody).unwrap();
        symlink("/run/theirs", "/run/state").unwrap();
        refused("belongs to user 65534");
        fs::remove_file("/run/state").unwrap();
        // A link of root's own to a folder of root's own is an administrator's choice.
        fs::create_dir("/run/elsewhere").unwrap();
        symlink("/run/elsewhere", "/run/state").unwrap();
        lab.ok(&["create"]);
        lab.ok(&["destroy"]);
    });
}
