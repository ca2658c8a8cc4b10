//! What holds for every sequence of commands: density, the chain, determinism, rejections that
//! change nothing, repeats that change nothing.

use bytes::Bytes;
use proptest::prelude::*;

use crate::chat::apply::{self, Appended};
use crate::chat::codec;
use crate::chat::command::{Actor, Command, ImportLine, Rejection, Reply, Request, Restriction};
use crate::chat::event::{Body, EventKind, Role};
use crate::chat::memory::Memory;
use crate::chat::query::{self, Answer, Page, Query};
use crate::chat::state::{Retention, Room, RoomKind, State, StateMut};
use crate::id::{Cursor, Epoch, RequestId, RoomId, Seq, UserId};

const USERS: [&str; 5] = ["ann", "bob", "cid", "dan", "root"];
const ROOMS: [&str; 4] = ["public", "private", "dm:ann:bob", "nowhere"];
const TEXTS: [&str; 6] = ["hi", "ho", "", "a\0b", "+1", "\u{1f600}"];

/// What happens next in a random history.
#[derive(Debug, Clone)]
enum Step {
    /// Time passes.
    Wait(u64),
    /// Somebody asks for something, with a fresh id of the present time.
    Ask(Ask),
    /// An earlier request (modulo how many there were) comes again, salted anew.
    Repeat(usize),
}

#[derive(Debug, Clone)]
struct Ask {
    user: usize,
    room: usize,
    verb: u8,
    target: u64,
    text: usize,
    number: u8,
    flag: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let ask =
        (0..5usize, 0..40usize, 0..42u8, 0..14u64, 0..TEXTS.len(), any::<u8>(), any::<bool>())
            .prop_map(|(user, room, verb, target, text, number, flag)| {
                // Most of what happens, happens in two rooms.
                let room = [0, 0, 0, 0, 1, 1, 2, 3][room % 8];
                Step::Ask(Ask { user, room, verb, target, text, number, flag })
            });
    prop_oneof![
        1 => prop_oneof![Just(1), Just(1000), Just(86_400_000)].prop_map(Step::Wait),
        12 => ask,
        2 => any::<usize>().prop_map(Step::Repeat),
    ]
}

/// Requests to begin with, so that there is something to happen in.
fn opening() -> Vec<Step> {
    let ask = |user, room, verb| {
        Step::Ask(Ask { user, room, verb, target: 0, text: 0, number: 0, flag: false })
    };
    vec![
        Step::Wait(1_700_000_000_000),
        ask(0, 0, 3),
        ask(0, 1, 3),
        ask(0, 2, 3),
        ask(1, 0, 5),
        ask(2, 0, 5),
    ]
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..80).prop_map(|steps| {
        let mut all = opening();
        all.extend(steps);
        all
    })
}

fn user(index: usize) -> UserId {
    UserId::parse(USERS[index % USERS.len()]).unwrap()
}

fn actor(index: usize) -> Actor {
    Actor { user: user(index), admin: USERS[index % USERS.len()] == "root" }
}

/// The command that an ask stands for; `mint` is what a gateway would draw at random.
fn command(ask: &Ask, mint: u8) -> Command {
    let room = RoomId::parse(ROOMS[ask.room]).unwrap();
    let (salt, target) = ([mint; 16], Seq(ask.target));
    let text = TEXTS[ask.text].to_owned();
    let other = user(ask.number as usize);
    match ask.verb {
        0 => Command::CreateUser {
            user: other,
            display_name: text,
            admin: ask.flag,
            token_hash: Some([mint; 32]),
        },
        1 => Command::IssueToken { user: other, token_hash: [mint; 32], label: text },
        2 => Command::RevokeToken { user: other, token_hash: [ask.number % 16; 32] },
        3 => Command::CreateRoom {
            kind: [RoomKind::Public, RoomKind::Private, RoomKind::Direct, RoomKind::Public]
                [ask.room],
            room,
            title: "T".into(),
            epoch: Epoch::mint([mint; 8]),
            salt,
        },
        4 => Command::Leave { room, salt },
        5 | 6 => Command::Join { room, salt },
        7..=10 => Command::Edit { room, target, text, salt },
        11 => Command::Redact { room, target, salt },
        12..=14 => Command::React { room, target, symbol: text, withdraw: ask.flag, salt },
        15 | 16 => Command::SetRole {
            room,
            user: other,
            role: Role::from_number(u32::from(ask.number) / 5 % 5 + 1).unwrap(),
            salt,
        },
        17 => Command::Import {
            room,
            source: "irc.log".into(),
            lines: (ask.target..ask.target + 3)
                .map(|line| ImportLine {
                    line,
                    original_at_ms: line,
                    sender: other.clone(),
                    original_sender: text.clone(),
                    kind: EventKind::Message,
                    text: text.clone(),
                })
                .collect(),
            salt,
        },
        18..=19 => Command::MarkRead { room, seq: target },
        24..=36 => moderation(ask, room, other, text, mint),
        _ => Command::Post {
            room,
            kind: if ask.flag { EventKind::Action } else { EventKind::Message },
            text,
            reply_to: Some(target).filter(|_| ask.number < 64),
            salt,
        },
    }
}

/// The commands on who is in a room, and on the room itself.
fn moderation(ask: &Ask, room: RoomId, user: UserId, text: String, mint: u8) -> Command {
    let (salt, target, withdraw) = ([mint; 16], Seq(ask.target), ask.flag);
    let restriction =
        if ask.number.is_multiple_of(2) { Restriction::Ban } else { Restriction::Mute };
    let for_ms = u64::from(ask.number % 4) * 1000;
    match ask.verb {
        24 | 25 => Command::Invite { room, user, salt },
        26 | 27 => Command::Kick { room, user, reason: text, salt },
        28 | 29 => Command::Restrict { room, user, restriction, for_ms, reason: text, salt },
        30 => Command::Lift { room, user, restriction, salt },
        31 => Command::SetTopic { room, topic: text, salt },
        32 | 33 => Command::Pin { room, target, withdraw, salt },
        34 => Command::Archive { room, withdraw: ask.number > 64, salt },
        35 => {
            let max_events = if ask.flag { 3 + ask.target } else { 0 };
            let retention = Retention { max_age_ms: for_ms * 86_400, max_events };
            Command::SetRetention { room, retention, salt }
        }
        _ => Command::Trim { room, salt },
    }
}

/// A history as it is played: the state, and the log that made it.
#[derive(Default)]
struct Play {
    state: Memory,
    /// Each with the log time at which it was applied, and its first reply.
    asked: Vec<(Ask, Request, Reply)>,
    log: Vec<(u64, Bytes)>,
    replies: Vec<Reply>,
    events: Appended,
    now_ms: u64,
    minted: u32,
}

impl Play {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Wait(ms) => self.now_ms += ms,
            Step::Ask(ask) => {
                let ask = self.aim(ask.clone());
                self.minted += 1;
                let mut random = [0; 10];
                random[6..].copy_from_slice(&self.minted.to_be_bytes());
                let request = Request {
                    actor: actor(ask.user),
                    id: RequestId::mint(self.now_ms, random),
                    command: command(&ask, self.minted as u8),
                };
                let reply = self.apply(&request);
                self.asked.push((ask, request, reply));
            }
            Step::Repeat(index) if !self.asked.is_empty() => {
                let index = index % self.asked.len();
                self.repeat(index);
            }
            Step::Repeat(_) => {}
        }
    }

    /// Mostly, makes an ask one that has a chance: on a message that is there, by its sender; on
    /// users, by an admin or themselves.
    fn aim(&self, mut ask: Ask) -> Ask {
        if ask.number < 50 {
            return ask;
        }
        match ask.verb {
            0 => ask.user = 4,
            1 | 2 => ask.user = ask.number as usize % USERS.len(),
            7..=14 => {
                let room = RoomId::parse(ROOMS[ask.room]).unwrap();
                let all = self.state.events(&room, Seq(1), Seq(u64::MAX), usize::MAX, usize::MAX);
                let mut said: Vec<_> = all.iter().filter(|e| e.kind.is_message()).collect();
                said.truncate(4);
                if !said.is_empty() {
                    let message = said[ask.target as usize % said.len()];
                    ask.target = message.seq.0;
                    let sender = USERS.iter().position(|user| *user == message.sender.as_str());
                    ask.user = sender.unwrap_or(ask.user);
                }
            }
            _ => {}
        }
        ask
    }

    fn apply(&mut self, request: &Request) -> Reply {
        let before = self.state.clone();
        let told = self.events.len();
        let bytes = codec::encode_request(request);
        self.log.push((self.now_ms, bytes.clone()));
        let mut reply = None;
        apply::apply_batch(
            &mut self.state,
            self.now_ms,
            &[bytes],
            |_, r| reply = Some(r),
            &mut self.events,
        );
        let reply = reply.unwrap();
        if reply.is_err() {
            let mut before = before;
            before.advance_log_time(self.now_ms);
            assert!(before == self.state, "rejected, and changed something: {request:?}");
            assert_eq!(told, self.events.len());
        }
        self.replies.push(reply.clone());
        reply
    }

    /// Sends an accepted request again, and checks that it changes nothing.
    fn repeat(&mut self, index: usize) {
        let (ask, mut request, first) = self.asked[index].clone();
        let Ok(first) = first else { return };
        self.minted += 1;
        let redrawn = command(&ask, self.minted as u8);
        // A token is a client's own words when it is revoked, but not when it is issued.
        request.command = redrawn;
        let (before, told) = (self.state.clone(), self.events.len());
        let reply = self.apply(&request);
        assert_eq!(told, self.events.len(), "a repeat appended: {request:?}");
        let mut before = before;
        before.advance_log_time(self.now_ms);
        assert!(before == self.state, "a repeat changed something: {request:?}");
        if matches!(request.command, Command::MarkRead { .. }) {
            // Not remembered: who is out by now is refused, and the mark may be further.
            assert!(reply.is_err() || reply.is_ok_and(|d| d.duplicate && d.seq >= first.seq));
            return;
        }
        let import = matches!(request.command, Command::Import { .. });
        if import && matches!(reply, Err(Rejection::Archived(_))) {
            // Imports are not remembered, and an archived room takes none.
        } else if import {
            let done = reply.unwrap();
            assert!(done.duplicate && done.imported.unwrap().count == 0);
        } else if reply != Err(Rejection::Expired { horizon_ms: 7 * 86_400_000 }) {
            let done = reply.unwrap();
            assert!(done.duplicate);
            assert_eq!((done.seq, done.at_ms, done.epoch), (first.seq, first.at_ms, first.epoch));
        }
    }

    fn check(&self) {
        for id in ROOMS {
            let id = RoomId::parse(id).unwrap();
            let Some(room) = self.state.room(&id) else { continue };
            let events = self.state.events(&id, Seq(1), Seq(u64::MAX), usize::MAX, usize::MAX);
            let seqs: Vec<u64> = events.iter().map(|event| event.seq.0).collect();
            let kept: Vec<u64> = (room.first_seq.0..=room.head.0).collect();
            assert_eq!(seqs, kept, "dense up to the head");
            let chain = events.iter().fold(room.chain_base, |chain, event| event.chain(&chain));
            assert_eq!(chain, room.chain, "the chain follows from the events, erased or not");
            assert!(events.is_sorted_by_key(|event| event.at_ms));
            let mut ids: Vec<_> = events.iter().map(|event| event.request_id).collect();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), events.len(), "every event has an id of its own");

            let told: Vec<_> = self.events.iter().filter(|(room, _)| *room == id).collect();
            assert_eq!(told.len() as u64, room.head.0, "subscribers are told everything");
            let chain = told.iter().fold([0; 32], |chain, (_, event)| event.chain(&chain));
            assert_eq!(chain, room.chain);

            let parts = self.state.participants(&id, None, usize::MAX);
            let inside = parts.iter().filter(|(_, part)| part.is_inside()).count();
            assert_eq!(inside as u64, room.participants);
            for event in &events {
                // An edit goes with its message.
                let message = match event.kind {
                    EventKind::Edit => event.target.unwrap(),
                    _ => event.seq,
                };
                let notes = self.state.notes(&id, message);
                let redacted = notes.as_ref().is_some_and(|notes| notes.redacted_by.is_some());
                // What was noted of a message that was dropped is gone with it; its edits may be younger.
                if message >= room.first_seq {
                    assert_eq!(matches!(event.body, Body::Erased { .. }), redacted);
                }
                let noted = event.kind.is_message() || event.kind == EventKind::Edit;
                assert!(noted || notes.is_none(), "only messages have notes");
            }
            assert!(room.pins.iter().all(|seq| *seq >= room.first_seq));
            let all_notes = self.state.notes_in(&id, Seq(0), Seq(u64::MAX));
            assert!(all_notes.iter().all(|(seq, _)| *seq >= room.first_seq));
            self.check_owner(&room);
            self.check_pages(&room);
        }
    }

    /// A public or private room that is not archived has an owner, once it had one.
    fn check_owner(&self, room: &Room) {
        if room.archived || !matches!(room.kind, RoomKind::Public | RoomKind::Private) {
            return;
        }
        let events = self.events.iter().filter(|(id, _)| *id == room.id);
        let opened = |kind| events.clone().any(|(_, event)| event.kind == kind);
        let parts = self.state.participants(&room.id, None, usize::MAX);
        let owned = parts.iter().any(|(_, part)| part.is_inside() && part.role == Role::Owner);
        assert!(owned || opened(EventKind::Archive), "nobody owns {}", room.id);
    }

    /// Pages of any size, both ways, put together give the whole log.
    fn check_pages(&self, row: &Room) {
        let (room, head, first) = (&row.id, row.head, row.first_seq);
        let admin = actor(4);
        let page = |page: Page, limit: usize| {
            let query = Query::Events { room: room.clone(), page, limit };
            let Ok(Answer::Events(page)) = query::query(&self.state, &admin, &query) else {
                panic!("no page")
            };
            assert!(page.head == head);
            page.events.iter().map(|a| a.event.seq.0).collect::<Vec<_>>()
        };
        let all: Vec<u64> = (first.0..=head.0).collect();
        for limit in [1, 3, 100] {
            let (mut forward, mut seq) = (Vec::new(), Seq(0));
            while seq < head {
                forward.extend(page(Page::After(Cursor { epoch: None, seq }), limit));
                seq = Seq(*forward.last().unwrap());
            }
            assert_eq!(forward, all);
            let (mut backward, mut seq) = (Vec::new(), head.next());
            while seq > first {
                let mut older = page(Page::Before(Cursor { epoch: None, seq }), limit);
                seq = Seq(older[0]);
                older.append(&mut backward);
                backward = older;
            }
            assert_eq!(backward, all);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_history_is_dense_chained_and_repeatable(history in history()) {
        let mut play = Play::default();
        for step in &history {
            play.step(step);
        }
        play.check();
        for index in 0..play.asked.len() {
            play.repeat(index);
        }
        play.check();
    }

    #[test]
    fn a_log_gives_the_same_state_however_it_was_batched(history in history(), size in 1..9usize) {
        let mut play = Play::default();
        for step in &history {
            play.step(step);
        }
        // One entry has one stamp: runs of the same stamp are cut into entries of `size`.
        let mut state = Memory::default();
        let (mut replies, mut events) = (Vec::new(), Vec::new());
        for run in play.log.chunk_by(|(a, _), (b, _)| a == b) {
            for entry in run.chunks(size) {
                let requests = entry.iter().map(|(_, bytes)| bytes.clone()).collect();
                let bytes = codec::encode_batch(run[0].0, requests);
                let batch = codec::decode_batch(bytes).unwrap();
                apply::apply_batch(
                    &mut state,
                    batch.stamp_ms,
                    &batch.requests,
                    |_, reply| replies.push(reply),
                    &mut events,
                );
            }
        }
        prop_assert!(state == play.state);
        prop_assert_eq!(replies, play.replies);
        prop_assert_eq!(events, play.events);
    }

    #[test]
    fn nobody_but_participants_learns_of_a_private_room(history in history()) {
        let mut play = Play::default();
        for step in &history {
            play.step(step);
        }
        let stranger = Actor { user: UserId::parse("eve").unwrap(), admin: false };
        let hidden = RoomId::parse("private").unwrap();
        let missing = RoomId::parse("missing").unwrap();
        for (ask, _, _) in play.asked.clone() {
            // Creating a room tells that its id is taken, as it must. Users are no secret.
            let command = command(&ask, 0);
            if ask.verb <= 3 || matches!(command, Command::Import { .. }) {
                continue;
            }
            let mut reply = |room: usize| {
                let command = self::command(&Ask { room, ..ask.clone() }, 0);
                let id = RequestId::mint(play.state.log_time_ms(), [0xee; 10]);
                let request = Request { actor: stranger.clone(), id, command };
                apply::apply(&mut play.state, request, &mut Vec::new())
            };
            prop_assert_eq!(reply(1), Err(Rejection::RoomNotFound(hidden.clone())));
        }
        let read = |room: &RoomId| {
            query::query(&play.state, &stranger, &Query::Room { room: room.clone() })
                .map_err(|error| error.message.replace(room.as_str(), ""))
        };
        prop_assert_eq!(read(&hidden), read(&missing));
    }
}
