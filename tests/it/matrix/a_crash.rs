//! A. Crash and concurrency.

mod concurrency;
mod lock;
#[cfg(target_arch = "x86_64")]
mod points;
