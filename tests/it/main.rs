//! The integration tests, one binary: linking once is quicker than once a file. One module a concern.

mod definitions;
mod properties;
