//! The sections of a definition, key by key. Pure.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::read::Reader;
use super::value::{FromValue, wrong};
use super::{
    At, Definition, ExternalDef, ImageDef, Key, NetworkDef, NicDef, Problem, Problems, RouterDef, UplinkDef, VmDef,
};

pub(super) fn definition(table: &At<DeTable<'_>>, problems: &mut Problems) -> Definition {
    let mut reader = Reader::new(table.get_ref(), "the definition");
    let definition = Definition {
        lab: reader.get("lab", problems),
        uplinks: reader.section("uplink", problems, uplink),
        networks: reader.section("network", problems, network),
        router: reader.table("router", "router", problems, router),
        images: reader.section("image", problems, image),
        vms: reader.section("vm", problems, vm),
        defaults: match reader.table("defaults", "defaults", problems, defaults) {
            Key::Is(defaults) => defaults.into_inner(),
            Key::Missing | Key::Wrong => VmDef::default(),
        },
        problems: Problems::default(),
    };
    reader.finish(problems);
    definition
}

fn uplink(table: &DeTable<'_>, span: Range<usize>, what: &str, problems: &mut Problems) -> UplinkDef {
    let mut reader = Reader::new(table, what);
    let uplink = UplinkDef { device: reader.get("device", problems) };
    if uplink.device.is_missing() {
        let problem = Problem::new(span, format!("{what} has no device"));
        problems.push(problem.help("add device = \"eno1\": the name, altname or permanent MAC of a NIC or bond"));
    }
    reader.finish(problems);
    uplink
}

fn network(table: &DeTable<'_>, _: Range<usize>, what: &str, problems: &mut Problems) -> NetworkDef {
    let mut reader = Reader::new(table, what);
    let network = NetworkDef {
        mode: reader.get("mode", problems),
        vlan: reader.get("vlan", problems),
        uplink: reader.get("uplink", problems),
        subnets: reader.list("subnet", problems),
        gateways: reader.list("gateway", problems),
        dns: reader.list("dns", problems),
        mtu: reader.get("mtu", problems),
        bridge: reader.get("bridge", problems),
        ifname: reader.get("ifname", problems),
    };
    reader.finish(problems);
    network
}

fn router(table: &DeTable<'_>, _: Range<usize>, what: &str, problems: &mut Problems) -> RouterDef {
    let mut reader = Reader::new(table, what);
    let router = RouterDef { external: reader.table("external", "router.external", problems, external) };
    reader.finish(problems);
    router
}

fn external(table: &DeTable<'_>, _: Range<usize>, what: &str, problems: &mut Problems) -> ExternalDef {
    let mut reader = Reader::new(table, what);
    let external = ExternalDef {
        via: reader.get("via", problems),
        uplink: reader.get("uplink", problems),
        vlan: reader.get("vlan", problems),
        addresses: reader.list("address", problems),
        gateways: reader.list("gateway", problems),
        snat: reader.get("snat", problems),
        transit: reader.get("transit", problems),
    };
    reader.finish(problems);
    external
}

fn image(table: &DeTable<'_>, _: Range<usize>, what: &str, problems: &mut Problems) -> ImageDef {
    let mut reader = Reader::new(table, what);
    let image = ImageDef {
        file: reader.get("file", problems),
        format: reader.get("format", problems),
        kernel: reader.get("kernel", problems),
        initrd: reader.get("initrd", problems),
        cmdline: reader.get("cmdline", problems),
    };
    reader.finish(problems);
    image
}

fn defaults(table: &DeTable<'_>, _: Range<usize>, what: &str, problems: &mut Problems) -> VmDef {
    let mut reader = Reader::new(table, what);
    let defaults = reader.table("vm", "defaults.vm", problems, vm);
    reader.finish(problems);
    match defaults {
        Key::Is(defaults) => defaults.into_inner(),
        Key::Missing | Key::Wrong => VmDef::default(),
    }
}

fn vm(table: &DeTable<'_>, _: Range<usize>, what: &str, problems: &mut Problems) -> VmDef {
    let mut reader = Reader::new(table, what);
    let vm = VmDef {
        nics: reader.list("nic", problems),
        engine: reader.get("engine", problems),
        accel: reader.get("accel", problems),
        cpus: reader.get("cpus", problems),
        memory: reader.get("memory", problems),
        image: reader.get("image", problems),
        disk: reader.get("disk", problems),
        user: reader.get("user", problems),
        ssh_keys: reader.list("ssh_keys", problems),
    };
    reader.finish(problems);
    vm
}

/// A nic is never refused as a whole: what can be read of it counts, and the guest keeps its other nics.
impl FromValue for NicDef {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        let nic = match value.get_ref() {
            DeValue::String(_) => {
                let network = FromValue::from_value(value, problems).map_or(Key::Wrong, Key::Is);
                NicDef { network, ..NicDef::default() }
            }
            DeValue::Table(table) => nic(table, value.span(), problems),
            _ => {
                let help = "write a network's name in quotes, or { network = \"web\", address = \"…\" }";
                problems.push(wrong(value, "a nic is wanted here").help(help));
                NicDef { network: Key::Wrong, ..NicDef::default() }
            }
        };
        Some(At::new(value.span(), nic))
    }
}

fn nic(table: &DeTable<'_>, span: Range<usize>, problems: &mut Problems) -> NicDef {
    let mut reader = Reader::new(table, "a nic");
    let nic = NicDef {
        network: reader.get("network", problems),
        addresses: reader.list("address", problems),
        mac: reader.get("mac", problems),
        model: reader.get("model", problems),
        tap: reader.get("tap", problems),
    };
    if nic.network.is_missing() {
        problems.push(Problem::new(span, "this nic has no network").help("add network = \"…\", the name of a network"));
    }
    reader.finish(problems);
    nic
}
