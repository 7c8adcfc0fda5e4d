//! vmnet
pub mod definition;
pub mod engine;
pub mod kernel;
pub mod mark;
pub mod model;
pub mod names;
pub mod paths;
pub mod plan;
pub mod render;
pub mod rule;
pub mod state;
