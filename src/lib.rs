//! vmnet
pub mod apply;
pub mod definition;
pub mod desired;
pub mod kernel;
pub mod ledger;
pub mod mark;
pub mod model;
pub mod names;
pub mod observe;
pub mod paths;
pub mod plan;
pub mod probe;
pub mod reach;
pub mod render;
pub mod rule;
pub mod state;
