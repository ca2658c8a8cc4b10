//! durable_sync
