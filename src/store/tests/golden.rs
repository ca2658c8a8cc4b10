//! The formats on disk, pinned: `golden/state.txt` has a row of each kind, as key and value.
//!
//! `UPDATE=1 cargo test --release --lib store::tests::golden` writes the file anew; a difference
//! means that older states can no longer be read, unless the version byte tells them apart.

use std::path::Path;
use std::sync::Arc;

use super::random::{Random, new_room, post};
use super::{SHARD, checkpoint, open, rows_of};
use crate::chat::account::{Invite, Link, Password, Scope, Scopes, Session};
use crate::chat::codec::tests::samples::imported_event;
use crate::chat::event::{Event, Role};
use crate::chat::state::{
    self, Notes, Part, Participant, Retention, Room, Sent, State, StateMut, Token, User,
};
use crate::id::{RequestId, RoomId, Seq, UserId};
use crate::store::base::{Base, Batch, MemoryBase};
use crate::store::codec;
use crate::store::key::{self, Bank, Key, Space};
use crate::store::state::{Applied, ShardState};
use crate::testing::hex;

const NOW: u64 = 1_700_000_000_000;

fn room() -> RoomId {
    RoomId::parse("general").unwrap()
}

fn fill(state: &mut ShardState) {
    let (ann, bob) = (UserId::parse("ann").unwrap(), UserId::parse("bob").unwrap());
    let mut random = Random(1);
    state.advance_log_time(NOW);
    state.put_participant(&room(), &ann, Some(Participant::new(Role::Owner, NOW)));
    let token = Token::new([3; 32], "laptop".into(), NOW);
    let row = User::new(bob.clone(), "Bob".into(), true, NOW);
    state.put_user(User { tokens: vec![token], ..row });
    state.put_user(everything_set());
    state.note_revocation();
    let row = Room { topic: "A topic".into(), participants: 1, ..new_room(&room(), NOW, 9) };
    state.put_room(row);
    for n in 0..12u64 {
        let text = if n == 4 { random.noise(5000) } else { format!("message {n}").repeat(9) };
        let id = RequestId::mint(NOW + n, [n as u8; 10]);
        let sender = if n % 3 == 0 { &ann } else { &bob };
        post(state, &room(), sender, id, [n as u8; 16], text);
    }
    let row = state.room(&room()).unwrap();
    let event = Event { seq: row.head.next(), ..imported_event() };
    state.put_room(Room { head: event.seq, chain: event.chain(&row.chain), ..(*row).clone() });
    state.append_event(&room(), Arc::new(event));
    let sent = Sent { sender: bob.clone(), seq: Seq(0), at_ms: NOW, body_hash: [8; 16] };
    state.put_sent(&state::Scope::User(bob.clone()), RequestId::mint(NOW, [1; 10]), sent);
    let notes = Notes {
        edits: vec![Seq(4), Seq(300)],
        reactions: vec![("+1".into(), vec![ann, bob])],
        redacted_by: Some(Seq(13)),
        ..Notes::default()
    };
    state.put_notes(&room(), Seq(2), notes);
    fill_annex(state);
    state.put_import_mark(&room(), "irc.log", 1234);
    state.put_blob("map", "a blob".into());
    state.put_blob("long", random.noise(4000).into());
    let membership = "membership".into();
    state.set_applied(Applied { log_id: Some((3, 77)), membership });
    checkpoint(state);
    state.erase_body(&room(), Seq(2));
    checkpoint(state);
}

/// A user with every field set.
fn everything_set() -> User {
    let token = Token::new([4; 32], "bot".into(), NOW);
    let scopes = Scopes::of([Scope::Read, Scope::Post]);
    let session = Session {
        hash: [5; 32],
        created_at_ms: NOW,
        used_at_ms: NOW + 1,
        expires_at_ms: NOW + 3,
        idle_ms: 2,
        user_agent: "a browser".into(),
        address: "192.0.2.7".into(),
    };
    let invite = Invite {
        hash: [6; 32],
        created_at_ms: NOW,
        expires_at_ms: NOW + 9,
        uses_max: 3,
        used_by: vec![UserId::parse("ann").unwrap()],
    };
    User {
        tokens: vec![Token { scopes, expires_at_ms: Some(NOW + 5), ..token }],
        status: "at lunch".into(),
        disabled: true,
        password: Password::parse("$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"),
        sessions: vec![session],
        invites: vec![invite],
        link: Some(Link { issuer: "https://id.example.org".into(), subject: "7f3a".into() }),
        stands_for: Some(UserId::parse("bob").unwrap()),
        ..User::new(UserId::parse("cid").unwrap(), "Cid".into(), false, NOW)
    }
}

/// What rooms, participants and notes have had since 0.1: rows of before lack it.
fn fill_annex(state: &mut ShardState) {
    let annex = RoomId::parse("annex").unwrap();
    state.put_room(Room {
        archived: true,
        pins: vec![Seq(300), Seq(7)],
        retention: Retention { max_age_ms: 86_400_000, max_events: 1000 },
        ..new_room(&annex, NOW, 10)
    });
    let part =
        |role, until_ms, part| Some(Participant { until_ms, part, ..Participant::new(role, NOW) });
    let user = |id: &str| UserId::parse(id).unwrap();
    state.put_participant(&annex, &user("cid"), part(Role::Banned, Some(NOW + 1), Part::In));
    state.put_participant(&annex, &user("dan"), part(Role::Member, None, Part::Invited));
    state.put_participant(&annex, &user("eve"), part(Role::Muted, None, Part::Out));
    let notes = Notes { replies: vec![Seq(2), Seq(300)], ..Notes::default() };
    state.put_notes(&room(), Seq(6), notes);
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn formats_on_disk_are_pinned() {
    let base = Arc::new(MemoryBase::new());
    let mut state = open(&base);
    fill(&mut state);
    let mut rows = rows_of(base.as_ref());
    // Rows that come and go.
    let space = Space { shard: SHARD, bank: Bank(0) };
    rows.push((space.key(&Key::Bank), codec::number_value(0)));
    rows.push((space.key(&Key::Lineage(RoomId::parse("other").unwrap())), codec::number_value(2)));
    rows.push((space.key(&Key::Erasing(room(), Seq(3))), vec![codec::VERSION]));
    rows.sort();
    let mut text = String::new();
    for (key, value) in &rows {
        let kind = format!("{:?}", key::decode(key).unwrap().1);
        let kind = kind.split('(').next().unwrap();
        text.push_str(&format!("{kind} {} {}\n", hex(key), hex(value)));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/golden/state.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let pinned = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, pinned, "UPDATE=1 rewrites the file");

    let base = Arc::new(MemoryBase::new());
    let mut batch = Batch::new();
    for line in pinned.lines() {
        let mut words = line.split(' ').skip(1).map(unhex);
        batch.put(words.next().unwrap(), words.next().unwrap());
    }
    base.write(batch).unwrap();
    let old = open(&base);
    state.erase_body(&room(), Seq(3)); // as the Erasing row says
    assert_eq!(old.rooms_digest(), state.rooms_digest());
    assert_eq!(old.applied(), state.applied());
    assert_eq!(old.blob("long"), state.blob("long"));
    assert_eq!(old.revocations(), 1);
    let cid = everything_set();
    assert_eq!(old.user(&cid.id).as_deref(), Some(&cid));
    let (scope, bob) = (state::Scope::Room(room()), UserId::parse("bob").unwrap());
    let id = RequestId::mint(NOW + 1, [1; 10]);
    assert_eq!(old.sent(&scope, &bob, id).unwrap().seq, Seq(2));
}
