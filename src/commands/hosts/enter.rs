//! `vmnet console`, `ssh` and `exec` of a guest on another host.

use std::process::ExitCode;

use super::{Fleet, HostName};
use crate::commands::failure::Failure;
use crate::commands::output::Output;
use crate::commands::source::Source;
use crate::names::VmName;

/// Runs a verb for one guest on its host, on this terminal. Only that host has to be there.
pub(super) async fn enter(
    source: Source,
    host: &HostName,
    vm: &VmName,
    verb: &str,
    args: &[String],
    output: &Output,
) -> Result<ExitCode, Failure> {
    let guest = format!("{}/{vm}", source.whole.lab());
    let fleet = Fleet::connect(source, std::slice::from_ref(host), false, output).await?;
    fleet.all_here()?;
    let mut words = vec![verb, &guest];
    if !args.is_empty() {
        words.push("--");
    }
    words.extend(args.iter().map(String::as_str));
    let member = fleet.member(host.as_str()).ok_or_else(|| Failure::because(format!("host {host} is gone")))?;
    let code = member.place().interactive(&words).await;
    let code = code.map_err(|error| Failure::failed(format!("the connection to {vm} ended"), error))?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
