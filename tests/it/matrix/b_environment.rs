//! B. Environment.

mod disk;
mod host;
mod kernel;
mod namespaces;
mod reboot;
