//! B. Environment.
