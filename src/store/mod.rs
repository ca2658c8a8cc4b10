//! What a node keeps on disk: the Raft log, and the replicated state over its base.

pub mod base;
pub mod block;
pub mod checkpoint;
pub mod codec;
pub mod compact;
pub mod dedup;
pub mod dedup_part;
pub mod key;
mod merge;
pub mod overlay;
mod pages;
mod reads;
mod recovery;
pub mod sled_base;
pub mod snapshot;
pub mod snapshot_sink;
pub mod state;
pub mod stored_event;
pub mod tail;
mod weigh;

#[cfg(test)]
mod tests;
