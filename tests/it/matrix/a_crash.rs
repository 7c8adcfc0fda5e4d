//! A. Crash and concurrency.
