//! vmnet
pub mod definition;
pub mod desired;
pub mod ledger;
pub mod mark;
pub mod model;
pub mod names;
pub mod paths;
pub mod plan;
pub mod reach;
pub mod render;
pub mod rule;
pub mod state;
