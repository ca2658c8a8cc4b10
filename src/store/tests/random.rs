//! Random log entries: the same for the same seed and index, given the same state.

use std::sync::Arc;

use crate::chat::event::{Body, Event, EventKind, Role};
use crate::chat::state::{Participant, Room, RoomKind, Scope, Sent, StateMut, Token, User};
use crate::id::{Epoch, RequestId, RoomId, Seq, UserId};

/// A small generator (splitmix64); tests must not depend on another crate's.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }

    /// Text that compresses like people's, about by half.
    pub fn prose(&mut self, len: usize) -> String {
        const WORDS: [&str; 16] = [
            "the", "quick", "release", "is", "not", "ready", "until", "tests", "pass", "on",
            "every", "machine", "that", "we", "support", "today",
        ];
        let mut text = String::new();
        while text.len() < len {
            match self.below(4) {
                0 => text.push_str(&format!("{:x}", self.next() >> 40)),
                _ => text.push_str(WORDS[self.below(16) as usize]),
            }
            text.push(' ');
        }
        text.truncate(len);
        text
    }

    /// Text that does not compress by much.
    pub fn noise(&mut self, len: usize) -> String {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        (0..len).map(|_| LETTERS[self.below(64) as usize] as char).collect()
    }
}

pub fn room_id(n: u64) -> RoomId {
    match n % 5 {
        4 => RoomId::parse(&format!("dm:a{n}:b{n}")).unwrap(),
        _ => RoomId::parse(&format!("room{n}")).unwrap(),
    }
}

pub fn user_id(n: u64) -> UserId {
    UserId::parse(&format!("user-{n}")).unwrap()
}

pub fn new_room(id: &RoomId, at_ms: u64, epoch: u64) -> Room {
    Room {
        id: id.clone(),
        kind: RoomKind::Public,
        title: format!("Title of {id}"),
        topic: String::new(),
        epoch: Epoch::mint(epoch.to_be_bytes()),
        first_seq: Seq(1),
        head: Seq(0),
        chain: [0; 32],
        chain_base: [0; 32],
        participants: 0,
        created_at_ms: at_ms,
        creator: user_id(0),
        archived: false,
        pins: Vec::new(),
        retention: Default::default(),
    }
}

/// Appends an event as `chat` would.
pub fn post(
    state: &mut impl StateMut,
    room: &RoomId,
    sender: &UserId,
    id: RequestId,
    salt: [u8; 16],
    text: String,
) {
    let row = state.room(room).unwrap_or_else(|| Arc::new(new_room(room, state.log_time_ms(), 1)));
    let scope = Scope::Room(room.clone());
    if state.sent(&scope, sender, id).is_some() {
        return;
    }
    let event = Event {
        seq: row.head.next(),
        at_ms: state.log_time_ms(),
        sender: sender.clone(),
        kind: EventKind::Message,
        request_id: id,
        target: None,
        subject: None,
        role: None,
        withdrawn: false,
        until_ms: None,
        original_at_ms: None,
        original_sender: None,
        body: Body::Present { salt, text },
    };
    let sent = Sent { sender: sender.clone(), seq: event.seq, at_ms: event.at_ms, body_hash: salt };
    let chain = event.chain(&row.chain);
    state.put_room(Room { head: event.seq, chain, ..(*row).clone() });
    state.append_event(room, Arc::new(event));
    state.put_sent(&scope, id, sent);
}

/// Applies the log entry `index`.
pub fn step(state: &mut impl StateMut, seed: u64, index: u64) {
    let mut random = Random(seed ^ index.wrapping_mul(0xd6e8_feb8_6659_fd93));
    let hour = 3_600_000;
    let leap = if random.below(60) == 0 { random.below(40) * hour } else { random.below(20_000) };
    let start = 1_700_000_000_000;
    state.advance_log_time(state.log_time_ms().max(start) + leap);
    for _ in 0..=random.below(3) {
        change(state, &mut random);
    }
}

/// Drops some of a room's oldest events, as retention does; the last one stays.
fn trim(state: &mut impl StateMut, room: &RoomId, random: &mut Random) {
    let Some(row) = state.room(room) else { return };
    let mut row = (*row).clone();
    let first = Seq(row.first_seq.0 + random.below(row.head.0 + 1 - row.first_seq.0));
    while row.first_seq < first {
        for event in state.events(room, row.first_seq, Seq(first.0 - 1), 99, usize::MAX) {
            row.chain_base = event.chain(&row.chain_base);
            row.first_seq = event.seq.next();
        }
    }
    state.put_room(row);
    state.forget_events(room, first);
}

fn change(state: &mut impl StateMut, random: &mut Random) {
    let now = state.log_time_ms();
    // Few rooms get most.
    let nth = random.below(6) * random.below(5);
    let room = room_id(nth);
    let user = user_id(random.below(12));
    let head = state.room(&room).map_or(0, |room| room.head.0);
    match random.below(20) {
        0..=11 => {
            let id = RequestId::mint(now - random.below(90_000), random.bytes());
            let text = match random.below(30) {
                0 => random.noise(9000),
                1 => random.prose(30_000),
                2 => String::new(),
                3..=10 => random.noise(120),
                _ => {
                    let len = random.below(300) as usize;
                    random.prose(len)
                }
            };
            post(state, &room, &user, id, random.bytes(), text);
        }
        13 if head > 0 && random.below(3) == 0 => trim(state, &room, random),
        12 | 13 => {
            let role = [Role::Owner, Role::Member, Role::Banned][random.below(3) as usize];
            let participant = Participant::new(role, now);
            let participant = Some(participant).filter(|_| random.below(4) > 0);
            state.put_participant(&room, &user, participant);
        }
        14 | 15 if head > 0 => {
            let seq = Seq(random.below(head) + 1);
            let mut notes = state.notes(&room, seq).map(|n| (*n).clone()).unwrap_or_default();
            let many = if random.below(8) == 0 { 200 } else { 1 };
            let symbol = format!("{:x}", random.next());
            notes.reactions.push((symbol, (0..many).map(user_id).collect()));
            notes.edits.push(Seq(head));
            state.put_notes(&room, seq, notes);
        }
        16 if head > 0 => {
            let seq = Seq(random.below(head) + 1);
            let mut notes = state.notes(&room, seq).map(|n| (*n).clone()).unwrap_or_default();
            notes.redacted_by = Some(Seq(head));
            notes.reactions.clear();
            state.put_notes(&room, seq, notes);
            state.erase_body(&room, seq);
        }
        17 => {
            let line = state.import_mark(&room, "irc.log") + 1;
            state.put_import_mark(&room, "irc.log", line);
        }
        18 => {
            let tokens = (0..random.below(33))
                .map(|n| Token::new(random.bytes(), "x".repeat(n as usize * 2), now))
                .collect();
            let display_name = random.prose(20);
            let admin = random.below(2) == 0;
            state.put_user(User { tokens, ..User::new(user, display_name, admin, now) });
            state.note_revocation();
        }
        _ => {
            let id = RequestId::mint(now, random.bytes());
            let sent = Sent { sender: user.clone(), seq: Seq(0), at_ms: now, body_hash: [7; 16] };
            state.put_sent(&Scope::User(user), id, sent);
        }
    }
}
