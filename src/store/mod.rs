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
mod cleaning;
pub mod codec;
pub mod compact;
pub mod dedup;
pub mod dedup_part;
pub mod durable_sync;
pub mod identity;
pub mod key;
pub mod log;
mod merge;
pub mod overlay;
mod pages;
mod reads;
mod recovery;
pub mod seal;
pub mod set_aside;
pub mod sled_base;
pub mod snapshot;
pub mod snapshot_sink;
pub mod state;
pub mod sums;
pub mod tail;
mod weigh;
pub mod whole;

#[cfg(test)]
mod tests;
