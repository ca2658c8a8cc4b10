//! The end of a run: when all is healed, wait until the nodes agree, read every room on every
//! node, and let every subscriber have what it is due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::history::{F, Name, Value};
use crate::run::client::{Api, Client, Outcome};
use crate::run::status::{Placement, Status};
use crate::run::workload::subscriber::Subscriber;
use crate::run::workload::worker::read_page;
use crate::run::workload::{User, World};

/// How long nodes may take to be ready and to agree.
const CONVERGE_WITHIN: Duration = Duration::from_secs(90);
/// How long a room's final read on one node may take, tried again and again.
const READ_WITHIN: Duration = Duration::from_secs(20);
/// How long all subscribers together may take.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);
const PAGE: u32 = 1000;

/// What came of waiting.
#[derive(Debug, Default)]
pub struct Converged {
    /// Nodes that are ready.
    pub ready: BTreeSet<usize>,
    /// Nodes that said only now that their logs had lost something, as was to be expected.
    pub lost: BTreeSet<usize>,
    /// What is wrong with the others.
    pub problems: Vec<String>,
}

/// Starts what does not run, but for nodes that are lost, and waits until all are ready and agree.
/// `suspects` may turn out to be lost.
pub async fn converge(
    cluster: &Arc<Cluster>,
    status: &mut Status,
    placement: &Placement,
    lost: &BTreeSet<usize>,
    suspects: &BTreeSet<usize>,
) -> Converged {
    let starting = cluster.clone();
    let left: Vec<usize> = cluster.present().difference(lost).copied().collect();
    let nodes = left.clone();
    let mut problems: Vec<String> = tokio::task::spawn_blocking(move || {
        let start = |place: usize| {
            let node = &starting.nodes[place];
            let failed = node.running().is_none().then(|| node.start().err()).flatten();
            failed.map(|error| format!("{}: {error}", node.name))
        };
        nodes.into_iter().filter_map(start).collect()
    })
    .await
    .unwrap_or_default();
    let deadline = Instant::now() + CONVERGE_WITHIN;
    let mut waiting: BTreeMap<usize, String> =
        left.into_iter().map(|node| (node, String::new())).collect();
    let (mut ready, mut found_lost) = (BTreeSet::new(), BTreeSet::new());
    while !waiting.is_empty() && Instant::now() < deadline {
        for node in waiting.keys().copied().collect::<Vec<_>>() {
            if cluster.nodes[node].running().is_none() {
                let ended = cluster.nodes[node].exits().pop();
                waiting.remove(&node);
                if suspects.contains(&node) && ended.as_ref().is_some_and(|exit| exit.lost) {
                    found_lost.insert(node);
                    continue;
                }
                let why = ended.map(|exit| exit.said).unwrap_or_default();
                problems.push(format!("{} does not run: {why}", cluster.nodes[node].name));
                continue;
            }
            match status.ready(node).await {
                Ok(()) => {
                    waiting.remove(&node);
                    ready.insert(node);
                }
                Err(why) => drop(waiting.insert(node, why)),
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
    for (node, why) in waiting {
        let name = &cluster.nodes[node].name;
        problems.push(format!("{name} was not ready within {CONVERGE_WITHIN:?}: {why}"));
    }
    loop {
        match status.caught_up(placement, &ready).await {
            Ok(()) => break,
            Err(why) if Instant::now() > deadline => {
                problems.push(format!("no agreement within {CONVERGE_WITHIN:?}: {why}"));
                break;
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
    Converged { ready, lost: found_lost, problems }
}

/// Reads every room on each of these nodes, and asks for its hash chain; the rooms' heads.
pub async fn read_all(
    world: &Arc<World>,
    user: &User,
    nodes: &BTreeSet<usize>,
) -> BTreeMap<Name, u64> {
    let rooms = Arc::new(world.all_rooms());
    let mut reading = tokio::task::JoinSet::new();
    for (place, client) in world.clients(user).into_iter().enumerate() {
        if nodes.contains(&place) {
            reading.spawn(read_node(world.clone(), client, rooms.clone()));
        }
    }
    let mut heads: BTreeMap<Name, u64> = BTreeMap::new();
    while let Some(read) = reading.join_next().await {
        for (room, head) in read.unwrap_or_default() {
            let known = heads.entry(room).or_default();
            *known = head.max(*known);
        }
    }
    heads
}

async fn read_node(
    world: Arc<World>,
    mut client: Client,
    rooms: Arc<Vec<Name>>,
) -> Vec<(Name, u64)> {
    let mut heads = vec![];
    let mut process = world.recorder.process();
    for room in rooms.iter() {
        let deadline = Instant::now() + READ_WITHIN;
        let mut after = 0;
        while Instant::now() < deadline {
            let f = F::FinalRead;
            let page =
                read_page(&world, &mut process, &mut client, Api::Rest, f, room, after, PAGE);
            let Some(page) = page.await else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            after = page.events.last().map_or(after, |event| event.seq);
            if after >= page.head || page.events.is_empty() {
                heads.push((room.clone(), page.head));
                break;
            }
        }
        let op = world.recorder.begin(process, F::Chain, &client.node, room, Value::None);
        let outcome = client.chain(room.as_str()).await;
        process = world.recorder.end(&op, &outcome, |(seq, chain)| Value::Chain {
            seq: *seq,
            chain: chain.as_str().into(),
        });
        if let Outcome::Ok((seq, _)) = outcome {
            heads.push((room.clone(), seq));
        }
    }
    heads
}

/// Lets every subscriber have what it is due. Who gets less has it in the history, as `unseen`.
pub async fn drain(subscribers: Vec<Subscriber>, heads: &BTreeMap<Name, u64>) {
    let deadline = Instant::now() + DRAIN_WITHIN;
    let mut draining = tokio::task::JoinSet::new();
    for subscriber in subscribers {
        let head = heads.get(&subscriber.room).copied().unwrap_or(0);
        draining.spawn(subscriber.drain(head, deadline));
    }
    while draining.join_next().await.is_some() {}
}
