//! Images: downloads from a server of the test's own that breaks, lies and refuses, and what the commands make of them.

mod commands;
mod downloads;
mod machines;
mod server;
