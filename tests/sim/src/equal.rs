//! Whether replicas agree that have applied the same: on what they remember of requests, and on all
//! else.

use std::collections::BTreeMap;

use folkmoot::chat::event::Hash;
use folkmoot::chat::state::{Scope, State};
use folkmoot::id::Seq;
use folkmoot::shard::Shard;

use crate::cluster::Cluster;
use crate::runtime::Sim;
use crate::workload::Sent;

/// What a replica has, as far as it is compared.
#[derive(PartialEq)]
struct Image {
    /// `None` when only requests are compared: the rest takes long to read.
    rooms: Option<Hash>,
    /// Of each message: its seq, its body's hash, and its time.
    remembered: Vec<Option<(Seq, [u8; 16], u64)>>,
}

/// What differs between replicas of a shard that have applied up to the same entry: what they
/// remember of these messages; of all rooms everything, if `whole`.
pub fn replicas(cluster: &Cluster, sent: &[Sent], whole: bool) -> Vec<String> {
    let mut images = BTreeMap::new();
    let mut wrong = vec![];
    for node in cluster.nodes.values() {
        let Some(running) = node.running() else { continue };
        for shard in running.router.host().all() {
            let image = cluster.look(node, || image(&shard, sent, whole));
            let Some((applied, here)) = image else { continue };
            let key = (shard.id(), applied);
            let Some((first, there)) = images.get(&key) else {
                images.insert(key, (node.id, here));
                continue;
            };
            if *there == here {
                continue;
            }
            wrong.push(match there.rooms == here.rooms {
                true => format!(
                    "dedup: nodes {first} and {} remember other requests of shard {}",
                    node.id,
                    shard.id()
                ),
                false => format!(
                    "replicas of shard {} differ on nodes {first} and {}",
                    shard.id(),
                    node.id
                ),
            });
        }
    }
    wrong
}

/// Up to which entry a replica has applied, and what it has then.
fn image(shard: &Shard<Sim>, sent: &[Sent], whole: bool) -> (Option<(u64, u64)>, Image) {
    let state = shard.replica().read();
    let remembered = sent.iter().map(|sent| {
        let scope = Scope::Room(sent.room.clone());
        let found = state.sent(&scope, &sent.request.actor.user, sent.request.id);
        found.map(|found| (found.seq, found.body_hash, found.at_ms))
    });
    let image =
        Image { rooms: whole.then(|| state.rooms_digest()), remembered: remembered.collect() };
    (state.applied().log_id, image)
}
