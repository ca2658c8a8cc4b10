//! Folkmoot: a chat server that self-hosters run on three machines and trust.

#[macro_use]
pub mod mutants;

pub mod cli;
pub mod config;
pub mod node;

pub mod client;

pub mod chat;
pub mod clock;
pub mod delivery;
pub mod error;
pub mod gateway;
pub mod id;
pub mod limits;
pub mod meta;
pub mod presence;
pub mod router;
pub mod shard;
pub mod store;
#[cfg(test)]
mod testing;

/// Generated from `proto/`.
#[allow(missing_docs, reason = "documented in proto/")]
pub mod proto {
    /// The public API.
    pub mod v1 {
        tonic::include_proto!("folkmoot.v1");
    }
    /// What is persisted and said between nodes.
    pub mod internal {
        tonic::include_proto!("folkmoot.internal.v1");
    }
    /// Every file descriptor, for server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/folkmoot.bin"));
}
