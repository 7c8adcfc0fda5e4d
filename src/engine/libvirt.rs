//! libvirt, by way of `vmnet-libvirt`, which is the only program that links it.

mod door;

pub use door::{Door, DoorError, PROGRAM, program};
