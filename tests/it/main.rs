//! The integration tests, one binary: linking once is quicker than once a file. One module a concern.
//!
//! Those that need the kernel run in network and mount namespaces of their own (see [`private`]), never in the
//! machine's; without root they say so and pass, except in CI.

mod definitions;
mod fake;
mod kernel_apply;
mod kernel_observe;
mod kernel_vlan;
mod plan_apply;
mod private;
mod states;
