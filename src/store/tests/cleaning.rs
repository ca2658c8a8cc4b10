//! Cleaning that fails in one place goes on in all others.

use std::sync::Arc;

use super::random::{Random, post, room_id, user_id};
use super::{checkpoint, open, rows_of};
use crate::chat::state::{Room, State, StateMut};
use crate::id::{RequestId, RoomId, Seq};
use crate::store::base::{Base, Batch, MemoryBase};
use crate::store::key::{self, Key, tag};
use crate::store::state::ShardState;

const NOW: u64 = 1_700_000_000_000;
const DAY_MS: u64 = 24 * 3_600_000;

fn say(state: &mut ShardState, room: &RoomId, random: &mut Random, text: String) {
    let id = RequestId::mint(state.log_time_ms(), random.bytes());
    post(state, room, &user_id(1), id, random.bytes(), text);
}

fn forget(state: &mut ShardState, room: &RoomId, first: Seq) {
    let row = Room::clone(&state.room(room).unwrap());
    state.put_room(Room { first_seq: first, ..row });
    state.forget_events(room, first);
}

/// The keys of a room's blocks, in order.
fn blocks(base: &MemoryBase, room: &RoomId) -> Vec<Vec<u8>> {
    let keys = rows_of(base).into_iter().map(|(key, _)| key);
    let of_room =
        |key: &Vec<u8>| matches!(key::decode(key), Some((_, Key::Block(of, ..))) if of == *room);
    keys.filter(of_room).collect()
}

/// Puts something into the place of blocks.
fn damage(base: &MemoryBase, keys: Vec<Vec<u8>>) {
    let mut batch = Batch::new();
    keys.into_iter().for_each(|key| batch.put(key, b"no block".to_vec()));
    base.write(batch).unwrap();
}

#[test]
fn what_can_be_cleaned_is_although_something_else_cannot() {
    let base = Arc::new(MemoryBase::new());
    let mut state = open(&base);
    let mut random = Random(11);
    // Rooms are cleaned in this order.
    let [bad, erased, bad_too, trimmed] = [0, 1, 2, 3].map(room_id);
    state.advance_log_time(NOW);
    for room in [&erased, &bad, &trimmed, &bad_too] {
        (0..20).for_each(|_| say(&mut state, room, &mut random, "a secret".into()));
    }
    checkpoint(&mut state);
    state.advance_log_time(NOW + 8 * DAY_MS);
    state.erase_body(&bad, Seq(3));
    state.erase_body(&erased, Seq(3));
    forget(&mut state, &bad_too, Seq(11));
    forget(&mut state, &trimmed, Seq(11));
    let running = state.begin_checkpoint().unwrap();
    damage(&base, blocks(&base, &bad));
    damage(&base, blocks(&base, &bad_too));
    let written = running.write().unwrap();

    let left: Vec<_> = written.uncleaned().iter().map(|it| it.what).collect();
    assert_eq!(left, ["erased texts", "trimmed events"]);
    let sent = rows_of(base.as_ref()).iter().filter(|(key, _)| key[2] == tag::SENT).count();
    assert_eq!(sent, 0, "all request ids are older than the horizon");
    state.finish_checkpoint(written);
    let of = |room: &RoomId| {
        let events = state.events(room, Seq(1), Seq(99), 99, usize::MAX);
        events.iter().map(|event| event.seq.0).collect::<Vec<_>>()
    };
    assert_eq!(of(&erased), (1..=20).collect::<Vec<_>>());
    assert_eq!(of(&trimmed), (11..=20).collect::<Vec<_>>());
    // Only what failed is tried again.
    let again = state.begin_checkpoint().unwrap();
    assert_eq!((again.erasing, again.trimming), (vec![(bad, Seq(3))], vec![(bad_too, Seq(11))]));
}

#[test]
fn a_damaged_block_keeps_nothing_of_its_room_but_what_is_in_it() {
    let base = Arc::new(MemoryBase::new());
    let mut state = open(&base);
    let mut random = Random(12);
    let [erased, trimmed] = [0, 1].map(room_id);
    state.advance_log_time(NOW);
    for room in [&erased, &trimmed] {
        for _ in 0..60 {
            // Nothing that packs: a room has several blocks, each with several events.
            let text = (0..20).map(|_| RequestId::mint(1, random.bytes()).to_string()).collect();
            say(&mut state, room, &mut random, text);
        }
    }
    checkpoint(&mut state);
    let (first, last) = (blocks(&base, &erased).remove(0), blocks(&base, &trimmed).pop().unwrap());
    assert!((3..30).contains(&blocks(&base, &trimmed).len()));
    [1, 59].iter().for_each(|seq| state.erase_body(&erased, Seq(*seq)));
    forget(&mut state, &trimmed, Seq(60));
    let running = state.begin_checkpoint().unwrap();
    damage(&base, vec![first, last.clone()]);
    let written = running.write().unwrap();
    assert_eq!(written.uncleaned().len(), 2);
    state.finish_checkpoint(written);
    assert_eq!(blocks(&base, &trimmed), [last]);
    assert_eq!(state.begin_checkpoint().unwrap().erasing, [(erased, Seq(1))]);
}
