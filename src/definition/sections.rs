//! The sections of a definition, key by key. Pure.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::guest::{ROUTE, USER};
use super::read::Reader;
use super::value::{FromValue, wrong};
use super::{
    At, Definition, DiskDef, DiskDefs, ExpectDef, ExternalDef, HostDef, ImageDef, Key, NetworkDef, NicDef, Problem,
    Problems, RouterDef, UplinkDef, VmDef,
};
use crate::names::DiskName;

/// The keys of each kind of table, in the order in which they are read.
const DEFINITION: &[&str] =
    &["lab", "libvirt", "uplink", "defaults", "network", "router", "image", "vm", "host", "expect"];
const UPLINK: &[&str] = &["device"];
const DEFAULTS: &[&str] = &["vm"];
const NETWORK: &[&str] =
    &["mode", "vlan", "uplink", "subnet", "gateway", "dns", "search", "mtu", "bridge", "ifname", "across", "hosts"];
const ROUTER: &[&str] = &["host", "external"];
const EXTERNAL: &[&str] = &["via", "uplink", "vlan", "address", "gateway", "snat", "transit"];
const IMAGE: &[&str] = &["file", "url", "sha256", "sha512", "format", "kernel", "initrd", "cmdline"];
const VM: &[&str] = &[
    "nic",
    "engine",
    "accel",
    "cpus",
    "memory",
    "image",
    "disk",
    "disks",
    "firmware",
    "qemu_args",
    "libvirt_xml",
    "user",
    "ssh_keys",
    "cloud_init",
    "password_hash",
    "users",
    "packages",
    "run",
    "user_data",
    "autostart",
    "description",
    "host",
];
const DISK: &[&str] = &["size", "file", "format", "readonly"];
const HOST: &[&str] = &["ssh", "underlay", "uplink", "network", "router"];
const NETWORK_OF_HOST: &[&str] = &["uplink", "subnet", "mtu", "bridge", "ifname"];
const ROUTER_OF_HOST: &[&str] = &["external"];
const EXPECT: &[&str] = &["from", "to", "address", "service", "result"];
const NIC: &[&str] = &["network", "address", "gateway", "routes", "dns", "search", "mac", "model", "tap"];

/// The kinds of tables as people write them, with their keys.
pub(super) const TABLES: &[(&str, &[&str])] = &[
    ("the top level", DEFINITION),
    ("[uplink.NAME]", UPLINK),
    ("[defaults]", DEFAULTS),
    ("[network.NAME]", NETWORK),
    ("[router]", ROUTER),
    ("[router.external]", EXTERNAL),
    ("[image.NAME]", IMAGE),
    ("[vm.NAME]", VM),
    ("a nic", NIC),
    ("a route", ROUTE),
    ("a user", USER),
    ("a disk", DISK),
    ("[host.NAME]", HOST),
    ("[[expect]]", EXPECT),
];

pub(super) fn definition(table: &At<DeTable<'_>>, problems: &mut Problems) -> Definition {
    let mut reader = Reader::new(table.get_ref(), "the definition", DEFINITION, problems);
    let definition = Definition {
        alias: None,
        lab: reader.get("lab", problems),
        libvirt: reader.get("libvirt", problems),
        uplinks: reader.section("uplink", problems, uplink),
        defaults: match reader.table("defaults", "defaults", problems, defaults) {
            Key::Is(defaults) => defaults.into_inner(),
            Key::Missing => VmDef::default(),
            Key::Wrong(_) => unknown_defaults(),
        },
        networks: reader.section("network", problems, network),
        router: reader.table("router", "router", problems, router),
        images: reader.section("image", problems, image),
        vms: reader.section("vm", problems, vm),
        hosts: reader.section("host", problems, host),
        expects: reader.list("expect", problems),
        problems: Problems::default(),
    };
    reader.finish();
    definition
}

fn uplink(table: &DeTable<'_>, span: Range<usize>, what: &str, problems: &mut Problems) -> UplinkDef {
    let mut reader = Reader::new(table, what, UPLINK, problems);
    let uplink = UplinkDef { device: reader.get("device", problems) };
    if uplink.device.is_missing() {
        let problem = Problem::new(span, format!("{what} has no device"));
        problems.push(problem.help("add device = \"eno1\": the name, altname or permanent MAC of a NIC or bond"));
    }
    reader.finish();
    uplink
}

fn network(table: &DeTable<'_>, _: Range<usize>, what: &str, problems: &mut Problems) -> NetworkDef {
    let mut reader = Reader::new(table, what, NETWORK, problems);
    let network = NetworkDef {
        mode: reader.get("mode", problems),
        vlan: reader.get("vlan", problems),
        uplink: reader.get("uplink", problems),
        subnets: reader.list("subnet", problems),
        gateways: reader.list("gateway", problems),
        dns: reader.list("dns", problems),
        search: reader.list("search", problems),
        mtu: reader.get("mtu", problems),
        bridge: reader.get("bridge", problems),
        ifname: reader.get("ifname", problems),
        across: reader.get("across", problems),
        hosts: reader.list("hosts", problems),
    };
    reader.finish();
    network
}

fn router(table: &DeTable<'_>, _: Range<usize>, what: &str, problems: &mut Problems) -> RouterDef {
    let mut reader = Reader::new(table, what, ROUTER, problems);
    let router = RouterDef {
        host: reader.get("host", problems),
        external: reader.table("external", "router.external", problems, external),
    };
    reader.finish();
    router
}

fn host(table: &DeTable<'_>, _: Range<usize>, what: &str, problems: &mut Problems) -> HostDef {
    let mut reader = Reader::new(table, what, HOST, problems);
    let host = HostDef {
        ssh: reader.get("ssh", problems),
        underlay: reader.get("underlay", problems),
        uplinks: reader.section("uplink", problems, uplink),
        networks: reader.section("network", problems, network_of_host),
        router: reader.table("router", &format!("{what}.router"), problems, router_of_host),
    };
    reader.finish();
    host
}

fn network_of_host(table: &DeTable<'_>, _: Range<usize>, what: &str, problems: &mut Problems) -> NetworkDef {
    let mut reader = Reader::new(table, &format!("{what} of a host"), NETWORK_OF_HOST, problems);
    let network = NetworkDef {
        uplink: reader.get("uplink", problems),
        subnets: reader.list("subnet", problems),
        mtu: reader.get("mtu", problems),
        bridge: reader.get("bridge", problems),
        ifname: reader.get("ifname", problems),
        ..NetworkDef::default()
    };
    reader.finish();
    network
}

fn router_of_host(table: &DeTable<'_>, _: Range<usize>, what: &str, problems: &mut Problems) -> RouterDef {
    let mut reader = Reader::new(table, what, ROUTER_OF_HOST, problems);
    let external = reader.table("external", &format!("{what}.external"), problems, external);
    reader.finish();
    RouterDef { host: Key::Missing, external }
}

fn external(table: &DeTable<'_>, _: Range<usize>, what: &str, problems: &mut Problems) -> ExternalDef {
    let mut reader = Reader::new(table, what, EXTERNAL, problems);
    let external = ExternalDef {
        via: reader.get("via", problems),
        uplink: reader.get("uplink", problems),
        vlan: reader.get("vlan", problems),
        addresses: reader.list("address", problems),
        gateways: reader.list("gateway", problems),
        snat: reader.get("snat", problems),
        transit: reader.get("transit", problems),
    };
    reader.finish();
    external
}

fn image(table: &DeTable<'_>, _: Range<usize>, what: &str, problems: &mut Problems) -> ImageDef {
    let mut reader = Reader::new(table, what, IMAGE, problems);
    let image = ImageDef {
        file: reader.get("file", problems),
        url: reader.get("url", problems),
        sha256: reader.get("sha256", problems),
        sha512: reader.get("sha512", problems),
        format: reader.get("format", problems),
        kernel: reader.get("kernel", problems),
        initrd: reader.get("initrd", problems),
        cmdline: reader.get("cmdline", problems),
    };
    reader.finish();
    image
}

fn defaults(table: &DeTable<'_>, _: Range<usize>, what: &str, problems: &mut Problems) -> VmDef {
    let mut reader = Reader::new(table, what, DEFAULTS, problems);
    let defaults = reader.table("vm", "defaults.vm", problems, vm);
    reader.finish();
    match defaults {
        Key::Is(defaults) => defaults.into_inner(),
        Key::Missing => VmDef::default(),
        Key::Wrong(_) => unknown_defaults(),
    }
}

/// Defaults that could not be read may have said what every guest needs.
fn unknown_defaults() -> VmDef {
    VmDef { nics: Key::Wrong(None), image: Key::Wrong(None), engine: Key::Wrong(None), ..VmDef::default() }
}

fn vm(table: &DeTable<'_>, _: Range<usize>, what: &str, problems: &mut Problems) -> VmDef {
    let mut reader = Reader::new(table, what, VM, problems);
    let vm = VmDef {
        nics: reader.list("nic", problems),
        engine: reader.get("engine", problems),
        accel: reader.get("accel", problems),
        cpus: reader.get("cpus", problems),
        memory: reader.get("memory", problems),
        image: reader.get("image", problems),
        disk: reader.get("disk", problems),
        disks: reader.get("disks", problems),
        firmware: reader.get("firmware", problems),
        qemu_args: reader.list("qemu_args", problems),
        libvirt_xml: reader.get("libvirt_xml", problems),
        user: reader.get("user", problems),
        ssh_keys: reader.list("ssh_keys", problems),
        cloud_init: reader.get("cloud_init", problems),
        password_hash: reader.get("password_hash", problems),
        users: reader.list("users", problems),
        packages: reader.list("packages", problems),
        run: reader.list("run", problems),
        user_data: reader.get("user_data", problems),
        autostart: reader.get("autostart", problems),
        description: reader.get("description", problems),
        host: reader.get("host", problems),
    };
    reader.finish();
    vm
}

/// A nic is never refused as a whole: what can be read of it counts, and the guest keeps its other nics.
impl FromValue for NicDef {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        let nic = match value.get_ref() {
            DeValue::String(_) => {
                let network = FromValue::from_value(value, problems).map_or(Key::Wrong(None), Key::Is);
                NicDef { network, ..NicDef::default() }
            }
            DeValue::Table(table) => nic(table, value.span(), problems),
            _ => {
                let help = "write a network's name in quotes, or { network = \"web\", address = \"…\" }";
                problems.push(wrong(value, "a nic is wanted here").help(help));
                NicDef { network: Key::Wrong(None), ..NicDef::default() }
            }
        };
        Some(At::new(value.span(), nic))
    }
}

/// An expectation is never refused as a whole: all problems at once.
impl FromValue for ExpectDef {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        let Some(table) = value.get_ref().as_table() else {
            let help = "write [[expect]] with from, to and result on the lines below it";
            problems.push(wrong(value, "an expect is a table").help(help));
            return None;
        };
        let mut reader = Reader::new(table, "an expect", EXPECT, problems);
        let expect = ExpectDef {
            from: reader.get("from", problems),
            to: reader.get("to", problems),
            address: reader.get("address", problems),
            service: reader.get("service", problems),
            result: reader.get("result", problems),
        };
        reader.finish();
        Some(At::new(value.span(), expect))
    }
}

fn nic(table: &DeTable<'_>, span: Range<usize>, problems: &mut Problems) -> NicDef {
    let mut reader = Reader::new(table, "a nic", NIC, problems);
    let nic = NicDef {
        network: reader.get("network", problems),
        addresses: reader.list("address", problems),
        gateway: reader.get("gateway", problems),
        routes: reader.list("routes", problems),
        dns: reader.list("dns", problems),
        search: reader.list("search", problems),
        mac: reader.get("mac", problems),
        model: reader.get("model", problems),
        tap: reader.get("tap", problems),
    };
    if nic.network.is_missing() {
        problems.push(Problem::new(span, "this nic has no network").help("add network = \"…\", the name of a network"));
    }
    reader.finish();
    nic
}

/// What can be read of them counts.
impl FromValue for DiskDefs {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        let Some(table) = value.get_ref().as_table() else {
            let help = "write { data = \"10GiB\" }: each disk has a name";
            problems.push(wrong(value, "further disks are a table of named disks").help(help));
            return None;
        };
        let mut disks = DiskDefs::default();
        for (name, value) in table {
            let disk = DiskDef::from_value(value, problems);
            match (name.get_ref().parse::<DiskName>(), disk) {
                (Ok(parsed), Some(disk)) => drop(disks.0.insert(parsed, At::new(name.span(), disk.into_inner()))),
                (Ok(_), None) => {}
                (Err(error), _) => problems.push(Problem::new(name.span(), error.to_string()).help(error.help())),
            }
        }
        Some(At::new(value.span(), disks))
    }
}

impl FromValue for DiskDef {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        let disk = match value.get_ref() {
            DeValue::Table(table) => {
                let mut reader = Reader::new(table, "a disk", DISK, problems);
                let disk = DiskDef {
                    size: reader.get("size", problems),
                    file: reader.get("file", problems),
                    format: reader.get("format", problems),
                    readonly: reader.get("readonly", problems),
                };
                reader.finish();
                disk
            }
            _ => DiskDef { size: Key::Is(FromValue::from_value(value, problems)?), ..DiskDef::default() },
        };
        Some(At::new(value.span(), disk))
    }
}
