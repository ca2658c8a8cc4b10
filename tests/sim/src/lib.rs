//! Folkmoot clusters in a deterministic simulation.
//!
//! ```text
//!  seed ─► plan ─► life ─┬─ cluster: the product's own nodes, on a simulated runtime, network,
//!                        │           disk and clock
//!                        ├─ workload, followers: clients; what they see is recorded
//!                        ├─ nemesis: what goes wrong
//!                        └─ invariants, every 5 ms; checkers (jepsen/), at the end
//! ```
pub mod cluster;
pub mod disk;
pub mod equal;
pub mod follower;
pub mod invariants;
pub mod kept;
pub mod life;
pub mod log_matching;
pub mod mutants;
pub mod nemesis;
pub mod network;
pub mod node;
pub mod nonsense;
pub mod operator;
pub mod output;
pub mod placement;
pub mod plan;
pub mod record;
pub mod runner;
pub mod runtime;
pub mod shrink;
pub mod trace;
pub mod workload;
