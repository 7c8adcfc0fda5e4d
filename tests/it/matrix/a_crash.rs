//! A. Crash and concurrency.

#[cfg(target_arch = "x86_64")]
mod points;
