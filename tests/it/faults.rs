//! Faults from outside: vmnet runs under ptrace, and at a chosen system call it is killed, gets a signal, or is told
//! that the call failed. The product has no part in it.
//!
//! - [`tracer`] runs a program and meddles at one point;
//! - [`calls`] says which system calls are points, and puts them in words;
//! - [`place`] is a host of its own for each point, with foreign things on it and the example labs;
//! - [`promise`] is what must hold afterwards;
//! - [`sweep`] takes all points of a command, or a fixed sample of them.
//!
//! `VMNET_LONG=1` takes all points. `VMNET_POINT='create kill-before 0.3#7'` takes that one, as a failure prints it. `VMNET_POINT=list` names
//! them all and takes none.
//!
//! x86-64 only: system calls have other numbers and registers elsewhere.

pub(crate) mod calls;
pub(crate) mod memory;
pub(crate) mod place;
pub(crate) mod promise;
pub(crate) mod sweep;
pub(crate) mod tracer;
