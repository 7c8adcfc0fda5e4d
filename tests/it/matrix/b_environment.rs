//! B. Environment.

mod claims;
mod disk;
mod drift;
#[cfg(target_arch = "x86_64")]
mod full;
mod host;
mod kernel;
mod namespaces;
mod nics;
mod reboot;
