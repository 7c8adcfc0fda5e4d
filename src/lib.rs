//! vmnet
pub mod apply;
pub mod kernel;
pub mod mark;
pub mod names;
pub mod observe;
pub mod paths;
pub mod plan;
pub mod rule;
pub mod state;
