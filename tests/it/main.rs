//! The integration tests, one binary: linking once is quicker than once a file. One module a concern.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod across;
mod as_another;
mod by_hand;
mod by_others;
mod check;
mod cloud_init;
mod confirm;
mod definitions;
mod desired;
mod engine_disk;
mod engine_libvirt;
mod engine_qemu;
mod engines;
mod examples;
mod fake;
#[cfg(target_arch = "x86_64")]
mod faults;
mod first_use;
mod foreign;
mod fuzz;
mod hooks;
mod hosts;
mod install;
mod kernel_apply;
mod kernel_observe;
mod kernel_vlan;
mod libvirt;
mod many;
mod matrix;
mod one_go;
mod outdated;
mod plan_apply;
mod plan_properties;
mod private;
mod private_libvirt;
mod privilege;
mod probe;
mod properties;
mod purity;
mod rehearsal;
mod rehearse;
mod sandbox;
mod scenarios;
mod shutdown;
mod skip;
mod slices;
mod snapshot;
mod states;
mod suite;
mod trace;
mod unrecorded;
mod wire;
mod with;
mod world;
