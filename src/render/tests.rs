//! Golden texts of one lab, and hostile values read back by a parser of each language.

use std::collections::BTreeSet;
use std::path::Path;

use super::qemu::Privilege;
use super::*;
use crate::definition::Definition;
use crate::model::Lock;
use crate::model::resolve;
use crate::paths::Paths;
use crate::state::{Facts, Feature, FirmwareFiles, Kept, ServiceUser, Tool};

const LAB: &str = r#"
lab = "campus"
[uplink.trunk]
device = "eno1"
[defaults.vm]
image = "debian"
memory = "512MiB"
accel = "tcg"
[network.web]
vlan = 10
subnet = "192.168.10.0/24"
dns = ["9.9.9.9"]
[network.db]
vlan = 20
subnet = "192.168.20.0/24"
mode = "routed"
[network.quiet]
mode = "isolated"
[network.office]
mode = "bridged"
vlan = 30
[image.debian]
file = "vm-images/debian-12.qcow2"
[image.direct]
kernel = "/boot/vmlinuz"
initrd = "initrd.img"
cmdline = "console=ttyS0 quiet"
[vm.vm1]
nic = "web"
disk = "20GiB"
[vm.vm2]
nic = ["db", { network = "quiet", model = "e1000" }, "office"]
image = "direct"
accel = "kvm"
cpus = 2
user = "root"
"#;

fn model(text: &str) -> Model {
    let definition = Definition::parse(text).unwrap_or_else(|p| panic!("{}", p.render("net.toml", text, false)));
    resolve(&definition, &Lock::default()).unwrap_or_else(|p| panic!("{}", p.render("net.toml", text, false))).model
}

fn facts() -> Facts {
    Facts {
        tools: Tool::ALL.iter().map(|tool| (*tool, Path::new("/usr/bin").join(tool.program()))).collect(),
        features: BTreeSet::from(Feature::ALL),
        firmware: Some(FirmwareFiles {
            code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
            variables: "/usr/share/OVMF/OVMF_VARS_4M.fd".into(),
        }),
        qemu_user: Some(ServiceUser { name: qemu::QEMU_USER.into(), uid: 990, gid: 990, kvm_gid: Some(104) }),
        ..Facts::default()
    }
}

fn with_view<T>(text: &str, vm: &str, work: impl FnOnce(&GuestView<'_>) -> T) -> T {
    let model = model(text);
    let given = Given { keys: vec!["ssh-ed25519 AAAA me@here".to_owned()], ..Given::default() };
    let vm = &model.vms()[vm];
    work(&GuestView {
        model: &model,
        vm,
        files: Files::beside(Path::new("/home/me/lab")),
        given: &given,
        instance: 1,
        mtus: &[1400],
    })
}

fn files() -> GuestFiles {
    GuestFiles {
        disk: Some("/srv/a,b/disk.qcow2".into()),
        seed: Some("/srv/a,b/seed.img".into()),
        kept: Kept::default(),
    }
}

fn args_of(vm: &str) -> String {
    with_view(LAB, vm, |view| {
        let guest = qemu::guest(view, &Paths::default(), &facts()).unwrap();
        let lines = guest.args.join("\n").replace("\n-", "\n\n-");
        format!(
            "{lines}\n\nfiles: {:?}\nvhost: {}\nkvm: {}\ndisk: {:?}",
            guest.files, guest.vhost, guest.kvm, guest.disk
        )
    })
}

#[test]
fn arguments_of_a_guest_with_a_disk() {
    insta::assert_snapshot!(args_of("vm1"));
}

#[test]
fn arguments_of_a_guest_that_boots_its_kernel_directly() {
    insta::assert_snapshot!(args_of("vm2"));
}

/// A guest with everything that most have nothing of; values that mean something to a reader.
const APPLIANCE: &str = r#"
lab = "campus"
[network.web]
mode = "isolated"
[image.appliance]
url = "https://cloud.example/appliance.qcow2"
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
[vm.vm1]
nic = "web"
image = "appliance"
accel = "tcg"
firmware = "uefi"
disks = { data = "10GiB", iso = { file = "a,b.raw", readonly = true }, old = { file = "/srv/old.qcow2" } }
qemu_args = ["-device", "virtio-balloon-pci,id=\"<{tap:0}>\""]
libvirt_xml = '''
<watchdog model='itco'
  action='reset'/>
<memballoon model='none'/>
'''
"#;

fn of_appliance<T>(show: impl FnOnce(&GuestView<'_>, &GuestFiles) -> T) -> T {
    with_view(APPLIANCE, "vm1", |view| {
        let kept = qemu::kept(view, &facts(), Path::new("/srv/a,b")).unwrap();
        show(view, &GuestFiles { kept, ..files() })
    })
}

#[test]
fn arguments_of_an_appliance() {
    let guest = with_view(APPLIANCE, "vm1", |view| qemu::guest(view, &Paths::default(), &facts()).unwrap());
    let lines = guest.args.join("\n").replace("\n-", "\n\n-");
    insta::assert_snapshot!(format!("{lines}\n\nfiles: {:?}\n{:#?}\n{:#?}", guest.files, guest.disk, guest.more));
}

#[test]
fn command_line_of_an_appliance() {
    insta::assert_snapshot!(of_appliance(|view, files| {
        qemu::by_hand(view, &Paths::default(), &facts(), files, Privilege::Root).unwrap().shell()
    }));
}

#[test]
fn domain_of_an_appliance() {
    let xml = of_appliance(|view, files| domain::xml(view, files).unwrap());
    let mut reader = quick_xml::Reader::from_str(&xml);
    while !matches!(reader.read_event().unwrap(), quick_xml::events::Event::Eof) {}
    insta::assert_snapshot!(xml);
}

#[test]
fn command_line_for_root() {
    let line = with_view(LAB, "vm1", |view| {
        qemu::by_hand(view, &Paths::default(), &facts(), &files(), Privilege::Root).unwrap().shell()
    });
    insta::assert_snapshot!(line);
}

#[test]
fn command_line_for_anybody() {
    let line = with_view(LAB, "vm2", |view| {
        qemu::by_hand(view, &Paths::default(), &facts(), &files(), Privilege::Unprivileged).unwrap().shell()
    });
    insta::assert_snapshot!(line);
}

#[test]
fn seed_of_a_guest() {
    let text = |vm| {
        with_view(LAB, vm, |view| seed::files(view).iter().map(|(n, t)| format!("--- {n}\n{t}")).collect::<String>())
    };
    insta::assert_snapshot!("seed_of_vm1", text("vm1"));
    insta::assert_snapshot!("seed_of_vm2", text("vm2"));
}

#[test]
fn domain_of_a_guest() {
    let text = |vm| with_view(LAB, vm, |view| domain::xml(view, &files()).unwrap());
    insta::assert_snapshot!("domain_of_vm1", text("vm1"));
    insta::assert_snapshot!("domain_of_vm2", text("vm2"));
}

#[test]
fn hook_pair_of_a_network() {
    let model = model(LAB);
    let web = &model.networks()["web"];
    let [(up_path, up), (down_path, down)] =
        hooks::pair(&Paths::default(), model.lab(), web, 1500, Path::new("/usr/sbin/ip")).unwrap();
    assert_eq!(up_path, Path::new("/run/vmnet/campus/hooks/web/qemu-ifup"));
    assert_eq!(down_path, Path::new("/run/vmnet/campus/hooks/web/qemu-ifdown"));
    assert_eq!((up.mode, down.mode), (0o755, 0o755));
    insta::assert_snapshot!("qemu_ifup", up.content);
    insta::assert_snapshot!("qemu_ifdown", down.content);
}

#[test]
fn a_hook_refuses_a_path_that_a_shell_would_read() {
    let model = model(LAB);
    let web = &model.networks()["web"];
    for bad in ["/usr/sbin/ip;id", "/a b/ip", "ip", "/$(id)/ip", "/a\n/ip"] {
        assert!(hooks::pair(&Paths::default(), model.lab(), web, 1500, Path::new(bad)).is_err(), "{bad:?}");
    }
}

/// Values that mean something to a parser.
const HOSTILE: [&str; 6] = [
    "a,b=c,readonly=off",
    "<b>&amp;\"'</b>]]>",
    "two\nlines\ttab",
    "$(id)`id`;|",
    "}\n- name: root\n",
    "%s {{ x }} {tap:0}",
];

fn hostile_lab(value: &str) -> String {
    let value = toml::Value::String(value.to_owned());
    format!(
        "lab = \"campus\"\n[network.web]\nmode = \"isolated\"\n[image.i]\nfile = {value}\ncmdline = {value}\n\
         kernel = \"/k\"\n[vm.vm1]\nimage = \"i\"\nnic = \"web\"\naccel = \"tcg\"\n"
    )
}

/// The definition may refuse such a value itself; what it lets through must arrive as it was.
fn hostile_views(check: impl Fn(&str, &GuestView<'_>)) {
    for value in HOSTILE {
        let text = hostile_lab(value);
        let Ok(definition) = Definition::parse(&text) else { continue };
        let Ok(resolved) = resolve(&definition, &Lock::default()) else { continue };
        let model = resolved.model;
        let given = Given { keys: vec![value.to_owned()], ..Given::default() };
        let vm = &model.vms()["vm1"];
        check(
            value,
            &GuestView {
                model: &model,
                vm,
                files: Files::beside(Path::new("/f")),
                given: &given,
                instance: 1,
                mtus: &[],
            },
        );
    }
}

#[test]
fn qemu_reads_hostile_values_back() {
    hostile_views(|value, view| {
        let guest = qemu::guest(view, &Paths::default(), &facts()).unwrap();
        assert_eq!(guest.files[0], Path::new("/f").join(value));
        let place = guest.args.iter().position(|arg| arg == "-append").unwrap();
        assert_eq!(guest.args[place + 1], value);
        let disk =
            GuestFiles { disk: Some(Path::new("/d").join(value)), seed: Some("/seed".into()), kept: Kept::default() };
        let by_hand = qemu::by_hand(view, &Paths::default(), &facts(), &disk, Privilege::Root).unwrap();
        let doubled = format!("file=/d/{},format=qcow2,if=virtio", value.replace(',', ",,"));
        assert!(by_hand.args.contains(&doubled), "{:?}", by_hand.args);
    });
}

#[test]
fn cloud_init_reads_hostile_values_back() {
    hostile_views(|value, view| {
        let files = seed::files(view);
        let (_, user_data) = &files[2];
        let json = user_data.strip_prefix("#cloud-config\n").unwrap();
        let read: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(read["users"][0]["ssh_authorized_keys"][0], value);
    });
}

#[test]
fn libvirt_reads_hostile_values_back() {
    #[derive(serde::Deserialize)]
    struct Read {
        os: ReadOs,
        devices: ReadDevices,
    }
    #[derive(serde::Deserialize)]
    struct ReadOs {
        cmdline: String,
    }
    #[derive(serde::Deserialize)]
    struct ReadDevices {
        disk: Vec<ReadDisk>,
    }
    #[derive(serde::Deserialize)]
    struct ReadDisk {
        source: ReadSource,
    }
    #[derive(serde::Deserialize)]
    struct ReadSource {
        #[serde(rename = "@file")]
        file: String,
    }
    hostile_views(|value, view| {
        let disk = GuestFiles { disk: Some(value.into()), seed: Some("/seed".into()), kept: Kept::default() };
        let xml = domain::xml(view, &disk).unwrap();
        let read: Read = quick_xml::de::from_str(&xml).unwrap();
        assert_eq!(read.os.cmdline, value, "{xml}");
        assert_eq!(read.devices.disk[0].source.file, value, "{xml}");
    });
}

#[test]
fn a_domain_refuses_what_xml_cannot_hold() {
    with_view(LAB, "vm1", |view| {
        let disk = GuestFiles { disk: Some("/a\u{1}b".into()), seed: Some("/seed".into()), kept: Kept::default() };
        assert!(matches!(domain::xml(view, &disk), Err(domain::DomainError::Character { found: '\u{1}', .. })));
    });
}

#[test]
fn what_the_host_lacks_is_named_with_a_remedy() {
    let lack =
        |vm: &str, facts: &Facts| with_view(LAB, vm, |view| qemu::guest(view, &Paths::default(), facts).unwrap_err());
    let mut no_user = facts();
    no_user.qemu_user = None;
    assert!(lack("vm1", &no_user).help().contains("useradd"));
    let mut no_uefi = facts();
    no_uefi.firmware = None;
    let lack =
        |facts: &Facts| with_view(APPLIANCE, "vm1", |view| qemu::guest(view, &Paths::default(), facts).unwrap_err());
    assert!(lack(&no_uefi).help().contains("ovmf"));
    let lack =
        |vm: &str, facts: &Facts| with_view(LAB, vm, |view| qemu::guest(view, &Paths::default(), facts).unwrap_err());
    let mut no_kvm = facts();
    no_kvm.features.remove(&Feature::Kvm);
    assert!(lack("vm2", &no_kvm).help().contains("accel = \"tcg\""));
    let mut no_qemu = facts();
    no_qemu.tools.remove(&Tool::Qemu);
    assert!(lack("vm1", &no_qemu).help().contains("qemu-system-x86"));
}

#[test]
fn a_guest_without_cloud_init_has_no_seed_anywhere() {
    let lab = LAB.replace("[vm.vm1]\n", "[vm.vm1]\ncloud_init = false\n");
    with_view(&lab, "vm1", |view| {
        let mut facts = facts();
        facts.tools.remove(&Tool::SshKeygen);
        let guest = qemu::guest(view, &Paths::default(), &facts).unwrap();
        assert!(guest.seed.is_empty() && !guest.args.iter().any(|arg| arg.contains("seed")), "{:?}", guest.args);
        let files = GuestFiles { seed: None, ..files() };
        assert!(!domain::xml(view, &files).unwrap().contains("vdb"));
        let by_hand = qemu::by_hand(view, &Paths::default(), &facts, &files, Privilege::Root).unwrap();
        assert_eq!(by_hand.args.iter().filter(|arg| *arg == "-drive").count(), 1);
    });
}
