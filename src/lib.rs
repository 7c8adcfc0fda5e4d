//! vmnet: one TOML file in, a working VM network out.
//!
//! ```text
//! net.toml --parse--> Definition --resolve--> Model --desired(host, facts)--> HostState (desired) --+
//!          net.lock ------------^                                                                  +--diff--> Plan --apply--> Report
//! kernel, files ------observe------> HostState (current), Facts -----------------------------------+             |
//!                                                                       observe again, plan must be empty <------+
//! ```
//!
//! Everything left of `apply` is pure: no kernel, files, clock, environment or randomness. Desired and current are
//! one type, so `create`, `destroy`, `status` and repair are one code path: a diff, a plan, its execution.
//!
//! The rooms, in the order in which they may use each other (downward in this list means: may be used by those
//! below).

// Pure: words.
pub mod mark;
pub mod names;
pub mod paths;
pub mod rule;
// Pure: the flow.
pub mod definition;
pub mod desired;
pub mod model;
pub mod plan;
pub mod reach;
pub mod render;
pub mod state;
// Effects.
pub mod apply;
pub mod engine;
pub mod kernel;
pub mod ledger;
pub mod observe;
pub mod probe;
// The command line.
pub mod cli;
pub mod commands;
