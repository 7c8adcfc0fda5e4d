//! Tests of the expectations on whole definitions.
