//! One verb a file, thin: read, observe, plan, apply, show. Everything between is in the rooms below.

mod attach;
mod boot;
mod bundle;
mod check;
mod confirm;
mod create;
mod destroy;
mod effects;
mod failure;
mod gc;
mod hosts;
mod image;
mod inside;
mod keys;
mod list;
mod logs;
mod lookup;
mod outdated;
mod output;
mod part;
mod privilege;
mod progress;
mod ps;
mod rehearse;
mod render;
mod restore;
mod session;
mod shutdown;
mod signals;
mod source;
mod standing;
mod status;
mod stop;
mod store;
mod undo;
mod unrecorded;
mod verify;
mod watch;
mod with;

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::{Cli, Command, Image, Store};
pub use failure::Failure;
use output::{Form, Output};

/// Carries out a command line, and says how it went.
pub fn run(cli: Cli) -> ExitCode {
    let output = Output::new(Form::of(cli.json, cli.events), cli.verbose > 0);
    let done = match hosts::run(&cli.command, &output) {
        Ok(None) => privilege::enter(&cli.command).and_then(|()| dispatch(cli.command, &output)),
        Ok(Some(code)) => Ok(code),
        Err(failure) => Err(failure),
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    }
}

#[expect(clippy::too_many_lines, reason = "a table, a verb a line")]
fn dispatch(command: Command, output: &Output) -> Result<ExitCode, Failure> {
    match command {
        Command::Check(file) => check::run(&file, output),
        Command::Plan { file, hosts, check } => wait_for(create::plan(&file, hosts.here.as_ref(), check, output)),
        Command::Create { file, hosts, confirm, within: _, new } => {
            let options = create::Options { confirm, new };
            wait_for(create::run(&file, hosts.here.as_ref(), options, output))
        }
        // Hosts do it step by step, this machine among them.
        Command::Rebuild { .. } | Command::With(_) => Err(Failure::because("this is no step")),
        Command::Confirm(lab) => confirm::run(&lookup::meant(&lab)?, output),
        Command::Undo(lab) => wait_for(undo::run(&lookup::meant(&lab)?, output)),
        Command::Restore { labs, named } => wait_for(restore::run(&lookup::all_meant(labs, named)?, output)),
        Command::Watch { lab, id } => wait_for(watch::run(&lab, &id)),
        Command::Destroy { lab, stop, purge, force } => {
            wait_for(destroy::run(&lookup::meant(&lab)?, destroy::Options { stop, purge, force }, output))
        }
        Command::Rehearse(arguments) => rehearse::run(arguments, output),
        Command::Keep => logs::keep(),
        Command::Hold { lab: _, machine, folders } => rehearse::hold(&machine, &folders),
        Command::Inside { pid, args } => rehearse::inside(pid, &args),
        Command::List => list::run(output),
        Command::Gc { dry_run, stop, purge, force } => {
            wait_for(gc::run(dry_run, destroy::Options { stop, purge, force }, output))
        }
        Command::Status(lab) => wait_for(status::run(&lookup::meant(&lab)?, output)),
        Command::Verify { lab, junit, outside } => {
            wait_for(verify::run(&lookup::meant(&lab)?, junit.as_deref(), outside, output))
        }
        Command::Boot { guests, wait, jobs, overcommit } => {
            let options = boot::Options { wait, jobs, overcommit };
            wait_for(boot::run(&guests.vms, lookup::of(&guests)?.as_deref(), options, output))
        }
        Command::Stop { guests, force } => {
            wait_for(stop::run(&guests.vms, lookup::of(&guests)?.as_deref(), force, output))
        }
        Command::Shutdown => wait_for(shutdown::run(output)),
        Command::Reset { guests, stop } => {
            wait_for(stop::reset(&guests.vms, lookup::of(&guests)?.as_deref(), stop, output))
        }
        Command::Attach { plug, model } => attach::attach(&plug.domain, &plug.network, model.into(), output),
        Command::Detach(plug) => attach::detach(&plug.domain, &plug.network, output),
        Command::Ps(lab) => wait_for(ps::run(&lookup::meant(&lab)?, output)),
        Command::Console(guest) => inside::console(&guest.vm),
        Command::Logs { guest, follow, lines, previous, raw } => {
            logs::run(&guest.vm, logs::Options { follow, lines, previous, raw }, output)
        }
        Command::Ssh { guest, args } => inside::ssh(&guest.vm, &args),
        Command::Reach { guest, about } => inside::reach(&guest.vm, about, output),
        Command::Exec { guest, command } => inside::exec(&guest.vm, &command),
        Command::Xml(guest) => wait_for(render::xml(&guest.vm, output)),
        Command::QemuArgs { guest, unprivileged } => wait_for(render::qemu_args(&guest.vm, unprivileged, output)),
        Command::Image(Image::Pull { lab, names }) => image::pull(&lab, &names, output),
        Command::Image(Image::List) => image::list(output),
        Command::Image(Image::Prune { dry_run }) => image::prune(dry_run, output),
        Command::Store(Store::Has { digests }) => store::has(&digests, output),
        Command::Store(Store::Take { digest, size }) => store::take(&digest, size, output),
        Command::ProbePart { lab } => part::run(&lab, output),
        Command::Completions { shell } => {
            // Into memory first: clap_complete takes a reader that is gone for a bug.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "vmnet", &mut script);
            std::io::stdout().write_all(&script).map_err(Failure::output)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()).map_err(Failure::output)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs the asynchronous part of a verb on this thread.
fn wait_for<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::runtime)?;
    runtime.block_on(work)
}
