//! How nodes become a cluster: they meet, one of them founds it, later ones are admitted.
//!
//! Before it belongs to a cluster, a node only says hello to the addresses it was told to join.
//! `cluster init` reaches the node whose peer address sorts first among the founders, whoever was
//! asked, so that two inits at once meet there. It writes the seed (ids, addresses, releases) to its own
//! disk, then hands it to the other founders until each has it; a crash in between is picked up
//! at the next start. A node that comes later asks to be admitted, shows a join token, and gets an id of
//! its own.
//!
//! **Invariant:** a node's identity is on its disk before any of its groups starts, and is never
//! given to another data directory: founders and admitted nodes are told apart by `instance`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use prost::Message;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::chat::codec;
use crate::error::{Code, Error};
use crate::id::NodeId;
use crate::meta::{ClusterMap, release};
use crate::node::groups::Membership;
use crate::node::membership_file::MembershipFile;
use crate::node::registration;
use crate::proto::internal as pb;
use crate::router::Router;
use crate::shard::transport::tcp::{Bootstrap, Tcp};

/// How often a node without a cluster says hello.
const HELLO_EVERY: Duration = Duration::from_millis(300);
/// A node not heard of for this long is not counted as there.
const HELLO_FRESH: Duration = Duration::from_secs(3);
/// How long `cluster init` waits for nodes to come.
const INIT_WAIT: Duration = Duration::from_secs(20);
/// How long a neighbour may take to say who it is, at the start.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// How often an unreached founder is told again, and an admitted node asks for the map.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// What a node was told of the cluster that it is to join.
pub(super) struct Join {
    /// Peer addresses, its own perhaps among them.
    pub addresses: Vec<String>,
    /// The join token; empty when it has none.
    pub token: String,
}

/// This node among others.
pub(super) struct Formation {
    hello: pb::Hello,
    join: Join,
    file: MembershipFile,
    membership: watch::Sender<Option<Membership>>,
    met: Mutex<BTreeMap<String, Met>>,
    founding: tokio::sync::Mutex<()>,
    router: Arc<Router>,
    shutdown: CancellationToken,
}

struct Met {
    hello: pb::Hello,
    at: tokio::time::Instant,
}

impl Formation {
    pub fn new(
        hello: pb::Hello,
        join: Join,
        file: MembershipFile,
        router: Arc<Router>,
        shutdown: CancellationToken,
    ) -> Arc<Formation> {
        Arc::new(Formation {
            hello,
            join,
            file,
            membership: watch::Sender::new(None),
            met: Mutex::default(),
            founding: tokio::sync::Mutex::default(),
            router,
            shutdown,
        })
    }

    /// Takes up a membership found on disk.
    pub fn resume(&self, membership: Membership) {
        self.membership.send_replace(Some(membership));
    }

    /// Waits until this node belongs to a cluster, saying hello meanwhile; `None` on shutdown.
    pub async fn membership(self: &Arc<Self>) -> Option<Membership> {
        let mut membership = self.membership.subscribe();
        loop {
            if let Some(found) = membership.borrow_and_update().clone() {
                return Some(found);
            }
            // Whoever was asked to admit this node may wait for it, if it is a founder: no answer is
            // waited for once it belongs to a cluster.
            let hello = async {
                tokio::time::sleep(HELLO_EVERY).await;
                self.say_hello().await;
            };
            tokio::select! {
                () = self.shutdown.cancelled() => return None,
                changed = membership.changed() => changed.ok()?,
                () = hello => {}
            }
        }
    }

    pub fn own_hello(&self) -> pb::Hello {
        match &*self.membership.borrow() {
            None => self.hello.clone(),
            Some(membership) => pb::Hello {
                node_id: membership.node_id.0,
                cluster_id: membership.cluster_id.clone(),
                former_cluster_ids: membership.map.former_cluster_ids().to_vec(),
                ..self.hello.clone()
            },
        }
    }

    fn meet(&self, hello: pb::Hello) {
        if hello.instance != self.hello.instance && !hello.instance.is_empty() {
            let met = Met { hello: hello.clone(), at: tokio::time::Instant::now() };
            self.met.lock().expect("no holder of the lock panics").insert(hello.instance, met);
        }
    }

    async fn say_hello(self: &Arc<Self>) {
        let others =
            self.join.addresses.iter().filter(|address| **address != self.hello.peer_address);
        let hellos = others.map(|address| async move {
            let request = bootstrap(pb::bootstrap::Request::Hello(self.own_hello()));
            let answer = Tcp::ask(address, &request).await.ok()?;
            let hello = pb::Hello::decode(answer).ok()?;
            self.meet(hello.clone());
            (!hello.cluster_id.is_empty()).then_some((address, hello))
        });
        let answers = futures_util::future::join_all(hellos).await;
        let in_a_cluster: Vec<_> = answers.into_iter().flatten().collect();
        // A cluster that another one was recovered from is no more, whoever still runs of it.
        let is_former = |cluster_id: &String| {
            in_a_cluster.iter().any(|(_, hello)| hello.former_cluster_ids.contains(cluster_id))
        };
        let mut living = in_a_cluster.iter().filter(|(_, hello)| !is_former(&hello.cluster_id));
        let Some((address, _)) = living.next() else { return };
        if let Err(error) = self.ask_admission(address).await {
            tracing::warn!(address, %error, "the cluster does not admit this node");
            // It says so until an operator does something about it; no need to hurry.
            tokio::time::sleep(10 * HELLO_EVERY).await;
        }
    }

    /// Asks a member to be admitted, or to be told again of the cluster that this node founds.
    async fn ask_admission(&self, address: &str) -> Result<(), Error> {
        let hello = pb::Hello { join_token: self.join.token.clone(), ..self.own_hello() };
        let request = bootstrap(pb::bootstrap::Request::Admit(hello));
        let answer = Tcp::ask(address, &request).await.map_err(unreachable)?;
        let answer = pb::AdmitReply::decode(answer).map_err(|_| odd_answer())?;
        if !answer.refused.is_empty() {
            return Err(codec::decode_error(answer.refused).map_err(|_| odd_answer())?);
        }
        if let Some(seed) = answer.seed {
            return self.adopt_seed(seed);
        }
        let map = ClusterMap::decode(&answer.map).map_err(|_| odd_answer())?;
        self.router.set_map(map.clone());
        if self.membership.borrow().is_none() {
            let node_id = NodeId(answer.node_id);
            let cluster_id = map.cluster_id().to_string();
            self.adopt(Membership { cluster_id, node_id, map, seed: None })?;
        }
        Ok(())
    }

    /// Looks for a neighbour that shows that a member's data directory must not run here: one of
    /// another cluster, or this same node at another address. Who does not answer soon is passed
    /// over, and so is what is left of a cluster that this one was recovered from.
    pub async fn odd_neighbour(&self) -> Option<(String, pb::Hello)> {
        let (own, mut addresses) = (self.own_hello(), self.join.addresses.clone());
        if let Some(membership) = &*self.membership.borrow() {
            addresses.extend(membership.map.nodes().map(|node| node.peer_address));
        }
        addresses.retain(|address| *address != own.peer_address);
        let asked = addresses.into_iter().map(|address| async {
            let request = bootstrap(pb::bootstrap::Request::Hello(own.clone()));
            let answer = tokio::time::timeout(ANSWER_WAIT, Tcp::ask(&address, &request)).await;
            let theirs = pb::Hello::decode(answer.ok()?.ok()?).ok()?;
            if own.former_cluster_ids.contains(&theirs.cluster_id) {
                tracing::warn!(
                    address,
                    cluster = theirs.cluster_id,
                    "a node of the cluster that \
                    this one was recovered from runs: it is refused here; stop it"
                );
                return None;
            }
            let foreign = !theirs.cluster_id.is_empty() && theirs.cluster_id != own.cluster_id;
            let twin = theirs.node_id == own.node_id && theirs.peer_address != own.peer_address;
            let too_far = !release::work_together(&own.version, &theirs.version);
            (foreign || twin || too_far).then_some((address, theirs))
        });
        futures_util::future::join_all(asked).await.into_iter().flatten().next()
    }

    fn adopt_seed(&self, seed: pb::Seed) -> Result<(), Error> {
        let own = seed.nodes.iter().find(|node| node.instance == self.hello.instance);
        let own = own.ok_or_else(|| {
            Error::new(Code::AlreadyExists, "this data directory is not a founder's")
        })?;
        let membership = Membership {
            cluster_id: seed.cluster_id.clone(),
            node_id: NodeId(own.id),
            map: ClusterMap::of_seed(&seed),
            seed: Some(seed),
        };
        self.adopt(membership)
    }

    /// Writes a membership to disk, then starts from it.
    fn adopt(&self, membership: Membership) -> Result<(), Error> {
        if let Some(known) = &*self.membership.borrow() {
            let same = known.cluster_id == membership.cluster_id;
            let other = || Error::new(Code::AlreadyInitialized, "this node is of another cluster");
            return if same { Ok(()) } else { Err(other()) };
        }
        self.file.write(&membership).map_err(|error| {
            tracing::error!(%error, "cannot write down which cluster this node belongs to");
            Error::new(Code::Internal, format!("the node's disk failed: {error}"))
        })?;
        tracing::info!(cluster = membership.cluster_id, node = %membership.node_id,
            "joined a cluster");
        self.membership.send_replace(Some(membership));
        Ok(())
    }

    /// Tells the other founders of the cluster until each has it.
    pub async fn tell_founders(self: Arc<Self>, seed: pb::Seed) {
        let mut untold: Vec<_> = seed.nodes.clone();
        untold.retain(|node| node.instance != self.hello.instance);
        while !untold.is_empty() {
            let mut still = Vec::new();
            for node in untold {
                let request = bootstrap(pb::bootstrap::Request::Form(seed.clone()));
                let answer = Tcp::ask(&node.peer_address, &request).await;
                match answer.ok().map(pb::FormReply::decode) {
                    Some(Ok(reply)) if reply.refused.is_empty() => {}
                    Some(Ok(reply)) => {
                        let error = codec::decode_error(reply.refused);
                        tracing::error!(node = node.id, ?error, "a founder refuses the cluster");
                        still.push(node);
                    }
                    _ => still.push(node),
                }
            }
            untold = still;
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(TELL_EVERY), if !untold.is_empty() => {}
                () = std::future::ready(()), if untold.is_empty() => {}
            }
        }
    }

    /// Keeps the cluster map that this node starts from next up to date on its disk, so that it
    /// finds the others also when all whom it knew at first are gone.
    pub async fn keep_map(self: Arc<Self>) {
        let mut maps = self.router.watch_map();
        loop {
            let map = maps.borrow_and_update().clone();
            let known = self.membership.borrow().clone();
            if let Some(known) = known.filter(|known| map.version() > known.map.version()) {
                let membership = Membership { map: ClusterMap::clone(&map), ..known };
                let (formation, written) = (self.clone(), membership.clone());
                let writing = tokio::task::spawn_blocking(move || formation.file.write(&written));
                match writing.await {
                    Ok(Ok(())) => drop(self.membership.send_replace(Some(membership))),
                    Ok(Err(error)) => tracing::warn!(%error, "cannot keep the cluster map"),
                    Err(error) => tracing::warn!(%error, "cannot keep the cluster map"),
                }
            }
            if maps.changed().await.is_err() {
                return;
            }
        }
    }

    /// Forms a cluster of this many nodes, wherever among them that has to be done.
    pub async fn found(self: &Arc<Self>, nodes: usize, shards: u16) -> Result<String, Error> {
        if self.membership.borrow().is_some() {
            return Err(already());
        }
        if self.hello.gateway {
            return Err(Error::invalid(
                "this node is to be a gateway, without replicas (`node.gateway`): ask one that is not",
            ));
        }
        let founders = self.wait_for_founders(nodes).await?;
        let first = &founders[0];
        if first.instance == self.hello.instance {
            return self.found_here(founders, shards).await;
        }
        let found = pb::Found { nodes: nodes as u32, shards: u32::from(shards) };
        let request = bootstrap(pb::bootstrap::Request::Found(found));
        let answer = Tcp::ask(&first.peer_address, &request).await.map_err(unreachable)?;
        let answer = pb::FormReply::decode(answer).map_err(|_| odd_answer())?;
        if !answer.refused.is_empty() {
            return Err(codec::decode_error(answer.refused).map_err(|_| odd_answer())?);
        }
        Ok(answer.cluster_id)
    }

    /// The founders in order of their peer addresses, as soon as enough nodes are there. Gateways are
    /// none: they join later.
    async fn wait_for_founders(&self, nodes: usize) -> Result<Vec<pb::Hello>, Error> {
        let deadline = tokio::time::Instant::now() + INIT_WAIT;
        loop {
            let mut founders = vec![self.hello.clone()];
            {
                let met = self.met.lock().expect("no holder of the lock panics");
                let there = met.values().filter(|met| met.at.elapsed() < HELLO_FRESH);
                founders.extend(there.map(|met| met.hello.clone()));
            }
            if founders.iter().any(|hello| !hello.cluster_id.is_empty()) {
                return Err(already());
            }
            founders.retain(|hello| !hello.gateway);
            founders.sort_by_key(|hello| {
                (hello.peer_address.parse::<SocketAddr>().ok(), hello.peer_address.clone())
            });
            if founders.len() == nodes {
                return Ok(founders);
            }
            if founders.len() > nodes {
                let there = founders.len();
                return Err(Error::invalid(format!(
                    "{there} nodes have come, but {nodes} were asked for: stop the others first"
                )));
            }
            if tokio::time::Instant::now() >= deadline {
                let there = founders.len();
                return Err(Error::new(
                    Code::Unavailable,
                    format!(
                        "{there} of {nodes} nodes have come: check that all run, with the same `join`"
                    ),
                ));
            }
            tokio::time::sleep(HELLO_EVERY / 3).await;
        }
    }

    async fn found_here(
        self: &Arc<Self>,
        founders: Vec<pb::Hello>,
        shards: u16,
    ) -> Result<String, Error> {
        let _alone = self.founding.lock().await;
        if self.membership.borrow().is_some() {
            return Err(already());
        }
        let fits = |other: &&pb::Hello| release::work_together(&self.hello.version, &other.version);
        if let Some(odd) = founders.iter().find(|other| !fits(other)) {
            let (ours, theirs, at) = (&self.hello.version, &odd.version, &odd.peer_address);
            return Err(Error::invalid(format!(
                "this is release {ours}, and the node at {at} runs {theirs}: only neighbouring series of \
                 releases work together"
            )));
        }
        let node = |(index, hello): (usize, &pb::Hello)| pb::SeedNode {
            id: index as u64 + 1,
            instance: hello.instance.clone(),
            client_address: hello.client_address.clone(),
            peer_address: hello.peer_address.clone(),
            version: hello.version.clone(),
        };
        let seed = pb::Seed {
            cluster_id: uuid::Uuid::from_bytes(rand::random()).simple().to_string(),
            shards: u32::from(shards),
            nodes: founders.iter().enumerate().map(node).collect(),
        };
        let cluster_id = seed.cluster_id.clone();
        self.adopt_seed(seed.clone())?;
        // Who has founded the cluster may go on at once: the meta group has its map by then.
        let ready = async {
            while !self.router.readiness().ready || self.router.read_map().await.is_err() {
                tokio::time::sleep(HELLO_EVERY / 10).await;
            }
        };
        tokio::time::timeout(INIT_WAIT, ready).await.map_err(|_| {
            Error::new(Code::Unavailable, "the cluster was formed, but is not ready yet")
                .maybe_applied()
        })?;
        Ok(cluster_id)
    }

    /// Registers a node with the meta group.
    async fn admit(&self, hello: pb::Hello) -> Result<pb::AdmitReply, Error> {
        let membership = self.membership.borrow().clone();
        let Some(membership) = membership else {
            return Err(Error::new(Code::NotReady, "this node is in no cluster itself"));
        };
        if let Some(seed) = membership.seed
            && hello.node_id == 0
            && seed.nodes.iter().any(|node| node.instance == hello.instance)
        {
            return Ok(pb::AdmitReply { seed: Some(seed), ..Default::default() });
        }
        registration::admit(&self.router, hello).await
    }
}

fn bootstrap(request: pb::bootstrap::Request) -> pb::Bootstrap {
    pb::Bootstrap { request: Some(request) }
}

fn already() -> Error {
    Error::new(Code::AlreadyInitialized, "the cluster exists already")
}

fn unreachable(error: std::io::Error) -> Error {
    Error::new(Code::Unavailable, format!("another node cannot be reached: {error}"))
}

fn odd_answer() -> Error {
    Error::new(Code::Internal, "another node's answer makes no sense: is it of another version?")
}

/// Answers other nodes' bootstrap requests.
pub(super) struct Receptionist(pub Arc<Formation>);

impl Bootstrap for Receptionist {
    fn answer(&self, request: Bytes) -> BoxFuture<'_, Bytes> {
        Box::pin(async move {
            let Ok(pb::Bootstrap { request: Some(request) }) = pb::Bootstrap::decode(request)
            else {
                return Bytes::new();
            };
            match request {
                pb::bootstrap::Request::Hello(hello) => {
                    self.0.meet(hello);
                    self.0.own_hello().encode_to_vec().into()
                }
                pb::bootstrap::Request::Form(seed) => {
                    let cluster_id = seed.cluster_id.clone();
                    reply(self.0.adopt_seed(seed).map(|()| cluster_id))
                }
                pb::bootstrap::Request::Found(found) => {
                    let shards = u16::try_from(found.shards).unwrap_or(0);
                    reply(self.0.found(found.nodes as usize, shards).await)
                }
                pb::bootstrap::Request::Admit(hello) => {
                    let answer = self.0.admit(hello).await.unwrap_or_else(|error| {
                        let refused = codec::encode_error(&error);
                        pb::AdmitReply { refused, ..Default::default() }
                    });
                    answer.encode_to_vec().into()
                }
            }
        })
    }
}

fn reply(result: Result<String, Error>) -> Bytes {
    let reply = match result {
        Ok(cluster_id) => pb::FormReply { refused: Bytes::new(), cluster_id },
        Err(error) => {
            pb::FormReply { refused: codec::encode_error(&error), cluster_id: String::new() }
        }
    };
    reply.encode_to_vec().into()
}
