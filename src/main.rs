//! The `vmnet` program: read the command line, do it, say how it went.

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use vmnet::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.verbose {
        0 => "warn",
        1 => "vmnet=info",
        2 => "vmnet=debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    vmnet::commands::run(cli)
}
