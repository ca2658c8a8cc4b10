//! Folkmoot clusters in a deterministic simulation.
#![expect(clippy::print_stderr, reason = "a life's trace is read on standard error")]

pub mod disk;
pub mod network;
pub mod runtime;
pub mod trace;
