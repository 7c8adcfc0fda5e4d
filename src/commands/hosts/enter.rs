//! `vmnet console`, `logs`, `ssh` and `exec` of a guest on another host.

use std::process::ExitCode;

use super::{Fleet, HostName, Member, Way};
use crate::commands::failure::Failure;
use crate::commands::output::Output;
use crate::commands::source::Source;
use crate::engine::ssh::Door;
use crate::names::VmName;

/// Runs a verb, with options of its own, for one guest on its host, on this terminal. Only that host has to be there.
pub(super) async fn enter(
    source: Source,
    host: &HostName,
    vm: &VmName,
    (verb, options): (&str, &[String]),
    args: &[String],
    output: &Output,
) -> Result<ExitCode, Failure> {
    let guest = format!("{}/{vm}", source.whole.lab());
    let fleet = Fleet::connect(source, std::slice::from_ref(host), false, output).await?;
    fleet.all_here()?;
    let member = fleet.member(host.as_str()).ok_or_else(|| Failure::because(format!("host {host} is gone")))?;
    let code = match (verb, &member.way) {
        ("ssh", Way::Ssh(_)) => log_in(&fleet, member, &guest, args).await?,
        _ => {
            let mut words = vec![verb];
            words.extend(options.iter().map(String::as_str));
            words.push(&guest);
            if !args.is_empty() {
                words.push("--");
            }
            words.extend(args.iter().map(String::as_str));
            let code = member.place().interactive(&words).await;
            code.map_err(|error| Failure::failed(format!("the connection to {vm} ended"), error))?
        }
    };
    fleet.close().await;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// ssh runs here, where the user's keys are, and reaches the guest by a pipe through its host.
async fn log_in(fleet: &Fleet, member: &Member, guest: &str, args: &[String]) -> Result<i32, Failure> {
    let about = fleet.ask_one(member, &["reach", "--about", guest]).await?;
    let no_door = |error| Failure::failed("the host does not say how its guest is reached", error);
    let door: Door = serde_json::from_value(about).map_err(no_door)?;
    let code = member.place().log_in(&door, &["reach", guest], args).await;
    code.map_err(|error| Failure::failed(format!("no ssh to {guest}"), error))
}
