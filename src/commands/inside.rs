//! `vmnet console`, `ssh` and `exec`: ways into a guest.

use std::process::ExitCode;
use std::time::Duration;

use super::failure::Failure;
use super::lookup;
use super::output::Output;
use super::session::paths;
use super::source::Source;
use crate::engine::{self, EngineError};
use crate::model::Engine;
use crate::names::VmName;
use crate::observe::find_tool;
use crate::rule;
use crate::state::Tool;

/// A console that is read by a program ends when the guest has been silent for so long.
const SILENCE: Duration = Duration::from_secs(5);

/// `vmnet console`
pub(super) fn console(name: &str) -> Result<ExitCode, Failure> {
    let (lab, vm) = lookup::guest(name)?;
    let (_, source) = lookup::applied(&lab)?;
    is_machine(&source, &vm, "no console")?;
    let run_dir = paths()?.guest_run(&lab, &vm);
    let attached = match source.model.vms()[&vm].engine() {
        Engine::Libvirt => engine::libvirt::console(&lab, &vm)
            .and_then(|pty| engine::console::attach_pty(&lab, &vm, &run_dir, &pty, SILENCE)),
        Engine::Qemu | Engine::Netns => engine::console::attach(&lab, &vm, &run_dir, SILENCE),
    };
    attached.map_err(|error| Failure::failed(format!("no console of vm {vm}"), error))?;
    Ok(ExitCode::SUCCESS)
}

/// `vmnet ssh`
pub(super) fn ssh(name: &str, args: &[String]) -> Result<ExitCode, Failure> {
    let (lab, vm) = lookup::guest(name)?;
    let (_, source) = lookup::applied(&lab)?;
    is_machine(&source, &vm, "no ssh server")?;
    let Some(program) = find_tool(Tool::Ssh) else {
        return Err(Failure::lacks("ssh was not found; apt-get install openssh-client"));
    };
    let error = engine::ssh::exec(&paths()?, &source.model, &source.model.vms()[&vm], &program, args);
    Err(Failure::failed(format!("no ssh to vm {vm}"), error))
}

/// `vmnet reach`
pub(super) fn reach(name: &str, about: bool, output: &Output) -> Result<ExitCode, Failure> {
    let (lab, vm) = lookup::guest(name)?;
    let (_, source) = lookup::applied(&lab)?;
    let guest = &source.model.vms()[&vm];
    if about {
        is_machine(&source, &vm, "no ssh server")?;
        let door = engine::ssh::door(&paths()?, &source.model, guest);
        let door = door.map_err(|error| Failure::failed(format!("no ssh to vm {vm}"), error))?;
        output.result(&door, || door.address.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let failed = format!("no way to the ssh server of vm {vm}");
    match engine::ssh::pipe(&source.model, guest) {
        Ok(Ok(())) => Ok(ExitCode::SUCCESS),
        Ok(Err(error)) => Err(Failure::failed(failed, error)),
        Err(error) => Err(Failure::failed(failed, error)),
    }
}

/// A namespace is entered by `exec`, nothing else.
pub(super) fn is_machine(source: &Source, vm: &VmName, lacks: &str) -> Result<(), Failure> {
    match source.model.vms()[vm].engine() {
        Engine::Qemu | Engine::Libvirt => Ok(()),
        Engine::Netns => Err(Failure::because(format!(
            "vm {vm} is a namespace (engine = \"netns\") with {lacks}; use vmnet exec {}/{vm} COMMAND",
            source.model.lab()
        ))),
    }
}

/// `vmnet exec`
pub(super) fn exec(name: &str, command: &[String]) -> Result<ExitCode, Failure> {
    let (lab, vm) = lookup::guest(name)?;
    let (_, source) = lookup::applied(&lab)?;
    if *source.model.vms()[&vm].engine() != Engine::Netns {
        return Err(Failure::because(format!(
            "vm {vm} is a machine of its own; use vmnet ssh or vmnet console (exec is for engine = \"netns\")"
        )));
    }
    let ns = rule::guest_namespace(&lab, &vm);
    let code = engine::netns::exec(&ns, command).map_err(|error| match &error {
        EngineError::Kernel(source) if source.is_gone() => {
            Failure::advised(format!("vm {vm} does not run"), format!("start it: vmnet boot {lab}/{vm}"))
        }
        _ => Failure::failed(format!("nothing was run in vm {vm}"), error),
    })?;
    // A process exits with a byte; 128 and the signal's number for one that was killed.
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
