//! The kernel as a thin typed layer: links, addresses and routes over rtnetlink, namespaces, sysctls, offloads,
//! nftables, TAPs, and what passes a link.
//!
//! Nothing is decided here: every function has one effect, named by its arguments. Errors carry what was asked for
//! and the kernel's own words. Dumps are read by [`dump`], changes are sent by [`Kernel`].

pub mod caps;
pub mod capture;
pub mod child;
pub mod dump;
mod error;
pub mod ethtool;
pub mod hold;
pub(crate) mod line;
mod message;
pub mod modules;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod nftables;
pub mod stand;
pub mod standin;
pub mod start;
pub mod sysctl;
pub mod tap;
mod told;
pub mod trust;
mod wire;

pub use error::KernelError;
pub use netlink::{Kernel, Request};
