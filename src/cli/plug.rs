//! What `attach` and `detach` are told.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::kinds::NicModel;

/// A domain of libvirt's and a network.
#[derive(Debug, Args)]
pub struct Plug {
    /// The domain, by its name in libvirt or its UUID.
    #[arg(value_name = "DOMAIN", value_parser = NonEmptyStringValueParser::new())]
    pub domain: String,
    /// The network, as web or campus/web.
    #[arg(value_name = "NETWORK")]
    pub network: String,
}

/// A kind of NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Model {
    /// Paravirtual.
    Virtio,
    /// Intel 82540EM, for systems without virtio drivers.
    E1000,
    /// Intel 82574L.
    E1000e,
}

impl From<Model> for NicModel {
    fn from(model: Model) -> Self {
        match model {
            Model::Virtio => Self::Virtio,
            Model::E1000 => Self::E1000,
            Model::E1000e => Self::E1000e,
        }
    }
}
