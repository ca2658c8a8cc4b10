//! Crashes and failures at every point of a checkpoint, against the model.

use std::sync::Arc;

use super::model::compare;
use super::random::{self, Random, post, room_id, user_id};
use super::{SHARD, apply_to, assert_tidy, checkpoint, index, open, rows_of, small};
use crate::chat::event::Body;
use crate::chat::memory::Memory;
use crate::chat::state::{State, StateMut};
use crate::id::{RequestId, Seq};
use crate::store::base::{Base, Batch, KeyRange, MemoryBase, Order, Visit};
use crate::store::state::{ShardState, StateOptions};

fn model(seed: u64, last: u64) -> Memory {
    let mut model = Memory::default();
    (1..=last).for_each(|index| random::step(&mut model, seed, index));
    model
}

#[test]
fn state_agrees_with_the_model_whatever_is_checkpointed_or_evicted() {
    for seed in 0..6 {
        let base = Arc::new(MemoryBase::new());
        let mut state = open(&base);
        let mut random = Random(seed);
        let mut last = 0;
        for round in 0..25 {
            last += random.below(60);
            let running = (round % 3 == 0).then(|| state.begin_checkpoint()).flatten();
            apply_to(&mut state, seed, last);
            compare(&state, &model(seed, last));
            if let Some(running) = running {
                let written = running.write().unwrap();
                compare(&state, &model(seed, last));
                state.finish_checkpoint(written);
                compare(&state, &model(seed, last));
            }
            if round % 2 == 0 {
                checkpoint(&mut state);
                assert_tidy(base.as_ref());
                compare(&state, &model(seed, last));
            }
            if round % 7 == 6 {
                checkpoint(&mut state);
                assert!(!state.dirty());
                state = open(&base);
                assert_eq!(index(state.applied()), last);
                compare(&state, &model(seed, last));
            }
        }
    }
}

#[test]
fn a_crash_at_any_operation_leaves_an_older_state_that_replay_completes() {
    for seed in 100..108 {
        let mut expected = None;
        'operations: for operation in 0.. {
            for kept in [0, 1, 3, usize::MAX] {
                let base = Arc::new(MemoryBase::new());
                let mut state = open(&base);
                apply_to(&mut state, seed, 80);
                checkpoint(&mut state);
                apply_to(&mut state, seed, 120);
                checkpoint(&mut state);
                apply_to(&mut state, seed, 200);
                base.fail_after(Some(operation));
                let failed = match state.begin_checkpoint().unwrap().write() {
                    Ok(written) => !written.uncleaned().is_empty(),
                    Err(_) => true,
                };
                base.crash_keeping(kept);
                let mut state = open(&base);
                assert_tidy(base.as_ref());
                let durable = index(state.durable());
                assert!(durable == 120 || durable == 200, "{durable}");
                assert_eq!(state.durable(), state.applied());
                compare(&state, &model(seed, durable));
                apply_to(&mut state, seed, 260);
                checkpoint(&mut state);
                let model = expected.get_or_insert_with(|| model(seed, 260));
                compare(&state, model);
                compare(&open(&base), model);
                assert_tidy(base.as_ref());
                if !failed {
                    assert!(operation > 3, "the checkpoint took {operation} operations");
                }
                if !failed && kept == usize::MAX {
                    break 'operations;
                }
            }
        }
    }
}

#[test]
fn a_failed_checkpoint_is_made_up_for_by_the_next() {
    for seed in 200..206 {
        for (first, second) in [(0, 0), (1, 1), (2, 1), (3, 2), (1, 3), (4, 5), (2, 40)] {
            let base = Arc::new(MemoryBase::new());
            let mut state = open(&base);
            apply_to(&mut state, seed, 50);
            checkpoint(&mut state);
            for (budget, last) in [(first, 90), (second, 130)] {
                apply_to(&mut state, seed, last);
                base.fail_after(Some(budget));
                let running = state.begin_checkpoint().unwrap();
                apply_to(&mut state, seed, last + 10);
                match running.write() {
                    Ok(written) => drop(state.finish_checkpoint(written)),
                    Err(_) => state.abort_checkpoint(),
                }
                base.fail_after(None);
                compare(&state, &model(seed, last + 10));
            }
            // A crash now, and none at all.
            checkpoint(&mut state);
            assert_tidy(base.as_ref());
            compare(&state, &model(seed, 140));
            let mut reopened = open(&base);
            assert_eq!(index(reopened.applied()), 140);
            compare(&reopened, &model(seed, 140));
            apply_to(&mut reopened, seed, 170);
            checkpoint(&mut reopened);
            compare(&open(&base), &model(seed, 170));
            assert_tidy(base.as_ref());
        }
    }
}

#[test]
fn a_crash_after_a_failed_checkpoint_and_a_retry_is_harmless() {
    let seed = 300;
    for operation in 0..14 {
        let base = Arc::new(MemoryBase::new());
        let mut state = open(&base);
        apply_to(&mut state, seed, 60);
        checkpoint(&mut state);
        apply_to(&mut state, seed, 120);
        // Heads are written, and the flush fails.
        let running = state.begin_checkpoint().unwrap();
        let operations = base.operations();
        running.write().unwrap();
        let needed = base.operations() - operations;
        assert!(needed > 2);
        state.abort_checkpoint();
        apply_to(&mut state, seed, 150);
        base.fail_after(Some(operation));
        let _ = state.begin_checkpoint().unwrap().write();
        base.crash();
        let mut state = open(&base);
        assert_tidy(base.as_ref());
        let durable = index(state.applied());
        compare(&state, &model(seed, durable));
        apply_to(&mut state, seed, 200);
        checkpoint(&mut state);
        assert_tidy(base.as_ref());
        compare(&open(&base), &model(seed, 200));
    }
}

#[test]
fn replicas_agree_on_the_digest_whatever_their_checkpoints() {
    let (seed, last) = (400, 300);
    let digests = [1, 7, 50, 1000].map(|every| {
        let base = Arc::new(MemoryBase::new());
        let mut state = open(&base);
        for index in 1..=last {
            apply_to(&mut state, seed, index);
            if index % every == 0 {
                checkpoint(&mut state);
            }
        }
        state.rooms_digest()
    });
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    let mut other = open(&Arc::new(MemoryBase::new()));
    apply_to(&mut other, seed, last - 1);
    assert_ne!(other.rooms_digest(), digests[0]);
}

#[test]
fn erased_bodies_are_masked_at_once_and_soon_gone_from_the_rows() {
    let base = Arc::new(MemoryBase::new());
    let mut state = open(&base);
    let mut random = Random(5);
    let room = room_id(1);
    state.advance_log_time(1_700_000_000_000);
    let mut say = |state: &mut ShardState, text: String| {
        let id = RequestId::mint(1_700_000_000_000, random.bytes());
        post(state, &room, &user_id(1), id, random.bytes(), text);
    };
    let secret = "correct-horse-battery-staple";
    say(&mut state, secret.repeat(400)); // long, in parts
    (0..20).for_each(|n| say(&mut state, format!("{n}: {secret}")));
    checkpoint(&mut state);
    (0..20).for_each(|n| say(&mut state, format!("{n}: {secret}")));
    let running = state.begin_checkpoint().unwrap();
    (0..20).for_each(|n| say(&mut state, format!("{n}: {secret}")));
    for seq in 1..=61 {
        state.erase_body(&room, Seq(seq));
        let event = &state.events(&room, Seq(seq), Seq(seq), 1, 0)[0];
        assert!(matches!(event.body, Body::Erased { .. }), "event {seq}");
    }
    let all = |state: &ShardState| state.events(&room, Seq(1), Seq(99), 100, usize::MAX);
    let erased = all(&state);
    let written = running.write().unwrap();
    assert_eq!(all(&state), erased);
    state.finish_checkpoint(written);
    assert_eq!(all(&state), erased);
    checkpoint(&mut state);
    assert_eq!(all(&open(&base)), erased);
    let words = format!("{:?}", rows_of(base.as_ref()));
    assert!(!words.contains(format!("{:?}", secret.as_bytes()).trim_matches(['[', ']'])));
    assert!(state.begin_checkpoint().is_none(), "nothing left to erase");
}

#[test]
fn memory_stays_within_its_bounds() {
    let base = Arc::new(MemoryBase::new());
    let mut state = open(&base);
    let options = small();
    let bound = options.rows_bytes * 5 + options.events_bytes + options.dedup_bytes;
    let mut random = Random(9);
    for n in 0..20_000u64 {
        state.advance_log_time(1_700_000_000_000 + n * 20);
        let id = RequestId::mint(1_700_000_000_000 + n * 20, random.bytes());
        let room = room_id(n * 7 % 4000);
        post(&mut state, &room, &user_id(n % 50), id, random.bytes(), "hello".repeat(20));
        state.participant(&room, &user_id(n));
        state.user(&user_id(n));
        if n % 1000 == 999 {
            assert!(state.overlay_bytes() > 100_000);
            checkpoint(&mut state);
            assert_eq!(state.overlay_bytes(), 0);
            // What was evicted of the dedup index is remembered by its hash.
            assert!(state.memory_bytes() < bound + 16 * 20_000, "{}", state.memory_bytes());
        }
    }
    assert!(state.size_bytes() > 20_000 * 100);
    assert!(state.base().size_bytes().unwrap() > state.size_bytes());
}

#[test]
fn blobs_of_any_length_are_kept() {
    let base = Arc::new(MemoryBase::new());
    let mut state = open(&base);
    for (round, len) in [10, 5000, 100_000, 3000, 0, 70_000].into_iter().enumerate() {
        let value = bytes::Bytes::from(Random(len).noise(len as usize));
        state.put_blob("map", value.clone());
        assert_eq!(state.blob("map"), Some(value.clone()));
        assert!(state.dirty());
        checkpoint(&mut state);
        state = open(&base);
        assert_eq!(state.blob("map"), Some(value), "{round}");
        assert_eq!(state.blob("ma"), None);
    }
    state.put_blob("map", "x".into());
    checkpoint(&mut state);
    assert!(base.rows() < 5, "parts of the longer value are gone");
}

#[test]
fn expired_requests_are_removed_from_the_base() {
    let base = Arc::new(MemoryBase::new());
    let mut state = open(&base);
    let mut random = Random(1);
    let start = 1_700_000_000_000;
    let day = 24 * 3_600_000;
    let mut ids = Vec::new();
    for n in 0..10 {
        state.advance_log_time(start + n * day);
        let id = RequestId::mint(start + n * day, random.bytes());
        post(&mut state, &room_id(1), &user_id(1), id, [1; 16], "x".into());
        ids.push(id);
        checkpoint(&mut state);
    }
    let scope = crate::chat::state::Scope::Room(room_id(1));
    let kept = ids.iter().filter(|id| state.sent(&scope, &user_id(1), **id).is_some()).count();
    assert_eq!(kept, 8);
    let sent = rows_of(base.as_ref()).into_iter().filter(|(key, _)| key[2] == 0x15).count();
    assert_eq!(sent, 8);
}

#[test]
fn reads_see_every_event_while_checkpoints_merge_and_rewrite_blocks() {
    use std::sync::RwLock;
    use std::sync::atomic::{AtomicBool, Ordering};
    let base = Arc::new(MemoryBase::new());
    let state = RwLock::new(open(&base));
    let done = AtomicBool::new(false);
    let room = room_id(1);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (state, done, room) = (&state, &done, &room);
            scope.spawn(move || {
                let mut random = Random(reader);
                let mut pages = 0;
                while !done.load(Ordering::SeqCst) {
                    let state = state.read().unwrap();
                    let head = state.room(room).map_or(0, |room| room.head.0);
                    if head > 0 {
                        let first = random.below(head) + 1;
                        let page = state.events(room, Seq(first), Seq(u64::MAX), 60, usize::MAX);
                        let seqs: Vec<u64> = page.iter().map(|event| event.seq.0).collect();
                        let last = head.min(first + 59);
                        assert_eq!(seqs, (first..=last).collect::<Vec<_>>());
                        pages += 1;
                    }
                }
                assert!(pages > 10);
            });
        }
        let mut random = Random(42);
        for n in 0..400u64 {
            let mut writer = state.write().unwrap();
            for _ in 0..1 + random.below(4) {
                let id = RequestId::mint(1_700_000_000_000 + n, random.bytes());
                let text = random.noise(200);
                post(&mut *writer, &room, &user_id(1), id, random.bytes(), text);
            }
            writer.advance_log_time(1_700_000_000_000 + n);
            let head = writer.room(&room).unwrap().head.0;
            writer.erase_body(&room, Seq(random.below(head) + 1));
            let running = writer.begin_checkpoint().unwrap();
            drop(writer);
            let written = running.write().unwrap();
            drop(state.write().unwrap().finish_checkpoint(written));
        }
        done.store(true, Ordering::SeqCst);
    });
    let rows = rows_of(base.as_ref()).into_iter().filter(|(key, _)| key[2] == 0x40).count();
    let events = state.read().unwrap().room(&room).unwrap().head.0;
    assert!((rows as u64) < events / 8, "{rows} blocks for {events} events: merged");
}

/// A base in which something happens between the two scans of a read.
struct Hooked {
    base: MemoryBase,
    hook: std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Base for Hooked {
    fn get(&self, key: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
        self.base.get(key)
    }
    fn scan(&self, range: &KeyRange, order: Order, visit: &mut Visit<'_>) -> std::io::Result<()> {
        self.base.scan(range, order, visit)?;
        let hook = self.hook.lock().unwrap().take();
        hook.map_or(Ok(()), |hook| {
            hook();
            Ok(())
        })
    }
    fn write(&self, batch: Batch) -> std::io::Result<()> {
        self.base.write(batch)
    }
    fn flush(&self) -> std::io::Result<()> {
        self.base.flush()
    }
    fn size_bytes(&self) -> std::io::Result<u64> {
        self.base.size_bytes()
    }
}

#[test]
fn a_page_looks_again_when_blocks_were_merged_under_it() {
    for first in 1..=12 {
        let base = Arc::new(Hooked { base: MemoryBase::new(), hook: Default::default() });
        let options = StateOptions { events_bytes: 0, ..small() };
        let mut state = ShardState::open(base.clone(), SHARD, options).unwrap();
        let mut random = Random(first);
        let room = room_id(1);
        let blocks = || rows_of(base.as_ref()).iter().filter(|(key, _)| key[2] == 0x40).count();
        let mut count = 0;
        let running = loop {
            let id = RequestId::mint(1_700_000_000_000 + count, random.bytes());
            post(&mut state, &room, &user_id(1), id, random.bytes(), random_text(count));
            count += 1;
            if count == 14 {
                break state.begin_checkpoint().unwrap();
            }
            checkpoint(&mut state);
            assert_eq!(blocks() as u64, count, "not merged yet");
        };
        let merge = move || assert!(running.write().is_ok());
        *base.hook.lock().unwrap() = Some(Box::new(merge));
        let page = state.events(&room, Seq(first), Seq(13), 100, usize::MAX);
        assert!(blocks() < 5, "merged meanwhile");
        let seqs: Vec<u64> = page.iter().map(|event| event.seq.0).collect();
        assert_eq!(seqs, (first..=13).collect::<Vec<_>>());
    }
}

/// Such that thirteen fill a block and a quarter.
fn random_text(seed: u64) -> String {
    Random(seed).noise(300)
}

#[test]
fn a_retried_checkpoint_replaces_the_blocks_of_the_failed_one() {
    for budget in 0..3 {
        let base = Arc::new(MemoryBase::new());
        let mut state = open(&base);
        let mut random = Random(6);
        let room = room_id(1);
        for n in 0..60 {
            let id = RequestId::mint(1_700_000_000_000, random.bytes());
            let text = random_text(n).repeat(if n == 30 { 20 } else { 1 });
            post(&mut state, &room, &user_id(1), id, random.bytes(), text);
        }
        base.fail_after(Some(budget));
        assert!(state.begin_checkpoint().unwrap().write().is_err());
        base.fail_after(None);
        state.abort_checkpoint();
        // Blocks now end elsewhere.
        (1..40).for_each(|seq| state.erase_body(&room, Seq(seq)));
        let events = |state: &ShardState| state.events(&room, Seq(1), Seq(99), 99, usize::MAX);
        let expected = events(&state);
        checkpoint(&mut state);
        assert_tidy(base.as_ref());
        assert_eq!(events(&state), expected);
        assert_eq!(events(&open(&base)), expected);
    }
}
