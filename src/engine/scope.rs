//! Under systemd: a process in a scope of its own.

use std::path::Path;

use crate::kernel::caps::Caps;
use crate::kernel::child;

/// Under systemd, moves processes into a scope of their own, so that the end of a login does not end them. Says whether
/// their life depends on no login; where systemd does not run there is nothing to do.
///
/// At shutdown systemd ends them only once it has stopped the unit `after`.
pub async fn own_scope(name: &str, pids: &[i32], after: Option<&str>) -> bool {
    if !Path::new("/run/systemd/system").is_dir() {
        return true;
    }
    let manager = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];
    let Some(busctl) = child::find("busctl") else { return false };
    let mut command = tokio::process::Command::from(child::command(&busctl, Caps::NONE));
    command.args(["--quiet", "call"]).args(manager).args(["StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail"]);
    command.arg(if after.is_some() { "3" } else { "2" });
    command.args(["PIDs", "au", &pids.len().to_string()]).args(pids.iter().map(ToString::to_string));
    command.args(["CollectMode", "s", "inactive-or-failed"]);
    if let Some(unit) = after {
        // What is ordered before a unit is stopped behind it.
        command.args(["Before", "as", "1", unit]);
    }
    command.arg("0");
    let output = command.output().await;
    output.as_ref().is_ok_and(|output| output.status.success())
}
