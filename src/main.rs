//! The `vmnet` program: read the command line, do it, say how it went.

use std::io::IsTerminal;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;
use vmnet::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::of_process();
    let level = match cli.verbose {
        0 => "warn",
        1 => "vmnet=info",
        2 => "vmnet=debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = std::io::stderr().is_terminal() && !no_colour;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Where standard error is gone, complaining about that on standard error would be the end of a change in its middle.
    log.without_time().with_ansi(colour).log_internal_errors(false).init();
    vmnet::commands::run(cli)
}
