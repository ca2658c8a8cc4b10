//! Compares what the replicas of a shard have, room by room: for `folkmoot cluster verify`.
//!
//! ```text
//!  every replica: the rooms' rows at a read index ──► all at the same head? compare them
//!                                                          │ no: ask again; at last, compare the
//!                                                          ▼     chains at the lowest head
//!  every replica: each room's chain, made anew from its events up to there ──► compare these
//! ```
//!
//! Replicas apply the same entries in the same order, so at equal seq everything is equal, or
//! somebody is wrong; who, a majority says. Reads only; memory does not grow with rooms or events.

mod judge;
mod wire;

use std::collections::BTreeMap;

use futures_util::future;

use crate::error::{Code, Error};
use crate::id::{Epoch, NodeId, RoomId, Seq, ShardId};
use crate::proto::internal as pb;
use crate::router::forward::{Reply, Request};
use crate::router::verify::judge::{judge, same};
use crate::router::verify::wire::{part_from, part_to, sum_from, sum_to};
use crate::router::{Router, odd_reply};
use crate::shard::Refused;
use crate::shard::runtime::Runtime;
use crate::store::sums::{ChainError, ChainPart, RoomSum};

/// Rooms asked about at once.
const ROOMS_AT_ONCE: usize = 64;
/// Events that one answer may take a replica to read.
const EVENTS_AT_ONCE: usize = 10_000;
/// The longest that a replica takes for an answer, with a read index to wait for.
const ANSWER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
/// How often a room in which people talk is looked at anew, to see all replicas at one head.
const LOOKS: usize = 3;

/// What is wrong with a room, or a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub shard: ShardId,
    /// `None`: it is about the shard.
    pub room: Option<RoomId>,
    /// In which way.
    pub kind: Kind,
    /// At which seq replicas were compared.
    pub seq: Seq,
    /// Who is wrong, as far as a majority of the replicas says so.
    pub nodes: Vec<NodeId>,
    /// For a person.
    pub detail: String,
}

/// In which way something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Replicas have different things.
    Differs,
    /// A replica's events do not make the chain that its own row has.
    Damaged,
    /// Somebody could not be asked.
    Unverified,
}

/// What a verification tells while it goes on.
pub trait Report: Send {
    /// So many more rooms, with so many events, were compared.
    fn verified(&mut self, rooms: u64, events: u64);
    /// Something is wrong.
    fn found(&mut self, finding: Finding);
}

/// What one replica says of one room; `None`: it has no such room.
type Sums = BTreeMap<NodeId, Option<RoomSum>>;

impl<R: Runtime> Router<R> {
    /// Compares all replicas of a shard.
    ///
    /// # Errors
    /// [`Code::NotFound`] when there is no such shard of rooms. What cannot be asked or read is a
    /// finding.
    pub async fn verify_shard(&self, shard: ShardId, report: &mut dyn Report) -> Result<(), Error> {
        if !self.data_shards()?.contains(&shard) {
            return Err(Error::new(Code::NotFound, format!("there is no shard {shard} of rooms")));
        }
        let mut replicas = self.map().replicas(shard);
        let mut after = None;
        loop {
            let pages = self.sums(shard, &replicas, after.clone(), None).await;
            let pages = keep_answers(shard, pages, &mut replicas, report);
            if replicas.is_empty() {
                return Ok(());
            }
            // Replicas may be ahead of each other by a room: go as far as all have told.
            let full = pages.values().filter(|page| page.len() >= ROOMS_AT_ONCE);
            let end = full.filter_map(|page| page.last()).map(|sum| sum.room.clone()).min();
            let mut rooms: BTreeMap<RoomId, Sums> = BTreeMap::new();
            for (node, page) in &pages {
                for sum in page.iter().filter(|sum| end.as_ref().is_none_or(|end| sum.room <= *end))
                {
                    let none = || pages.keys().map(|node| (*node, None)).collect();
                    let sums = rooms.entry(sum.room.clone()).or_insert_with(none);
                    sums.insert(*node, Some(sum.clone()));
                }
            }
            for (room, sums) in rooms {
                self.verify_room(shard, &room, sums, &mut replicas, report).await;
            }
            after = end;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Compares one room, of which the replicas have said `sums`.
    async fn verify_room(
        &self,
        shard: ShardId,
        room: &RoomId,
        mut sums: Sums,
        replicas: &mut Vec<NodeId>,
        report: &mut dyn Report,
    ) {
        for _ in 1..LOOKS {
            if same(sums.values().map(|sum| sum.as_ref().map(|s| (s.epoch.clone(), s.head)))) {
                break;
            }
            let again = self.sums(shard, replicas, None, Some(room)).await;
            let again = keep_answers(shard, again, replicas, report);
            sums = again.into_iter().map(|(node, page)| (node, page.into_iter().next())).collect();
        }
        let here: Vec<&RoomSum> = sums.values().flatten().collect();
        let Some(least) = here.iter().map(|sum| sum.head).min() else { return };
        let at_one_head = same(here.iter().map(|sum| (&sum.epoch, sum.head)));
        let compared = |sum: &Option<RoomSum>| {
            sum.as_ref().map(|sum| (sum.epoch.clone(), sum.chain_base, sum.first_seq))
        };
        let mut found = judge(&sums, |sum| match at_one_head {
            true => {
                format!("{:?}", sum.as_ref().map(|sum| (compared(&Some(sum.clone())), sum.digest)))
            }
            false => format!("{:?}", compared(sum)),
        });
        if found.is_none() {
            let parts = self.chains(shard, &sums, least, report).await;
            // Notes may be later than the event that they are about.
            let heads = parts.values().map(|part| part.head);
            let notes = at_one_head && same(heads.chain([least]));
            found = judge(&parts, |part| match notes {
                true => format!("{:?}", (part.chain, part.notes)),
                false => format!("{:?}", part.chain),
            });
        }
        if let Some((nodes, detail)) = found {
            let (room, kind) = (Some(room.clone()), Kind::Differs);
            report.found(Finding { shard, room, kind, seq: least, nodes, detail });
        }
        let first = here.iter().map(|sum| sum.first_seq.0).min().unwrap_or(1);
        report.verified(1, (least.0 + 1).saturating_sub(first));
    }

    /// Each replica's chain up to `until`, made anew; also holds it against the replica's own row.
    async fn chains(
        &self,
        shard: ShardId,
        sums: &Sums,
        until: Seq,
        report: &mut dyn Report,
    ) -> BTreeMap<NodeId, ChainPart> {
        let asked = sums.iter().filter_map(|(node, sum)| Some((*node, sum.as_ref()?)));
        let making = asked.map(|(node, sum)| async move {
            (node, sum, self.chain_of(shard, node, sum, until).await)
        });
        let mut parts = BTreeMap::new();
        for (node, sum, made) in future::join_all(making).await {
            let (kind, detail) = match made {
                Ok(part) if sum.head == until && part.chain != sum.chain => {
                    (Kind::Damaged, "its events do not make the chain that it has".to_owned())
                }
                Ok(part) => {
                    parts.insert(node, part);
                    continue;
                }
                // Read again, damage stays, and a new history is verified with the others'.
                Err(error) if error.code == Code::Internal => (Kind::Damaged, error.message),
                Err(error) => (Kind::Unverified, error.message),
            };
            let (room, nodes) = (Some(sum.room.clone()), vec![node]);
            let detail = format!("node {node}: {detail}");
            report.found(Finding { shard, room, kind, seq: until, nodes, detail });
        }
        parts
    }

    async fn chain_of(
        &self,
        shard: ShardId,
        node: NodeId,
        sum: &RoomSum,
        until: Seq,
    ) -> Result<ChainPart, Error> {
        let seq = Seq(sum.first_seq.0.saturating_sub(1));
        let mut part = ChainPart { seq, chain: sum.chain_base, notes: [0; 32], head: sum.head };
        loop {
            let ask = pb::AskRoomChain {
                room: sum.room.as_str().into(),
                epoch: sum.epoch.as_str().into(),
                after: part.seq.0,
                chain: part.chain.to_vec().into(),
                notes: part.notes.to_vec().into(),
                until: until.0,
                limit: EVENTS_AT_ONCE as u32,
            };
            part = match self.ask_replica(shard, node, Request::RoomChain(ask)).await? {
                Reply::RoomChain(made) => part_from(made).ok_or_else(|| odd_reply().error)?,
                _ => return Err(odd_reply().error),
            };
            if part.seq >= until {
                return Ok(part);
            }
        }
    }

    /// A page of rooms, or the one `room`, from every replica, each as of a common read index or
    /// later.
    async fn sums(
        &self,
        shard: ShardId,
        replicas: &[NodeId],
        after: Option<RoomId>,
        room: Option<&RoomId>,
    ) -> BTreeMap<NodeId, Result<Vec<RoomSum>, Error>> {
        let index = match self.read_index(shard).await {
            Ok(index) => index,
            Err(error) => return replicas.iter().map(|node| (*node, Err(error.clone()))).collect(),
        };
        let ask = pb::AskRoomSums {
            after: after.map(|room| room.as_str().to_owned()).unwrap_or_default(),
            limit: ROOMS_AT_ONCE as u32,
            index,
            room: room.map(|room| room.as_str().to_owned()),
        };
        let asking = replicas.iter().map(|node| {
            let ask = ask.clone();
            async move {
                let reply = self.ask_replica(shard, *node, Request::RoomSums(ask)).await;
                let sums = match reply {
                    Ok(Reply::RoomSums(sums)) => sums.rooms.into_iter().map(sum_from).collect(),
                    Ok(_) => None,
                    Err(error) => return (*node, Err(error)),
                };
                (*node, sums.ok_or_else(|| odd_reply().error))
            }
        });
        future::join_all(asking).await.into_iter().collect()
    }

    async fn ask_replica(
        &self,
        shard: ShardId,
        node: NodeId,
        request: Request,
    ) -> Result<Reply, Error> {
        let asking = async {
            match Some(node) == self.node_id() {
                true => self.tell_of_replica(shard, request).await,
                false => self.forwarder(node).ask(shard, request).await,
            }
        };
        let answer = R::timeout(ANSWER_TIMEOUT, asking).await;
        let answer = answer.map_err(|_| Error::new(Code::Timeout, "it does not answer in time"))?;
        answer.map_err(|refused| refused.error)
    }

    /// Answers what a verification asks of this node's replica.
    pub(super) async fn tell_of_replica(
        &self,
        shard: ShardId,
        request: Request,
    ) -> Result<Reply, Refused> {
        let refused = |error| Refused { error, leader: None };
        let absent = || Error::new(Code::NotLeader, "this node has no replica of the shard");
        let here = self.host().get(shard).ok_or_else(absent).map_err(refused)?;
        if let Request::RoomSums(ask) = &request {
            here.wait_applied(ask.index).await.map_err(refused)?;
        }
        let replica = here.replica().clone();
        // The state is locked for a page at a time, so that apply gets its turn.
        let told = R::blocking(move || tell(&replica.read(), request)).await;
        let told = told.map_err(|error| Error::new(Code::Internal, error.to_string()));
        told.and_then(|told| told).map_err(refused)
    }

    /// Whether `node`'s replica of a shard may be set aside: it differs, and a majority that agrees
    /// does not.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] with the reason.
    pub async fn check_repair(&self, shard: ShardId, node: NodeId) -> Result<(), Error> {
        if !self.map().replicas(shard).contains(&node) {
            return Err(Error::invalid(format!("node {node} has no replica of shard {shard}")));
        }
        let mut found = Findings::default();
        self.verify_shard(shard, &mut found).await?;
        if found.0.is_empty() {
            return Err(Error::invalid(format!("shard {shard} is the same on all its nodes")));
        }
        match found.0.iter().find(|finding| finding.nodes != [node]) {
            None => Ok(()),
            Some(other) => Err(Error::invalid(format!(
                "not only node {node} is at fault in shard {shard}, as far as is known: {}",
                other.detail
            ))),
        }
    }

    /// Asks a node to set its replica of a shard aside when it starts next, and to take its state
    /// from its log and the others. It goes on until then.
    ///
    /// # Errors
    /// Those of [`Router::check_repair`]; and why the node could not note it.
    pub async fn repair(&self, shard: ShardId, node: NodeId) -> Result<(), Error> {
        self.check_repair(shard, node).await?;
        if Some(node) == self.node_id() {
            return self.note_repair(shard).await;
        }
        let forwarder = self.forwarder(node);
        let asking = forwarder.ask(shard, Request::Repair(pb::AskRepair {}));
        match R::timeout(ANSWER_TIMEOUT, asking).await {
            Ok(Ok(Reply::Repair(_))) => Ok(()),
            Ok(Ok(_)) => Err(odd_reply().error),
            Ok(Err(refused)) => Err(refused.error),
            Err(_) => Err(Error::new(Code::Timeout, "the node does not answer").maybe_applied()),
        }
    }

    pub(super) async fn note_repair(&self, shard: ShardId) -> Result<(), Error> {
        self.control()?.set_aside_at_start(shard).await
    }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Report for Findings {
    fn verified(&mut self, _rooms: u64, _events: u64) {}
    fn found(&mut self, finding: Finding) {
        self.0.push(finding);
    }
}

fn tell(state: &crate::store::state::ShardState, request: Request) -> Result<Reply, Error> {
    let malformed = || Error::new(Code::Internal, "malformed request from a peer");
    match request {
        Request::RoomSums(ask) => {
            let parse = |room: &str| RoomId::parse(room).map_err(|_| malformed());
            let sums = match &ask.room {
                Some(room) => state.room_sum(&parse(room)?).into_iter().collect(),
                None => {
                    let after = Some(&*ask.after).filter(|after| !after.is_empty());
                    let after = after.map(parse).transpose()?;
                    state.room_sums(after.as_ref(), (ask.limit as usize).min(ROOMS_AT_ONCE))
                }
            };
            Ok(Reply::RoomSums(pb::RoomSums { rooms: sums.into_iter().map(sum_to).collect() }))
        }
        Request::RoomChain(ask) => {
            let room = RoomId::parse(&ask.room).map_err(|_| malformed())?;
            let epoch = Epoch::parse(&ask.epoch).map_err(|_| malformed())?;
            let from =
                pb::RoomChain { seq: ask.after, chain: ask.chain, notes: ask.notes, head: 0 };
            let from = part_from(from).ok_or_else(malformed)?;
            let limit = (ask.limit as usize).clamp(1, EVENTS_AT_ONCE);
            let made = state.room_chain(&room, &epoch, &from, Seq(ask.until), limit);
            match made {
                Ok(part) => Ok(Reply::RoomChain(part_to(&part))),
                Err(error @ ChainError::OtherHistory) => {
                    Err(Error::new(Code::Unavailable, error.to_string()))
                }
                Err(error @ ChainError::Missing(_)) => {
                    Err(Error::new(Code::Internal, error.to_string()))
                }
            }
        }
        _ => Err(malformed()),
    }
}

/// The pages of those who answered; the others are found to be so, and asked no more.
fn keep_answers(
    shard: ShardId,
    answers: BTreeMap<NodeId, Result<Vec<RoomSum>, Error>>,
    replicas: &mut Vec<NodeId>,
    report: &mut dyn Report,
) -> BTreeMap<NodeId, Vec<RoomSum>> {
    let mut kept = BTreeMap::new();
    for (node, answer) in answers {
        match answer {
            Ok(page) => {
                kept.insert(node, page);
            }
            Err(error) => {
                replicas.retain(|replica| *replica != node);
                let detail = format!("node {node} cannot be asked: {error}");
                let (kind, nodes) = (Kind::Unverified, vec![node]);
                report.found(Finding { shard, room: None, kind, seq: Seq(0), nodes, detail });
            }
        }
    }
    kept
}
