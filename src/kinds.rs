//! The kinds that a definition chooses between: modes, engines, models, ways to name a device. Pure: words only.

mod expect;
mod guest;
mod snippet;
mod url;

use serde::Serialize;

pub use expect::{Peer, Service, Wanted, WrongWord};
pub use guest::{Command, NicAddress};
pub use snippet::{Snippet, SnippetError};
pub use url::{Url, UrlError};

use crate::names::{DeviceName, Mac, NameError};

/// How a definition names a device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceRef {
    /// A name or an altname.
    Name(DeviceName),
    /// The permanent MAC.
    Mac(Mac),
}

impl std::fmt::Display for DeviceRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DeviceRef::Name(name) => name.fmt(f),
            DeviceRef::Mac(mac) => mac.fmt(f),
        }
    }
}

impl std::str::FromStr for DeviceRef {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse::<Mac>().map_or_else(|_| text.parse().map(DeviceRef::Name), |mac| Ok(DeviceRef::Mac(mac)))
    }
}

/// What a network is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A bridge and nothing else.
    Isolated,
    /// A gateway in the router, no NAT.
    Routed,
    /// A gateway in the router, and source NAT toward the outside.
    Nat,
    /// Guests sit on a physical segment, with its own gateway.
    Bridged,
}

impl Mode {
    /// Whether the router has a gateway here.
    pub fn has_router(self) -> bool {
        match self {
            Mode::Routed | Mode::Nat => true,
            Mode::Isolated | Mode::Bridged => false,
        }
    }

    /// The word in the definition.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Isolated => "isolated",
            Mode::Routed => "routed",
            Mode::Nat => "nat",
            Mode::Bridged => "bridged",
        }
    }
}

/// What joins the parts of a network that are on several hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Across {
    /// One layer-2 segment: a VLAN of the trunk that the hosts share.
    #[default]
    Vlan,
    /// A subnet for each host, and static routes between them.
    Routed,
}

/// What runs a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// QEMU, without a daemon.
    Qemu,
    /// A domain of libvirt.
    Libvirt,
    /// A namespace with the guest's MACs, addresses and routes.
    Netns,
}

impl Engine {
    /// Whether a guest is a machine, which boots an image.
    pub fn is_machine(self) -> bool {
        match self {
            Engine::Qemu | Engine::Libvirt => true,
            Engine::Netns => false,
        }
    }

    /// The word in the definition.
    pub fn word(self) -> &'static str {
        match self {
            Engine::Qemu => "qemu",
            Engine::Libvirt => "libvirt",
            Engine::Netns => "netns",
        }
    }
}

/// How QEMU executes a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// Hardware virtualization.
    Kvm,
    /// Emulation.
    Tcg,
}

/// The format of a base image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageFormat {
    /// QEMU's copy-on-write format.
    Qcow2,
    /// Plain blocks.
    Raw,
}

impl ImageFormat {
    /// QEMU's word for it.
    pub fn word(self) -> &'static str {
        match self {
            ImageFormat::Qcow2 => "qcow2",
            ImageFormat::Raw => "raw",
        }
    }
}

/// What starts a guest's operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// SeaBIOS, which QEMU brings.
    #[default]
    Bios,
    /// UEFI by OVMF, with variables that each guest keeps.
    Uefi,
}

impl Firmware {
    /// Whether it is what a guest has where nothing is said.
    pub fn is_bios(&self) -> bool {
        *self == Firmware::Bios
    }
}

/// QEMU's and libvirt's word for an emulated NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NicModel {
    /// Paravirtual.
    Virtio,
    /// Intel 82540EM, for guests without virtio drivers.
    E1000,
    /// Intel 82574L.
    E1000e,
}

impl NicModel {
    /// libvirt's word for it.
    pub fn word(self) -> &'static str {
        match self {
            NicModel::Virtio => "virtio",
            NicModel::E1000 => "e1000",
            NicModel::E1000e => "e1000e",
        }
    }
}
