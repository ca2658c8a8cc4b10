//! What a node keeps on disk: the Raft log, and the replicated state over its base.

pub mod base;
pub mod block;
pub mod checkpoint;
pub mod codec;
pub mod compact;
pub mod dedup;
pub mod key;
pub mod overlay;
mod recovery;
pub mod sled_base;
pub mod snapshot;
pub mod state;
pub mod tail;

#[cfg(test)]
mod tests;
