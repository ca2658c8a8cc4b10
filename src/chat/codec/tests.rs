//! Round trips, pinned bytes, and rubbish.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use crate::chat::codec;
use crate::chat::command::{Actor, Command, Done, ImportLine, Imported, Rejection, Reply, Request};
use crate::chat::event::{Body, Event, EventKind, Role};
use crate::chat::query::{Annotated, Answer, Events, Page, Query};
use crate::chat::state::{Notes, Participant, Room, RoomKind, Token, User};
use crate::error::{Code, Error};
use crate::id::{Cursor, Epoch, RequestId, RoomId, Seq, UserId};

fn user() -> impl Strategy<Value = UserId> {
    "[a-z0-9][a-z0-9._-]{0,63}".prop_map(|s| UserId::parse(&s).unwrap())
}

fn room() -> impl Strategy<Value = RoomId> {
    prop_oneof![
        3 => "[a-z0-9][a-z0-9._-]{0,63}".prop_map(|s| RoomId::parse(&s).unwrap()),
        1 => ("a[a-z]{0,9}", "b[a-z]{0,9}")
            .prop_map(|(a, b)| RoomId::parse(&format!("dm:{a}:{b}")).unwrap()),
    ]
}

fn request_id() -> impl Strategy<Value = RequestId> {
    (0..1u64 << 48, any::<[u8; 10]>()).prop_map(|(ms, random)| RequestId::mint(ms, random))
}

fn epoch() -> impl Strategy<Value = Epoch> {
    "[0-9a-zA-Z]{1,32}".prop_map(|s| Epoch::parse(&s).unwrap())
}

fn seq() -> impl Strategy<Value = Seq> {
    prop_oneof![1..100u64, 1..=u64::MAX].prop_map(Seq)
}

fn event_kind() -> impl Strategy<Value = EventKind> {
    (1..=10u32).prop_map(|n| EventKind::from_number(n).unwrap())
}

fn role() -> impl Strategy<Value = Role> {
    (1..=5u32).prop_map(|n| Role::from_number(n).unwrap())
}

fn room_kind() -> impl Strategy<Value = RoomKind> {
    (1..=3u32).prop_map(|n| RoomKind::from_number(n).unwrap())
}

fn actor() -> impl Strategy<Value = Actor> {
    (user(), any::<bool>()).prop_map(|(user, admin)| Actor { user, admin })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), Just(String::new())]
}

fn import_line() -> impl Strategy<Value = ImportLine> {
    (any::<u64>(), any::<u64>(), user(), text(), event_kind(), text()).prop_map(
        |(line, original_at_ms, sender, original_sender, kind, text)| ImportLine {
            line,
            original_at_ms,
            sender,
            original_sender,
            kind,
            text,
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    let salt = any::<[u8; 16]>;
    let hash = any::<[u8; 32]>;
    prop_oneof![
        (user(), text(), any::<bool>(), proptest::option::of(hash())).prop_map(
            |(user, display_name, admin, token_hash)| Command::CreateUser {
                user,
                display_name,
                admin,
                token_hash
            }
        ),
        (user(), hash(), text()).prop_map(|(user, token_hash, label)| Command::IssueToken {
            user,
            token_hash,
            label
        }),
        (user(), hash()).prop_map(|(user, token_hash)| Command::RevokeToken { user, token_hash }),
        (room(), text(), room_kind(), epoch(), salt()).prop_map(
            |(room, title, kind, epoch, salt)| Command::CreateRoom {
                room,
                title,
                kind,
                epoch,
                salt
            }
        ),
        (room(), salt()).prop_map(|(room, salt)| Command::Join { room, salt }),
        (room(), salt()).prop_map(|(room, salt)| Command::Leave { room, salt }),
        (room(), event_kind(), text(), proptest::option::of(seq()), salt()).prop_map(
            |(room, kind, text, reply_to, salt)| Command::Post { room, kind, text, reply_to, salt }
        ),
        (room(), seq(), text(), salt()).prop_map(|(room, target, text, salt)| Command::Edit {
            room,
            target,
            text,
            salt
        }),
        (room(), seq(), salt()).prop_map(|(room, target, salt)| Command::Redact {
            room,
            target,
            salt
        }),
        (room(), seq(), text(), any::<bool>(), salt()).prop_map(
            |(room, target, symbol, withdraw, salt)| Command::React {
                room,
                target,
                symbol,
                withdraw,
                salt
            }
        ),
        (room(), user(), role(), salt()).prop_map(|(room, user, role, salt)| Command::SetRole {
            room,
            user,
            role,
            salt
        }),
        (room(), text(), prop::collection::vec(import_line(), 0..4), salt())
            .prop_map(|(room, source, lines, salt)| Command::Import { room, source, lines, salt }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    (actor(), request_id(), command()).prop_map(|(actor, id, command)| Request {
        actor,
        id,
        command,
    })
}

fn event() -> impl Strategy<Value = Event> {
    let body = prop_oneof![
        (any::<[u8; 16]>(), text()).prop_map(|(salt, text)| Body::Present { salt, text }),
        any::<[u8; 32]>().prop_map(|hash| Body::Erased { hash }),
    ];
    let head = (seq(), any::<u64>(), user(), event_kind(), request_id(), body);
    let rest = (
        proptest::option::of(seq()),
        proptest::option::of(user()),
        proptest::option::of(role()),
        any::<bool>(),
        proptest::option::of(1..=u64::MAX),
        proptest::option::of("\\PC{1,20}"),
    );
    (head, rest).prop_map(|((seq, at_ms, sender, kind, request_id, body), rest)| {
        let (target, subject, role, withdrawn, original_at_ms, original_sender) = rest;
        Event {
            seq,
            at_ms,
            sender,
            kind,
            request_id,
            target,
            subject,
            role,
            withdrawn,
            original_at_ms,
            original_sender,
            body,
        }
    })
}

fn cursor() -> impl Strategy<Value = Cursor> {
    (proptest::option::of(epoch()), any::<u64>().prop_map(Seq))
        .prop_map(|(epoch, seq)| Cursor { epoch, seq })
}

fn query() -> impl Strategy<Value = Query> {
    let page = prop_oneof![
        cursor().prop_map(Page::After),
        cursor().prop_map(Page::Before),
        Just(Page::Newest),
    ];
    let limit = any::<usize>;
    prop_oneof![
        room().prop_map(|room| Query::Room { room }),
        (proptest::option::of(room()), limit())
            .prop_map(|(after, limit)| Query::Rooms { after, limit }),
        (room(), page, limit()).prop_map(|(room, page, limit)| Query::Events { room, page, limit }),
        (room(), any::<u64>(), limit()).prop_map(|(room, after, limit)| Query::Export {
            room,
            after: Seq(after),
            limit
        }),
        user().prop_map(|user| Query::User { user }),
        (proptest::option::of(user()), limit())
            .prop_map(|(after, limit)| Query::Users { after, limit }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let imported = (any::<u64>(), any::<u64>()).prop_map(|(line, count)| Imported { line, count });
    let done = (
        any::<u64>(),
        proptest::option::of(epoch()),
        any::<u64>(),
        any::<bool>(),
        proptest::option::of(imported),
    );
    prop_oneof![
        done.prop_map(|(seq, epoch, at_ms, duplicate, imported)| Ok(Done {
            seq: Seq(seq),
            epoch,
            at_ms,
            duplicate,
            imported
        })),
        (0..rejections().len()).prop_map(|n| Err(rejections().swap_remove(n))),
    ]
}

/// One of each.
fn rejections() -> Vec<Rejection> {
    let room = || RoomId::parse("general").unwrap();
    let all = vec![
        Rejection::InvalidArgument("why".into()),
        Rejection::TooLarge { max: 7 },
        Rejection::RoomNotFound(room()),
        Rejection::UserNotFound(UserId::parse("ann").unwrap()),
        Rejection::EventNotFound { room: room(), seq: Seq(3) },
        Rejection::AlreadyExists("room general".into()),
        Rejection::NotParticipant(room()),
        Rejection::Muted(room()),
        Rejection::Banned(room()),
        Rejection::Forbidden("why".into()),
        Rejection::WrongRoomKind("direct"),
        Rejection::IdReused,
        Rejection::Expired { horizon_ms: 5 },
        Rejection::ClockSkew { server_time_ms: 6 },
        Rejection::Redacted,
        Rejection::LimitReached("why".into()),
        Rejection::Undecodable,
    ];
    // A new rejection needs a place above, and a row in the codec's table.
    for rejection in &all {
        match rejection {
            Rejection::InvalidArgument(_) | Rejection::TooLarge { .. } => {}
            Rejection::RoomNotFound(_) | Rejection::UserNotFound(_) => {}
            Rejection::EventNotFound { .. } | Rejection::AlreadyExists(_) => {}
            Rejection::NotParticipant(_) | Rejection::Muted(_) | Rejection::Banned(_) => {}
            Rejection::Forbidden(_) | Rejection::WrongRoomKind(_) | Rejection::IdReused => {}
            Rejection::Expired { .. } | Rejection::ClockSkew { .. } | Rejection::Redacted => {}
            Rejection::LimitReached(_) | Rejection::Undecodable => {}
        }
    }
    all
}

/// One answer of each kind, with everything set.
fn answers() -> Vec<Answer> {
    let ann = UserId::parse("ann").unwrap();
    let room = Arc::new(Room {
        id: RoomId::parse("general").unwrap(),
        kind: RoomKind::Private,
        title: "General".into(),
        topic: "talk".into(),
        epoch: Epoch::parse("e1").unwrap(),
        first_seq: Seq(2),
        head: Seq(9),
        chain: [1; 32],
        chain_base: [2; 32],
        participants: 3,
        created_at_ms: 1000,
        creator: ann.clone(),
    });
    let user = Arc::new(User {
        id: ann.clone(),
        display_name: "Ann".into(),
        admin: true,
        created_at_ms: 1000,
        tokens: vec![Token { hash: [3; 32], label: "laptop".into(), issued_at_ms: 1001 }],
    });
    let notes = Notes {
        edits: vec![Seq(3)],
        reactions: vec![("+1".into(), vec![ann.clone()])],
        redacted_by: Some(Seq(8)),
    };
    let [event, erased] = events().map(Arc::new);
    let annotated = Annotated {
        event: event.clone(),
        notes: Some(Arc::new(notes)),
        edits: vec![(Seq(3), 1002, "edited".into())],
    };
    let plain = Annotated { event: erased.clone(), notes: None, edits: Vec::new() };
    vec![
        Answer::Room {
            room: room.clone(),
            participants: vec![(ann, Participant { role: Role::Owner, since_ms: 1000 })],
        },
        Answer::Rooms { rooms: vec![room.clone()] },
        Answer::Events(Events {
            epoch: room.epoch.clone(),
            first_seq: Seq(2),
            head: Seq(9),
            recovered: false,
            events: vec![annotated, plain],
        }),
        Answer::Export { room, events: vec![event, erased] },
        Answer::User { user: user.clone() },
        Answer::Users { users: vec![user] },
    ]
}

/// Two events that have everything set between them.
fn events() -> [Event; 2] {
    let event = Event {
        seq: Seq(7),
        at_ms: 1_700_000_000_000,
        sender: UserId::parse("ann").unwrap(),
        kind: EventKind::Message,
        request_id: RequestId::mint(1_700_000_000_000, [7; 10]),
        target: Some(Seq(5)),
        subject: Some(UserId::parse("bob").unwrap()),
        role: Some(Role::Muted),
        withdrawn: true,
        original_at_ms: Some(1000),
        original_sender: Some("Ann|away".into()),
        body: Body::Present { salt: [9; 16], text: "hi".into() },
    };
    let mut erased = event.clone();
    erased.body = Body::Erased { hash: event.body.hash() };
    [event, erased]
}

/// One command of each kind.
fn commands() -> Vec<Command> {
    let room = || RoomId::parse("general").unwrap();
    let user = || UserId::parse("bob").unwrap();
    let (salt, target) = ([9; 16], Seq(5));
    vec![
        Command::CreateUser {
            user: user(),
            display_name: "Bob".into(),
            admin: true,
            token_hash: Some([3; 32]),
        },
        Command::IssueToken { user: user(), token_hash: [3; 32], label: "laptop".into() },
        Command::RevokeToken { user: user(), token_hash: [3; 32] },
        Command::CreateRoom {
            room: RoomId::parse("dm:ann:bob").unwrap(),
            title: "Us".into(),
            kind: RoomKind::Direct,
            epoch: Epoch::parse("e1").unwrap(),
            salt,
        },
        Command::Join { room: room(), salt },
        Command::Leave { room: room(), salt },
        Command::Post {
            room: room(),
            kind: EventKind::Action,
            text: "waves".into(),
            reply_to: Some(target),
            salt,
        },
        Command::Edit { room: room(), target, text: "nods".into(), salt },
        Command::Redact { room: room(), target, salt },
        Command::React { room: room(), target, symbol: "+1".into(), withdraw: true, salt },
        Command::SetRole { room: room(), user: user(), role: Role::Moderator, salt },
        Command::Import {
            room: room(),
            source: "irc.log".into(),
            lines: vec![ImportLine {
                line: 4,
                original_at_ms: 1000,
                sender: user(),
                original_sender: "Bob".into(),
                kind: EventKind::Notice,
                text: "joins".into(),
            }],
            salt,
        },
    ]
}

#[test]
fn formats_are_pinned() {
    let actor = Actor { user: UserId::parse("ann").unwrap(), admin: true };
    let id = RequestId::mint(1_700_000_000_000, [7; 10]);
    let mut rows: Vec<(String, Bytes)> = Vec::new();
    for command in commands() {
        let name = format!("{command:?}");
        let name = name.split(' ').next().unwrap();
        let request = Request { actor: actor.clone(), id, command: command.clone() };
        let bytes = codec::encode_request(&request);
        assert_eq!(codec::decode_request(&bytes), Ok(request));
        rows.push((format!("request {name}"), bytes));
    }
    let requests = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    rows.push(("batch".into(), codec::encode_batch(1_700_000_000_000, requests)));
    let [event, erased] = events();
    rows.push(("event".into(), codec::encode_event(&event)));
    rows.push(("event erased".into(), codec::encode_event(&erased)));

    let mut text =
        String::from("# Persisted formats: a change here is a change of what is on disk.\n");
    for (name, bytes) in rows {
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        writeln!(text, "{name}: {hex}").unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/chat/golden/formats.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), text, "UPDATE=1 rewrites {path}");
}

#[test]
fn a_batch_shares_its_memory() {
    let bytes = codec::encode_batch(5, vec![Bytes::from_static(b"request")]);
    let batch = codec::decode_batch(bytes.clone()).unwrap();
    assert_eq!(batch.stamp_ms, 5);
    let (whole, part) = (bytes.as_ptr_range(), batch.requests[0].as_ptr_range());
    assert!(whole.start <= part.start && part.end <= whole.end, "copied");
}

#[test]
fn answers_and_rejections_round_trip() {
    for answer in answers() {
        assert_eq!(codec::decode_answer(codec::encode_answer(&answer)), Ok(answer));
    }
    for rejection in rejections() {
        let reply = Err(rejection);
        assert_eq!(codec::decode_reply(codec::encode_reply(&reply)), Ok(reply));
    }
    for code in Code::ALL {
        let error = Error::new(*code, "why").maybe_applied().retry_after(0);
        assert_eq!(codec::decode_error(codec::encode_error(&error)), Ok(error));
    }
}

#[test]
fn what_is_not_valid_is_not_decoded() {
    use crate::proto::internal as proto;
    use prost::Message as _;
    let good = proto::Request {
        actor: "ann".into(),
        actor_is_admin: false,
        request_id: Bytes::copy_from_slice(RequestId::mint(1, [0; 10]).as_bytes()),
        command: Some(proto::request::Command::Post(proto::Post {
            room: "general".into(),
            kind: 1,
            text: "hi".into(),
            reply_to: 0,
            salt: Bytes::from_static(&[0; 16]),
        })),
    };
    let seal = |request: &proto::Request| {
        let mut bytes = vec![codec::VERSION];
        request.encode(&mut bytes).unwrap();
        Bytes::from(bytes)
    };
    assert!(codec::decode_request(&seal(&good)).is_ok());
    type Spoil = fn(&mut proto::Request, &mut proto::Post);
    let spoils: [Spoil; 9] = [
        |request, _| request.actor = "Ann".into(),
        |request, _| request.request_id = Bytes::from_static(&[0; 16]),
        |request, _| request.request_id = Bytes::new(),
        |_, post| post.room = String::new(),
        |_, post| post.room = "dm:b:a".into(),
        |_, post| post.kind = 0,
        |_, post| post.kind = 11,
        |_, post| post.salt = Bytes::new(),
        |_, post| post.salt = Bytes::from_static(&[0; 17]),
    ];
    for (n, spoil) in spoils.iter().enumerate() {
        let mut bad = good.clone();
        let Some(proto::request::Command::Post(mut post)) = bad.command.take() else {
            unreachable!()
        };
        spoil(&mut bad, &mut post);
        bad.command = Some(proto::request::Command::Post(post));
        assert!(codec::decode_request(&seal(&bad)).is_err(), "spoil {n}");
    }
    let mut meta = good.clone();
    meta.command = Some(proto::request::Command::SetPlacement(Default::default()));
    assert!(codec::decode_request(&seal(&meta)).is_err());
    meta.command = None;
    assert!(codec::decode_request(&seal(&meta)).is_err());
    let mut version = seal(&good).to_vec();
    version[0] = codec::VERSION + 1;
    assert!(codec::decode_request(&version.into()).is_err());
}

fn decode_everything(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let _ = codec::decode_batch(bytes.clone());
    let _ = codec::decode_request(&bytes);
    let _ = codec::decode_event(bytes.clone());
    let _ = codec::decode_reply(bytes.clone());
    let _ = codec::decode_actor(bytes.clone());
    let _ = codec::decode_error(bytes.clone());
    let _ = codec::decode_query(bytes.clone());
    let _ = codec::decode_answer(bytes);
}

proptest! {
    #[test]
    fn requests_round_trip(request in request()) {
        prop_assert_eq!(codec::decode_request(&codec::encode_request(&request)), Ok(request));
    }

    #[test]
    fn batches_round_trip(
        stamp in any::<u64>(),
        requests in prop::collection::vec(any::<Vec<u8>>(), 0..5),
    ) {
        let requests: Vec<Bytes> = requests.into_iter().map(Bytes::from).collect();
        let batch = codec::decode_batch(codec::encode_batch(stamp, requests.clone())).unwrap();
        prop_assert_eq!((batch.stamp_ms, batch.requests), (stamp, requests));
    }

    #[test]
    fn events_round_trip(event in event()) {
        let bytes = codec::encode_event(&event);
        let mut appended = vec![0xee];
        codec::encode_event_into(&event, &mut appended);
        prop_assert_eq!(&appended[1..], &bytes[..]);
        let decoded = codec::decode_event(bytes).unwrap();
        prop_assert_eq!(event.chain(&[0; 32]), decoded.chain(&[0; 32]));
        prop_assert_eq!(decoded, event);
    }

    #[test]
    fn actors_queries_and_replies_round_trip(
        actor in actor(), query in query(), reply in reply(),
    ) {
        prop_assert_eq!(codec::decode_actor(codec::encode_actor(&actor)), Ok(actor));
        prop_assert_eq!(codec::decode_query(codec::encode_query(&query)), Ok(query));
        prop_assert_eq!(codec::decode_reply(codec::encode_reply(&reply)), Ok(reply));
    }

    #[test]
    fn rubbish_is_refused_without_panicking(mut bytes in any::<Vec<u8>>()) {
        decode_everything(&bytes);
        bytes.insert(0, codec::VERSION);
        decode_everything(&bytes);
    }

    #[test]
    fn damaged_values_do_not_panic(
        request in request(), event in event(), query in query(),
        at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let answer = answers().swap_remove(at.index(6));
        for bytes in [
            codec::encode_request(&request),
            codec::encode_event(&event),
            codec::encode_query(&query),
            codec::encode_answer(&answer),
        ] {
            let mut bytes = bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            decode_everything(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            decode_everything(&bytes);
        }
    }
}
