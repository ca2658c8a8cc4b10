//! The simulator, tested: its command, and what a life measures. In one program, which is linked once.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod command;
mod failover;
mod followers;
