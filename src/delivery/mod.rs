//! From committed events to subscribers: every replica feeds its own connections from its own
//! apply stream.

pub mod encoded;
pub mod hub;
pub mod subscription;
