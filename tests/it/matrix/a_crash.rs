//! A. Crash and concurrency.

mod concurrency;
mod lock;
