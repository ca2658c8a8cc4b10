//! What replicas compare is the same wherever it lies, and made anew from events.

use std::sync::Arc;

use super::{apply_to, checkpoint, open};
use crate::chat::state::{State, StateMut};
use crate::id::{Epoch, Seq};
use crate::store::base::MemoryBase;
use crate::store::state::ShardState;
use crate::store::sums::{ChainError, ChainPart, RoomSum};

const ENTRIES: u64 = 400;

fn start(sum: &RoomSum) -> ChainPart {
    let seq = Seq(sum.first_seq.0 - 1);
    ChainPart { seq, chain: sum.chain_base, notes: [0; 32], head: sum.head }
}

/// The whole chain of a room, so many events at a time.
fn chain(state: &ShardState, sum: &RoomSum, limit: usize) -> ChainPart {
    let mut part = start(sum);
    while part.seq < sum.head {
        part = state.room_chain(&sum.room, &sum.epoch, &part, sum.head, limit).unwrap();
    }
    part
}

#[test]
fn memory_and_base_come_to_the_same() {
    let (one, other) = (Arc::new(MemoryBase::new()), Arc::new(MemoryBase::new()));
    let (mut whole, mut stored) = (open(&one), open(&other));
    apply_to(&mut whole, 7, ENTRIES);
    for index in (50..=ENTRIES).step_by(50) {
        apply_to(&mut stored, 7, index);
        checkpoint(&mut stored);
    }
    drop(stored);
    let stored = open(&other);
    let sums = whole.room_sums(None, usize::MAX);
    assert!(sums.len() > 3, "too few rooms to say anything");
    assert_eq!(stored.room_sums(None, usize::MAX), sums);
    assert_eq!(stored.room_sums(Some(&sums[0].room), 1), sums[1..2]);
    for sum in &sums {
        assert_eq!(whole.room_sum(&sum.room).as_ref(), Some(sum));
        let made = chain(&whole, sum, usize::MAX);
        assert_eq!((made.seq, made.chain), (sum.head, sum.chain), "{}", sum.room);
        assert_eq!(chain(&stored, sum, usize::MAX), made);
        assert_eq!(chain(&stored, sum, 1), made, "parts may be of any size");
        assert_eq!(chain(&whole, sum, 7), made);
    }
}

#[test]
fn what_differs_is_seen() {
    let base = Arc::new(MemoryBase::new());
    let mut state = open(&base);
    apply_to(&mut state, 7, ENTRIES);
    let sums = state.room_sums(None, usize::MAX);
    let before = sums.iter().find(|sum| sum.head > Seq(3)).unwrap();
    let mut row = (*state.room(&before.room).unwrap()).clone();
    row.title.push('!');
    state.put_room(row.clone());
    let after = state.room_sum(&before.room).unwrap();
    assert_ne!(after.digest, before.digest);
    assert_eq!(after.chain, before.chain);

    // A head that the events do not reach.
    row.head = row.head.next();
    state.put_room(row.clone());
    let beyond = state.room_chain(&row.id, &row.epoch, &start(before), row.head, usize::MAX);
    assert_eq!(beyond, Err(ChainError::Missing(row.head)));
    let other = Epoch::parse("other").unwrap();
    let replaced = state.room_chain(&row.id, &other, &start(before), before.head, usize::MAX);
    assert_eq!(replaced, Err(ChainError::OtherHistory));
}
