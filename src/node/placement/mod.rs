//! Takes replicas and leaders to where the cluster map says that they should be.
//!
//! ```text
//!  operator, planner ─► target in the map ─► every node: starts a replica that is to come
//!                                         ─► the group's leader: learner, joint membership, target
//!         settled in the map ◄─ report ◄──┘
//!                  └─► every node: removes a replica that is neither in target nor settled
//! ```
//!
//! Nobody keeps anything of a move but the map, the group's own membership and what is on disk, so
//! whoever dies in the middle is followed by somebody who goes on.

pub(super) mod planner;
pub(super) mod replicas;
pub(super) mod steward;
