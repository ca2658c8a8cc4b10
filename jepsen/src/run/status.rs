//! What the cluster says of itself: who holds which shard, who leads, whether all have caught up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use serde_json::Value;

use crate::run::client::Outcome;
use crate::run::client::rest::Rest;

/// Asks nodes as the admin.
#[derive(Debug)]
pub struct Status {
    nodes: Vec<(SocketAddr, Rest)>,
}

/// Which nodes hold which shard. It changes while a run lasts only where an operator is part of it.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// For each shard its nodes, by their place in the cluster.
    pub shards: BTreeMap<u64, BTreeSet<usize>>,
    /// For each shard that moves, those that it is to have.
    pub targets: BTreeMap<u64, BTreeSet<usize>>,
    /// The ids that the nodes know each other by.
    pub ids: BTreeMap<u64, usize>,
}

impl Placement {
    /// Whether each shard has a majority of replicas outside of `broken`; of those that it is to have,
    /// too.
    #[must_use]
    pub fn has_majority(&self, broken: &BTreeSet<usize>) -> bool {
        let mut all = self.shards.values().chain(self.targets.values());
        all.all(|nodes| nodes.difference(broken).count() > nodes.len() / 2)
    }
}

impl Status {
    /// Asks these nodes.
    #[must_use]
    pub fn new(nodes: &[(String, SocketAddr)], token: &str) -> Status {
        let rest = |address: SocketAddr| {
            let mut rest = Rest::new(address, token);
            rest.patience = Duration::from_secs(2);
            (address, rest)
        };
        Status { nodes: nodes.iter().map(|(_, address)| rest(*address)).collect() }
    }

    /// Whether a node answers that it is ready, and if not, why.
    ///
    /// # Errors
    ///
    /// Its reason, or that it does not answer.
    pub async fn ready(&mut self, node: usize) -> Result<(), String> {
        match self.nodes[node].1.exchange("GET", "/health/ready", None).await {
            Outcome::Ok((200, _)) => Ok(()),
            Outcome::Ok((status, answer)) => Err(format!("{status}: {answer}")),
            Outcome::Failed(why) | Outcome::Unknown(why) => Err(why),
        }
    }

    /// The cluster as a node sees it.
    async fn cluster(&mut self, node: usize) -> Option<Value> {
        match self.nodes[node].1.request("GET", "/v1/cluster", None).await {
            Outcome::Ok(answer) => Some(answer),
            _ => None,
        }
    }

    /// Who holds what, as any node tells it.
    ///
    /// # Errors
    ///
    /// When no node does.
    pub async fn placement(&mut self) -> Result<Placement, String> {
        for node in 0..self.nodes.len() {
            let Some(said) = self.cluster(node).await else { continue };
            let mut placement = Placement::default();
            for known in said["nodes"].as_array().into_iter().flatten() {
                let address = known["client_address"].as_str().and_then(|a| a.parse().ok());
                let place = self.nodes.iter().position(|(at, _)| Some(*at) == address);
                if let (Some(id), Some(place)) = (known["id"].as_u64(), place) {
                    placement.ids.insert(id, place);
                }
            }
            for replica in said["shards"].as_array().into_iter().flatten() {
                let node = replica["node"].as_u64().and_then(|id| placement.ids.get(&id).copied());
                if let (Some(shard), Some(node)) = (replica["shard"].as_u64(), node) {
                    placement.shards.entry(shard).or_default().insert(node);
                }
            }
            if !placement.shards.is_empty() {
                return Ok(placement);
            }
        }
        Err("no node tells who holds which shard".into())
    }

    /// A node that leads a shard, as far as any node knows.
    pub async fn leader(&mut self, placement: &Placement, rng: &mut SmallRng) -> Option<usize> {
        for node in 0..self.nodes.len() {
            let Some(said) = self.cluster(node).await else { continue };
            let leads = |replica: &&Value| replica["state"] == "leader";
            let replicas = said["shards"].as_array().into_iter().flatten();
            let leaders: Vec<u64> =
                replicas.filter(leads).filter_map(|replica| replica["node"].as_u64()).collect();
            if let Some(leader) = leaders.choose(rng) {
                return placement.ids.get(leader).copied();
            }
        }
        None
    }

    /// Whether these nodes' replicas have all that their leaders have.
    ///
    /// # Errors
    ///
    /// What is not so yet.
    pub async fn caught_up(
        &mut self,
        placement: &Placement,
        nodes: &BTreeSet<usize>,
    ) -> Result<(), String> {
        let Some(first) = nodes.first() else { return Ok(()) };
        let said = self.cluster(*first).await.ok_or("no answer to GET /v1/cluster")?;
        let mut heads: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for replica in said["shards"].as_array().into_iter().flatten() {
            let node = replica["node"].as_u64().and_then(|id| placement.ids.get(&id));
            if !node.is_some_and(|node| nodes.contains(node)) {
                continue;
            }
            let shard = replica["shard"].as_u64().unwrap_or_default();
            let applied = replica["applied"].as_u64().unwrap_or_default();
            if replica["leader"].as_u64().unwrap_or_default() == 0 {
                return Err(format!("shard {shard} knows no leader on one node"));
            }
            heads.entry(shard).or_default().push(applied);
        }
        for (shard, holders) in &placement.shards {
            let applied = heads.remove(shard).unwrap_or_default();
            if applied.len() < holders.intersection(nodes).count() {
                return Err(format!("not every replica of shard {shard} says how it stands"));
            }
            if applied.iter().any(|one| *one != applied[0]) {
                return Err(format!("replicas of shard {shard} have applied up to {applied:?}"));
            }
        }
        Ok(())
    }
}
