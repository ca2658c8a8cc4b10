//! Packing, unpacking, and bytes that are no block.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::chat::codec::EventReader;
use crate::chat::codec::tests::samples::imported_event;
use crate::chat::codec::tests::strategies::event;
use crate::id::ShardId;
use crate::store::base::MemoryBase;
use crate::store::key::Bank;

fn run_of(events: &[Event]) -> Run {
    let mut run = Run::new(Seq(7));
    for (seq, event) in (7..).zip(events) {
        run.push(&Event { seq: Seq(seq), ..event.clone() });
    }
    run
}

fn events_of(run: &Run) -> Vec<Arc<Event>> {
    let mut reader = EventReader::default();
    run.events(Seq(0)).map(|(_, bytes)| reader.read(bytes).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn blocks_hold_what_was_packed(
        events in proptest::collection::vec(event(), 1..60), from in 0..80u64,
    ) {
        let space = Space { shard: ShardId(1), bank: Bank(0) };
        let room = RoomId::parse("general").unwrap();
        let blocks = RoomBlocks { space, room: &room, lineage: 2 };
        let base = MemoryBase::new();
        let run = run_of(&events);
        let mut batch = Batch::new();
        let packed = Packer::default().pack(&run);
        packed.iter().for_each(|block| blocks.put(&mut batch, block));
        base.write(batch).unwrap();
        let from = Seq(from);
        let mut joined = Run::new(from.max(run.first()));
        let rows = blocks.rows(&base, from, Seq(u64::MAX), u64::MAX, u64::MAX).unwrap();
        for row in &rows {
            let part = blocks.decode(&base, row.clone()).unwrap();
            part.events(joined.next()).for_each(|(_, event)| joined.push_encoded(event));
        }
        let expected = events_of(&run);
        if from >= run.first() {
            let skip = (from.0 - 7).min(run.len() as u64) as usize;
            prop_assert_eq!(&events_of(&joined), &expected[skip..]);
        }
        let mut batch = Batch::new();
        for (first, row) in blocks.rows(&base, Seq(7), Seq(u64::MAX), u64::MAX, u64::MAX).unwrap() {
            blocks.delete(&mut batch, first, &row).unwrap();
        }
        base.write(batch).unwrap();
        prop_assert_eq!(base.rows(), 0);
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        event in event(), at in any::<usize>(), flip in 1..=255u8,
    ) {
        let _ = Run::decode(Seq(1), &bytes);
        let _ = Header::of(&bytes);
        let mut framed = vec![VERSION, LZ4];
        framed.extend_from_slice(&bytes);
        let _ = Run::decode(Seq(1), &framed);
        let mut value = Packer::default().pack(&run_of(&[event])).remove(0).value;
        let at = at % value.len();
        value[at] ^= flip;
        if let Ok(run) = Run::decode(Seq(1), &value) {
            let mut reader = EventReader::default();
            run.events(Seq(1)).for_each(|(_, bytes)| drop(reader.read(bytes)));
        }
    }
}

#[test]
fn rows_are_filled_whatever_compresses() {
    use crate::store::tests::random::Random;
    let mut random = Random(1);
    for noise in [true, false] {
        let mut run = Run::new(Seq(1));
        for seq in 1..=5000 {
            let text = if noise { random.noise(200) } else { random.prose(200) };
            let mut event = imported_event();
            event.seq = Seq(seq);
            event.body = crate::chat::event::Body::Present { salt: random.bytes(), text };
            run.push(&event);
        }
        let blocks = Packer::default().pack(&run);
        let full = &blocks[..blocks.len() - 1];
        let bytes: usize = full.iter().map(|block| block.value.len()).sum();
        assert!(full.iter().all(|block| block.value.len() <= VALUE_BYTES_MAX));
        assert!(bytes / full.len() > VALUE_BYTES_MAX * 85 / 100, "{}", bytes / full.len());
    }
}
