//! The integration tests, one binary: linking once is quicker than once a file. One module a concern.

mod definitions;
mod desired;
mod engine_disk;
mod engine_qemu;
mod fake;
mod hooks;
mod kernel_apply;
mod kernel_observe;
mod kernel_vlan;
mod plan_apply;
mod private;
mod probe;
mod properties;
mod sandbox;
mod scenarios;
mod skip;
mod snapshot;
mod states;
mod wire;
mod world;
