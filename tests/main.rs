//! The tests of real nodes, in one program: a fat link of each file by itself takes longer than the
//! tests. One file: `cargo test --release --test all failover::`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

mod accounts;
mod bad_input;
mod cli;
mod clock;
mod compact;
mod config_cluster;
mod corpus;
mod crowd;
mod dedup;
mod delivery;
mod demo;
mod drain;
mod errors_doc;
mod failover;
mod fsync;
mod full_disk;
mod fuzz_corpus;
mod gateway_node;
mod guide;
mod harness;
mod idle;
mod import_export;
mod join;
mod limits;
mod load_balancer;
mod lost_base;
mod lost_log;
mod lost_node;
mod marks;
mod membership;
mod million;
mod oidc;
mod openapi;
mod operations;
mod page;
mod permissions;
mod presence;
mod readme;
mod recover;
mod redaction;
mod reload;
mod rest;
mod restart;
mod retention;
mod rolling_restart;
mod session;
mod snapshot;
mod start;
mod systemd;
mod verify;
mod walks;
mod ws;
