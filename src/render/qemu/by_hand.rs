//! A QEMU command line for people: the same guest, started from a shell. Pure.

use std::path::PathBuf;

use serde::Serialize;

use super::{LackError, common, direct_boot, disks, nic_device, option_value, program, strings};
use crate::model::NicModel;
use crate::paths::Paths;
use crate::render::{GuestFiles, GuestView, shell};
use crate::state::{Facts, Feature, Tool};

/// Who starts QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// root: QEMU opens its TAP itself and runs the network's hook pair.
    Root,
    /// Any user: `qemu-bridge-helper`, which is setuid root, opens the TAP.
    Unprivileged,
}

/// A command line, and what must stand elsewhere for it to work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ByHand {
    /// The program, absolute.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Lines that `/etc/qemu/bridge.conf` needs.
    pub bridge_conf: Vec<String>,
    /// The program that opens TAPs for people who are not root. It has to be setuid root, which Debian leaves to the
    /// administrator.
    pub helper: Option<PathBuf>,
}

impl ByHand {
    /// For a shell: what is needed beforehand as comments, then the command with one option a line.
    pub fn shell(&self) -> String {
        let mut text = String::new();
        if let Some(helper) = &self.helper {
            text.push_str(&format!("# once, as root: chmod u+s {}\n", shell::quote(&helper.to_string_lossy())));
        }
        if !self.bridge_conf.is_empty() {
            // No package brings the folder.
            text.push_str("# once, as root: mkdir -p /etc/qemu\n");
        }
        for line in &self.bridge_conf {
            text.push_str(&format!("# once, as root: echo '{line}' >>/etc/qemu/bridge.conf\n"));
        }
        text.push_str(&shell::quote(&self.program.to_string_lossy()));
        for arg in &self.args {
            text.push_str(if arg.starts_with('-') { " \\\n    " } else { " " });
            text.push_str(&shell::quote(arg));
        }
        text.push('\n');
        text
    }
}

/// The command line that starts a guest by hand, with its serial console and QEMU's monitor (Ctrl-a c) on the
/// terminal. `files` are there already.
pub fn by_hand(
    view: &GuestView<'_>,
    paths: &Paths,
    facts: &Facts,
    files: &GuestFiles,
    privilege: Privilege,
) -> Result<ByHand, LackError> {
    let program = program(view, facts)?;
    let mut args = common(view, disks::machine(None));
    // No sandbox here: `spawn=deny` would kill QEMU when it runs the hook or the helper.
    args.extend(strings(&["-display", "none", "-serial", "mon:stdio"]));
    if let Some(disk) = &files.disk {
        args.extend(["-drive".into(), format!("file={},format=qcow2,if=virtio", option_value(disk))]);
    }
    if let Some(seed) = &files.seed {
        args.extend(["-drive".into(), format!("file={},format=raw,if=virtio,readonly=on", option_value(seed))]);
    }
    disks::by_hand(view, &files.kept, &mut args);
    let (mut bridge_conf, mut used_helper) = (Vec::new(), None);
    for (number, nic, network) in view.model.nics(view.vm) {
        let bridge = network.bridge().name();
        let netdev = match privilege {
            Privilege::Root => {
                let (up, down) = paths.hook_pair(view.model.lab(), network.name());
                let vhost = facts.features.contains(&Feature::VhostNet) && *nic.model() == NicModel::Virtio;
                format!(
                    "tap,id=net{number},ifname={},script={},downscript={}{}",
                    nic.tap(),
                    option_value(&up),
                    option_value(&down),
                    if vhost { ",vhost=on" } else { "" }
                )
            }
            Privilege::Unprivileged => {
                let helper = facts
                    .tools
                    .get(&Tool::BridgeHelper)
                    .ok_or_else(|| LackError::Program { vm: view.vm.name().to_string(), tool: Tool::BridgeHelper })?;
                bridge_conf.push(format!("allow {bridge}"));
                used_helper = Some(helper.clone());
                format!("bridge,id=net{number},br={bridge},helper={}", option_value(helper))
            }
        };
        args.extend(["-netdev".into(), netdev, "-device".into(), nic_device(view, number)]);
    }
    args.extend(direct_boot(view, |path| path.to_string_lossy().into_owned()));
    args.extend(view.vm.qemu_args().iter().cloned());
    bridge_conf.sort();
    bridge_conf.dedup();
    Ok(ByHand { program, args, bridge_conf, helper: used_helper })
}
