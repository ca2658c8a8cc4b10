//! Trimmed events leave the base, and nothing else does.

use std::sync::Arc;

use super::random::{Random, new_room, post, user_id};
use super::{SHARD, assert_tidy, checkpoint, open, rows_of};
use crate::chat::state::{Room, State, StateMut};
use crate::id::{RequestId, RoomId, Seq};
use crate::store::base::MemoryBase;
use crate::store::block::RoomBlocks;
use crate::store::compact;
use crate::store::key::{self, Key};
use crate::store::snapshot::{Chunk, Sending};
use crate::store::snapshot_sink::SnapshotSink;
use crate::store::state::{Applied, ShardState};

const NOW: u64 = 1_700_000_000_000;

fn room() -> RoomId {
    RoomId::parse("general").unwrap()
}

/// Posts messages with these numbers in them.
fn say(state: &mut ShardState, numbers: std::ops::Range<u64>, random: &mut Random) {
    state.advance_log_time(NOW);
    for n in numbers {
        let text = format!("number {n:05} {}", random.noise(n as usize % 700));
        let id = RequestId::mint(NOW, random.bytes());
        post(state, &room(), &user_id(1), id, [n as u8; 16], text);
        state.set_applied(Applied { log_id: Some((1, n)), membership: "m".into() });
    }
}

/// Drops what is below `first`, as the rules do.
fn trim(state: &mut ShardState, first: u64) {
    let mut row = Room::clone(&state.room(&room()).unwrap());
    for event in state.events(&room(), row.first_seq, Seq(first - 1), 9999, usize::MAX) {
        row.chain_base = event.chain(&row.chain_base);
    }
    row.first_seq = Seq(first);
    state.put_room(row);
    state.forget_events(&room(), Seq(first));
}

/// The seqs of events that the base has in blocks, whoever may read them.
fn stored(base: &MemoryBase) -> Vec<u64> {
    let mut seqs = Vec::new();
    for (key, value) in rows_of(base) {
        let Some((space, Key::Block(room, lineage, first))) = key::decode(&key) else { continue };
        let blocks = RoomBlocks { space, room: &room, lineage };
        let run = blocks.decode(base, (first, value)).unwrap();
        seqs.extend(run.events(first).map(|(seq, _)| seq.0));
    }
    seqs
}

fn assert_reads(state: &ShardState, first: u64, head: u64) {
    let row = state.room(&room()).unwrap();
    assert_eq!((row.first_seq, row.head), (Seq(first), Seq(head)));
    let events = state.events(&room(), Seq(1), Seq(u64::MAX), 9999, usize::MAX);
    let seqs: Vec<u64> = events.iter().map(|event| event.seq.0).collect();
    assert_eq!(seqs, (first..=head).collect::<Vec<_>>());
    let chain = events.iter().fold(row.chain_base, |chain, event| event.chain(&chain));
    assert_eq!(chain, row.chain);
}

#[test]
fn what_is_trimmed_leaves_the_base_with_the_next_checkpoint() {
    let mut random = Random(7);
    let base = Arc::new(MemoryBase::new());
    let mut state = open(&base);
    state.put_room(new_room(&room(), NOW, 1));
    let (mut said, mut first) = (0, 1);
    for round in 0..60u64 {
        let many = 1 + random.below(40);
        say(&mut state, said..said + many, &mut random);
        said += many;
        checkpoint(&mut state);
        if round % 3 == 0 {
            first = (first + random.below(60)).min(said);
            trim(&mut state, first);
            assert_reads(&state, first, said);
            checkpoint(&mut state);
            assert_eq!(stored(&base), (first..=said).collect::<Vec<_>>(), "round {round}");
        }
        assert_reads(&state, first, said);
    }
    assert_tidy(base.as_ref());
    assert_reads(&open(&base), first, said);
}

#[test]
fn what_a_crash_left_of_trimmed_events_goes_when_it_is_looked_for() {
    let mut random = Random(8);
    let base = Arc::new(MemoryBase::new());
    let mut state = open(&base);
    state.put_room(new_room(&room(), NOW, 1));
    say(&mut state, 0..100, &mut random);
    checkpoint(&mut state);
    trim(&mut state, 51);
    // While a snapshot is sent, everything stays.
    let source = state.begin_snapshot().unwrap();
    checkpoint(&mut state);
    assert!(state.trimming_waits());
    assert_eq!(stored(&base).len(), 100);
    drop(source);
    let mut state = open(&base);
    assert_reads(&state, 51, 100);
    state.look_for_trimmed();
    checkpoint(&mut state);
    assert!(!state.trimming_waits());
    assert_eq!(stored(&base), (51..=100).collect::<Vec<_>>());
    let compacted = Arc::new(MemoryBase::new());
    compact::rewrite(base.as_ref(), compacted.as_ref(), &mut |_| {}).unwrap();
    assert_eq!(stored(&compacted), (51..=100).collect::<Vec<_>>());
    assert_reads(&open(&compacted), 51, 100);
}

#[test]
fn a_receiver_that_has_only_what_was_trimmed_goes_on_from_the_gap() {
    let mut random = Random(9);
    let mut sender = open(&Arc::new(MemoryBase::new()));
    sender.put_room(new_room(&room(), NOW, 1));
    let base = Arc::new(MemoryBase::new());
    let mut receiver = open(&base);
    receiver.put_room(new_room(&room(), NOW, 1));
    for state in [&mut sender, &mut receiver] {
        say(state, 0..20, &mut Random(3));
        checkpoint(state);
    }
    say(&mut sender, 20..90, &mut random);
    trim(&mut sender, 61);
    checkpoint(&mut sender);
    let mut sink = SnapshotSink::new(receiver.base().clone(), SHARD).unwrap();
    let mut sending = Sending::new(sender.begin_snapshot().unwrap());
    let have: Vec<_> = sink.have().map(|h| (h.room.clone(), h.epoch.clone(), h.head)).collect();
    sending.skip(have);
    while let Some(chunk) = sending.next_chunk().unwrap() {
        match chunk {
            Chunk::Blocks(blocks) => sink.put_blocks(&blocks).unwrap(),
            Chunk::Rows(rows) => sink.put_rows(&rows).unwrap(),
        }
    }
    receiver.install(sink.finish().unwrap()).unwrap();
    assert_reads(&receiver, 61, 90);
    assert_eq!(receiver.rooms_digest(), sender.rooms_digest());
    // Small blocks on both sides of the gap are not merged over it.
    for many in 0..40 {
        say(&mut receiver, 90 + many..91 + many, &mut random);
        checkpoint(&mut receiver);
    }
    assert_reads(&receiver, 61, 130);
    receiver.look_for_trimmed();
    checkpoint(&mut receiver);
    assert_eq!(stored(&base), (61..=130).collect::<Vec<_>>());
}
