//! B. Environment.

#[cfg(target_arch = "x86_64")]
mod full;
mod reboot;
