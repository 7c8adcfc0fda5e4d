//! C. State and collisions.

mod by_hand;
mod collisions;
mod growing;
mod ledger;
mod marks;
