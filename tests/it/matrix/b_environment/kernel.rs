//! Kernels and callers that lack something: capabilities, features, programs, modules that load.

use crate::matrix::promise::{ends, keep, said, same};
use crate::matrix::row;
use crate::skip::skip;
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh, succeeds};

const LAB: &str = "lab = \"lacks\"\n[defaults.vm]\nengine = \"netns\"\n[network.web]\nmode = \"routed\"\n\
                   subnet = \"10.1.0.0/24\"\n[router]\nexternal = { via = \"none\" }\n[vm.a]\nnic = \"web\"\n";

const VLAN: &str = "lab = \"lacks\"\n[uplink.t]\ndevice = \"nic0\"\n[network.web]\nmode = \"isolated\"\nvlan = 10\n";

/// Runs the program without some capabilities, and gives its exit code and what it said.
fn without(lab: &Lab, capabilities: &str, args: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new("setpriv");
    command.args([format!("--bounding-set={capabilities}"), format!("--inh-caps={capabilities}")]);
    let own = lab.command(args);
    command.arg(own.get_program()).args(own.get_args()).current_dir(lab.folder());
    for (name, value) in own.get_envs() {
        value.map(|value| command.env(name, value));
    }
    let output = command.output().unwrap();
    (output.status.code(), said(&output))
}

const CHANGES: [&[&str]; 6] = [
    &["create"],
    &["boot", "--all"],
    &["stop", "--all"],
    &["reset", "a", "--stop"],
    &["destroy", "--stop", "lacks"],
    &["destroy", "--force", "lacks"],
];

/// Without CAP_NET_ADMIN or CAP_SYS_ADMIN every change ends with one error that names it, and changes nothing;
/// before there is a lab, and with one that runs.
#[test]
fn row_14_capabilities() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        let mut tried = 0;
        for there in [false, true] {
            if there {
                lab.ok(&["create"]);
                lab.ok(&["boot", "--all"]);
            }
            let now = Snapshot::when_settled();
            for capability in ["-net_admin", "-sys_admin"] {
                let name = format!("CAP_{}", capability[1..].to_uppercase());
                let changes = if there { &CHANGES[..] } else { &CHANGES[..1] };
                for args in changes.iter().chain([&["plan"].as_slice()]) {
                    let (code, text) = without(&lab, capability, args);
                    assert_eq!(code, Some(4), "{args:?} {capability}: {text}");
                    assert_eq!(text.matches("error:").count(), 1, "{args:?} {capability}: {text}");
                    assert!(text.contains(&name), "{args:?} {capability}: {text}");
                    same(&now, &format!("{args:?} {capability}"));
                    tried += 1;
                }
                // Looking works, or says what it lacks.
                for args in [["status", "lacks"], ["ps", "lacks"], ["verify", "lacks"]].iter().filter(|_| there) {
                    let (code, text) = without(&lab, capability, args);
                    let fine = code == Some(0) || (code == Some(4) && text.contains(&name));
                    assert!(fine, "{args:?} {capability}: {code:?} {text}");
                    tried += 1;
                }
            }
            let (code, text) = without(&lab, "-net_admin,-sys_admin", &["create"]);
            assert_eq!(code, Some(4), "{text}");
            assert!(text.contains("CAP_NET_ADMIN") && text.contains("CAP_SYS_ADMIN"), "{text}");
        }
        crate::matrix::tally("commands without a capability", tried, 0);
        lab.ok(&["destroy", "--stop"]);
        keep(&lab, &before);
    });
}

/// Makes it look as if the kernel had these modules to load, and nothing loaded or built in but `built_in`. Says
/// whether that worked.
fn pretend_modules(built_in: &[&str], loadable: &[&str]) -> bool {
    let list = |names: &[&str]| names.iter().map(|name| format!("kernel/{name}.ko:\\n")).collect::<String>();
    let (built_in, loadable) = (list(built_in).replace(':', ""), list(loadable));
    succeeds(&format!(
        "set -eu; release=$(uname -r); folder=/run/pretend/modules/$release
         mkdir -p $folder; printf '{built_in}' >$folder/modules.builtin; printf '{loadable}' >$folder/modules.dep
         lib=$(readlink -f /lib)
         if [ -d $lib/modules ]; then mount --bind /run/pretend/modules $lib/modules
         else mount -t overlay overlay -o lowerdir=/run/pretend:$lib $lib; fi
         mount -t tmpfs tmpfs /sys/module"
    ))
}

/// Undoes that; every program has the file system open that the libraries are in.
fn modules_again() {
    sh("umount /sys/module; umount $(readlink -f /lib)/modules 2>/dev/null || umount -l $(readlink -f /lib)");
}

const ALL: [&str; 5] = ["bridge", "veth", "nf_tables", "tun", "nft_meta_bridge"];

/// Without 802.1Q, bridge, veth or nf_tables: exit 4, the module is named, and nothing is changed.
#[test]
fn row_15_modules_missing() {
    row!(|| {
        sh("ip link add nic0 type veth peer name far0");
        let before = Snapshot::take();
        let lab = Lab::from_text(LAB);
        for (missing, text) in [("8021q", VLAN), ("bridge", LAB), ("veth", LAB), ("nf_tables", LAB)] {
            let others: Vec<&str> = ALL.into_iter().filter(|module| *module != missing).collect();
            if !pretend_modules(&others, &[]) {
                return skip(&crate::sandbox::test(), "this kernel has no overlay");
            }
            Lab::from_text(text);
            for verb in ["plan", "create"] {
                let says = [format!("has no module {missing}"), format!("modprobe {missing}")];
                let text = ends(&lab, &[verb], 4, &[&says[0], &says[1]]);
                assert_eq!(text.matches("error:").count(), 1, "{text}");
            }
            modules_again();
            same(&before, missing);
        }
        crate::matrix::tally("modules", 4, 0);
        Lab::from_text(LAB);
        keep(&lab, &before);
    });
}

/// 802.1Q as it is on this kernel: where it is missing, that is said before anything is changed.
#[test]
fn row_15_this_kernel() {
    row!(|| {
        sh("ip link add nic0 type veth peer name far0");
        let has = succeeds("ip link add link nic0 name try0 type vlan id 9 && ip link del try0");
        let before = Snapshot::take();
        let lab = Lab::from_text(VLAN);
        if has {
            lab.ok(&["create"]);
            lab.ok(&["destroy"]);
        } else {
            ends(&lab, &["create"], 4, &["has no module 8021q"]);
        }
        same(&before, "after create");
        Lab::from_text(LAB);
        keep(&lab, &before);
    });
}

/// Without nft, ip, or /dev/net/tun: exit 4, program or module named, and nothing is changed.
#[test]
fn row_15_programs_missing() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        for (program, package) in [("nft", "nftables"), ("ip", "iproute2")] {
            let real = sh(&format!("readlink -f \"$(command -v {program})\""));
            sh(&format!("mount --bind /dev/null {real}"));
            let output = lab.vmnet(&["create"]);
            sh(&format!("umount {real}"));
            let text = said(&output);
            assert_eq!(output.status.code(), Some(4), "{text}");
            assert!(text.contains(&format!("the program {program} ")) && text.contains(package), "{text}");
            same(&before, program);
        }
        let qemu = Lab::of_qemu(LAB, "tcg");
        qemu.ok(&["create"]);
        let created = Snapshot::take();
        sh("mkdir /run/nothing; mount --bind /run/nothing /dev/net");
        // Where the module could be loaded, it is; there the node comes back with it only in a real /dev.
        ends(&qemu, &["boot", "a"], 4, &["tun"]);
        same(&created, "boot without /dev/net/tun");
        sh("umount /dev/net");
        qemu.ok(&["destroy", "--purge"]);
        crate::matrix::tally("programs and devices", 3, 0);
        Lab::from_text(LAB);
        keep(&lab, &before);
    });
}

/// Modules that are there and can't be loaded: exit 4, module and reason named, and nothing is changed.
#[test]
fn row_16_modules_do_not_load() {
    row!(|| {
        sh("ip link add nic0 type veth peer name far0");
        let before = Snapshot::take();
        let stub = "#!/bin/sh\necho 'modprobe: ERROR: could not insert: Key was rejected by service' >&2\nexit 1\n";
        std::fs::write("/run/modprobe", stub).unwrap();
        sh("chmod 755 /run/modprobe; mount --bind /run/modprobe \"$(readlink -f \"$(command -v modprobe)\")\"");
        let lab = Lab::from_text(LAB);
        for (module, text) in [("8021q", VLAN), ("bridge", LAB), ("veth", LAB), ("nf_tables", LAB)] {
            let others: Vec<&str> = ALL.into_iter().filter(|other| *other != module).collect();
            if !pretend_modules(&others, &[module]) {
                return skip(&crate::sandbox::test(), "this kernel has no overlay");
            }
            Lab::from_text(text);
            let says = format!("the module {module} can't be loaded: ");
            ends(&lab, &["create"], 4, &[&says, "Key was rejected by service", "nothing was changed"]);
            modules_again();
            same(&before, module);
        }
        crate::matrix::tally("modules", 4, 0);
        Lab::from_text(LAB);
        keep(&lab, &before);
    });
}
