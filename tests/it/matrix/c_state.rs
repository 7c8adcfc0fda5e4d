//! C. State and collisions.
