//! The sections of a definition, key by key. Pure.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::read::Reader;
use super::value::FromValue;
use super::{
    At, Definition, ExternalDef, ImageDef, NetworkDef, NicDef, Problem, Problems, RouterDef, UplinkDef, VmDef,
};

pub(super) fn definition(table: &At<DeTable<'_>>, problems: &mut Problems) -> Definition {
    let mut reader = Reader::new(table.get_ref(), "the definition");
    let definition = Definition {
        lab: reader.get("lab", problems),
        uplinks: reader.section("uplink", problems, uplink),
        networks: reader.section("network", problems, network),
        router: reader.raw("router").and_then(|value| inner(value, "[router]", problems, router)),
        images: reader.section("image", problems, image),
        vms: reader.section("vm", problems, vm),
        defaults: reader
            .raw("defaults")
            .and_then(|value| inner(value, "[defaults]", problems, defaults))
            .map_or_else(VmDef::default, At::into_inner),
    };
    reader.finish(problems);
    definition
}

/// A table that stands under one key.
fn inner<T>(
    value: &At<DeValue<'_>>,
    what: &str,
    problems: &mut Problems,
    read: impl Fn(&DeTable<'_>, Range<usize>, &str, &mut Problems) -> T,
) -> Option<At<T>> {
    let Some(table) = value.get_ref().as_table() else {
        problems
            .push(Problem::new(value.span(), format!("{what} is a table")).help(format!("write {what} or {{ … }}")));
        return None;
    };
    Some(At::new(value.span(), read(table, value.span(), what, problems)))
}

fn uplink(table: &DeTable<'_>, span: Range<usize>, what: &str, problems: &mut Problems) -> UplinkDef {
    let mut reader = Reader::new(table, what);
    let uplink = UplinkDef { device: reader.get("device", problems) };
    if reader.lacks("device") {
        problems.push(
            Problem::new(span, format!("{what} has no device"))
                .help("add device = \"eno1\": the name, altname or permanent MAC of a NIC or bond"),
        );
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
    let external = reader.raw("external").and_then(|value| inner(value, "router.external", problems, external));
    reader.finish(problems);
    RouterDef { external }
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
    let defaults = reader.raw("vm").and_then(|value| inner(value, "[defaults.vm]", problems, vm));
    reader.finish(problems);
    defaults.map_or_else(VmDef::default, At::into_inner)
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

impl FromValue for NicDef {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        if value.get_ref().is_str() {
            let network = FromValue::from_value(value, problems)?;
            return Some(At::new(value.span(), NicDef { network: Some(network), ..NicDef::default() }));
        }
        let Some(table) = value.get_ref().as_table() else {
            problems.push(
                Problem::new(value.span(), "a nic is wanted here")
                    .help("write a network's name in quotes, or { network = \"web\", address = \"…\" }"),
            );
            return None;
        };
        let mut reader = Reader::new(table, "a nic");
        let nic = NicDef {
            network: reader.get("network", problems),
            addresses: reader.list("address", problems),
            mac: reader.get("mac", problems),
            model: reader.get("model", problems),
            tap: reader.get("tap", problems),
        };
        if reader.lacks("network") {
            problems.push(
                Problem::new(value.span(), "this nic has no network").help("add network = \"…\", one of [network.*]"),
            );
        }
        reader.finish(problems);
        Some(At::new(value.span(), nic))
    }
}
