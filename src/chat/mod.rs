//! The rules of chat: `(state, command, log time) → (reply, events)`, pure and deterministic.
//!
//! No clock, no randomness, no I/O, no floats, and no hash-map iteration decide anything here:
//! every replica must come to the same state from the same log.
//!
//! ```text
//! bytes ──codec──► Request ──dedup──► verb (create_room, post, …) ──append──► events, room's row
//!                              │            │
//!                              │            └ access, by the one table of permission
//!                              └ a repeat: the first outcome again
//! ```
//!
//! A shard calls [`apply::apply_batch`] for every committed entry and [`query::query`] for reads.
//! State is behind the traits of [`state`]; [`memory`] implements them over plain maps.

pub mod account;
pub mod apply;
pub mod codec;
pub mod command;
pub mod event;
pub mod memory;
pub mod mention;
pub mod permission;
pub mod query;
pub mod recover;
pub mod search;
pub mod state;

mod access;
mod append;
mod check;
mod dedup;
mod page;
mod unread;

// One file per verb.
mod archive;
mod change_user;
mod create_room;
mod create_user;
mod edit;
mod import;
mod invite;
mod join;
mod kick;
mod leave;
mod linked;
mod mark_read;
mod pin;
mod post;
mod react;
mod redact;
mod restrict;
pub mod retention;
mod set_role;
mod token;
mod topic;

#[cfg(test)]
mod tests;
