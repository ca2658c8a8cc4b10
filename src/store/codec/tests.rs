//! Round trips, rubbish, and rows in parts.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::chat::account::{Invite, Link, Password, Scopes, Session, Token, User};
use crate::chat::codec::tests::strategies;
use crate::id::ShardId;
use crate::store::base::MemoryBase;
use crate::store::key::Bank;

fn any_room() -> impl Strategy<Value = Room> {
    use strategies::{epoch, room, room_kind, text, user};
    let names = (room(), room_kind(), text(), text(), epoch(), user());
    let chains = any::<(Hash, Hash)>();
    (names, any::<[u64; 6]>(), chains).prop_map(|(names, numbers, (chain, chain_base))| {
        let (id, kind, title, topic, epoch, creator) = names;
        let [first_seq, head, participants, created_at_ms, max_age_ms, max_events] = numbers;
        Room {
            id,
            kind,
            title,
            topic,
            epoch,
            first_seq: Seq(first_seq),
            head: Seq(head),
            chain,
            chain_base,
            participants,
            created_at_ms,
            creator,
            archived: head % 2 == 1,
            pins: (0..head % 4).map(Seq).collect(),
            retention: Retention { max_age_ms, max_events },
        }
    })
}

fn any_token() -> impl Strategy<Value = Token> {
    let scopes = (0u32..32).prop_map(|n| Scopes::from_number(n).unwrap());
    (any::<Hash>(), strategies::text(), any::<u64>(), scopes, option::of(1..u64::MAX)).prop_map(
        |(hash, label, issued_at_ms, scopes, expires_at_ms)| Token {
            hash,
            label,
            issued_at_ms,
            scopes,
            expires_at_ms,
        },
    )
}

fn any_session() -> impl Strategy<Value = Session> {
    let texts = (strategies::text(), strategies::text());
    (any::<Hash>(), any::<[u64; 4]>(), texts).prop_map(
        |(hash, [created_at_ms, used_at_ms, expires_at_ms, idle_ms], (user_agent, address))| {
            Session { hash, created_at_ms, used_at_ms, expires_at_ms, idle_ms, user_agent, address }
        },
    )
}

fn any_invite() -> impl Strategy<Value = Invite> {
    let guests = vec(strategies::user(), 0..4);
    (any::<Hash>(), any::<[u64; 2]>(), any::<u32>(), guests).prop_map(
        |(hash, [created_at_ms, expires_at_ms], uses_max, used_by)| Invite {
            hash,
            created_at_ms,
            expires_at_ms,
            uses_max,
            used_by,
        },
    )
}

fn any_user() -> impl Strategy<Value = User> {
    use strategies::{text, user};
    let names = (user(), text(), text(), any::<[bool; 2]>(), any::<u64>());
    let password = option::of(
        "[!-~]{0,200}".prop_map(|rest| Password::parse(&format!("$argon2id${rest}")).unwrap()),
    );
    let secrets = (vec(any_token(), 0..4), password, vec(any_session(), 0..4));
    let link = option::of((text(), text()).prop_map(|(issuer, subject)| Link { issuer, subject }));
    let linked = (link, option::of(user()));
    (names, secrets, vec(any_invite(), 0..3), linked).prop_map(
        |(names, secrets, invites, linked)| {
            let (link, stands_for) = linked;
            let (id, display_name, status, [admin, disabled], created_at_ms) = names;
            let (tokens, password, sessions) = secrets;
            let row = User::new(id, display_name, admin, created_at_ms);
            User { tokens, status, disabled, password, sessions, invites, link, stands_for, ..row }
        },
    )
}

fn any_participant() -> impl Strategy<Value = Participant> {
    let part = (0..=2u32).prop_map(|n| Part::from_number(n).unwrap());
    (strategies::role(), any::<u64>(), any::<Option<u64>>(), part, any::<u64>()).prop_map(
        |(role, since_ms, until_ms, part, read)| Participant {
            role,
            since_ms,
            until_ms,
            part,
            read: Seq(read),
        },
    )
}

fn any_notes() -> impl Strategy<Value = Notes> {
    use strategies::{seq, text, user};
    let reactions = vec((text(), vec(user(), 0..4)), 0..4);
    let seqs = || vec(any::<u64>().prop_map(Seq), 0..9);
    (seqs(), reactions, option::of(seq()), seqs()).prop_map(
        |(edits, reactions, redacted_by, replies)| Notes { edits, reactions, redacted_by, replies },
    )
}

fn any_applied() -> impl Strategy<Value = proto::AppliedRow> {
    let membership = any::<Vec<u8>>().prop_map(Bytes::from);
    (any::<Option<u64>>(), membership, any::<[u64; 5]>(), any::<u32>()).prop_map(
        |(term, membership, numbers, sent_minute_max)| {
            let [index, log_time_ms, generation, bytes, revocations] = numbers;
            proto::AppliedRow {
                term,
                index,
                membership,
                log_time_ms,
                generation,
                sent_minute_max,
                bytes,
                revocations,
            }
        },
    )
}

fn decode_everything(bytes: &[u8]) {
    let _ = room_from(&RoomId::parse("r").unwrap(), bytes);
    let _ = user_from(&UserId::parse("u").unwrap(), bytes);
    let _ = (participant_from(bytes), notes_from(bytes), applied_from(bytes));
    let _ = (number_from(bytes), blob_from(bytes));
}

proptest! {
    #[test]
    fn rows_round_trip(
        room in any_room(), user in any_user(), participant in any_participant(),
        notes in any_notes(), applied in any_applied(),
    ) {
        prop_assert_eq!(room_from(&room.id, &room_value(&room)).unwrap(), room);
        prop_assert_eq!(user_from(&user.id, &user_value(&user)).unwrap(), user);
        let value = participant_value(&participant);
        prop_assert_eq!(participant_from(&value).unwrap(), participant);
        prop_assert_eq!(notes_from(&notes_value(&notes)).unwrap(), notes);
        prop_assert_eq!(applied_from(&applied_value(&applied)).unwrap(), applied);
    }

    #[test]
    fn numbers_and_blobs_round_trip(number in any::<u64>(), blob in any::<Vec<u8>>()) {
        prop_assert_eq!(number_from(&number_value(number)).unwrap(), number);
        prop_assert_eq!(blob_from(&blob_value(&blob)).unwrap(), blob);
    }

    #[test]
    fn arbitrary_bytes_are_no_rows(mut bytes in vec(any::<u8>(), 0..300)) {
        decode_everything(&bytes);
        bytes.insert(0, VERSION);
        decode_everything(&bytes);
    }

    #[test]
    fn damaged_rows_do_not_panic(
        room in any_room(), user in any_user(), notes in any_notes(), applied in any_applied(),
        at in any::<Index>(), to in any::<u8>(), cut in any::<Index>(),
    ) {
        let values =
            [room_value(&room), user_value(&user), notes_value(&notes), applied_value(&applied)];
        for mut value in values {
            let at = at.index(value.len());
            value[at] = to;
            decode_everything(&value);
            value.truncate(cut.index(value.len()));
            decode_everything(&value);
        }
    }

    #[test]
    fn rows_in_parts_round_trip(
        value in vec(any::<u8>(), 0..20_000), symbol in "[a-z]{0,9}",
    ) {
        let base = MemoryBase::new();
        let space = Space { shard: ShardId(1), bank: Bank(0) };
        let (key, value) = (Key::Blob(symbol), blob_value(&value));
        let mut batch = Batch::new();
        put_row(&base, &mut batch, space, &key, Some(value.clone())).unwrap();
        base.write(batch).unwrap();
        prop_assert_eq!(get_row(&base, space, &key).unwrap(), Some(value));
    }
}

/// A row as the first release wrote it: its token is good for everything, for ever.
#[test]
fn a_user_of_before_there_were_passwords_is_read() {
    let row = "010a03426f6210011880d095ffbc3122310a200303030303030303030303030303030303030303030\
               30303030303030303030312066c6170746f701880d095ffbc31";
    let row: Vec<u8> = (0..row.len() / 2)
        .map(|at| u8::from_str_radix(&row[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let user = user_from(&UserId::parse("bob").unwrap(), &row).unwrap();
    let token = Token::new([3; 32], "laptop".into(), 1_700_000_000_000);
    let expected = User::new(user.id.clone(), "Bob".into(), true, 1_700_000_000_000);
    assert_eq!(user, User { tokens: vec![token.clone()], ..expected });
    assert_eq!((token.scopes, token.expires_at_ms), (Scopes::ALL, None));
    assert_eq!(user_value(&user), row, "and written as it was");
}

#[test]
fn long_rows_are_cut_into_parts_and_leave_none_behind() {
    let base = MemoryBase::new();
    let space = Space { shard: ShardId(1), bank: Bank(1) };
    let key = Key::Blob("map".into());
    for len in [10, 9000, 4000, 100_000, VALUE_BYTES_MAX, VALUE_BYTES_MAX + 1, 5] {
        let value = blob_value(&vec![7; len]);
        let mut batch = Batch::new();
        put_row(&base, &mut batch, space, &key, Some(value.clone())).unwrap();
        base.write(batch).unwrap();
        assert_eq!(get_row(&base, space, &key).unwrap(), Some(value));
    }
    assert_eq!(base.rows(), 1);
    let mut batch = Batch::new();
    put_row(&base, &mut batch, space, &key, Some(vec![VERSION; 9000])).unwrap();
    batch.delete(space.key(&Key::RowPart(Box::new(key.clone()), 1)));
    base.write(batch).unwrap();
    assert!(get_row(&base, space, &key).is_err(), "a part is missing");
}

#[test]
fn another_version_is_refused_with_a_reason() {
    let error = number_from(&[9, 0, 0]).unwrap_err().to_string();
    assert!(error.contains("has format 9, this release knows 1"), "{error}");
}
