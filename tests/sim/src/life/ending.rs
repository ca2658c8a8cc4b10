//! What is asked once a life's faults are over: everything that was sent has an outcome, the same again
//! when it is asked for again, and every room is read to its end on every node.

use std::collections::BTreeMap;
use std::sync::Arc;

use folkmoot::chat::command::Done;
use folkmoot::chat::state::State;
use folkmoot::error::Code;
use folkmoot::id::{NodeId, RoomId, Seq};
use folkmoot::shard::runtime::AsyncRuntime;
use folkmoot_jepsen::history::{Admin, F, Op, Process, Value};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{Duration, HEAL_WITHIN, Life};
use crate::cluster::Node;
use crate::record::{self, now};
use crate::runtime::{Sim, elapsed};
use crate::workload::{Outcome, Sent, name};

/// Messages that are sent once more though they were acknowledged.
const SENT_AGAIN: usize = 40;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// What came of a message that was sent until it was answered, and at which node.
type Answered = (NodeId, Outcome<Done>);

impl Life {
    /// Whatever no client knows the outcome of is sent again until it is acknowledged, each client's one
    /// after the other: once nothing goes wrong any more, nothing is refused for good.
    pub(super) async fn resolve(&self) -> Vec<String> {
        let mut open: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (at, sent) in self.world.sent().iter().enumerate().filter(|(_, s)| s.seq.is_none()) {
            open.entry(sent.request.actor.user.clone()).or_default().push(at);
        }
        let resolving = open.into_values().enumerate().map(|(client, messages)| async move {
            let rng = &mut SmallRng::seed_from_u64(self.plan.seed ^ 0x0e5e ^ (client as u64) << 32);
            let mut process = self.world.recorder.process();
            let mut wrong = vec![];
            for at in messages {
                wrong.extend(self.resolve_one(&mut process, at, rng).await);
            }
            wrong
        });
        futures_util::future::join_all(resolving).await.into_iter().flatten().collect()
    }

    async fn resolve_one(
        &self,
        process: &mut Process,
        at: usize,
        rng: &mut SmallRng,
    ) -> Option<String> {
        let sent = self.world.sent()[at].clone();
        let (mut other_body, mut answer) = (false, self.insist(process, &sent, false, rng).await);
        let reused = matches!(&answer.1, Outcome::Failed(why) if *why == Code::IdReused.as_str());
        if reused {
            // Of the two texts that were sent under this id, the other one came first.
            (other_body, answer) = (true, self.insist(process, &sent, true, rng).await);
        }
        match answer {
            (_, Outcome::Ok(done)) => {
                let sent = &mut self.world.sent()[at];
                (sent.seq, sent.other_body) = (Some(done.seq), other_body);
                None
            }
            (node, outcome) => Some(format!(
                "liveness: {} in {} was not acknowledged within {} s, though nothing goes wrong any \
                 more; at last, by node {node}: {outcome:?}",
                sent.request.id,
                sent.room,
                HEAL_WITHIN.as_secs()
            )),
        }
    }

    /// Sends a message at one node after another until it is answered, as a client does: a shard may elect
    /// a leader just then, which can take longer than a node tries.
    async fn insist(
        &self,
        process: &mut Process,
        sent: &Sent,
        other_body: bool,
        rng: &mut SmallRng,
    ) -> Answered {
        let id = record::id(&sent.request.id);
        let value = |seq| Value::Write { id, seq, other_body };
        let deadline = elapsed() + HEAL_WITHIN;
        loop {
            let node = self.world.any_node(rng);
            let mut outcome = Outcome::Failed("no node runs".into());
            if node.running().is_some() {
                let op = Op::invoke(now(), *process, F::Resend, value(None));
                let op = op.node(name(&node)).room(sent.room.as_str());
                self.world.push(op.clone());
                let request = sent.with_body(other_body);
                let asking = self
                    .world
                    .ask(&node, |running| async move { running.router.execute(request).await });
                outcome = asking.await;
                *process = self.world.end(&op, &outcome, |done| value(Some(done.seq.0)));
            }
            let for_good = match &outcome {
                Outcome::Ok(_) => true,
                Outcome::Failed(why) => Code::parse(why).is_some_and(|code| !code.temporary()),
                Outcome::Unknown(_) => false,
            };
            if for_good || elapsed() > deadline {
                return (node.id, outcome);
            }
            Sim::sleep(PAUSE).await;
        }
    }

    /// Whatever was acknowledged gets its first answer again, from anywhere.
    pub(super) async fn send_again(&self) -> Vec<String> {
        let rng = &mut SmallRng::seed_from_u64(self.plan.seed ^ 0xa9a1);
        let mut acked: Vec<_> =
            self.world.sent().iter().filter(|s| s.seq.is_some()).cloned().collect();
        rand::seq::SliceRandom::shuffle(&mut acked[..], rng);
        let mut process = self.world.recorder.process();
        let mut wrong = vec![];
        for sent in acked.into_iter().take(SENT_AGAIN) {
            let (node, outcome) = self.insist(&mut process, &sent, sent.other_body, rng).await;
            match outcome {
                Outcome::Ok(done) if done.duplicate && Some(done.seq) == sent.seq => {}
                other => wrong.push(format!(
                    "idempotence: {} in {} was acknowledged as seq {:?}; sent again, at node {node}: \
                     {other:?}",
                    sent.request.id,
                    sent.room,
                    sent.seq.map(|seq| seq.0)
                )),
            }
        }
        wrong
    }

    /// A room in pages, each until it is answered.
    async fn read_to_end(&self, process: &mut Process, node: &Arc<Node>, room: &RoomId) {
        let (mut after, deadline) = (Seq(0), elapsed() + HEAL_WITHIN);
        while elapsed() < deadline {
            let read = self.world.read(process, node, F::FinalRead, room, after).await;
            let Some(page) = read else {
                Sim::sleep(PAUSE).await;
                continue;
            };
            after = page.events.last().map_or(after, |last| last.event.seq);
            // An empty page before the head is for the checker to find.
            if after >= page.head || page.events.is_empty() {
                return;
            }
        }
    }

    /// Every room, to its end, on every node that is not gone for good, or was never there.
    pub(super) async fn final_reads(&self) {
        let mut process = self.world.recorder.process();
        for node in self.cluster.nodes.values() {
            if node.is_gone() || self.cluster.is_unborn(node) {
                let value = Value::Admin(Box::new(Admin::gone()));
                let op = Op::invoke(now(), process, F::Admin, value.clone()).node(name(node));
                self.world.push(op.clone());
                self.world.push(op.ok(now(), value));
            }
        }
        for room in self.world.rooms() {
            for (node, running) in self.running() {
                self.read_to_end(&mut process, &node, &room).await;
                let shard = running.router.map().shard_of_room(&room);
                let Some(replica) = shard.and_then(|shard| running.router.host().get(shard)) else {
                    continue;
                };
                let op = Op::invoke(now(), process, F::Chain, Value::None);
                let op = op.node(name(&node)).room(room.as_str());
                self.world.push(op.clone());
                let row = replica.replica().read().room(&room);
                match row {
                    Some(row) => {
                        let chain =
                            row.chain.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                        let value = Value::Chain { seq: row.head.0, chain: chain.into() };
                        self.world.push(op.ok(now(), value));
                    }
                    None => self.world.push(op.fail(now(), "no-room")),
                }
            }
        }
    }
}
