//! B. Environment.

mod drift;
#[cfg(target_arch = "x86_64")]
mod full;
mod nics;
mod reboot;
