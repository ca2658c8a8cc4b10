//! Turns [`Write`]s into one raft-engine batch, and refuses what contradicts the log.
//!
//! raft-engine panics on a hole, after the batch is on disk, and would panic again at every start;
//! so everything is checked here, before.

use std::io;

use bytes::Bytes;
use raft_engine::{Command, LogBatch};

use super::Write;
use super::error::{from_engine, invalid};
use super::state::{
    self, Entry, Groups, OWN_GROUP, STAMP_KEY, STATE_KEY, Stamp, State, encode_entry,
};
use crate::id::ShardId;

/// A batch to write, and what the log is once it is durable.
pub(super) struct Built {
    pub batch: LogBatch,
    /// The new states of the groups that it changes.
    pub changed: Groups,
}

/// Builds the batch of some writes.
///
/// Order inside: the stamp; if it is full, every group's state before the writes; the writes; the
/// states that they leave. A reader that applies them in order is right after each batch.
///
/// # Errors
/// `InvalidInput` when a write contradicts the log.
pub(super) fn build(groups: &Groups, stamp: Stamp, writes: &[Write]) -> io::Result<Built> {
    let mut draft = Draft {
        groups,
        batch: LogBatch::with_capacity(writes.len() + 4),
        changed: Groups::new(),
        put: Vec::new(),
    };
    draft.put_value(OWN_GROUP, STAMP_KEY, stamp.encode())?;
    if stamp.full {
        for (shard, state) in groups {
            draft.put_value(u64::from(shard.0), STATE_KEY, state.encode())?;
            if let Some((purged, _)) = &state.purged {
                // Compactions are forgotten with their file; entries that had been rewritten before
                // are back after a restart, in the way of appends.
                draft.compact(*shard, purged + 1);
            }
        }
    }
    for write in writes {
        draft.write(write)?;
    }
    for shard in std::mem::take(&mut draft.put) {
        let value = draft.changed[&shard].encode();
        draft.put_value(u64::from(shard.0), STATE_KEY, value)?;
    }
    Ok(Built { batch: draft.batch, changed: draft.changed })
}

struct Draft<'a> {
    groups: &'a Groups,
    batch: LogBatch,
    changed: Groups,
    /// Changed groups whose state must be put, since more than their entries changed.
    put: Vec<ShardId>,
}

impl Draft<'_> {
    fn write(&mut self, write: &Write) -> io::Result<()> {
        match write {
            Write::Append { group, entries } => self.append(*group, entries),
            Write::TruncateAfter { group, kept } => self.truncate(*group, *kept),
            Write::Purge { group, upto, log_id } => self.purge(*group, *upto, log_id),
            Write::Forget { group, applied } => self.forget(*group, applied.as_ref()),
            Write::Recall { group } => {
                self.change(*group).forgotten = false;
                self.put(*group);
                Ok(())
            }
            Write::Committed { group, log_id } => {
                self.change(*group).committed = Some(log_id.clone());
                self.put(*group);
                Ok(())
            }
            Write::Vote { group, vote } => {
                self.change(*group).vote = Some(vote.clone());
                self.put(*group);
                Ok(())
            }
        }
    }

    fn append(&mut self, group: ShardId, entries: &[(u64, Bytes)]) -> io::Result<()> {
        let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let state = self.change(group);
        if !entries.windows(2).all(|pair| pair[0].0.checked_add(1) == Some(pair[1].0)) {
            return Err(invalid(format!("append to group {group}: indexes are not consecutive")));
        }
        if let Some((low, high)) = state.appendable()
            && !(low..=high).contains(first)
        {
            return Err(invalid(format!(
                "append to group {group} at {first}: only {low} to {high} are possible"
            )));
        }
        if *last == u64::MAX {
            return Err(invalid(format!("append to group {group}: no index is left")));
        }
        state.appended(*first, *last);
        let had_mark = state.end.take().is_some();
        let encoded: Vec<_> =
            entries.iter().map(|(i, payload)| encode_entry(*i, payload)).collect();
        self.batch.add_entries::<Entry>(u64::from(group.0), &encoded).map_err(from_engine)?;
        if had_mark {
            self.put(group);
        }
        Ok(())
    }

    fn truncate(&mut self, group: ShardId, kept: Option<u64>) -> io::Result<()> {
        let state = self.change(group);
        let Some((first, last)) = state.span else { return Ok(()) };
        let end = match kept {
            Some(kept) if kept >= last => return Ok(()),
            Some(kept) => kept + 1,
            None => first,
        };
        if end < first {
            return Err(invalid(format!(
                "truncation of group {group} after {}: the log begins at {first}",
                end - 1
            )));
        }
        state.span = (end > first).then(|| (first, end - 1));
        state.end = Some(end);
        self.put(group);
        Ok(())
    }

    fn purge(&mut self, group: ShardId, upto: u64, log_id: &Bytes) -> io::Result<()> {
        let state = self.change(group);
        let Some(next) = upto.checked_add(1) else {
            return Err(invalid(format!("purge of group {group}: no index would be left")));
        };
        if let Some((purged, _)) = &state.purged
            && upto < *purged
        {
            return Err(invalid(format!(
                "purge of group {group} up to {upto}: it is purged up to {purged}"
            )));
        }
        state.purged = Some((upto, log_id.clone()));
        state.span = state.span.filter(|span| span.1 > upto).map(|(f, l)| (f.max(next), l));
        state.end = match state.span {
            Some(_) => state.end,
            // Else what the purged entries had overwritten could be back, once they are gone.
            None => Some(state.end.map_or(next, |end| end.max(next))),
        };
        self.compact(group, next);
        self.put(group);
        Ok(())
    }

    fn forget(&mut self, group: ShardId, applied: Option<&(u64, Bytes)>) -> io::Result<()> {
        let purged = self.change(group).purged.as_ref().map(|(purged, _)| *purged);
        self.truncate(group, applied.map(|(index, _)| *index).max(purged))?;
        if let Some((index, log_id)) = applied {
            self.purge(group, *index, log_id)?;
        }
        let state = self.change(group);
        state.committed = None;
        state.forgotten = true;
        self.put(group);
        Ok(())
    }

    /// The draft of a group's state.
    fn change(&mut self, group: ShardId) -> &mut State {
        let groups = self.groups;
        let state = self.changed.entry(group);
        state.or_insert_with(|| groups.get(&group).cloned().unwrap_or_default())
    }

    fn put(&mut self, group: ShardId) {
        if !self.put.contains(&group) {
            self.put.push(group);
        }
    }

    fn compact(&mut self, group: ShardId, index: u64) {
        self.batch.add_command(u64::from(group.0), Command::Compact { index });
    }

    fn put_value(&mut self, group: u64, key: &[u8], value: Vec<u8>) -> io::Result<()> {
        self.batch.put(group, key.to_vec(), value).map_err(from_engine)
    }
}

/// The state that raft-engine itself remembers of a group: its last put state, and the entries as
/// they are.
pub(super) fn recall(
    value: Option<Vec<u8>>,
    span: Option<(u64, u64)>,
) -> Result<State, state::Unreadable> {
    let mut state = value.map(|value| State::decode(&value)).transpose()?.unwrap_or_default();
    let low = state.purged.as_ref().map_or(0, |(purged, _)| purged + 1);
    state.span = span.and_then(|(first, last)| {
        let last = state.end.map_or(Some(last), |end| end.checked_sub(1).map(|e| e.min(last)))?;
        (first.max(low) <= last).then_some((first.max(low), last))
    });
    Ok(state)
}
