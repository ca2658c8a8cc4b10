//! Tests of the shard layer that need real disks: openraft's own suite over our stores.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod suite;
