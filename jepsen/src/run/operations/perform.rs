//! How each operation is done: with the commands that an operator types, and by starting and stopping
//! nodes.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::run::churn::operator::Operator;
use crate::run::churn::view::{State, View};
use crate::run::client::Outcome;
use crate::run::operations::{NOTHING_FOR, Operation};

/// How often to look whether it is so.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long anything that follows by itself may take, such as a node's start.
const WITHIN: Duration = Duration::from_secs(120);
/// How long a node that crashed stays away.
const DEAD_FOR: Duration = Duration::from_secs(10);

impl Operator {
    /// Brings about what an operation begins with: a cluster at rest, of the nodes that it takes.
    ///
    /// # Errors
    ///
    /// What could not be done.
    pub(super) async fn prepare(&mut self, operation: Operation) -> Result<(), String> {
        self.rest().await?;
        match operation {
            Operation::Leaders => {
                let view = self.view().await?;
                let to = view.nodes.first().ok_or("there is no node")?.id;
                for group in view.groups.iter().filter(|group| group.leader != to) {
                    if group.settled.contains(&to) {
                        self.command(&format!("shard transfer-leader {} {to}", group.shard))
                            .await?;
                    }
                }
            }
            Operation::Move => self.have(4).await?,
            Operation::Shrink => self.have(5).await?,
            _ => {}
        }
        self.rest().await?;
        if operation == Operation::Replace {
            self.lose_one().await?;
        }
        Ok(())
    }

    /// Does it, until it is done.
    ///
    /// # Errors
    ///
    /// What could not be done.
    pub(super) async fn perform(&mut self, operation: Operation) -> Result<(), String> {
        match operation {
            Operation::Nothing => {
                sleep(NOTHING_FOR).await;
                Ok(())
            }
            Operation::RollingRestart => self.rolling_restart().await,
            Operation::Drain => {
                let view = self.view().await?;
                let leads = |id: u64| view.groups.iter().filter(|g| g.leader == id).count();
                let most = view.nodes.iter().map(|node| node.id).max_by_key(|id| leads(*id));
                let node = most.ok_or("there is no node")?;
                self.command(&format!("node drain {node}")).await
            }
            Operation::Leaders => self.command("shard rebalance --leaders").await,
            Operation::Grow => self.have(5).await,
            Operation::Move => {
                let view = self.view().await?;
                let free = |group: &&crate::run::churn::view::Group| {
                    view.nodes.iter().find(|node| !group.settled.contains(&node.id))
                };
                let data = view.groups.iter().filter(|group| group.shard > 0);
                let found = data.filter_map(|group| Some((group, free(&group)?.id))).next();
                let (group, to) = found.ok_or("every node has a replica of every shard")?;
                self.command(&format!("shard move {} {} {to}", group.shard, group.leader)).await
            }
            Operation::Shrink => {
                for _ in 0..2 {
                    let last = self.view().await?.nodes.pop().ok_or("there is no node")?;
                    self.command(&format!("node remove {} --yes", last.id)).await?;
                    self.end_for_good(last.place).await;
                    self.show().await?;
                }
                Ok(())
            }
            Operation::Crash => self.crash().await,
            Operation::Replace => self.replace().await,
        }
    }

    /// Kills the last node that leads something, and brings it back after a while.
    async fn crash(&mut self) -> Result<(), String> {
        let place = self.lose_one().await?;
        sleep(DEAD_FOR).await;
        self.revive(place).await;
        self.await_ready(place).await
    }

    /// Kills the last node that leads something; its place, once others lead in its stead.
    async fn lose_one(&mut self) -> Result<usize, String> {
        let view = self.view().await?;
        let leads = |view: &View, id: u64| view.groups.iter().any(|group| group.leader == id);
        let last = view.nodes.iter().rev().find(|node| leads(&view, node.id));
        let (id, place) = last.map(|node| (node.id, node.place)).ok_or("nobody leads")?;
        if !self.kill(place).await {
            return Err("the node that is to die does not run".into());
        }
        let begin = Instant::now();
        loop {
            let view = self.view().await?;
            if !leads(&view, id) && !leads(&view, 0) {
                return Ok(place);
            }
            if begin.elapsed() > WITHIN {
                return Err("nobody leads in the stead of the node that died".into());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Replaces the node that is dead.
    async fn replace(&mut self) -> Result<(), String> {
        let place = *self.away().first().ok_or("no spare node is left")?;
        let view = self.view().await?;
        let dead = self.roster.dead();
        let old = view.nodes.iter().find(|node| dead.contains(&node.place));
        let (old, its_place) = old.map(|node| (node.id, node.place)).ok_or("no node is dead")?;
        let new = self.enter(place).await?;
        self.command(&format!("node replace {old} {new} --yes")).await?;
        self.end_for_good(its_place).await;
        self.show().await.map(drop)
    }

    /// Lets nodes join until there are so many, and gives them their share.
    async fn have(&mut self, nodes: usize) -> Result<(), String> {
        let there = self.view().await?.nodes.len();
        for _ in there..nodes {
            let place = *self.away().first().ok_or("no spare node is left")?;
            self.enter(place).await?;
        }
        if there < nodes { self.command("shard rebalance").await } else { Ok(()) }
    }

    /// Lets the node at this place join; its id, once it takes part.
    async fn enter(&mut self, place: usize) -> Result<u64, String> {
        if let Outcome::Failed(why) | Outcome::Unknown(why) = self.join(place).await {
            return Err(why);
        }
        let begin = Instant::now();
        loop {
            if let Some(node) = self.show().await?.at(place).filter(|node| node.up) {
                let id = node.id;
                self.await_ready(place).await?;
                return Ok(id);
            }
            if begin.elapsed() > WITHIN {
                return Err(format!("{} has not joined", self.cluster.nodes[place].name));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn await_ready(&mut self, place: usize) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let node = self.cluster.nodes[place].clone();
            if self.blocking(move || node.is_ready()).await == Some(true) {
                return Ok(());
            }
            if begin.elapsed() > WITHIN {
                return Err(format!("{} is not ready", self.cluster.nodes[place].name));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Takes back what an operation leaves behind, and waits until nothing moves any more.
    pub(super) async fn rest(&mut self) -> Result<(), String> {
        let view = self.view().await?;
        let drained: Vec<u64> =
            view.nodes.iter().filter(|n| n.state == State::Draining).map(|n| n.id).collect();
        for node in &drained {
            self.command(&format!("node resume {node}")).await?;
        }
        if !drained.is_empty() {
            self.command("shard rebalance --leaders").await?;
        }
        let begin = Instant::now();
        while !self.show().await?.is_settled() {
            if begin.elapsed() > WITHIN {
                return Err("the cluster does not come to rest".into());
            }
            sleep(LOOK_EVERY).await;
        }
        for place in self.cluster.present() {
            self.await_ready(place).await?;
        }
        Ok(())
    }

    async fn view(&mut self) -> Result<View, String> {
        self.look().await.ok_or_else(|| "no node answers".into())
    }

    /// The same; and clients go to the nodes that are there.
    async fn show(&mut self) -> Result<View, String> {
        let view = self.view().await?;
        self.tell(&view, false);
        Ok(view)
    }

    /// Types a command, which returns once it is done.
    async fn command(&mut self, words: &str) -> Result<(), String> {
        let arguments = words.split(' ').map(str::to_owned).collect();
        match self.folkmoot(arguments).await {
            Outcome::Ok(_) => Ok(()),
            Outcome::Failed(why) | Outcome::Unknown(why) => Err(format!("folkmoot {words}: {why}")),
        }
    }
}
