//! Foreign forward chains that would drop the lab's traffic: nothing is done to them, everything is said. Pure.

use super::context::Context;
use crate::model::{Bridge, External};
use crate::names::IfName;
use crate::state::ForwardDrop;

/// How many bridges a note names.
const NAMED: usize = 3;

pub(super) fn chains(context: &mut Context<'_>) {
    for drop in &context.facts().forward_drops {
        through_host(context, drop);
        if context.facts().bridge_netfilter {
            on_bridges(context, drop);
        }
    }
}

/// What goes through the host passes its forward chains, all of them: an accept in ours can't overrule a drop there.
fn through_host(context: &mut Context<'_>, drop: &ForwardDrop) {
    let Some(router) = context.model.router() else { return };
    let External::Host(host) = router.external() else { return };
    if drop.devices.contains(&host.outer) {
        let remedy = drop.remedy.replace("{dev}", host.outer.as_str());
        context.note(
            &host.outer,
            format!("{} drops what it does not know, this lab's traffic too; run: {remedy}", drop.chain),
        );
    }
}

/// With br_netfilter even a frame from one port of a bridge to another passes them. The setting of a single bridge
/// can't overrule the global one, and the global one is not ours.
fn on_bridges(context: &mut Context<'_>, drop: &ForwardDrop) {
    let own = context.model.networks().values().filter(|network| matches!(network.bridge(), Bridge::Own { .. }));
    let bridges: Vec<&IfName> =
        own.map(|network| network.bridge().name()).filter(|name| drop.devices.contains(*name)).collect();
    let Some(first) = bridges.first() else { return };
    let mut about: Vec<&str> = bridges.iter().take(NAMED).map(|name| name.as_str()).collect();
    if bridges.len() > NAMED {
        about.push("…");
    }
    let each = if bridges.len() > 1 { " (the same for each bridge)" } else { "" };
    let remedy = drop.remedy.replace("{dev}", first.as_str());
    context.note(
        about.join(", "),
        format!(
            "br_netfilter sends bridged frames through {}, which drops what it does not know; run: {remedy}{each}, or for \
             all bridges of this host: sysctl net.bridge.bridge-nf-call-iptables=0",
            drop.chain
        ),
    );
}
