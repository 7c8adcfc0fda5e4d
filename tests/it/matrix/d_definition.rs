//! D. Hostile definition.

mod files;
mod folders;
mod names;
mod qemu;
mod terminal;
mod texts;
