//! B. Environment.

mod drift;
mod nics;
mod reboot;
