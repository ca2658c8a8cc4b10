//! Makes a cluster of one node out of what one survivor has, offline, as a majority of the others is
//! lost for good (docs/adr/0011).
//!
//! ```text
//!  journal ─► states that begin empty ─► log, all groups in one batch ─► cluster.bin ─► identity ─► no journal
//! ```
//!
//! Only the log decides: its batch is atomic, and says of every group that this node alone votes.
//! The rest follows from it. A crash anywhere leaves the journal, which keeps the node from starting
//! and has the next recovery go on: nothing before the batch is seen by anybody, and what comes after
//! it is done over.
//!
//! The new cluster has an id of its own. Whoever is left of the old one is refused at the first
//! handshake, so it can neither vote nor replicate here, nor be taken in.

mod journal;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::net::TcpStream;

use crate::chat::codec;
use crate::id::{NodeId, ShardId};
use crate::meta::{self, ClusterMap, Node};
use crate::node::compaction;
use crate::node::groups::Membership;
use crate::node::membership_file::{MembershipError, MembershipFile};
use crate::node::recover::journal::Journal;
use crate::node::repair;
use crate::proto::internal as pb;
use crate::proto::internal::request::Command;
use crate::shard::recover::{Holding, replay};
use crate::shard::transport::tcp::Tcp;
use crate::store::base::{self, Base};
use crate::store::identity::{DataDir, Expected, Refusal};
use crate::store::log::{self, Log, LogOptions};
use crate::store::sled_base::{self, SledBase, SledOptions};
use crate::store::state::{ShardState, StateOptions};
use crate::store::whole;

/// How long another node's machine may take to take a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// Why a cluster cannot be recovered from a data directory. It says what it said before.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Nothing is there, or it is of no cluster.
    #[error("{0} is not the data directory of a node that belongs to a cluster")]
    NoNode(std::path::PathBuf),
    /// The directory is in use, or not to be trusted.
    #[error(transparent)]
    DataDir(#[from] Refusal),
    /// What it says of the cluster cannot be used.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] log::OpenError),
    /// The state cannot be opened.
    #[error(
        "{0}. If another node's data directory is left, recover from that one. If this is all there \
         is, move `rooms` away: what the log has is made anew, and the shards of which it has not \
         all are named"
    )]
    Base(sled_base::OpenError),
    /// The state can be opened, and is not what the log goes on from.
    #[error(
        "the state in `rooms` is damaged: {0}. If another node's data directory is left, recover \
         from that one. If this is all there is, move `rooms` away: what the log has is made anew, \
         and the shards of which it has not all are named"
    )]
    Damaged(io::Error),
    /// A repair was asked for, which needs other replicas.
    #[error(
        "the state of shard {0} is to be set aside at this node's next start, and to be taken from \
         other replicas, of which there are none: remove repair-at-start/shard-{0} first"
    )]
    RepairNoted(ShardId),
    /// The cluster has removed this node.
    #[error(
        "node {0} was removed from its cluster, and has nothing of it any more: recover from \
         another node's data directory"
    )]
    Removed(NodeId),
    /// Some shards are not here.
    #[error(
        "this node has not all of the data: {}", describe(.0)
    )]
    LostShards(Vec<(ShardId, Vec<NodeId>)>),
    /// The disk failed.
    #[error("the disk failed: {0}")]
    Io(#[from] io::Error),
}

fn describe(lost: &[(ShardId, Vec<NodeId>)]) -> String {
    let one = |(shard, nodes): &(ShardId, Vec<NodeId>)| {
        let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
        match nodes.is_empty() {
            true => format!("shard {shard}, which no other node had either"),
            false => format!("shard {shard}, which node {} had", nodes.join(" or ")),
        }
    };
    lost.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What a node has of a shard.
#[derive(Debug, Clone)]
pub struct Part {
    /// The shard.
    pub shard: ShardId,
    /// Its log and state here.
    pub holding: Holding,
    /// Whether the shard can go on from here; if not it is lost, or has to begin empty.
    pub whole: bool,
    /// Who else has a replica, by the newest map that is known here, ascending.
    pub others: Vec<NodeId>,
}

/// How another node of the cluster was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It runs.
    Runs,
    /// Something takes connections at its address, and does not say who it is.
    Silent,
    /// Nobody of this cluster is at its address.
    Gone,
}

/// Steps of a recovery, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Begin,
    Empty,
    Log,
    Map,
    Identity,
    End,
    Done,
}

/// A data directory that a cluster is, or may be, recovered from. Locked as long as this lives.
pub struct Recovery {
    file: MembershipFile,
    log: Log,
    base: Arc<dyn Base>,
    node: NodeId,
    cluster_id: String,
    /// The newest map that is known here, of the cluster that was lost.
    map: ClusterMap,
    parts: Vec<Part>,
    journal: Option<Journal>,
    next: Step,
}

impl Recovery {
    /// Opens a data directory. Changes nothing of what it says; but it opens log and state as a
    /// start does, and finishes what a crash left unfinished there.
    ///
    /// # Errors
    /// Why no cluster can be recovered from it, or the node runs.
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Recovery, RecoverError> {
        // Opening would make one.
        if !path.join("log").is_dir() {
            return Err(RecoverError::NoNode(path.into()));
        }
        let directory = DataDir::open(path, &Expected::default())?;
        let identity = directory.identity().cloned();
        let identity = identity.ok_or_else(|| RecoverError::NoNode(path.into()))?;
        let (rooms, log_directory) = (directory.rooms(), directory.log());
        let journal = Journal::read(path)?;
        let file = MembershipFile::new(directory);
        let membership = match &journal {
            // They need not agree any more.
            Some(_) => file.stored()?,
            None => file.read()?,
        };
        let membership = membership.ok_or_else(|| RecoverError::NoNode(path.into()))?;
        if let Some(shard) = repair::noted(path)?.first() {
            return Err(RecoverError::RepairNoted(*shard));
        }
        compaction::finish_interrupted(&rooms)?;
        let log = Log::open(LogOptions::new(log_directory))?;
        let options = SledOptions { cache_bytes, ..SledOptions::default() };
        let base = SledBase::open(&rooms, &options).map_err(RecoverError::Base)?;
        whole::check(&base, &log).map_err(|error| match base::is_damage(&error) {
            true => RecoverError::Damaged(error),
            false => RecoverError::Io(error),
        })?;
        let cluster_id = journal.as_ref().map(|journal| journal.lost_cluster_id.clone());
        let mut recovery = Recovery {
            file,
            log,
            base: Arc::new(base),
            node: identity.node_id,
            cluster_id: cluster_id.unwrap_or(identity.cluster_id),
            map: membership.map,
            parts: Vec::new(),
            journal,
            next: Step::Begin,
        };
        recovery.look()?;
        Ok(recovery)
    }

    fn look(&mut self) -> Result<(), RecoverError> {
        let own = self.replay()?;
        if let Some(journal) = &self.journal
            && own.cluster_id() == journal.cluster_id
        {
            self.next = Step::Map;
        }
        if own.version() > self.map.version() {
            self.map = own;
        }
        if self.map.node(self.node).is_none() {
            return Err(RecoverError::Removed(self.node));
        }
        for placement in self.map.placements() {
            let holding = Holding::read(&self.log, &self.state(placement.shard)?)?;
            let mut others = placement.members();
            others.retain(|node| *node != self.node);
            others.sort_unstable();
            let begins_empty = self.begins_empty(placement.shard);
            let whole = holding.is_whole() && !begins_empty;
            self.parts.push(Part { shard: placement.shard, holding, whole, others });
        }
        Ok(())
    }

    fn begins_empty(&self, shard: ShardId) -> bool {
        let mut journals = self.journal.iter();
        journals.any(|journal| journal.lost_shards.contains(&shard.0))
    }

    fn state(&self, shard: ShardId) -> io::Result<ShardState> {
        ShardState::open(self.base.clone(), shard, StateOptions::default())
    }

    /// The map that the meta group comes to here, once all of its log is applied.
    fn replay(&self) -> io::Result<ClusterMap> {
        let mut state = self.state(ShardId::META)?;
        // One that was removed from here has nothing.
        if !self.log.group(ShardId::META).forgotten {
            replay(&self.log, &mut state)?;
        }
        let blob = state.blob(meta::MAP_BLOB).unwrap_or_default();
        ClusterMap::decode(&blob).map_err(io::Error::other)
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The cluster that is lost.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The cluster that comes of it, once that is decided.
    pub fn new_cluster_id(&self) -> Option<&str> {
        self.journal.as_ref().map(|journal| &*journal.cluster_id)
    }

    /// What this node has of each shard, the meta group first.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether an earlier recovery was interrupted, which this one finishes.
    pub fn is_resumed(&self) -> bool {
        self.journal.is_some()
    }

    /// Whether the log says already that this node is alone: nothing is left to be decided.
    pub fn is_decided(&self) -> bool {
        self.next > Step::Log
    }

    /// The other nodes of the cluster, by the newest map that is known here.
    pub fn others(&self) -> Vec<Node> {
        self.map.nodes().filter(|node| node.id != self.node).collect()
    }

    /// Looks whether other nodes of the cluster run.
    pub async fn find_others(&self) -> Vec<(Node, Found)> {
        let asked = self.others().into_iter().map(|node| async {
            let found = find(&node.peer_address, &self.cluster_id).await;
            (node, found)
        });
        futures_util::future::join_all(asked).await
    }

    /// The shards that would begin empty, with the nodes that may have them.
    pub fn lost(&self) -> Vec<(ShardId, Vec<NodeId>)> {
        let lost = self.parts.iter().filter(|part| !part.whole);
        lost.map(|part| (part.shard, part.others.clone())).collect()
    }

    /// Does it all. Afterwards the node can be started.
    ///
    /// # Errors
    /// [`RecoverError::LostShards`] unless it was accepted that those begin empty: nothing was
    /// changed. Else the disk failed, and what is missing is done by another recovery.
    pub fn carry_out(&mut self, accept_lost_shards: bool) -> Result<(), RecoverError> {
        if !self.is_decided() && !accept_lost_shards && !self.lost().is_empty() {
            return Err(RecoverError::LostShards(self.lost()));
        }
        while self.step()? {}
        Ok(())
    }

    /// Does one step; false when there is none left.
    fn step(&mut self) -> Result<bool, RecoverError> {
        let path = self.file.path();
        match self.next {
            Step::Begin => {
                let lost = self.lost().into_iter().map(|(shard, _)| shard.0).collect();
                let mut journal = Journal::new(self.cluster_id.clone(), lost);
                if let Some(begun) = self.journal.take() {
                    journal.cluster_id = begun.cluster_id;
                }
                journal.write(&path)?;
                self.journal = Some(journal);
            }
            Step::Empty => {
                for part in self.parts.iter().filter(|part| !part.whole) {
                    part.holding.begin_empty(&self.base, part.shard)?;
                }
            }
            Step::Log => {
                self.log.write(&self.writes())?;
                self.log.sync_watermark()?;
            }
            Step::Map => self.file.write_recovered(&self.membership()?)?,
            Step::Identity => self.file.rename(&self.membership()?)?,
            Step::End => Journal::remove(&path)?,
            Step::Done => return Ok(false),
        }
        self.next = match self.next {
            Step::Begin => Step::Empty,
            Step::Empty => Step::Log,
            Step::Log => Step::Map,
            Step::Map => Step::Identity,
            Step::Identity => Step::End,
            Step::End | Step::Done => Step::Done,
        };
        Ok(true)
    }

    fn begun(&self) -> &Journal {
        self.journal.as_ref().expect("the first step writes it")
    }

    /// What is written to the log, of all groups together.
    fn writes(&self) -> Vec<log::Write> {
        let address = self.map.node(self.node).map(|node| node.peer_address).unwrap_or_default();
        let of_rooms = codec::encode_recovery(&self.begun().recovery());
        let action = format!("recover cluster {} from node {}", self.cluster_id, self.node);
        let of_cluster = pb::Request {
            audit: Some(pb::Audit { who: "cluster recover".into(), action }),
            command: Some(Command::RecoverCluster(pb::RecoverCluster {
                cluster_id: self.begun().cluster_id.clone(),
                node: self.node.0,
                known_map: self.map.encode(),
            })),
            ..Default::default()
        };
        let of_cluster: bytes::Bytes = of_cluster.encode_to_vec().into();
        let take_over = |part: &Part| {
            let request = if part.shard == ShardId::META { &of_cluster } else { &of_rooms };
            part.holding.take_over(part.shard, self.node, &address, request.clone())
        };
        self.parts.iter().flat_map(take_over).collect()
    }

    /// What the node belongs to from here on. The log says it.
    fn membership(&self) -> io::Result<Membership> {
        let map = self.replay()?;
        let cluster_id = map.cluster_id().to_string();
        assert_eq!(
            cluster_id,
            self.begun().cluster_id,
            "the log has the recovery as its last entry"
        );
        Ok(Membership { cluster_id, node_id: self.node, map, seed: None })
    }
}

/// Refuses a data directory in which a recovery was interrupted.
pub(super) fn check_finished(path: &Path) -> Result<(), super::Error> {
    match Journal::exists(path) {
        true => Err(super::Error::RecoveryInterrupted(path.into())),
        false => Ok(()),
    }
}

async fn find(address: &str, cluster_id: &str) -> Found {
    let connected = tokio::time::timeout(CONNECT_WAIT, TcpStream::connect(address)).await;
    if !matches!(connected, Ok(Ok(_))) {
        return Found::Gone;
    }
    let hello = pb::bootstrap::Request::Hello(pb::Hello::default());
    let answer = Tcp::ask(address, &pb::Bootstrap { request: Some(hello) }).await;
    match answer.ok().map(pb::Hello::decode) {
        Some(Ok(theirs)) if theirs.cluster_id == cluster_id => Found::Runs,
        Some(Ok(theirs)) if !theirs.instance.is_empty() => Found::Gone,
        _ => Found::Silent,
    }
}
