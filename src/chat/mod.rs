//! The rules of chat: `(state, command, log time) → (reply, events)`, pure and deterministic.
//!
//! No clock, no randomness, no I/O, no floats, and no hash-map iteration decide anything here:
//! every replica must come to the same state from the same log.

pub mod command;
pub mod event;
pub mod query;
pub mod state;
