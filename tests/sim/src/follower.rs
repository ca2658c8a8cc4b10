//! Clients that follow a room, at their own pace, wherever they find a node that serves them.

use std::sync::Arc;
use std::time::Duration;

use folkmoot::delivery::subscription::Next;
use folkmoot::error::Error;
use folkmoot::id::{Cursor, RoomId, Seq};
use folkmoot::shard::runtime::{AsyncRuntime, Select2};
use folkmoot_jepsen::history::{F, Op, Process, Value};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;

use crate::cluster::Running;
use crate::plan::Plan;
use crate::record::{self, now};
use crate::runtime::Sim;
use crate::workload::{Outcome, World, admin, name};

/// What a node sends to a follower: an event, or the end.
type Sent = Option<folkmoot_jepsen::history::Event>;

/// A client that follows a room.
pub struct Follower {
    world: Arc<World>,
    rng: SmallRng,
    process: Process,
    subscription: u64,
    room: Option<RoomId>,
    /// The last event that came; `None` before the first subscribe.
    delivered: Option<u64>,
}

impl Follower {
    /// The follower with this number.
    pub fn new(world: Arc<World>, plan: &Plan, number: usize) -> Follower {
        let process = world.recorder.process();
        let subscription = world.recorder.subscription();
        let rng = SmallRng::seed_from_u64(plan.seed ^ (number as u64 + 1) << 48);
        Follower { world, rng, process, subscription, room: None, delivered: None }
    }

    /// Follows until nothing is sent any more, then to the head that its room has.
    pub async fn run(mut self) {
        while self.room.is_none() {
            self.room = self.world.rooms().choose(&mut self.rng).cloned();
            if self.world.is_over() {
                return;
            }
            Sim::sleep(Duration::from_millis(self.rng.random_range(1..100))).await;
        }
        let Some(room) = self.room.clone() else { return };
        let mut last = None;
        loop {
            if self.world.is_quiet() && last.is_none() {
                last = self.world.head(&room).await.map(|seq| seq.0);
                if last.is_none() {
                    let why = format!("liveness: nobody told a follower the head of room {room}");
                    self.world.cluster.violation(why);
                    return;
                }
            }
            if last.is_some_and(|last| self.delivered.unwrap_or(0) >= last) {
                break;
            }
            self.follow(&room, last).await;
            Sim::sleep(Duration::from_millis(self.rng.random_range(1..100))).await;
        }
        let op = Op::invoke(
            now(),
            self.process,
            F::Unsubscribe,
            Value::subscription(self.subscription, None),
        );
        let op = op.room(room.as_str());
        self.world.push(op.clone());
        let value =
            Value::Subscription { subscription: self.subscription, after: None, head: last };
        self.world.push(op.ok(now(), value));
    }

    /// Follows at some node until that ends, or `last` has come.
    async fn follow(&mut self, room: &RoomId, last: Option<u64>) {
        let node = self.world.any_node(&mut self.rng);
        let after = match self.delivered {
            None if self.rng.random_bool(0.3) => None,
            None => Some(0),
            delivered => delivered,
        };
        let value = Value::subscription(self.subscription, after);
        let op = Op::invoke(now(), self.process, F::Subscribe, value);
        let op = op.node(name(&node)).room(room.as_str());
        self.world.push(op.clone());
        let cursor = after.map(|seq| Cursor { epoch: None, seq: Seq(seq) });
        let (tx, mut events) = mpsc::channel(4);
        let outcome =
            self.world.ask(&node, |running| subscribe(running, room.clone(), cursor, tx)).await;
        // Only who begins at the head needs to be told where that is: who resumes knows what is next.
        self.process = self.world.end(&op, &outcome, |(begins, head)| Value::Subscription {
            subscription: self.subscription,
            after: after.or(Some(*begins)),
            head: Some(*head),
        });
        let Outcome::Ok((begins, _)) = outcome else { return };
        let after = after.unwrap_or(begins);
        self.delivered = Some(after);
        // A client drops its stream now and then, and takes it up again elsewhere.
        let patience = Duration::from_millis(self.rng.random_range(50..3000));
        let mut leaves = std::pin::pin!(Sim::sleep(patience));
        let slow = self.rng.random_bool(0.3);
        // It may fall asleep, too, with the stream open.
        let sleepy = self.rng.random_bool(0.3);
        while last.is_none_or(|last| self.delivered.unwrap_or(0) < last) {
            match Sim::select2(events.recv(), &mut leaves).await {
                Select2::First(Some(Some(event))) => {
                    let op = Op::delivery(now(), self.process, self.subscription, event);
                    self.world.push(op.node(name(&node)).room(room.as_str()));
                    self.delivered = Some(event.seq);
                }
                _ => return,
            }
            if slow {
                Sim::sleep(Duration::from_millis(self.rng.random_range(0..40))).await;
            }
            if sleepy && self.rng.random_bool(0.05) {
                Sim::sleep(Duration::from_millis(self.rng.random_range(500..2500))).await;
                leaves.set(Sim::sleep(patience));
            }
        }
    }
}

/// Subscribes, and sends what comes from then on: a task of the node's.
async fn subscribe(
    running: Running,
    room: RoomId,
    after: Option<Cursor>,
    events: mpsc::Sender<Sent>,
) -> Result<(u64, u64), Error> {
    let mut subscription = running.router.subscribe(&admin(), &room, after).await?;
    let start = (subscription.delivered().0, subscription.head.0);
    drop(Sim::spawn(async move {
        loop {
            match Sim::select2(events.closed(), subscription.next()).await {
                Select2::Second(Next::Events(next)) => {
                    for encoded in next {
                        if events.send(Some(record::event(&encoded.event))).await.is_err() {
                            return;
                        }
                    }
                }
                Select2::Second(Next::CaughtUp(_)) => {}
                Select2::First(()) | Select2::Second(Next::Ended(_)) => return,
            }
        }
    }));
    Ok(start)
}
