//! What a guest is told: commands, and where an address comes from. Pure.

use std::net::IpAddr;

use serde::Serialize;

/// A command that runs once in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Command {
    /// For a shell.
    Line(String),
    /// A program and its arguments, which no shell reads.
    Argv(Vec<String>),
}

/// Where an address of a nic comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NicAddress {
    /// The definition.
    Fixed(IpAddr),
    /// A DHCP server on the segment; IPv4.
    Dhcp,
    /// Router advertisements on the segment; IPv6.
    Slaac,
}
