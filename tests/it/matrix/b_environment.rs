//! B. Environment.

mod drift;
mod nics;
