//! Folkmoot clusters in a deterministic simulation.

pub mod disk;
