//! B. Environment.

mod disk;
mod drift;
mod host;
mod kernel;
mod namespaces;
mod nics;
mod reboot;
