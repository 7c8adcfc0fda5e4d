//! C. State and collisions.

mod growing;
