//! The tests of histories: checked, exported, drawn. In one program: a fat link of each file by itself
//! takes longer than the tests.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod browser;
mod generated;
mod story;

mod brute_force;
mod cli;
mod export;
mod page;
mod planted;
mod planted_again;
mod report;
