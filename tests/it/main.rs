//! Tests that run the real program on a real kernel, each in namespaces of its own.

mod sandbox;
mod scenarios;
mod snapshot;
mod wire;
mod world;
