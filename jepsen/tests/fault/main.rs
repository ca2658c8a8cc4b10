//! Each fault against real nodes: it does what it says, it heals, and nothing acknowledged is lost.
//!
//! The nodes are in network namespaces of their own and on disks of their own, which takes root.
//! What is missing is said as SKIPPED, with how to get it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../../tests/common/mod.rs"]
mod common;

mod command;
mod disks;
mod links;
mod processes;
mod world;
