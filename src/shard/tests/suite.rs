//! openraft's test suite for storage, on our log and state machine over real disks.
//!
//! Every case runs. Two things differ from what the suite takes for granted, so [`Suited`] stands
//! between, and nothing in the product bends to the tests:
//!
//! - the suite expects a snapshot of all that was applied. Here a snapshot is the last durable
//!   checkpoint, and openraft is asked for one right after it; so one is taken first, by the code
//!   that the checkpointer runs.
//! - the suite hands one replica's snapshot to another as a value. Here it travels as a stream, so
//!   it is sent and received, by the code that nodes run, over a pipe in memory.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use futures_util::Stream as Entries;
use futures_util::future::BoxFuture;
use openraft::storage::{EntryResponder, RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::chat::event::Event;
use crate::id::{RoomId, ShardId};
use crate::shard::checkpointer;
use crate::shard::log_store::GroupLog;
use crate::shard::log_writer::{LogWriter, Space};
use crate::shard::runtime::TokioRuntime;
use crate::shard::snapshot::{self, SnapshotData};
use crate::shard::state_machine::{CommitSink, Replica, StateMachine};
use crate::shard::transport::{Closed, FrameSink, Stream};
use crate::shard::types::{
    LeaderId, LogId, Snapshot, SnapshotMeta, StoredMembership, Types, Vote, log_id,
};
use crate::store::log::{Log, LogOptions};
use crate::store::sled_base::{SledBase, SledOptions};
use crate::store::snapshot_sink::SnapshotSink;
use crate::store::state::{ShardState, StateOptions};

type T = Types<TokioRuntime>;
type StorageError = openraft::StorageError<T>;

const GROUP: ShardId = ShardId(3);

/// A disk with nothing to give up.
struct NoBallast;

impl Space for NoBallast {
    fn on_full(&self) {}
}

/// Followers of nothing.
struct Nobody;

impl CommitSink for Nobody {
    fn committed(&self, _room: &RoomId, _events: &[Arc<Event>]) {}
    fn replaced(&self, _state: &ShardState) {}
    fn released(&self) {}
}

/// A store's writer and directory; both end with it.
struct Disk {
    writer: Stopping,
    directory: TempDir,
}

/// A writer that ends when this is dropped.
struct Stopping(LogWriter);

impl Drop for Stopping {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn writer(directory: &TempDir) -> LogWriter {
    let log = Log::open(LogOptions::new(directory.path().join("log"))).unwrap();
    LogWriter::start::<TokioRuntime>(Arc::new(log), Arc::new(NoBallast))
}

fn open() -> (Disk, GroupLog, Suited) {
    let directory = tempfile::tempdir().unwrap();
    let writer = writer(&directory);
    let log = GroupLog::open(GROUP, writer.clone()).unwrap();
    let rooms = directory.path().join("rooms");
    let base = SledBase::open(&rooms, &SledOptions { cache_bytes: 8 << 20, check: false }).unwrap();
    let state = ShardState::open(Arc::new(base), GROUP, StateOptions::default()).unwrap();
    let replica = Replica::new(GROUP, state, Arc::new(Nobody));
    (Disk { writer: Stopping(writer), directory }, log, Suited(StateMachine(replica)))
}

struct Builder;

impl StoreBuilder<T, GroupLog, Suited, Disk> for Builder {
    async fn build(&self) -> Result<(Disk, GroupLog, Suited), StorageError> {
        Ok(open())
    }
}

/// Our state machine, as the suite wants it: see the module's documentation.
#[derive(Clone)]
struct Suited(StateMachine);

impl RaftStateMachine<T> for Suited {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Suited;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        RaftStateMachine::<T>::applied_state(&mut self.0).await
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Entries<Item = io::Result<EntryResponder<T>>> + Unpin + OptionalSend,
    {
        RaftStateMachine::<T>::apply(&mut self.0, entries).await
    }

    async fn get_snapshot_builder(&mut self) -> Suited {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let received = match snapshot {
            SnapshotData::Local(sender) => carry(&sender, &self.0.0).await,
            received @ SnapshotData::Received(_) => received,
        };
        RaftStateMachine::<T>::install_snapshot(&mut self.0, meta, received).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        RaftStateMachine::<T>::get_current_snapshot(&mut self.0).await
    }
}

impl RaftSnapshotBuilder<T> for Suited {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        checkpointer::write::<TokioRuntime>(&self.0.0).await?;
        RaftSnapshotBuilder::<T>::build_snapshot(&mut self.0).await
    }
}

/// Sends a replica's snapshot to another one.
async fn carry(sender: &Arc<Replica>, receiver: &Arc<Replica>) -> SnapshotData {
    let (near, mut far) = pipe();
    let (source, _meta) = sender.begin_snapshot::<TokioRuntime>().await.unwrap();
    let sink = SnapshotSink::new(receiver.read().base().clone(), GROUP).unwrap();
    let vote = Vote { leader_id: LeaderId { term: 3, voted_for: 0 }, committed: true };
    let counted = AtomicU64::new(0);
    let receiving = async {
        let received = snapshot::receive::<TokioRuntime>(sink, &mut far, &counted).await.unwrap();
        far.tx.send(snapshot::done(Ok(vote))).await.unwrap();
        SnapshotData::Received(received)
    };
    let (pace, uncounted) = (snapshot::Pace::default(), metrics::Counter::noop());
    let sending = snapshot::send::<TokioRuntime>(source, near, &pace, &uncounted);
    let (sent, received) = tokio::join!(sending, receiving);
    assert_eq!(sent.unwrap(), vote);
    received
}

/// Two ends of a stream in memory.
fn pipe() -> (Stream, Stream) {
    struct Pipe(mpsc::Sender<Bytes>);
    impl FrameSink for Pipe {
        fn send(&self, frame: Bytes) -> BoxFuture<'_, Result<(), Closed>> {
            Box::pin(async move { self.0.send(frame).await.map_err(|_| Closed) })
        }
    }
    let (near_tx, far_rx) = mpsc::channel(4);
    let (far_tx, near_rx) = mpsc::channel(4);
    let near = Stream { tx: Box::new(Pipe(near_tx)), rx: near_rx };
    (near, Stream { tx: Box::new(Pipe(far_tx)), rx: far_rx })
}

#[tokio::test(flavor = "multi_thread")]
async fn our_stores_pass_openrafts_suite() {
    Suite::<T, GroupLog, Suited, Builder, Disk>::test_all(Builder).await.unwrap();
}

/// What a log store says of itself, from memory and from the disk.
async fn log_state(log: &mut GroupLog) -> (Option<LogId>, Option<LogId>) {
    let state = RaftLogStorage::<T>::get_log_state(log).await.unwrap();
    (state.last_purged_log_id, state.last_log_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_log_tells_is_what_it_tells_when_opened_again() {
    type Case = (&'static str, Option<Option<LogId>>, Option<LogId>);
    let cases: [Case; 6] = [
        ("nothing", None, None),
        ("truncated in the middle", Some(Some(log_id(1, 5))), None),
        ("truncated beyond the end", Some(Some(log_id(1, 11))), None),
        ("truncated as a whole", Some(None), None),
        ("purged in the middle", None, Some(log_id(1, 5))),
        ("purged beyond the end", None, Some(log_id(2, 20))),
    ];
    for (what, truncate, purge) in cases {
        let (disk, mut log, _sm) = open();
        Suite::<T, GroupLog, Suited, Builder, Disk>::feed_10_logs_vote_self(&mut log)
            .await
            .unwrap();
        if let Some(last) = truncate {
            RaftLogStorage::<T>::truncate_after(&mut log, last).await.unwrap();
        }
        if let Some(upto) = purge {
            RaftLogStorage::<T>::purge(&mut log, upto).await.unwrap();
        }
        let expected = log_state(&mut log).await;
        // A write that is awaited follows those that are not.
        let vote = Vote { leader_id: LeaderId { term: 9, voted_for: 1 }, committed: false };
        RaftLogStorage::<T>::save_vote(&mut log, &vote).await.unwrap();
        let mut again = GroupLog::open(GROUP, disk.writer.0.clone()).unwrap();
        assert_eq!(log_state(&mut again).await, expected, "{what}, as the log has it");
        drop((log, again));
        let directory = closed(disk);
        let reopened = writer(&directory);
        let mut again = GroupLog::open(GROUP, reopened.clone()).unwrap();
        assert_eq!(log_state(&mut again).await, expected, "{what}, opened again");
        reopened.stop();
    }
}

/// Ends a writer, and closes its log.
fn closed(disk: Disk) -> TempDir {
    let Disk { writer, directory } = disk;
    let log = writer.0.log().clone();
    drop(writer);
    // The writer's thread lets go of the log in its own time, and must not be who closes it.
    while Arc::strong_count(&log) > 1 {
        std::thread::yield_now();
    }
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_lacks_what_it_acknowledged_in_a_term_that_is_still_the_last() {
    let (_disk, mut log, _sm) = open();
    // Entries 0 to 10, the last of term 1, and a vote in term 1.
    Suite::<T, GroupLog, Suited, Builder, Disk>::feed_10_logs_vote_self(&mut log).await.unwrap();
    assert!(!log.lacks(1, log_id(1, 10)));
    assert!(log.lacks(1, log_id(1, 11)), "the leader of the term saw it acknowledged");
    assert!(log.lacks(2, log_id(1, 11)), "so did one whose term is not known here: it is lost too");
    assert!(!log.lacks(0, log_id(1, 11)), "a later leader than that may have removed it");
    RaftLogStorage::<T>::truncate_after(&mut log, Some(log_id(1, 5))).await.unwrap();
    assert!(log.lacks(1, log_id(1, 10)));
    RaftLogStorage::<T>::purge(&mut log, log_id(2, 20)).await.unwrap();
    assert!(!log.lacks(2, log_id(2, 20)), "a snapshot has it");
}

/// What a crash between a snapshot's two halves leaves: in the base, not yet in the log.
#[tokio::test(flavor = "multi_thread")]
async fn entries_that_a_snapshot_replaced_go_at_the_start() {
    // The log has entries 0 to 10, the last of term 1.
    let cases = [
        ("in the log", log_id(1, 7), None, log_id(1, 10)),
        ("another history", log_id(2, 7), Some(log_id(2, 7)), log_id(2, 7)),
        ("another last entry", log_id(2, 10), Some(log_id(2, 10)), log_id(2, 10)),
        ("beyond the end", log_id(2, 20), Some(log_id(2, 20)), log_id(2, 20)),
    ];
    for (what, applied, purged, last) in cases {
        let (disk, mut log, _sm) = open();
        Suite::<T, GroupLog, Suited, Builder, Disk>::feed_10_logs_vote_self(&mut log)
            .await
            .unwrap();
        log.reconcile::<TokioRuntime>(applied).await.unwrap();
        let expected = log_state(&mut log).await;
        assert_eq!(expected, (purged, Some(last)), "{what}");
        drop(log);
        let directory = closed(disk);
        let reopened = writer(&directory);
        let mut again = GroupLog::open(GROUP, reopened.clone()).unwrap();
        assert_eq!(log_state(&mut again).await, expected, "{what}, opened again");
        again.reconcile::<TokioRuntime>(applied).await.unwrap();
        assert_eq!(log_state(&mut again).await, expected, "{what}, a second time");
        reopened.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_marked_as_lost_never_opens_again() {
    let (disk, log, _sm) = open();
    log.mark_lost("entry 7 is missing").unwrap();
    drop(log);
    let directory = closed(disk);
    for _ in 0..2 {
        let opened = Log::open(LogOptions::new(directory.path().join("log")));
        let error = opened.err().expect("refused").to_string();
        assert!(error.contains("entry 7 is missing"), "{error}");
        assert!(error.contains("under a new id"), "{error}");
    }
}
