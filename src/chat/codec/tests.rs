//! Round trips, pinned bytes, and rubbish.

pub(crate) mod samples;
pub(crate) mod strategies;

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

use crate::chat::codec;
use crate::chat::command::{Actor, Command, Request};
use crate::chat::event::Event;
use crate::chat::query::{Annotated, Answer};
use crate::error::{Code, Error};
use crate::id::{RequestId, UserId};
use crate::proto::internal::StoredEvent;
use crate::testing::{damaged, hex};
use samples::{answers, commands, events, imported_event, rejections};
use strategies::{actor, event, query, reply, request};

#[test]
fn formats_are_pinned() {
    let actor = Actor { user: UserId::parse("ann").unwrap(), admin: true };
    let id = RequestId::mint(1_700_000_000_000, [7; 10]);
    let mut rows: Vec<(String, Bytes)> = Vec::new();
    for command in commands() {
        let name = format!("{command:?}");
        let name = match &command {
            Command::ChangeUser { change, .. } => format!("{change:?}"),
            _ => name,
        };
        let name = name.split(' ').next().unwrap();
        let request = Request { actor: actor.clone(), id, command: command.clone() };
        let bytes = codec::encode_request(&request);
        assert_eq!(codec::decode_request(&bytes), Ok(request));
        rows.push((format!("request {name}"), bytes));
    }
    let recovery = codec::encode_recovery(&[5; 16]);
    assert_eq!(codec::decode_recovery(&recovery), Ok([5; 16]));
    assert!(codec::decode_request(&recovery).is_err(), "nobody can ask for it");
    assert!(codec::decode_recovery(&rows[0].1).is_err());
    rows.push(("recovery".into(), recovery));
    let requests = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    rows.push(("batch".into(), codec::encode_batch(1_700_000_000_000, requests)));
    let [event, erased] = events();
    rows.push(("event".into(), codec::encode_event(&event)));
    rows.push(("event erased".into(), codec::encode_event(&erased)));
    let timed = Event { until_ms: Some(1_700_000_060_000), ..event };
    rows.push(("event with an end".into(), codec::encode_event(&timed)));

    let mut text =
        String::from("# Persisted formats: a change here is a change of what is on disk.\n");
    for (name, bytes) in rows {
        writeln!(text, "{name}: {}", hex(&bytes)).unwrap();
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

/// The chain tells absent from empty, so a page from another node must too.
#[test]
fn pages_carry_what_is_there_but_empty() {
    let event = Arc::new(imported_event());
    assert_eq!((event.original_at_ms, event.original_sender.as_deref()), (Some(0), Some("")));
    let mut answers = answers();
    for answer in &mut answers {
        match answer {
            Answer::Events(page) => page.events.push(Annotated {
                event: event.clone(),
                notes: None,
                edits: Vec::new(),
                replies: None,
            }),
            Answer::Export { events, .. } => events.push(event.clone()),
            _ => continue,
        }
        let decoded = codec::decode_answer(codec::encode_answer(answer));
        assert_eq!(decoded.as_ref(), Ok(&*answer));
    }
    assert_eq!(codec::decode_event(&codec::encode_event(&event)), Ok(event));
}

#[test]
fn what_is_not_valid_is_not_decoded() {
    use crate::proto::internal as proto;
    let good = proto::Request {
        actor: "ann".into(),
        actor_is_admin: false,
        request_id: Bytes::copy_from_slice(RequestId::mint(1, [0; 10]).as_bytes()),
        audit: None,
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
        |_, post| post.kind = 16,
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
    meta.command = Some(proto::request::Command::SetTarget(Default::default()));
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
    let _ = codec::decode_event(&bytes);
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
        let decoded = codec::decode_event(&bytes).unwrap();
        prop_assert_eq!(event.chain(&[0; 32]), decoded.chain(&[0; 32]));
        prop_assert_eq!(&*decoded, &event);
        let stored = StoredEvent::decode(&bytes[1..]).unwrap();
        prop_assert_eq!(stored.seq, event.seq.0);
        prop_assert_eq!(&stored.sender, event.sender.as_str());
        prop_assert_eq!(&stored.text, event.body.text());
        prop_assert_eq!(stored.withdrawn, event.withdrawn);
        prop_assert_eq!(stored.original_at_ms, event.original_at_ms);
        prop_assert_eq!(stored.until_ms, event.until_ms);
        prop_assert_eq!(stored.original_sender, event.original_sender);
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
        let answer = answers().swap_remove(at.index(7));
        for bytes in [
            codec::encode_request(&request),
            codec::encode_event(&event),
            codec::encode_query(&query),
            codec::encode_answer(&answer),
        ] {
            damaged(&bytes, at, to, cut).iter().for_each(|bytes| decode_everything(bytes));
        }
    }
}
