//! B. Environment.

mod reboot;
