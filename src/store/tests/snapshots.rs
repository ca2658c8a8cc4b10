//! Snapshots between two bases, and compaction.

use std::io;
use std::sync::Arc;

use super::model::compare;
use super::random::{self, Random, new_room, post, room_id, user_id};
use super::{SHARD, apply_to, assert_tidy, checkpoint, index, open, rows_of, small};
use crate::chat::event::Body;
use crate::chat::memory::Memory;
use crate::chat::state::{Room, State, StateMut};
use crate::id::{Epoch, RequestId, Seq, ShardId};
use crate::store::base::{Base, Batch, MemoryBase};
use crate::store::compact;
use crate::store::sled_base::{SledBase, SledOptions};
use crate::store::snapshot::SnapshotSource;
use crate::store::snapshot_sink::{Received, SnapshotSink};
use crate::store::state::{Applied, ShardState};

fn model(seed: u64, last: u64) -> Memory {
    let mut model = Memory::default();
    (1..=last).for_each(|index| random::step(&mut model, seed, index));
    model
}

/// Sends everything that the sink lacks; `between` runs between chunks.
fn send(
    source: &SnapshotSource,
    mut sink: SnapshotSink,
    mut between: impl FnMut(),
) -> io::Result<Received> {
    let have: Vec<_> = sink.have().cloned().collect();
    for room in source.rooms() {
        let known = have.iter().find(|h| h.room == room.room && h.epoch == room.epoch);
        let above = known.map_or(Seq(0), |known| known.head);
        for chunk in source.blocks(room, above) {
            let chunk = chunk?;
            assert!(chunk.len() < 600_000);
            sink.put_blocks(&chunk)?;
            between();
        }
    }
    for chunk in source.rows() {
        sink.put_rows(&chunk?)?;
        between();
    }
    sink.finish()
}

fn install(source: &SnapshotSource, state: &mut ShardState) -> io::Result<()> {
    let sink = SnapshotSink::new(state.base().clone(), SHARD)?;
    let received = send(source, sink, || {})?;
    state.install(received)
}

#[test]
fn a_snapshot_carries_the_whole_state() {
    for (seed, behind) in [(1, 0), (2, 100), (3, 250), (4, 299), (5, 300)] {
        let mut sender = open(&Arc::new(MemoryBase::new()));
        let base = Arc::new(MemoryBase::new());
        let mut receiver = open(&base);
        for last in (20..=300).step_by(20) {
            apply_to(&mut sender, seed, last);
            checkpoint(&mut sender);
            apply_to(&mut receiver, seed, last.min(behind));
            checkpoint(&mut receiver);
        }
        apply_to(&mut receiver, seed, behind.min(300)); // not durable: discarded
        let source = sender.begin_snapshot().unwrap();
        assert_eq!(source.applied(), sender.durable());
        install(&source, &mut receiver).unwrap();
        drop(source);
        assert_eq!(receiver.applied(), sender.durable());
        compare(&receiver, &model(seed, 300));
        for state in [&mut sender, &mut receiver] {
            apply_to(state, seed, 400);
            checkpoint(state);
            compare(state, &model(seed, 400));
        }
        assert_eq!(sender.rooms_digest(), receiver.rooms_digest());
        let reopened = open(&base);
        assert_tidy(base.as_ref());
        compare(&reopened, &model(seed, 400));
        // And back again, from the other bank.
        let source = reopened.begin_snapshot().unwrap();
        let mut third = open(&Arc::new(MemoryBase::new()));
        install(&source, &mut third).unwrap();
        compare(&third, &model(seed, 400));
    }
}

#[test]
fn a_snapshot_is_of_one_moment_though_the_sender_goes_on() {
    let seed = 11;
    let mut sender = open(&Arc::new(MemoryBase::new()));
    for last in (2..=200).step_by(2) {
        apply_to(&mut sender, seed, last);
        checkpoint(&mut sender);
    }
    let source = sender.begin_snapshot().unwrap();
    let mut receiver = open(&Arc::new(MemoryBase::new()));
    let sink = SnapshotSink::new(receiver.base().clone(), SHARD).unwrap();
    let mut last = 200;
    let received = send(&source, sink, || {
        last += 5;
        apply_to(&mut sender, seed, last);
        checkpoint(&mut sender);
    });
    receiver.install(received.unwrap()).unwrap();
    assert!(last > 220);
    assert_eq!(index(receiver.applied()), 200);
    let visible = |state: &ShardState| {
        state
            .rooms(None, 99)
            .into_iter()
            .map(|room| (room.id.clone(), room.head))
            .collect::<Vec<_>>()
    };
    let expected = model(seed, 200);
    let rooms = expected.rooms(None, 99);
    assert_eq!(
        visible(&receiver),
        rooms.iter().map(|r| (r.id.clone(), r.head)).collect::<Vec<_>>()
    );
    for (scope, sender, id) in expected.sent.keys() {
        assert_eq!(receiver.sent(scope, sender, *id), expected.sent(scope, sender, *id));
    }
    // Bodies erased meanwhile may be gone already; the log erases them anyway.
    apply_to(&mut receiver, seed, last);
    checkpoint(&mut receiver);
    compare(&receiver, &model(seed, last));
}

#[test]
fn a_crash_while_receiving_leaves_the_old_state_or_the_new() {
    let seed = 21;
    let mut sender = open(&Arc::new(MemoryBase::new()));
    apply_to(&mut sender, seed, 150);
    checkpoint(&mut sender);
    apply_to(&mut sender, seed, 260);
    checkpoint(&mut sender);
    let mut done = false;
    for operation in 0..200 {
        for kept in [0, 2, usize::MAX] {
            let base = Arc::new(MemoryBase::new());
            let mut receiver = open(&base);
            apply_to(&mut receiver, seed, 70);
            checkpoint(&mut receiver);
            apply_to(&mut receiver, seed, 90);
            base.fail_after(Some(operation));
            let source = sender.begin_snapshot().unwrap();
            done = install(&source, &mut receiver).is_ok();
            base.crash_keeping(kept);
            let mut receiver = open(&base);
            assert_tidy(base.as_ref());
            let applied = index(receiver.applied());
            assert!(applied == 70 || applied == 260, "{applied}");
            assert!(!done || applied == 260);
            compare(&receiver, &model(seed, applied));
            // Either can go on, and receive once more.
            if applied == 70 {
                apply_to(&mut receiver, seed, 100);
                checkpoint(&mut receiver);
                compare(&receiver, &model(seed, 100));
                install(&source, &mut receiver).unwrap();
            }
            apply_to(&mut receiver, seed, 280);
            checkpoint(&mut receiver);
            compare(&open(&base), &model(seed, 280));
            assert_tidy(base.as_ref());
        }
        if done {
            break;
        }
    }
    assert!(done);
}

/// Says `texts` in a room and checkpoints.
fn say(state: &mut ShardState, room: u64, texts: &[String]) {
    let mut random = Random(texts.len() as u64 + room);
    state.advance_log_time(1_700_000_000_000);
    for text in texts {
        let id = RequestId::mint(1_700_000_000_000, random.bytes());
        post(state, &room_id(room), &user_id(1), id, random.bytes(), text.clone());
    }
    state.set_applied(Applied { log_id: Some((1, 1)), ..Applied::default() });
    checkpoint(state);
}

fn texts(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix} {n}")).collect()
}

fn all_texts(state: &ShardState, room: u64) -> Vec<String> {
    let events = state.events(&room_id(room), Seq(1), Seq(u64::MAX), usize::MAX, usize::MAX);
    events.iter().map(|event| event.body.text().to_string()).collect()
}

#[test]
fn rooms_of_another_epoch_are_replaced_and_unknown_ones_dropped() {
    let mut sender = open(&Arc::new(MemoryBase::new()));
    say(&mut sender, 1, &texts("new", 40));
    let base = Arc::new(MemoryBase::new());
    let mut receiver = open(&base);
    for round in 0..3u64 {
        // Whatever the receiver has: other events, more events, other rooms.
        let row = new_room(&room_id(1), 0, 77 + round);
        if round == 0 {
            receiver.put_room(row);
            say(&mut receiver, 1, &texts("old", 100));
        } else {
            let row = receiver.room(&room_id(1)).unwrap();
            let epoch = Epoch::mint([round as u8; 8]);
            receiver.put_room(Room { epoch, ..(*row).clone() });
        }
        say(&mut receiver, 2, &texts("extra", 30));
        let before = receiver.rooms_digest();
        let source = sender.begin_snapshot().unwrap();
        let sink = SnapshotSink::new(base.clone(), SHARD).unwrap();
        let received = send(&source, sink, || {}).unwrap();
        let crashed = open_crashed(&base);
        assert_eq!(crashed.rooms_digest(), before, "still the old state");
        assert_tidy(crashed.base().as_ref());
        let _ = received;
        install(&source, &mut receiver).unwrap();
        assert_eq!(all_texts(&receiver, 1), texts("new", 40));
        assert_eq!(receiver.rooms(None, 9).len(), 1);
        assert_eq!(receiver.rooms_digest(), sender.rooms_digest());
        let rows = rows_of(base.as_ref());
        let words = |word: &str| {
            rows.iter().any(|(_, v)| v.windows(word.len()).any(|w| w == word.as_bytes()))
        };
        assert!(!words("old 1") && !words("extra 1"), "nothing is left behind");
    }
}

/// Opens a copy of the base, as a restart would find it.
fn open_crashed(base: &MemoryBase) -> ShardState {
    let copy = Arc::new(MemoryBase::new());
    let mut batch = crate::store::base::Batch::new();
    rows_of(base).into_iter().for_each(|(key, value)| batch.put(key, value));
    copy.write(batch).unwrap();
    ShardState::open(copy, SHARD, small()).unwrap()
}

#[test]
fn what_the_receiver_has_and_the_sender_erased_is_erased() {
    let mut sender = open(&Arc::new(MemoryBase::new()));
    let base = Arc::new(MemoryBase::new());
    let mut receiver = open(&base);
    say(&mut sender, 1, &texts("secret", 30));
    say(&mut receiver, 1, &texts("secret", 30));
    for seq in [3, 9] {
        sender.erase_body(&room_id(1), Seq(seq));
    }
    checkpoint(&mut sender);
    checkpoint(&mut sender);
    let source = sender.begin_snapshot().unwrap();
    install(&source, &mut receiver).unwrap();
    let erased = |state: &ShardState| {
        let events = state.events(&room_id(1), Seq(1), Seq(30), 30, usize::MAX);
        let erased = events.iter().filter(|event| matches!(event.body, Body::Erased { .. }));
        erased.map(|event| event.seq.0).collect::<Vec<_>>()
    };
    assert_eq!(erased(&receiver), [3, 9]);
    checkpoint(&mut receiver);
    assert!(receiver.begin_checkpoint().is_none());
    let reopened = open(&base);
    assert_eq!(erased(&reopened), [3, 9]);
    assert_eq!(reopened.rooms_digest(), sender.rooms_digest());
}

#[test]
fn damaged_and_incomplete_snapshots_are_refused() {
    let mut sender = open(&Arc::new(MemoryBase::new()));
    say(&mut sender, 1, &texts("a", 3000));
    let source = sender.begin_snapshot().unwrap();
    let room = &source.rooms()[0];
    let blocks: Vec<_> = source.blocks(room, Seq(0)).map(Result::unwrap).collect();
    let rows: Vec<_> = source.rows().map(Result::unwrap).collect();
    let sink = || SnapshotSink::new(Arc::new(MemoryBase::new()), SHARD).unwrap();
    assert!(sink().finish().is_err(), "nothing received");
    let mut no_blocks = sink();
    rows.iter().for_each(|chunk| no_blocks.put_rows(chunk).unwrap());
    assert!(no_blocks.finish().unwrap_err().to_string().contains("up to 0 and not 3000"));
    let mut random = Random(1);
    for chunk in blocks.iter().chain(&rows) {
        for _ in 0..300 {
            let mut chunk = chunk.to_vec();
            let at = random.below(chunk.len().min(2000) as u64) as usize;
            chunk[at] ^= 1 << random.below(8);
            chunk.truncate(chunk.len() - random.below(3) as usize);
            // Refused or taken, never a panic.
            let _ = sink().put_blocks(&chunk);
            let _ = sink().put_rows(&chunk);
        }
    }
    let empty = open(&Arc::new(MemoryBase::new()));
    assert!(empty.begin_snapshot().is_err(), "no checkpoint yet");
    assert_eq!(empty.shared.sources.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[test]
fn compaction_keeps_the_state_and_no_erased_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let base = SledBase::open(&path("old"), &SledOptions::default()).unwrap();
    let base: Arc<dyn Base> = Arc::new(base);
    let mut states =
        [3, 4].map(|shard| ShardState::open(base.clone(), ShardId(shard), small()).unwrap());
    let mut random = Random(99);
    let secrets: Vec<String> =
        (0..6).map(|n| random.noise(if n == 0 { 20_000 } else { 64 })).collect();
    let mut said = texts("public", 50);
    said.extend(secrets.iter().cloned());
    said.extend(texts("public", 50));
    for (seed, state) in (50..).zip(&mut states) {
        apply_to(state, seed, 150);
        say(state, 100, &said);
        for seq in 51..=56 {
            state.erase_body(&room_id(100), Seq(seq));
        }
        checkpoint(state);
    }
    let digests = states.map(|state| state.rooms_digest());
    let new = SledBase::open(&path("new"), &SledOptions::default()).unwrap();
    let mut progress = Vec::new();
    compact::rewrite(base.as_ref(), &new, &mut |bytes| progress.push(bytes)).unwrap();
    assert!(progress.is_sorted() && progress.last() > Some(&10_000));
    assert!(compact::rewrite(base.as_ref(), &new, &mut |_| {}).is_err(), "not empty");
    let new: Arc<dyn Base> = Arc::new(new);
    for (digest, shard) in digests.iter().zip([3, 4]) {
        let state = ShardState::open(new.clone(), ShardId(shard), small()).unwrap();
        assert_eq!(state.rooms_digest(), *digest);
        let words = all_texts(&state, 100).join(" ");
        assert!(secrets.iter().all(|secret| !words.contains(secret.as_str())));
        assert!(words.contains("public 49"));
    }
    drop(new);
    let holds = |name: &str, secret: &str| {
        let files = std::fs::read_dir(path(name)).unwrap().flatten();
        files.filter(|file| file.path().is_file()).any(|file| {
            let bytes = std::fs::read(file.path()).unwrap();
            bytes.windows(32).any(|window| window == &secret.as_bytes()[..32])
        })
    };
    // The test can find what is there …
    assert!(secrets.iter().any(|secret| holds("old", secret)), "sled keeps freed segments");
    // … and finds nothing where it must not be.
    assert!(secrets.iter().all(|secret| !holds("new", secret)));
}

#[test]
fn compaction_leaves_out_what_is_still_to_be_erased_and_what_no_head_covers() {
    let seed = 70;
    for operation in 0..20 {
        let base = Arc::new(MemoryBase::new());
        let mut state = open(&base);
        apply_to(&mut state, seed, 150);
        checkpoint(&mut state);
        apply_to(&mut state, seed, 300);
        base.fail_after(Some(operation));
        let _ = state.begin_checkpoint().unwrap().write();
        base.crash_keeping(usize::MAX);
        let new = Arc::new(MemoryBase::new());
        compact::rewrite(base.as_ref(), new.as_ref(), &mut |_| {}).unwrap();
        let applied = index(open(&base).applied());
        let mut compacted = open(&new);
        assert_eq!(index(compacted.applied()), applied);
        compare(&compacted, &model(seed, applied));
        apply_to(&mut compacted, seed, 320);
        checkpoint(&mut compacted);
        compare(&open(&new), &model(seed, 320));
        assert_tidy(new.as_ref());
    }
}

/// Puts a compacted copy in the place of what a base has, under whoever has it open.
fn compact_under(base: &MemoryBase) {
    let new = MemoryBase::new();
    compact::rewrite(base, &new, &mut |_| {}).unwrap();
    let mut batch = Batch::new();
    rows_of(base).into_iter().for_each(|(key, _)| batch.delete(key));
    rows_of(&new).into_iter().for_each(|(key, value)| batch.put(key, value));
    base.write(batch).unwrap();
    base.flush().unwrap();
}

#[test]
fn a_state_goes_on_while_its_base_is_compacted() {
    for seed in 80..90 {
        let base = Arc::new(MemoryBase::new());
        let mut state = open(&base);
        // Other histories of the same rooms: other lineages after the snapshot.
        apply_to(&mut state, seed + 1000, 60);
        for room in state.rooms(None, 99) {
            state.put_room(Room { epoch: Epoch::mint([2; 8]), ..(*room).clone() });
        }
        checkpoint(&mut state);
        let mut sender = open(&Arc::new(MemoryBase::new()));
        apply_to(&mut sender, seed, 60);
        checkpoint(&mut sender);
        install(&sender.begin_snapshot().unwrap(), &mut state).unwrap();
        assert_eq!((state.space.bank.0, state.lineages.is_empty()), (1, false));
        for last in (65..=400).step_by(5) {
            apply_to(&mut state, seed, last);
            if last % 3 != 0 {
                checkpoint(&mut state);
            }
            if last % 4 == 0 {
                compact_under(&base);
            }
        }
        compare(&state, &model(seed, 400));
        checkpoint(&mut state);
        compact_under(&base);
        compare(&open(&base), &model(seed, 400));
        assert_tidy(base.as_ref());
    }
}

#[test]
fn a_snapshot_given_up_leaves_nothing_and_cannot_be_installed_later() {
    let seed = 31;
    let mut sender = open(&Arc::new(MemoryBase::new()));
    apply_to(&mut sender, seed, 200);
    checkpoint(&mut sender);
    let source = sender.snapshots().begin().unwrap();
    let base = Arc::new(MemoryBase::new());
    let mut receiver = open(&base);
    apply_to(&mut receiver, seed, 40);
    checkpoint(&mut receiver);
    apply_to(&mut receiver, seed, 90);
    let received = send(&source, SnapshotSink::new(base.clone(), SHARD).unwrap(), || {}).unwrap();
    let mut late = SnapshotSink::new(base.clone(), SHARD).unwrap();
    assert!(receiver.install(received).is_err(), "another has begun");
    let room = &source.rooms()[0];
    late.put_blocks(&source.blocks(room, Seq(0)).next().unwrap().unwrap()).unwrap_err();
    let rows: Vec<_> = source.rows().map(Result::unwrap).collect();
    late.put_rows(&rows[0]).unwrap();
    for state in [90, 120] {
        apply_to(&mut receiver, seed, state);
        checkpoint(&mut receiver);
        compare(&receiver, &model(seed, state));
        compare(&open(&base), &model(seed, state));
        assert_tidy(base.as_ref());
    }
    assert!(late.put_rows(&rows[0]).is_err());
    assert!(late.finish().is_err());
    install(&source, &mut receiver).unwrap();
    compare(&receiver, &model(seed, 200));
}
