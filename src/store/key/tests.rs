//! Round trips, order, and what the keys of each kind look like.

use proptest::prelude::*;

use super::*;

fn slug() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9._-]{0,12}"
}

fn room() -> impl Strategy<Value = RoomId> {
    let direct = (slug(), slug()).prop_filter("different", |(a, b)| a != b).prop_map(|(a, b)| {
        RoomId::direct(&UserId::parse(&a).unwrap(), &UserId::parse(&b).unwrap()).unwrap()
    });
    prop_oneof![slug().prop_map(|s| RoomId::parse(&s).unwrap()), direct]
}

fn user() -> impl Strategy<Value = UserId> {
    slug().prop_map(|s| UserId::parse(&s).unwrap())
}

fn seq() -> impl Strategy<Value = Seq> {
    prop_oneof![any::<u64>(), 0..300u64].prop_map(Seq)
}

/// For each kind: a pair of values and their keys.
fn check<T: Ord + Clone + std::fmt::Debug>(a: T, b: T, to_key: impl Fn(T) -> Key, space: Space) {
    let (key_a, key_b) = (to_key(a.clone()), to_key(b.clone()));
    let (bytes_a, bytes_b) = (space.key(&key_a), space.key(&key_b));
    assert_eq!(a.cmp(&b), bytes_a.cmp(&bytes_b), "{key_a:?} {key_b:?}");
    let decoded = decode(&bytes_a).unwrap();
    assert_eq!(decoded.1, key_a);
    assert_eq!(decoded.0.shard, space.shard);
    assert!(Space::whole(space.shard).contains(&bytes_a));
    let other = ShardId(space.shard.0.wrapping_add(1));
    assert!(!Space::whole(other).contains(&bytes_a));
    if is_banked(bytes_a[2]) {
        assert_eq!(decoded.0, space);
        assert!(space.bank_range().contains(&bytes_a));
        let other = Space { bank: space.bank.other(), ..space };
        assert!(!other.bank_range().contains(&bytes_a));
        assert_eq!(space.key_from_suffix(&suffix(&bytes_a)).unwrap(), bytes_a);
        assert_eq!(suffix(&bytes_a), suffix(&other.key(&key_a)));
    } else {
        assert_eq!(space.key_from_suffix(&suffix(&bytes_a)), None);
    }
}

proptest! {
    #[test]
    fn keys_round_trip_and_keep_order(
        shard in any::<u16>(), bank in 0..2u8,
        rooms in (room(), room()), users in (user(), user()), seqs in (seq(), seq()),
        groups in (any::<u8>(), any::<u8>()), numbers in (any::<u32>(), any::<u32>()),
        texts in (any::<String>(), any::<String>()), parts in (any::<u16>(), any::<u16>()),
    ) {
        let space = Space { shard: ShardId(shard), bank: Bank(bank) };
        check((), (), |()| Key::Bank, space);
        check((), (), |()| Key::Unfinished, space);
        check((), (), |()| Key::Applied, space);
        check(rooms.0.clone(), rooms.1.clone(), Key::Lineage, space);
        check(rooms.0.clone(), rooms.1.clone(), Key::Room, space);
        check(users.0.clone(), users.1.clone(), Key::User, space);
        check((rooms.0.clone(), users.0), (rooms.1.clone(), users.1),
            |(room, user)| Key::Participant(room, user), space);
        check((numbers.0, groups.0, numbers.1), (numbers.1, groups.1, numbers.0),
            |(minute, group, part)| Key::Sent(minute, group, part), space);
        check((rooms.0.clone(), texts.0.clone()), (rooms.1.clone(), texts.1.clone()),
            |(room, text)| Key::ImportMark(room, text), space);
        check(texts.0.clone(), texts.1.clone(), Key::Blob, space);
        check((texts.0, parts.0), (texts.1, parts.1),
            |(text, part)| Key::RowPart(Box::new(Key::Blob(text)), part), space);
        let (a, b) = ((rooms.0, seqs.0), (rooms.1, seqs.1));
        check(a.clone(), b.clone(), |(room, seq)| Key::Notes(room, seq), space);
        check(a.clone(), b.clone(), |(room, seq)| Key::Erased(room, seq), space);
        check(a.clone(), b.clone(), |(room, seq)| Key::Erasing(room, seq), space);
        let (a, b) = ((a.0, numbers.0, a.1), (b.0, numbers.1, b.1));
        check(a.clone(), b.clone(), |(room, l, seq)| Key::Block(room, l, seq), space);
        check((a, parts.0), (b, parts.1),
            |((room, l, seq), part)| Key::BlockPart(room, l, seq, part), space);
    }

    #[test]
    fn ranges_hold_their_keys_and_no_others(
        shard in any::<u16>(), bank in 0..2u8, a in room(), b in room(), seqs in (seq(), seq(), seq()),
        groups in (any::<u8>(), any::<u8>()), minutes in (any::<u32>(), any::<u32>()), users in (user(), user()),
    ) {
        let space = Space { shard: ShardId(shard), bank: Bank(bank) };
        let notes = space.key(&Key::Notes(b.clone(), seqs.0));
        prop_assert_eq!(space.of_room(tag::NOTES, &a).contains(&notes), a == b);
        let block = space.key(&Key::Block(b.clone(), 0, seqs.0));
        prop_assert_eq!(
            space.blocks(tag::BLOCK, &a, 0, seqs.1, seqs.2).contains(&block),
            a == b && (seqs.1..=seqs.2).contains(&seqs.0)
        );
        let sent = space.key(&Key::Sent(minutes.0, groups.0, 7));
        prop_assert_eq!(space.sent_before(minutes.1).contains(&sent), minutes.0 < minutes.1);
        prop_assert_eq!(
            space.sent(minutes.1, groups.1).contains(&sent),
            minutes.0 == minutes.1 && groups.0 == groups.1
        );
        let above = Space::above(space.of_room(tag::PARTICIPANT, &a),
            &space.key(&Key::Participant(a.clone(), users.0.clone())));
        let participant = space.key(&Key::Participant(b.clone(), users.1.clone()));
        prop_assert_eq!(above.contains(&participant), a == b && users.1 > users.0);
        let of = Key::Participant(a.clone(), users.0.clone());
        let part = space.key(&Key::RowPart(Box::new(Key::Participant(b.clone(), users.1.clone())), 3));
        prop_assert_eq!(space.row_parts(&of).contains(&part), a == b && users.0 == users.1);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Some((space, key)) = decode(&bytes) {
            prop_assert_eq!(space.key(&key), bytes.clone());
        }
        suffix(&bytes);
    }
}

#[test]
fn keys_are_pinned() {
    let space = Space { shard: ShardId(258), bank: Bank(1) };
    let room = RoomId::parse("general").unwrap();
    let hex = |key: &Key| crate::testing::hex(&space.key(key));
    assert_eq!(hex(&Key::Applied), "010290");
    assert_eq!(hex(&Key::Room(room.clone())), "01029267656e6572616c00");
    assert_eq!(
        hex(&Key::Block(room.clone(), 1, Seq(513))),
        "01024067656e6572616c00000000010000000000000201"
    );
    assert_eq!(hex(&Key::Sent(7, 5, 2)), "010295000000070500000002");
}
