//! The operator's hands: looks at the cluster, types commands, starts nodes and ends them for good.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use crate::cluster::Cluster;
use crate::history::Phase;
use crate::run::churn::view::View;
use crate::run::client::Outcome;
use crate::run::client::grpc::Grpc;
use crate::run::roster::Roster;
use crate::run::workload::World;

/// How long the command line keeps trying.
const TRIES_FOR: &str = "10s";

/// Who looks after a cluster while clients chat.
#[derive(Debug)]
pub struct Operator {
    pub(super) world: Arc<World>,
    pub(in crate::run) cluster: Arc<Cluster>,
    pub(in crate::run) roster: Arc<Roster>,
    /// Connections to every node, as the admin.
    asks: Vec<Grpc>,
    pub(super) rng: SmallRng,
    /// What went wrong here.
    pub problems: Vec<String>,
}

impl Operator {
    /// Has done nothing yet.
    #[must_use]
    pub fn new(world: &Arc<World>, cluster: &Arc<Cluster>, roster: &Arc<Roster>) -> Operator {
        let token = cluster.admin().map(|admin| admin.token.clone()).unwrap_or_default();
        let asks = world.nodes.iter().map(|(_, address)| Grpc::new(*address, &token)).collect();
        Operator {
            world: world.clone(),
            cluster: cluster.clone(),
            roster: roster.clone(),
            asks,
            rng: SmallRng::seed_from_u64(world.seed ^ 0x6368_7572_6e00),
            problems: vec![],
        }
    }

    /// Places where a node may join.
    #[must_use]
    pub fn away(&self) -> Vec<usize> {
        let present = self.cluster.present();
        (0..self.cluster.nodes.len()).filter(|place| !present.contains(place)).collect()
    }

    /// Those that can be asked, in an order of its own each time.
    pub(super) fn servers(&mut self) -> Vec<usize> {
        let nodes = self.cluster.present();
        let running = |place: &usize| self.cluster.nodes[*place].running().is_some();
        let mut servers: Vec<usize> = nodes.into_iter().filter(running).collect();
        servers.shuffle(&mut self.rng);
        servers
    }

    /// Their addresses as the command line takes them, with commas between; empty when there is none.
    pub(in crate::run) fn urls(&mut self) -> String {
        let servers = self.servers().into_iter();
        let urls = servers.map(|place| format!("http://{}", self.cluster.nodes[place].client));
        urls.collect::<Vec<_>>().join(",")
    }

    /// Asks for the cluster as it is now.
    pub async fn look(&mut self) -> Option<View> {
        let addresses: Vec<SocketAddr> = self.world.nodes.iter().map(|node| node.1).collect();
        for place in self.servers() {
            if let Outcome::Ok(answer) = self.asks[place].placement().await {
                return Some(View::of(&answer, &addresses));
            }
        }
        None
    }

    /// Lets clients go to the nodes that are there, and the nemesis know who votes where. `moving`: it
    /// will not stay so.
    pub fn tell(&self, view: &View, moving: bool) {
        self.roster.set_placement(view.placement(), moving);
        let there: BTreeSet<usize> = view.nodes.iter().map(|node| node.place).collect();
        self.world.set_present(&there.intersection(&self.cluster.present()).copied().collect());
    }

    /// Runs a command of the product's, on nodes that run; what it printed. With `--json`.
    pub async fn folkmoot(&mut self, mut arguments: Vec<String>) -> Outcome<String> {
        let servers = self.urls();
        if servers.is_empty() {
            return Outcome::Failed("no-node".into());
        }
        arguments.extend(["--json", "--timeout", TRIES_FOR, "--server"].map(str::to_owned));
        arguments.push(servers);
        let cluster = self.cluster.clone();
        let run = move || {
            let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
            cluster.folkmoot(&words)
        };
        match self.blocking(run).await {
            Some(Ok(output)) if output.status.success() => {
                Outcome::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            }
            Some(Ok(output)) => refusal(&output.stderr),
            Some(Err(why)) => Outcome::Failed(why),
            None => Outcome::Unknown("panicked".into()),
        }
    }

    /// The options with which a new node is let in, once.
    async fn ticket(&mut self) -> Outcome<Vec<String>> {
        let token = |said: &String| {
            let said: serde_json::Value = serde_json::from_str(said).ok()?;
            Some(said["token"].as_str()?.to_owned())
        };
        match self.folkmoot(["node", "token"].map(str::to_owned).to_vec()).await {
            Outcome::Ok(said) => match token(&said) {
                Some(token) => Outcome::Ok(vec!["--join-token".into(), token]),
                None => Outcome::Failed("odd-answer".into()),
            },
            Outcome::Failed(why) => Outcome::Failed(why),
            Outcome::Unknown(why) => Outcome::Unknown(why),
        }
    }

    /// Starts the node at this place, which then asks to be let in.
    pub async fn join(&mut self, place: usize) -> Outcome<()> {
        let ticket = match self.ticket().await {
            Outcome::Ok(ticket) => ticket,
            Outcome::Failed(why) | Outcome::Unknown(why) => return Outcome::Failed(why),
        };
        let roster = self.roster.clone();
        let _hands = roster.hands().await;
        let node = self.cluster.nodes[place].clone();
        match self.blocking(move || node.enter(&ticket)).await {
            Some(Ok(())) => Outcome::Ok(()),
            Some(Err(error)) => Outcome::Failed(error.to_string()),
            None => Outcome::Failed("panicked".into()),
        }
    }

    /// Kills a node that is to be replaced; whether nobody was hit otherwise.
    pub async fn kill(&mut self, place: usize) -> bool {
        let roster = self.roster.clone();
        let _hands = roster.hands().await;
        let node = self.cluster.nodes[place].clone();
        if !roster.struck().is_empty() || node.running().is_none() {
            return false;
        }
        let majority = roster.placement().has_majority(&BTreeSet::from([place]));
        roster.set_dead(place, true);
        let on = [node.name.clone()];
        self.world.recorder.fault(&lost(&node.name), Phase::Start, &on, Some(majority));
        self.blocking(move || node.kill()).await;
        true
    }

    /// Starts a node again that was killed, and is not to be replaced after all.
    pub async fn revive(&mut self, place: usize) {
        self.roster.set_dead(place, false);
        let node = self.cluster.nodes[place].clone();
        let name = node.name.clone();
        let started = self.blocking(move || node.start()).await;
        self.problems.extend(started.and_then(Result::err).map(|e| format!("{name}: {e}")));
        self.stop_fault(&name);
    }

    /// The node that was killed is gone, or back.
    fn stop_fault(&self, name: &str) {
        let struck = self.roster.struck();
        let majority = (!struck.is_empty()).then(|| self.roster.has_majority(&struck));
        self.world.recorder.fault(&lost(name), Phase::Stop, &[name.to_owned()], majority);
    }

    /// A node was removed from the cluster: it is ended, and its place is free.
    pub async fn end_for_good(&mut self, place: usize) {
        let roster = self.roster.clone();
        let _hands = roster.hands().await;
        let node = self.cluster.nodes[place].clone();
        let name = node.name.clone();
        let left = self.blocking(move || node.leave()).await;
        self.problems.extend(left.and_then(Result::err).map(|e| format!("{name}: {e}")));
        if roster.dead().contains(&place) {
            roster.set_dead(place, false);
            self.stop_fault(&name);
        }
    }

    /// Does something that takes its time, off the threads that clients are on.
    pub async fn blocking<T: Send + 'static>(
        &mut self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let done = tokio::task::spawn_blocking(act).await;
        done.map_err(|error| self.problems.push(format!("churn: {error}"))).ok()
    }
}

/// The fault of a node that is to be replaced.
fn lost(node: &str) -> String {
    format!("churn-lost-{node}")
}

/// What a command said that failed.
fn refusal(said: &[u8]) -> Outcome<String> {
    let error: Option<serde_json::Value> = serde_json::from_slice(said).ok();
    let error = error.map(|said| said["error"].clone()).unwrap_or_default();
    match (error["code"].as_str(), error["may_have_applied"].as_bool()) {
        (Some(code), Some(false)) => Outcome::Failed(code.into()),
        (Some(code), _) => Outcome::Unknown(code.into()),
        _ => Outcome::Unknown(String::from_utf8_lossy(said).trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_no_is_a_refusal() {
        let no = br#"{"error":{"code":"forbidden","may_have_applied":false}}"#;
        assert!(matches!(refusal(no), Outcome::Failed(code) if code == "forbidden"));
        let unsure = br#"{"error":{"code":"timeout","may_have_applied":true}}"#;
        assert!(matches!(refusal(unsure), Outcome::Unknown(code) if code == "timeout"));
        let odd = refusal(b"folkmoot: odd\n");
        assert!(matches!(odd, Outcome::Unknown(said) if said.ends_with("odd")));
    }
}
