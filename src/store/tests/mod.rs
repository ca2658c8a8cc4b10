//! Tests of the replicated state as a whole: against a model, with crashes, and its speed.

mod crash;
mod golden;
mod model;
pub(crate) mod random;
mod snapshots;
mod speed;

use std::sync::Arc;

use crate::id::ShardId;
use crate::store::base::{Base, MemoryBase};
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
        assert!(written.clean_error().is_none());
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
