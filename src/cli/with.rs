//! `vmnet with` on the command line.

use std::time::Duration;

use clap::Args;

use super::{File, Hosts, duration};

/// A lab for the time that a command takes.
#[derive(Debug, Args)]
pub struct With {
    /// The definition.
    #[command(flatten)]
    pub file: File,
    /// The hosts.
    #[command(flatten)]
    pub hosts: Hosts,
    /// Wait for guests at most this long.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration)]
    pub wait: Duration,
    /// Leave the lab there where the command fails, for looking around.
    #[arg(long)]
    pub keep_on_failure: bool,
    /// The command and its arguments. It finds the lab's name in VMNET_LAB, and the definition's path in VMNET_FILE.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}
