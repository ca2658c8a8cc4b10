//! Notices that this replica's log has lost what it had acknowledged, which only the leader knows.
//!
//! A log that was put back to an earlier state, as from a copy of its disk, is sound in itself, so
//! opening finds nothing. But a leader keeps what each follower has acknowledged to it, and says so
//! whenever it opens a stream of entries or a snapshot ([`Acknowledged`]). Within a term the leader
//! never takes an entry back; so a follower that lacks it, and knows of no later term, has lost it.
//!
//! Such a replica would be refilled, and nobody would know that it had voted, or counted toward a
//! quorum, for what it did not have. So it takes nothing from that stream; its node stops, and its
//! log is marked as lost.
//!
//! Left out: only the process that saw the acknowledgement knows of it. A leader that does not
//! refills the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::proto::internal as pb;
use crate::shard::Shard;
use crate::shard::runtime::Runtime;
use crate::shard::types::{LogId, log_id_parts};
use crate::shard::wire;

/// An entry that is missing is looked for once more after this long, since being wrong costs a
/// node.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The last entry that one follower has acknowledged to this node, and the term in which it was.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged(Mutex<Option<(u64, LogId)>>);

impl Acknowledged {
    fn lock(&self) -> MutexGuard<'_, Option<(u64, LogId)>> {
        self.0.lock().expect("no holder of the lock panics")
    }

    /// Takes an answer to the leader of a term.
    pub(crate) fn note(&self, term: u64, log_id: LogId) {
        let mut known = self.lock();
        // An entry that a later term's leader has not seen again may be gone.
        if known.is_none_or(|known| known < (term, log_id)) {
            *known = Some((term, log_id));
        }
    }

    /// What a stream to the follower begins with.
    pub(crate) fn claim(&self) -> Option<pb::Acknowledged> {
        let known = *self.lock();
        known
            .map(|(term, log_id)| pb::Acknowledged { term, log_id: Some(wire::log_id_to(&log_id)) })
    }
}

/// What each other member has acknowledged to this node, over all terms that this node led.
///
/// A member that is removed from the group empties its log (`Shard::retire`), so what it has
/// acknowledged before is forgotten as soon as its removal is applied here: should it become a
/// member again, its log rightly lacks it.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements(Mutex<BTreeMap<u64, Arc<Acknowledged>>>);

impl Acknowledgements {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Acknowledged>>> {
        self.0.lock().expect("no holder of the lock panics")
    }

    /// What one member has acknowledged.
    pub(crate) fn of(&self, member: u64) -> Arc<Acknowledged> {
        self.lock().entry(member).or_default().clone()
    }

    /// Forgets everybody who is no member any more.
    pub(crate) fn keep(&self, is_member: impl Fn(u64) -> bool) {
        self.lock().retain(|member, _| is_member(*member));
    }
}

impl<R: Runtime> Shard<R> {
    /// Whether the log has what a leader says that it has acknowledged. When not, it counts as lost
    /// from here on, and the group stops.
    pub(crate) async fn has_acknowledged(&self, claim: Option<pb::Acknowledged>) -> bool {
        let Some(pb::Acknowledged { term, log_id: Some(log_id) }) = claim else { return true };
        let log_id = wire::log_id_from(log_id);
        if !self.log.lacks(term, log_id) {
            return true;
        }
        R::sleep(LOOK_AGAIN).await;
        if !self.log.lacks(term, log_id) {
            return true;
        }
        let (entry_term, index) = log_id_parts(&log_id);
        self.lose(format!(
            "shard {}: entry {index} of term {entry_term}, which this node has acknowledged, is \
             missing from its log",
            self.id
        ))
        .await;
        false
    }

    async fn lose(&self, found: String) {
        let why = format!(
            "{found}. The log was put back to an earlier state; it must not vote under this id \
             again. The other nodes have the data: remove this node from the cluster, move its \
             data directory away, and let it join again under a new id"
        );
        if self.lost.set(why).is_err() {
            return;
        }
        tracing::error!(shard = %self.id, found, "the log has lost acknowledged entries");
        let log = self.log.clone();
        let marked = R::blocking(move || log.mark_lost(&found)).await.flatten();
        if let Err(error) = marked {
            tracing::error!(%error, "cannot mark the log as lost");
        }
        self.stop().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::types::log_id;

    fn claimed(notes: &[(u64, LogId)]) -> Option<(u64, LogId)> {
        let acknowledged = Acknowledged::default();
        notes.iter().for_each(|(term, log_id)| acknowledged.note(*term, *log_id));
        let claim = acknowledged.claim()?;
        Some((claim.term, wire::log_id_from(claim.log_id?)))
    }

    #[test]
    fn the_last_entry_of_the_last_term_is_claimed() {
        assert_eq!(claimed(&[]), None);
        // Heartbeats confirm less than entries do, and answers may come late.
        assert_eq!(claimed(&[(2, log_id(2, 9)), (2, log_id(2, 5))]), Some((2, log_id(2, 9))));
        assert_eq!(claimed(&[(2, log_id(2, 9)), (1, log_id(1, 20))]), Some((2, log_id(2, 9))));
        // Another leader came between, and took back what nobody had committed.
        assert_eq!(claimed(&[(2, log_id(2, 9)), (4, log_id(1, 5))]), Some((4, log_id(1, 5))));
    }

    #[test]
    fn what_a_former_member_acknowledged_is_forgotten() {
        let all = Acknowledgements::default();
        all.of(2).note(5, log_id(5, 9));
        all.of(3).note(5, log_id(5, 9));
        all.keep(|member| member != 3);
        assert!(all.of(2).claim().is_some());
        assert!(all.of(3).claim().is_none());
    }
}
