//! What a node's log has of a group while nothing runs, and how the node becomes its only voter.
//!
//! Called by `node/recover/` when a majority of the voters is lost for good. All that is changed of
//! a group is the end of its log: a membership of this node alone, then a command for the rules, in
//! a term above all that the log knows of, with the vote that this node would have cast for itself.
//! That is exactly what the only voter of a group leaves behind when it is killed, so the start that
//! follows is an ordinary one: whatever the log has before is committed with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::chat;
use crate::chat::state::State as _;
use crate::id::{NodeId, ShardId};
use crate::shard::state_machine::apply_meta;
use crate::shard::types::{
    Batch, Entry, LeaderId, LogId, Member, Membership, Payload, Vote, log_id, log_id_parts,
};
use crate::shard::wire;
use crate::store::base::{self, Base};
use crate::store::key::Space;
use crate::store::log::{Log, Write};
use crate::store::state::{Applied, ShardState, StateOptions};

/// Bytes of entries that are read at once.
const READ_BYTES: usize = 4 << 20;

/// What a node has of a group: its log's end, and how far its state is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holding {
    /// Term and index of the last entry, also of one that was purged; `None` when there never was
    /// one.
    pub last: Option<(u64, u64)>,
    /// Term and index of the last entry that is known to be committed.
    pub committed: Option<(u64, u64)>,
    /// Term and index of the last entry that the state on disk has.
    pub applied: Option<(u64, u64)>,
    /// When the shard's leader had the last command that is here, by its clock, milliseconds since
    /// the Unix epoch; `None` when there is none.
    pub last_at_ms: Option<u64>,
    /// Who votes by the last membership here, committed or not, ascending.
    pub voters: Vec<NodeId>,
    /// The replica was removed from this node.
    pub forgotten: bool,
    purged: Option<LogId>,
    /// The log lacks the entry at which the state is, which came by a snapshot: whatever the log has
    /// from before it is to go, as an ordinary start would see to (`GroupLog::reconcile`).
    outrun: Option<LogId>,
    term_max: u64,
}

impl Holding {
    /// Looks at a group. `state` is its state in the base.
    ///
    /// # Errors
    /// When the log or what it says of the group cannot be read.
    pub fn read(log: &Log, state: &ShardState) -> io::Result<Holding> {
        let group = log.group(state.shard());
        let applied = state.applied();
        let purged = group.purged.map(|(_, id)| wire::decode_log_id(id)).transpose()?;
        let vote = group.vote.map(wire::decode_vote).transpose()?;
        let noted = group.committed.map(wire::decode_log_id).transpose()?;
        let stored = wire::decode_stored_membership(applied.membership.clone())?;
        let mut found = Holding {
            last: purged.as_ref().map(log_id_parts),
            applied: applied.log_id,
            voters: voters(stored.membership()),
            forgotten: group.forgotten,
            purged,
            ..Holding::default()
        };
        let mut outrun = applied.log_id.filter(|id| Some(*id) > found.last);
        each_entry(log, state.shard(), 0, |entry| {
            outrun = outrun.filter(|id| *id != log_id_parts(&entry.log_id));
            match entry.payload {
                Payload::Blank => {}
                Payload::Normal(batch) => {
                    found.last_at_ms = found.last_at_ms.max(Some(batch.stamp_ms));
                }
                // Those before are in the state; none of them is newer than the state's.
                Payload::Membership(membership) => {
                    if applied.log_id.is_none_or(|(_, index)| entry.log_id.index() > index) {
                        found.voters = voters(&membership);
                    }
                }
            }
            found.last = Some(log_id_parts(&entry.log_id));
            Ok(())
        })?;
        if let Some((term, index)) = outrun {
            found.last = outrun;
            found.outrun = Some(log_id(term, index));
        }
        let log_time_ms = Some(state.log_time_ms()).filter(|ms| *ms > 0);
        found.last_at_ms = found.last_at_ms.filter(|ms| *ms > 0).max(log_time_ms);
        // The note may be of entries that a power cut took.
        found.committed = noted.as_ref().map(log_id_parts).min(found.last).max(found.applied);
        let terms = [found.last.map(|(term, _)| term), vote.map(|vote| vote.leader_id.term)];
        found.term_max = terms.into_iter().flatten().max().unwrap_or(0);
        Ok(found)
    }

    /// Whether the group can go on from here: there is a state, and the log has what follows it.
    pub fn is_whole(&self) -> bool {
        !self.forgotten
            && self.last.is_some()
            && self.applied >= self.purged.map(|id| log_id_parts(&id))
    }

    /// What to write to the log to make this node the group's only voter, and to have `request`
    /// applied before anything else is.
    pub fn take_over(
        &self,
        shard: ShardId,
        node: NodeId,
        address: &str,
        request: Bytes,
    ) -> Vec<Write> {
        let term = self.term_max + 1;
        let next = self.last.map_or(0, |(_, index)| index + 1);
        let voters = vec![BTreeSet::from([node.0])];
        let members = BTreeMap::from([(node.0, Member::new(address))]);
        let alone = Membership::new(voters, members).expect("the only voter is a member");
        let entry = |index, payload| Entry { log_id: log_id(term, index), payload };
        // Log time goes on from where it was, whatever this machine's clock says.
        let batch = Batch { stamp_ms: 0, requests: vec![request] };
        let entries =
            [entry(next, Payload::Membership(alone)), entry(next + 1, Payload::Normal(batch))];
        let vote = Vote { leader_id: LeaderId { term, voted_for: node.0 }, committed: true };
        let committed = wire::encode_log_id(&entries[1].log_id);
        let entries = entries.iter().map(|e| (e.log_id.index(), wire::encode_entry(e))).collect();
        let mut writes = vec![Write::Vote { group: shard, vote: wire::encode_vote(&vote) }];
        if self.forgotten {
            writes.push(Write::Recall { group: shard });
        }
        if let Some(log_id) = self.outrun {
            let (upto, kept) = (log_id.index(), log_id.index().checked_sub(1));
            writes.push(Write::TruncateAfter { group: shard, kept });
            writes.push(Write::Purge { group: shard, upto, log_id: wire::encode_log_id(&log_id) });
        }
        writes.push(Write::Append { group: shard, entries });
        // It has been: by a majority of one. So the start applies it before anybody is answered.
        writes.push(Write::Committed { group: shard, log_id: committed });
        writes
    }

    /// Gives a group whose state is gone an empty one, at which its log goes on. Done over, it comes
    /// to the same.
    ///
    /// # Errors
    /// When the base cannot be written.
    pub fn begin_empty(&self, base: &Arc<dyn Base>, shard: ShardId) -> io::Result<()> {
        base.delete_range(&Space::whole(shard))?;
        base.flush()?;
        let Some(purged) = self.purged else { return Ok(()) };
        let mut state = ShardState::open(base.clone(), shard, StateOptions::default())?;
        let log_id = Some(log_id_parts(&purged));
        state.set_applied(Applied { log_id, ..Applied::default() });
        let checkpoint = state.begin_checkpoint();
        checkpoint.expect("`applied` has moved").write().map(drop)
    }
}

/// Applies to a state, in memory only, what the log has beyond it, as the start that follows will.
///
/// # Errors
/// When the log cannot be read.
pub fn replay(log: &Log, state: &mut ShardState) -> io::Result<()> {
    let (shard, next) = (state.shard(), state.applied().log_id.map_or(0, |(_, index)| index + 1));
    each_entry(log, shard, next, |entry| {
        match entry.payload {
            Payload::Normal(batch) if shard == ShardId::META => drop(apply_meta(&batch, state)),
            Payload::Normal(Batch { stamp_ms, requests }) => {
                let mut events = chat::apply::Appended::new();
                chat::apply::apply_batch(state, stamp_ms, &requests, |_, _| (), &mut events);
            }
            Payload::Blank | Payload::Membership(_) => {}
        }
        Ok(())
    })
}

fn voters(membership: &Membership) -> Vec<NodeId> {
    let ids: BTreeSet<u64> = membership.voter_ids().collect();
    ids.into_iter().map(NodeId).collect()
}

fn each_entry(
    log: &Log,
    shard: ShardId,
    from: u64,
    mut visit: impl FnMut(Entry) -> io::Result<()>,
) -> io::Result<()> {
    let found = log.group(shard);
    let (Some(first), Some(last)) = (found.first, found.last) else { return Ok(()) };
    let mut next = first.max(from);
    while next <= last {
        let entries = log.entries(shard, next..last + 1, READ_BYTES)?;
        if entries.is_empty() {
            return Err(base::damage(format!("log entry {next} of shard {shard} is missing")));
        }
        for (index, bytes) in entries {
            if index != next {
                return Err(base::damage(format!("log entry {next} of shard {shard} is missing")));
            }
            visit(wire::decode_entry(bytes)?)?;
            next = index + 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::command::{Actor, Command, Request};
    use crate::chat::state::RoomKind;
    use crate::id::{Epoch, RequestId, RoomId, UserId};
    use crate::store::base::MemoryBase;
    use crate::store::log::LogOptions;

    const SHARD: ShardId = ShardId(3);

    fn requests_from(log: &Log, index: u64) -> Vec<Bytes> {
        let mut requests = Vec::new();
        each_entry(log, SHARD, index, |entry| {
            if let Payload::Normal(batch) = entry.payload {
                requests.extend(batch.requests);
            }
            Ok(())
        })
        .unwrap();
        requests
    }

    fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Write {
        let entry = |index| {
            let entry = Entry { log_id: log_id(term, index), payload: Payload::Blank };
            (index, wire::encode_entry(&entry))
        };
        Write::Append { group: SHARD, entries: indexes.map(entry).collect() }
    }

    fn taken_over(log: &Log, applied: Option<(u64, u64)>) -> Holding {
        let base: Arc<dyn Base> = Arc::new(MemoryBase::default());
        let mut state = ShardState::open(base, SHARD, StateOptions::default()).unwrap();
        state.set_applied(Applied { log_id: applied, ..Applied::default() });
        let holding = Holding::read(log, &state).unwrap();
        assert!(holding.is_whole());
        let request = Bytes::from_static(b"request");
        log.write(&holding.take_over(SHARD, NodeId(2), "here", request.clone())).unwrap();
        let after = Holding::read(log, &state).unwrap();
        assert!(after.is_whole());
        assert_eq!(after.voters, [NodeId(2)]);
        assert_eq!(after.committed, after.last);
        let (_, index) = after.last.unwrap();
        assert_eq!(requests_from(log, index), [request]);
        after
    }

    fn log() -> (tempfile::TempDir, Log) {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::open(LogOptions::new(directory.path())).unwrap();
        (directory, log)
    }

    #[test]
    fn what_the_log_has_beyond_its_commit_index_is_kept() {
        let (_directory, log) = log();
        let committed = wire::encode_log_id(&log_id(1, 3));
        log.write(&[entries(1, 0..=9), Write::Committed { group: SHARD, log_id: committed }])
            .unwrap();
        assert_eq!(taken_over(&log, Some((1, 2))).last, Some((2, 11)));
        assert_eq!(log.group(SHARD).first, Some(0));
    }

    #[test]
    fn a_state_that_a_snapshot_took_beyond_the_log_is_gone_on_from() {
        // The log ends before it, and has another history beyond it.
        for (term, applied) in [(5, (5, 20)), (5, (5, 9)), (1, (5, 4))] {
            let (_directory, log) = log();
            log.write(&[entries(term.min(4), 0..=9)]).unwrap();
            let next = if applied.1 == 20 { 20 } else { applied.1 };
            assert_eq!(taken_over(&log, Some(applied)).last, Some((6, next + 2)), "{applied:?}");
            let group = log.group(SHARD);
            assert_eq!(group.purged.map(|(index, _)| index), Some(applied.1));
            assert_eq!(group.first, Some(applied.1 + 1));
        }
    }

    #[test]
    fn a_log_that_begins_behind_the_state_is_not_whole() {
        let (_directory, log) = log();
        let purged = wire::encode_log_id(&log_id(1, 5));
        log.write(&[entries(1, 0..=9), Write::Purge { group: SHARD, upto: 5, log_id: purged }])
            .unwrap();
        let base: Arc<dyn Base> = Arc::new(MemoryBase::default());
        let state = ShardState::open(base, SHARD, StateOptions::default()).unwrap();
        assert!(!Holding::read(&log, &state).unwrap().is_whole());
        let never = ShardState::open(state.base().clone(), ShardId(9), StateOptions::default());
        assert!(!Holding::read(&log, &never.unwrap()).unwrap().is_whole());
    }
    #[test]
    fn a_recovery_takes_less_than_a_kibibyte_of_memory_a_room() {
        const ROOMS: usize = 5000;
        let create = |n: usize| {
            let mut id = [0; 10];
            id[..8].copy_from_slice(&(n as u64).to_le_bytes());
            chat::codec::encode_request(&Request {
                actor: Actor { user: UserId::parse("ann").unwrap(), admin: true },
                id: RequestId::mint(1000, id),
                command: Command::CreateRoom {
                    room: RoomId::parse(&format!("a-room-with-a-name-{n}")).unwrap(),
                    title: "A room with a title of some length".into(),
                    kind: RoomKind::Public,
                    epoch: Epoch::mint([1; 8]),
                    salt: [1; 16],
                },
            })
        };
        let base: Arc<dyn Base> = Arc::new(MemoryBase::default());
        let mut state = ShardState::open(base.clone(), SHARD, StateOptions::default()).unwrap();
        let requests: Vec<_> = (0..ROOMS).map(create).collect();
        let apply = |state: &mut ShardState, requests: &[Bytes]| {
            let mut events = chat::apply::Appended::new();
            chat::apply::apply_batch(state, 1000, requests, |_, r| drop(r.unwrap()), &mut events);
        };
        apply(&mut state, &requests);
        state.set_applied(Applied { log_id: Some((1, 1)), ..Applied::default() });
        state.begin_checkpoint().unwrap().write().unwrap();
        let mut state = ShardState::open(base, SHARD, StateOptions::default()).unwrap();
        apply(&mut state, &[chat::codec::encode_recovery(&[7; 16])]);
        let bytes = state.overlay_bytes();
        assert!((100 * ROOMS..1024 * ROOMS).contains(&bytes), "{} a room", bytes / ROOMS);
    }
}
