//! D. Hostile definition.
