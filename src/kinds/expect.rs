//! What an `[[expect]]` chooses between: whom, by which service, with which result. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{HostName, NetName, VmName};

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Service {
    /// An echo request.
    #[default]
    Icmp,
    /// A TCP handshake with this port.
    Tcp(u16),
    /// A datagram to this port.
    Udp(u16),
}

/// A text that is no [`Service`] or no [`Peer`].
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("wrong word")]
pub struct WrongWord;

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Service::Icmp => f.write_str("icmp"),
            Service::Tcp(port) => write!(f, "tcp/{port}"),
            Service::Udp(port) => write!(f, "udp/{port}"),
        }
    }
}

impl From<Service> for String {
    fn from(service: Service) -> String {
        service.to_string()
    }
}

impl TryFrom<String> for Service {
    type Error = WrongWord;
    fn try_from(text: String) -> Result<Self, WrongWord> {
        text.parse()
    }
}

impl FromStr for Service {
    type Err = WrongWord;
    fn from_str(text: &str) -> Result<Self, WrongWord> {
        if text == "icmp" {
            return Ok(Service::Icmp);
        }
        let (protocol, port) = text.split_once('/').ok_or(WrongWord)?;
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(WrongWord);
        }
        let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or(WrongWord)?;
        match protocol {
            "tcp" => Ok(Service::Tcp(port)),
            "udp" => Ok(Service::Udp(port)),
            _ => Err(WrongWord),
        }
    }
}

/// Who is tried.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub enum Peer {
    /// A guest.
    Guest(VmName),
    /// The gateway of a network; of one that is routed between hosts, that of a host.
    Gateway(NetName, Option<HostName>),
    /// A machine that is none of the lab's.
    Outside,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Guest(vm) => vm.fmt(f),
            Peer::Gateway(network, None) => write!(f, "gateway:{network}"),
            Peer::Gateway(network, Some(host)) => write!(f, "gateway:{network}@{host}"),
            Peer::Outside => f.write_str("outside"),
        }
    }
}

impl From<Peer> for String {
    fn from(peer: Peer) -> String {
        peer.to_string()
    }
}

impl FromStr for Peer {
    type Err = WrongWord;
    fn from_str(text: &str) -> Result<Self, WrongWord> {
        match text.strip_prefix("gateway:") {
            None if text == "outside" => Ok(Peer::Outside),
            None => text.parse().map(Peer::Guest).map_err(|_| WrongWord),
            Some(of) => {
                let (network, host) = match of.split_once('@') {
                    Some((network, host)) => (network, Some(host.parse().map_err(|_| WrongWord)?)),
                    None => (of, None),
                };
                Ok(Peer::Gateway(network.parse().map_err(|_| WrongWord)?, host))
            }
        }
    }
}

/// What should come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// It answers.
    Reach,
    /// It does not.
    Deny,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_peers_are_what_they_say() {
        for text in ["icmp", "tcp/22", "udp/65535"] {
            assert_eq!(text.parse::<Service>().unwrap().to_string(), text);
        }
        for bad in ["", "tcp", "tcp/", "tcp/0", "tcp/65536", "tcp/+1", "TCP/22", "sctp/1", "icmp/1"] {
            assert_eq!(bad.parse::<Service>(), Err(WrongWord), "{bad}");
        }
        for text in ["vm4", "outside", "gateway:web", "gateway:web@h1"] {
            assert_eq!(text.parse::<Peer>().unwrap().to_string(), text);
        }
        for bad in ["", "gateway:", "gateway:web@", "gateway:@h1", "host", "a b"] {
            assert_eq!(bad.parse::<Peer>(), Err(WrongWord), "{bad}");
        }
    }
}
