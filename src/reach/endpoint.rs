//! Who is tried, and how. Pure.

use std::fmt;

use serde::Serialize;

use crate::kinds::{Peer, Service};
use crate::model::Model;
use crate::names::{HostName, NetName, VmName};

/// Somebody who can be reached. The names are the same seen from every host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub enum Endpoint {
    /// A guest.
    Guest(VmName),
    /// The gateway of a network: the router, or on a bridged network the segment's own. Of a network that is routed
    /// between hosts each host has one.
    Gateway(NetName, Option<HostName>),
    /// The host that runs the lab, or of several one.
    Host(Option<HostName>),
    /// A machine beyond the external interface.
    Outside,
}

impl Endpoint {
    /// The gateway of a network of a view.
    pub(super) fn gateway(model: &Model, network: &NetName) -> Self {
        Self::Gateway(model.said(network).clone(), model.share_of(network).cloned())
    }

    /// The network of a view that a gateway is of.
    pub(super) fn network<'a>(&'a self, model: &'a Model) -> Option<&'a NetName> {
        match self {
            Self::Gateway(network, Some(host)) => Some(model.share_at(network, host)),
            Self::Gateway(network, None) => Some(network),
            Self::Guest(_) | Self::Host(_) | Self::Outside => None,
        }
    }

    /// The host on which it tries others; `None` where there is one host, or it is nobody of the lab's.
    pub fn home<'a>(&'a self, model: &'a Model) -> Option<&'a HostName> {
        match self {
            Self::Guest(vm) => model.vms().get(vm)?.host().as_ref(),
            Self::Gateway(_, Some(host)) | Self::Host(Some(host)) => Some(host),
            Self::Gateway(network, None) => model.gateway_host(network),
            Self::Host(None) | Self::Outside => None,
        }
    }
}

impl From<&Peer> for Endpoint {
    fn from(peer: &Peer) -> Self {
        match peer {
            Peer::Guest(vm) => Self::Guest(vm.clone()),
            Peer::Gateway(network, host) => Self::Gateway(network.clone(), host.clone()),
            Peer::Outside => Self::Outside,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Guest(vm) => vm.fmt(f),
            Endpoint::Gateway(network, None) => f.pad(&format!("gateway:{network}")),
            Endpoint::Gateway(network, Some(host)) => f.pad(&format!("gateway:{network}@{host}")),
            Endpoint::Host(None) => f.pad("host"),
            Endpoint::Host(Some(host)) => f.pad(&format!("host@{host}")),
            Endpoint::Outside => f.pad("outside"),
        }
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> String {
        endpoint.to_string()
    }
}

/// UDP ports of services that get a question they answer: DNS (RFC 1035) and NTP (RFC 5905).
pub const ASKED: [u16; 2] = [53, 123];

/// How it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub enum How {
    /// On the segment: ARP (RFC 826), or neighbour solicitation for IPv6 (RFC 4861).
    L2,
    /// By an ICMP echo request that the sender's own routes carry.
    L3,
    /// By an ICMP echo request that is handed to the router whatever the sender's routes say: what a neighbour of
    /// the router could do by adding a route.
    Forced,
    /// By a TCP handshake with this port.
    Tcp(u16),
    /// By a datagram to this UDP port.
    Udp(u16),
}

impl How {
    /// Whether its packets carry the number of the try, or are a question for an address: only those can be told from
    /// everybody else's on their way.
    pub fn can_be_traced(self) -> bool {
        matches!(self, Self::L2 | Self::L3 | Self::Forced)
    }

    /// Whether no answer may mean that there was nothing to answer: a UDP service that does not know what it was sent
    /// says nothing. Those that a probe knows how to ask do.
    pub fn silence_is_unclear(self) -> bool {
        matches!(self, Self::Udp(port) if !ASKED.contains(&port))
    }
}

impl From<Service> for How {
    fn from(service: Service) -> Self {
        match service {
            Service::Icmp => Self::L3,
            Service::Tcp(port) => Self::Tcp(port),
            Service::Udp(port) => Self::Udp(port),
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::L2 => f.write_str("l2"),
            How::L3 => f.write_str("l3"),
            How::Forced => f.write_str("forced"),
            How::Tcp(port) => write!(f, "tcp/{port}"),
            How::Udp(port) => write!(f, "udp/{port}"),
        }
    }
}

impl From<How> for String {
    fn from(how: How) -> String {
        how.to_string()
    }
}
