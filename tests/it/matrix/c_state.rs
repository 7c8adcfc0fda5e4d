//! C. State and collisions.

mod by_hand;
mod collisions;
mod ledger;
mod marks;
