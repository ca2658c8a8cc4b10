//! Histories of what clients of a Folkmoot cluster saw, and the checkers that judge them.
//!
//! ```text
//! driver ──► history ──► check ──► verdict, anomalies, witnesses ──► report ──► a page
//!                │                                                     ▲
//!                ├─────► export ──► Jepsen, Porcupine                   │
//!                └──────────────────────────────────────────────────────┘
//! ```
//!
//! A driver (the simulator, or a run against real nodes) records each operation when it begins and
//! when it ends. The checkers know nothing of the cluster: they judge what was seen from outside,
//! and what they call an anomaly a client could have noticed.
//!
//! Each place of a room's log is known by its seq, and every answer has one. That makes
//! linearizability a matter of one pass over sorted operations instead of a search
//! (`check/order.rs`), for histories of millions. `semantics.md` says what each line of a history
//! means, and what each anomaly.
//!
//! Absent on purpose: message bodies, which the hash chain covers; transactions, which a chat has
//! not; and any repair of a malformed history.

pub mod check;
pub mod cluster;
pub mod export;
pub mod fault;
pub mod history;
pub mod report;
pub mod run;
