//! A group's replica of the state: applies committed entries, answers reads, takes checkpoints.
//!
//! **Invariants.** One entry is applied under one write lock, events are published inside it, and
//! `applied` moves before the lock is released, so whoever holds the read lock sees state, `applied`
//! and the hub's position agree. `apply` does no I/O but for rows that are not in memory.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use crate::chat;
use crate::chat::event::Event;
use crate::error::{Code, Error};
use crate::id::{RoomId, ShardId};
use crate::meta;
use crate::shard::lost::Acknowledgements;
use crate::shard::runtime::Runtime;
use crate::shard::snapshot::SnapshotData;
use crate::shard::types::{
    Batch, LogId, Payload, Replies, Snapshot, SnapshotMeta, StoredMembership, Types, log_id,
    log_id_parts,
};
use crate::shard::{watch, wire};
use crate::store;
use crate::store::base::{Base, MemoryBase};
use crate::store::snapshot::Sending;
use crate::store::state::{Applied, ShardState, StateOptions};

/// Where committed events go: the hub of the shard's room followers.
pub trait CommitSink: Send + Sync + 'static {
    /// Takes a room's new events, in seq order. Called inside the apply critical section: it must
    /// neither wait nor call back into the replica.
    fn committed(&self, room: &RoomId, events: &[Arc<Event>]);
    /// The state was replaced as a whole, by a snapshot. Called inside the critical section too.
    fn replaced(&self, state: &ShardState);
    /// The critical section in which the above were called has ended: wake whom it concerns.
    fn released(&self);
}

/// A group's replica of the state on this node.
pub struct Replica {
    group: ShardId,
    state: RwLock<ShardState>,
    sink: Arc<dyn CommitSink>,
    applied: watch::Sender<u64>,
    /// The replica was removed from this node; changed while `state` is locked for writing.
    retired: AtomicBool,
    /// Bytes of a snapshot that have been received so far; 0 while none is.
    pub(crate) receiving_bytes: AtomicU64,
    pub(crate) acknowledged: Arc<Acknowledgements>,
    /// Of what it has been said that a checkpoint could not remove it from the base.
    pub(crate) uncleaned_said: Mutex<BTreeSet<&'static str>>,
    /// Held by a checkpoint, by the copying of a snapshot, and while one is received.
    pub(crate) maintenance: Arc<tokio::sync::Mutex<()>>,
}

impl Replica {
    /// Wraps an opened state.
    pub fn new(group: ShardId, state: ShardState, sink: Arc<dyn CommitSink>) -> Arc<Replica> {
        let index = state.applied().log_id.map_or(0, |(_, index)| index);
        let applied = watch::Sender::new(index);
        Arc::new(Replica {
            group,
            state: RwLock::new(state),
            sink,
            applied,
            retired: AtomicBool::new(false),
            receiving_bytes: AtomicU64::new(0),
            acknowledged: Arc::default(),
            uncleaned_said: Mutex::default(),
            maintenance: Arc::default(),
        })
    }

    /// Which group's it is.
    pub fn group(&self) -> ShardId {
        self.group
    }

    /// The state, for reading. Apply waits meanwhile: keep it short.
    pub fn read(&self) -> RwLockReadGuard<'_, ShardState> {
        self.state.read().expect("apply does not panic: a panic aborts the process")
    }

    /// The state, for answering clients.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when the replica was removed from this node: it is to be asked for
    /// elsewhere.
    pub fn read_live(&self) -> Result<RwLockReadGuard<'_, ShardState>, Error> {
        let state = self.read();
        match self.retired.load(Ordering::Relaxed) {
            false => Ok(state),
            true => Err(Error::new(Code::Unavailable, "this replica has moved: ask another node")),
        }
    }

    /// Has the next checkpoint look for what is left of trimmed events in all rooms. Reads every
    /// room's row meanwhile.
    pub fn look_for_trimmed(&self) {
        self.write().look_for_trimmed();
    }

    /// Whether the replica was removed from this node.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Puts an empty state, of no base, in the place of this replica's: whoever still holds the
    /// replica reads nothing from the base, and no checkpoint writes to it. Call it while holding
    /// [`Replica::no_checkpoints`].
    pub(crate) fn retire(&self) -> io::Result<ShardState> {
        let nothing: Arc<dyn Base> = Arc::new(MemoryBase::default());
        let empty = ShardState::open(nothing, self.group, StateOptions::default())?;
        let mut state = self.write();
        self.retired.store(true, Ordering::Relaxed);
        Ok(std::mem::replace(&mut *state, empty))
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, ShardState> {
        self.state.write().expect("apply does not panic: a panic aborts the process")
    }

    /// Keeps checkpoints and snapshots away from the base for as long as the guard lives.
    pub async fn no_checkpoints(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.maintenance.clone().lock_owned().await
    }

    /// Follows the index of the last applied entry.
    pub fn watch_applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The log id and membership that a snapshot taken now would have: those of the last durable
    /// checkpoint.
    pub(crate) fn durable_meta(&self) -> io::Result<SnapshotMeta> {
        meta_of(self.read().durable())
    }

    fn apply_batch(&self, batch: &Batch, state: &mut ShardState) -> Replies {
        if self.group == ShardId::META {
            return apply_meta(batch, state);
        }
        let off = u64::from(mutant!(ApplySeesCheckpoint) && state.checkpointing());
        let mut replies = Vec::with_capacity(batch.requests.len());
        let mut events = chat::apply::Appended::new();
        let replied = |_index, reply| replies.push(reply);
        let stamp_ms = batch.stamp_ms + off;
        chat::apply::apply_batch(state, stamp_ms, &batch.requests, replied, &mut events);
        for run in events.chunk_by(|(room, _), (other, _)| room == other) {
            let run_events: Vec<Arc<Event>> = run.iter().map(|(_, event)| event.clone()).collect();
            self.sink.committed(&run[0].0, &run_events);
        }
        Replies(replies)
    }

    /// Copies what a snapshot needs of the last durable checkpoint.
    pub(crate) async fn begin_snapshot<R: Runtime>(
        self: &Arc<Self>,
    ) -> io::Result<(Sending, SnapshotMeta)> {
        let replica = self.clone();
        let _no_checkpoint = self.maintenance.lock().await;
        // The rows are copied without the lock: apply goes on meanwhile.
        let source = R::blocking(move || {
            let snapshots = replica.read().snapshots();
            snapshots.begin()
        });
        let source = source.await??;
        let meta = match mutant!(SnapshotAhead) {
            true => meta_of(self.read().applied())?,
            false => meta_of(source.applied())?,
        };
        Ok((Sending::new(source), meta))
    }

    pub(crate) fn install(&self, received: store::snapshot_sink::Received) -> io::Result<()> {
        let mut state = self.write();
        let before = mutant!(SnapshotFallsBack).then(|| state.durable().clone());
        state.install(received)?;
        if let Some(before) = before {
            state.set_applied(before);
        }
        self.applied.send(state.applied().log_id.map_or(0, |(_, index)| index));
        self.sink.replaced(&state);
        drop(state);
        self.sink.released();
        Ok(())
    }
}

pub(super) fn apply_meta(batch: &Batch, state: &mut ShardState) -> Replies {
    use chat::state::{State, StateMut};
    state.advance_log_time(batch.stamp_ms);
    let log_time_ms = state.log_time_ms();
    Replies(meta::apply_batch(state, &batch.requests, log_time_ms))
}

impl meta::Blobs for ShardState {
    fn blob(&self, name: &str) -> Option<Bytes> {
        ShardState::blob(self, name)
    }

    fn put_blob(&mut self, name: &str, value: Bytes) {
        ShardState::put_blob(self, name, value);
    }
}

pub(super) fn meta_of(applied: &Applied) -> io::Result<SnapshotMeta> {
    Ok(SnapshotMeta {
        last_log_id: applied.log_id.map(|(term, index)| log_id(term, index)),
        last_membership: wire::decode_stored_membership(applied.membership.clone())?,
    })
}

/// What openraft drives: a handle on the replica.
#[derive(Clone)]
pub struct StateMachine(pub Arc<Replica>);

impl<R: Runtime> RaftStateMachine<Types<R>> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = StateMachine;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let meta = meta_of(self.0.read().applied())?;
        Ok((meta.last_log_id, meta.last_membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types<R>>>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let replies = {
                let mut state = self.0.write();
                let mut applied = state.applied().clone();
                let replies = match &entry.payload {
                    Payload::Blank => Replies::default(),
                    Payload::Normal(batch) => self.0.apply_batch(batch, &mut state),
                    Payload::Membership(membership) => {
                        let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
                        applied.membership = wire::encode_stored_membership(&stored);
                        let is_member = |id| membership.get_node(&id).is_some();
                        self.0.acknowledged.keep(is_member);
                        Replies::default()
                    }
                };
                applied.log_id = Some(log_id_parts(&entry.log_id));
                state.set_applied(applied);
                self.0.applied.send(entry.log_id.index());
                replies
            };
            if let Some(responder) = responder {
                responder.send(replies);
            }
            self.0.sink.released();
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> StateMachine {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        // It stands for the entries that removed members.
        let membership = meta.last_membership.membership();
        self.0.acknowledged.keep(|id| membership.get_node(&id).is_some());
        match snapshot {
            SnapshotData::Received(received) => self.0.install(received),
            SnapshotData::Local(_) => {
                Err(io::Error::other("a replica cannot install its own snapshot"))
            }
        }
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let meta = self.0.durable_meta()?;
        if meta.last_log_id.is_none() {
            return Ok(None);
        }
        Ok(Some(openraft::Snapshot { meta, snapshot: SnapshotData::Local(self.0.clone()) }))
    }
}

impl<R: Runtime> RaftSnapshotBuilder<Types<R>> for StateMachine {
    type SnapshotData = SnapshotData;

    /// Builds nothing: the durable checkpoint is the snapshot, and its rows are copied when it is
    /// sent.
    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let meta = self.0.durable_meta()?;
        Ok(openraft::Snapshot { meta, snapshot: SnapshotData::Local(self.0.clone()) })
    }
}
