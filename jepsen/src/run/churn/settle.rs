//! The end of a churn, when all faults are over: what was ordered comes about, every group settles
//! where it should be, and all replicas are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::run::churn::order::{Ground, Order, Verb};
use crate::run::churn::view::{State, View};
use crate::run::churn::{Churn, LOOK_EVERY, ORDER_WITHIN};
use crate::run::client::Outcome;

/// How long all of it may take: a node that goes has its replicas moved away one after the other.
const SETTLE_WITHIN: Duration = Duration::from_secs(90);

/// How often an order is tried once there are no faults.
const TRIES: usize = 5;

/// Since when groups have been on the way to where they are to be.
#[derive(Debug, Default)]
struct Moves(BTreeMap<u32, (BTreeSet<u64>, Instant)>);

impl Moves {
    /// Takes note of groups that move; those that take longer than this, each once.
    fn note(&mut self, view: &View, within: Duration, now: Instant) -> Vec<String> {
        let mut late = vec![];
        for group in &view.groups {
            if group.is_settled() {
                self.0.remove(&group.shard);
                continue;
            }
            let since = self.0.entry(group.shard).or_insert((group.target.clone(), now));
            if since.0 != group.target {
                *since = (group.target.clone(), now);
            } else if since.1 <= now && now - since.1 > within {
                late.push(format!(
                    "shard {} is on nodes {:?}, and was to be on {:?} for {within:?} though no \
                     fault was left",
                    group.shard, group.settled, group.target
                ));
                // Not told again.
                since.1 = now + SETTLE_WITHIN;
            }
        }
        late
    }
}

impl Churn {
    /// Waits until all that was ordered has come about, and every group is where it should be. A group
    /// that is longer on its way than this is a finding, and so is what never comes to rest. Sorts of
    /// orders that never came about while there were faults are given again, now that there are none.
    pub async fn settle(&mut self, within: Duration) {
        self.come_to_rest(within).await;
        let undone: Vec<Verb> =
            self.given.keys().copied().filter(|verb| !self.done.contains_key(verb)).collect();
        for verb in &undone {
            self.make_up(*verb).await;
        }
        if !undone.is_empty() {
            self.come_to_rest(within).await;
        }
        self.conclude();
    }

    async fn come_to_rest(&mut self, within: Duration) {
        let deadline = Instant::now() + SETTLE_WITHIN;
        let mut moves = Moves::default();
        let mut unsettled = "no node answers".to_owned();
        while Instant::now() < deadline {
            if let Some(view) = self.look().await {
                self.findings.extend(moves.note(&view, within, Instant::now()));
                match self.left(&view) {
                    None => return,
                    Some(left) => unsettled = left,
                }
                self.press(&view).await;
                self.resume(&view).await;
            }
            sleep(LOOK_EVERY).await;
        }
        self.findings.push(format!(
            "the cluster did not settle within {SETTLE_WITHIN:?} of the end of all faults: {unsettled}"
        ));
    }

    /// Gives an order of a sort, until one is done or it was tried often enough.
    async fn make_up(&mut self, verb: Verb) {
        for _ in 0..TRIES {
            let Some(view) = self.look().await else { continue };
            let (away, struck) = (self.operator.away(), self.operator.roster.struck());
            let ground = Ground { view: &view, away: &away, done: &self.done, struck: &struck };
            let rng = &mut self.operator.rng;
            let order = match ground.order(verb, rng) {
                Some(order) => Some(order),
                // At rest there may be nothing of the sort to order.
                None => verb.needs().and_then(|first| ground.order(first, rng)),
            };
            if let Some(order) = order
                && self.give(order, &view).await
            {
                self.wait(order, Instant::now() + ORDER_WITHIN).await;
            }
            if self.done.contains_key(&verb) {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// What is still to come about, if anything.
    fn left(&self, view: &View) -> Option<String> {
        if let Some(group) = view.groups.iter().find(|group| !group.is_settled()) {
            let (shard, settled, target) = (group.shard, &group.settled, &group.target);
            return Some(format!("shard {shard} is on nodes {settled:?}, to be on {target:?}"));
        }
        if view.rebalancing {
            return Some("replicas and leads are being spread".into());
        }
        if let Some(node) = view.nodes.iter().find(|node| node.state != State::Active || !node.up) {
            let (state, up) = (node.state, if node.up { "up" } else { "down" });
            return Some(format!("node {} is {state:?} and {up}", node.id));
        }
        let absent =
            self.operator.cluster.present().into_iter().find(|place| view.at(*place).is_none());
        absent.map(|place| format!("{} has not joined", self.operator.cluster.nodes[place].name))
    }

    /// Lets nodes lead again that were drained: nobody waits for a drain that has come to nothing.
    async fn resume(&mut self, view: &View) {
        let drained = view.nodes.iter().find(|node| node.state == State::Draining);
        if let Some(id) = drained.map(|node| node.id) {
            self.give(Order::Resume(id), view).await;
        }
    }

    /// Nobody knows of orders that were not seen to be done: others came after them.
    fn conclude(&mut self) {
        for open in std::mem::take(&mut self.open) {
            self.count(open.order.verb(), Some("not seen to be done"));
            self.record(&open.op, &Outcome::Unknown("superseded".into()));
        }
    }

    /// Has the cluster compare all replicas. Whatever differs is a finding.
    pub async fn verify(&mut self) {
        let arguments = ["cluster", "verify"].map(str::to_owned).to_vec();
        let wrong = match self.operator.folkmoot(arguments).await {
            Outcome::Ok(said) => match serde_json::from_str::<Value>(&said) {
                Ok(said) if said["ok"] == true && said["shards"].as_u64() > Some(0) => return,
                _ => said,
            },
            Outcome::Failed(why) | Outcome::Unknown(why) => why,
        };
        self.findings.push(format!("`folkmoot cluster verify`: {}", wrong.trim()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::churn::view::Group;

    #[test]
    fn a_group_that_is_long_on_its_way_is_told_once_and_a_new_way_begins_anew() {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        let (mut moves, begin) = (Moves::default(), Instant::now());
        let mut late = |settled: &[u64], target: &[u64], seconds: u64| {
            let (settled, target) = (set(settled), set(target));
            let group = Group { shard: 3, target, settled, leader: 1 };
            let view = View { groups: vec![group], ..View::default() };
            moves.note(&view, Duration::from_secs(10), begin + Duration::from_secs(seconds)).len()
        };
        assert_eq!(late(&[1, 2, 3], &[1, 2, 4], 0), 0);
        assert_eq!(late(&[1, 2, 3], &[1, 2, 5], 9), 0, "another way");
        assert_eq!(late(&[1, 2, 3], &[1, 2, 5], 18), 0);
        assert_eq!(late(&[1, 2, 3], &[1, 2, 5], 20), 1);
        assert_eq!(late(&[1, 2, 3], &[1, 2, 5], 21), 0, "once");
        assert_eq!(late(&[1, 2, 5], &[1, 2, 5], 22), 0);
        assert!(moves.0.is_empty());
    }
}
