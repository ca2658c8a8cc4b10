//! Tests of the replicated state as a whole: against a model, with crashes, and its speed.

mod cleaning;
mod crash;
mod golden;
mod model;
pub(crate) mod random;
mod snapshots;
mod speed;
mod sums;
mod trimming;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::{RoomId, ShardId};
use crate::store::base::{Base, MemoryBase};
use crate::store::block::{Header, RoomBlocks};
use crate::store::codec;
use crate::store::key::{self, Key};
use crate::store::recovery;
use crate::store::state::{Applied, ShardState, StateOptions};

const SHARD: ShardId = ShardId(3);

/// Small caches, so that what is evicted is read back.
fn small() -> StateOptions {
    StateOptions {
        rows_bytes: 4000,
        events_bytes: 20_000,
        dedup_bytes: 4000,
        ..StateOptions::default()
    }
}

fn open(base: &Arc<MemoryBase>) -> ShardState {
    ShardState::open(base.clone(), SHARD, small()).unwrap()
}

/// The index up to which entries are applied.
fn index(applied: &Applied) -> u64 {
    applied.log_id.map_or(0, |(_, index)| index)
}

fn checkpoint(state: &mut ShardState) {
    if let Some(checkpoint) = state.begin_checkpoint() {
        let written = checkpoint.write().unwrap();
        assert!(written.uncleaned().is_empty());
        state.finish_checkpoint(written);
    }
}

/// Applies entries after `state.applied()` up to `last`.
fn apply_to(state: &mut ShardState, seed: u64, last: u64) {
    for index in index(state.applied()) + 1..=last {
        random::step(state, seed, index);
        let membership = format!("membership at {index}").into();
        state.set_applied(Applied { log_id: Some((1, index)), membership });
    }
}

fn rows_of(base: &dyn Base) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let all = vec![0]..vec![255; 8];
    base.scan(&all, crate::store::base::Order::Forward, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    rows
}

/// Asserts that the blocks in the base are what the heads say: each event once, in order, and no
/// part, block or marker besides. `base` must not have more than one shard.
fn assert_tidy(base: &dyn Base) {
    let found = recovery::look(base, SHARD).unwrap();
    let (mut heads, mut next, mut parts) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let mut kept = BTreeMap::new();
    let lineage = |room: &RoomId| found.lineages.get(room).copied().unwrap_or(0);
    let rows = rows_of(base);
    for (key, value) in &rows {
        if let Some((space, Key::Room(room))) = key::decode(key) {
            assert_eq!(space, found.space, "rows of the bank that does not count");
            let row = codec::room_from(&room, value).unwrap();
            kept.insert((room.clone(), lineage(&room)), row.first_seq);
            next.insert((room.clone(), lineage(&room)), row.first_seq);
            heads.insert((room.clone(), lineage(&room)), row.head);
        }
    }
    for (key, value) in &rows {
        match key::decode(key).unwrap().1 {
            Key::Block(room, of, first) => {
                let blocks = RoomBlocks { space: found.space, room: &room, lineage: of };
                let run = blocks.decode(base, (first, value.clone())).unwrap();
                let next = next.get_mut(&(room.clone(), of)).expect("a block of a room that is");
                let kept = kept[&(room.clone(), of)];
                // Trimmed before a crash: nobody reads it, and the next compaction removes it.
                if first < kept {
                    *next = (*next).max(run.next());
                    continue;
                }
                assert_eq!(*next, first, "blocks of {room} overlap or leave a hole");
                *next = run.next();
                if Header::of(value).unwrap().is_in_parts() {
                    parts.insert((room, of, first));
                }
            }
            Key::BlockPart(room, of, first, _) => {
                let trimmed = first < kept[&(room.clone(), of)];
                assert!(trimmed || parts.contains(&(room, of, first)), "a part without its block");
            }
            Key::Unfinished => panic!("the marker is left"),
            _ => {}
        }
    }
    for (room, head) in heads {
        assert_eq!(next[&room], head.next(), "blocks up to the head of {room:?}");
    }
}
