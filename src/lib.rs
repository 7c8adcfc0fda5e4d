//! vmnet: one TOML file in, a working VM network out.
//!
//! ```text
//! net.toml --parse--> Definition --resolve--> Model --desired(host, facts)--> HostState (desired) --+
//!          net.lock ------------^                                                                  +--diff--> Plan --apply--> Report
//! kernel, files ------observe------> HostState (current), Facts -----------------------------------+             |
//!                                                                       observe again, plan must be empty <------+
//! ```
//!
//! Everything left of `apply` is pure: no kernel, files, clock, environment or randomness. Desired and current are
//! one type, so `create`, `destroy`, `status` and repair are one code path: a diff, a plan, its execution.
//!
//! The rooms, each of which may use those above it in this list and none below (a test reads the list):
//!
//! Pure:
//! - [`names`], parsed once, never checked again
//! - [`kinds`], what a definition chooses between
//! - [`libvirt`], what is asked of `vmnet-libvirt`, and its answers
//! - [`mark`], how an object says whose it is
//! - [`rule`], what is chosen by rule: hashes, MACs, device names
//! - [`paths`], where things stand on disk
//! - [`state`], what a lab owns on a host, and facts about the host
//! - [`plan`], the operations that turn one state into another
//! - [`definition`], the TOML file as it was written
//! - [`model`], what it means
//! - [`reach`], who may reach whom
//! - [`render`], texts from data
//! - [`stage`], what a rehearsal puts in the place of the world
//! - [`desired`], the state that a lab shall have on a host
//!
//! With effects:
//! - [`kernel`], links, namespaces, nftables, TAPs, sysctls
//! - [`probe`], who does reach whom, who has an address already
//! - [`engine`], guests
//! - [`observe`], the state that there is
//! - [`ledger`], what is remembered on disk
//! - [`images`], what is in images, and downloads
//! - [`apply`], carries out a plan
//! - [`remote`], other hosts, over OpenSSH
//! - [`cli`], the command line as clap sees it
//! - [`commands`], one verb a file

pub mod apply;
pub mod cli;
pub mod commands;
pub mod definition;
pub mod desired;
pub mod engine;
pub mod images;
pub mod kernel;
pub mod kinds;
pub mod ledger;
pub mod libvirt;
pub mod mark;
pub mod model;
pub mod names;
pub mod observe;
pub mod paths;
pub mod plan;
pub mod probe;
pub mod reach;
pub mod remote;
pub mod render;
pub mod rule;
pub mod stage;
pub mod state;
