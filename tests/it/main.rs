//! Everything that needs a kernel or a process of its own, in one binary.

mod engine_qemu;
