//! What a node keeps on disk: the Raft log, and the state that it drives.
//!
//! ```text
//!  <data>/LOCK, ballast
//!  <data>/log/      identity, watermark, raft-engine's files      identity.rs, log/
//! ```
//!
//! Everything here is synchronous and starts no threads; `shard` decides on which thread to call.
//! Storage errors are fatal for a node, except one: a full disk ([`log::is_no_space`]).

pub mod ballast;
pub mod durable_sync;
pub mod identity;
pub mod log;
pub mod snapshot;
pub mod state;
