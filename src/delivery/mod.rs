//! From committed events to subscribers: every replica feeds its own connections from its own
//! apply stream.
//!
//! ```text
//! apply (holds the shard's lock) ── publish ──► Hub: a Ring per followed room, the newest events
//!                                                 │ wakes                     ▲ takes above its cursor
//!                                                 └──────► Subscription ──────┤
//!                                                                             ▼ too far behind: reads
//!                                                                          History (the store)
//! ```
//!
//! A subscription is a cursor. It takes what is above its cursor from the room's ring, and where
//! its cursor is below the ring's oldest event, from history. That one rule is all of it: catching
//! up at the start, a reader that fell behind, and a replica that jumped ahead by a snapshot are
//! the same case. So a slow reader costs no memory of its own, is never dropped, and never skips.
//! The other design, a bounded queue for each subscriber, needs a hand-over from queue to history
//! and back, whose races are what loses events elsewhere, and holds an event once per subscriber.
//!
//! **Invariant:** what a ring's head covers can be read from [`history::History`]: `publish` and
//! `register` are called inside the critical section that makes events visible to reads.
//!
//! **Invariant:** a subscription's events are dense: each seq is one above the last one's. It is
//! checked at the last moment, and a subscription that would break it ends instead.
//!
//! Left out: who may follow a room (decided before a subscription is made), encoding (the gateway
//! passes its encoder to [`encoded::Encoded`]), and finding another replica (the router).

pub mod encoded;
pub mod history;
pub mod hub;
mod ring;
pub mod subscription;

#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tests;
