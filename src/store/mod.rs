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
pub mod base;
pub mod block;
pub mod checkpoint;
pub mod codec;
pub mod compact;
pub mod dedup;
pub mod durable_sync;
pub mod identity;
pub mod key;
pub mod log;
pub mod overlay;
mod recovery;
pub mod sled_base;
pub mod snapshot;
pub mod state;
pub mod tail;

#[cfg(test)]
mod tests;
