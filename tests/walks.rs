//! Every frame of a WebSocket and every gRPC method about a room, as everybody, answers as the table of
//! permissions says. (`permissions.rs` does the same over REST.)

use std::collections::BTreeSet;

use folkmoot::chat::permission::{self, Action, Who};
use folkmoot::chat::state::RoomKind;
use folkmoot::proto::v1 as pb;
use folkmoot::proto::v1::rooms_client::RoomsClient;
use prost::Message;
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::common::ws::Ws;
use crate::permissions::{World, code, name, wanted};

const KINDS: [RoomKind; 4] =
    [RoomKind::Public, RoomKind::Private, RoomKind::Group, RoomKind::Direct];

/// Everybody who signs in and occurs in such rooms.
fn people(kind: RoomKind) -> impl Iterator<Item = Who> {
    let here = move |who: &Who| *who != Who::Stranger && permission::occurs(kind, *who);
    Who::ALL.into_iter().filter(here)
}

/// Whether somebody has a message of their own in the room of a walk.
fn has_own(kind: RoomKind, who: Who) -> bool {
    kind != RoomKind::Direct || who != Who::Admin
}

/// Every frame about a room that is answered, and what it needs.
fn frames(room: &str, own: u64, theirs: u64) -> Vec<(Action, Value)> {
    use Action::*;
    vec![
        (Read, json!({ "type": "follow", "rooms": [{ "room": room }] })),
        (Post, json!({ "type": "post", "room": room, "text": "hi" })),
        (EditOwn, json!({ "type": "edit", "room": room, "target": own, "text": "ho" })),
        (React, json!({ "type": "react", "room": room, "target": theirs, "symbol": "+1" })),
        (RedactOwn, json!({ "type": "redact", "room": room, "target": own })),
        (RedactOthers, json!({ "type": "redact", "room": room, "target": theirs })),
        (MarkRead, json!({ "type": "mark_read", "room": room, "seq": 1 })),
    ]
}

/// Hears until the answer to a frame with this `ref`: its type, and an error's code.
fn answer_of(ws: &mut Ws, tag: &str) -> (String, Option<String>) {
    loop {
        let frame = ws.hear().unwrap();
        if frame["ref"] == tag {
            let code = frame["error"]["code"].as_str().map(str::to_owned);
            return (frame["type"].as_str().unwrap().to_owned(), code);
        }
    }
}

#[test]
fn every_frame_answers_as_the_table_says() {
    let mut world = World::new();
    let mut asked = 0;
    for kind in KINDS {
        for who in people(kind) {
            let (room, own, theirs) = world.room(kind, who);
            let mut ws = Ws::open(&world.cluster.url(0), world.token(name(who))).unwrap();
            for (action, mut frame) in frames(&room, own, theirs) {
                if !has_own(kind, who) && matches!(action, Action::EditOwn | Action::RedactOwn) {
                    continue;
                }
                let tag = format!("{action:?}");
                frame["ref"] = json!(tag);
                ws.say(&frame).unwrap();
                let (_, code) = answer_of(&mut ws, &tag);
                let what = format!("{who:?} in a {kind:?} room: {frame}");
                assert_eq!(code.as_deref(), wanted(kind, who, action), "{what}");
                asked += 1;
            }
        }
    }
    assert!(asked > 150, "{asked} frames");
}

#[test]
fn who_is_there_is_told_and_typing_is_taken_as_the_table_says() {
    let mut world = World::new();
    for kind in KINDS {
        for who in people(kind) {
            let (room, ..) = world.room(kind, who);
            let follow = json!({ "type": "follow", "rooms": [{ "room": room }], "presence": true });
            let mut ws = Ws::open(&world.cluster.url(0), world.token(name(who))).unwrap();
            ws.say(&follow).unwrap();
            // An administrator is told what this node knows of the room, and when.
            let mut admin = Ws::open(&world.cluster.url(0), world.cluster.admin_token()).unwrap();
            admin.say(&follow).unwrap();
            while admin.hear().unwrap()["type"] != "presence" {}
            let what = format!("{who:?} in a {kind:?} room");
            let sees = permission::ask(kind, false, who, Action::SeePresence);
            if sees.is_ok() {
                while ws.hear().unwrap()["type"] != "presence" {}
            }
            let typing = json!({ "type": "typing", "ref": "t", "room": room, "typing": true });
            let mut refused = None;
            // Whoever is told nothing does not see when it has been looked up who may type.
            for _ in 0..if sees.is_ok() { 1 } else { 1000 } {
                ws.say(&typing).unwrap();
                ws.say(&json!({ "type": "ping", "ref": "end" })).unwrap();
                loop {
                    let frame = ws.hear().unwrap();
                    match frame["type"].as_str().unwrap() {
                        "pong" => break,
                        "presence" | "typing" | "receipts" => assert!(sees.is_ok(), "{what}"),
                        "error" if frame["ref"] == "t" => {
                            refused = frame["error"]["code"].as_str().map(str::to_owned)
                        }
                        _ => {}
                    }
                }
                if refused.is_some() {
                    break;
                }
            }
            let ask = |action| permission::ask(kind, false, who, action).err();
            let wanted = match ask(Action::Read) {
                Some(_) => Some("invalid_argument"), // it could not be followed
                None => ask(Action::Post).or(sees.err()).map(code),
            };
            assert_eq!(refused.as_deref(), wanted, "{what}");
        }
    }
}

/// Each method about a room, what it needs, and how it is called.
async fn call(
    rooms: &mut RoomsClient<Channel>,
    token: &str,
    method: &str,
    room: &str,
    (own, theirs): (u64, u64),
) -> Result<(), tonic::Status> {
    let room = room.to_owned();
    let user = "other".to_owned();
    macro_rules! ask {
        ($call:ident, $request:ident { $($field:ident: $value:expr),* }) => {{
            #[allow(clippy::needless_update, reason = "some have no other fields")]
            let request = pb::$request { room, $($field: $value,)* ..Default::default() };
            let mut request = tonic::Request::new(request);
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            rooms.$call(request).await.map(drop)
        }};
    }
    let (ban, mute) = (pb::Restriction::Ban as i32, pb::Restriction::Mute as i32);
    match method {
        "GetRoom" => ask!(get_room, GetRoomRequest {}),
        "ListParticipants" => ask!(list_participants, ListParticipantsRequest {}),
        "Events" => ask!(events, EventsRequest {}),
        "Thread" => ask!(thread, ThreadRequest { root: theirs }),
        "Join" => ask!(join, JoinRequest {}),
        "Leave" => ask!(leave, LeaveRequest {}),
        "Post" => ask!(post, PostRequest { text: "hi".into() }),
        "React" => ask!(react, ReactRequest { target: theirs, symbol: "+1".into() }),
        "Edit" => ask!(edit, EditRequest { target: own, text: "ho".into() }),
        "Redact own" => ask!(redact, RedactRequest { target: own }),
        "Redact" => ask!(redact, RedactRequest { target: theirs }),
        "MarkRead" => ask!(mark_read, MarkReadRequest { seq: 1 }),
        "SetTopic" => ask!(set_topic, SetTopicRequest { topic: "a topic".into() }),
        "Pin" => ask!(pin, PinRequest { target: theirs }),
        "Invite" => ask!(invite, InviteRequest { user: "newcomer".into() }),
        "Kick" => ask!(kick, KickRequest { user: user }),
        "Restrict" => {
            ask!(restrict, RestrictRequest { user: user, restriction: mute, for_ms: 60_000 })
        }
        "Restrict ban" => ask!(restrict, RestrictRequest { user: user, restriction: ban }),
        "Lift" => ask!(lift, LiftRequest { user: user, restriction: mute }),
        "Lift ban" => ask!(lift, LiftRequest { user: user, restriction: ban }),
        "SetRole" => {
            ask!(set_role, SetRoleRequest { user: user, role: pb::Role::Moderator as i32 })
        }
        "SetRetention" => {
            let retention = pb::Retention { max_events: 1_000_000, max_age_ms: 0 };
            ask!(set_retention, SetRetentionRequest { retention: Some(retention) })
        }
        "Archive" => ask!(archive, ArchiveRequest {}),
        "Import" => {
            let line = pb::ImportLine {
                line: 1,
                original_at_ms: 1_000,
                sender: "member".into(),
                kind: pb::EventKind::Message as i32,
                text: "hi".into(),
                ..Default::default()
            };
            ask!(import, ImportRequest { source: "a".into(), lines: vec![line] })
        }
        "Export" => {
            let mut request = tonic::Request::new(pb::ExportRequest { room });
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
            rooms.export(request).await.map(drop)
        }
        other => panic!("{other}"),
    }
}

const METHODS: &[(Action, &str)] = &[
    (Action::See, "GetRoom"),
    (Action::See, "ListParticipants"),
    (Action::Read, "Events"),
    (Action::Read, "Thread"),
    (Action::Join, "Join"),
    (Action::Leave, "Leave"),
    (Action::Post, "Post"),
    (Action::React, "React"),
    (Action::EditOwn, "Edit"),
    (Action::RedactOwn, "Redact own"),
    (Action::RedactOthers, "Redact"),
    (Action::MarkRead, "MarkRead"),
    (Action::SetTopic, "SetTopic"),
    (Action::Pin, "Pin"),
    (Action::Invite, "Invite"),
    (Action::Kick, "Kick"),
    (Action::Mute, "Restrict"),
    (Action::Mute, "Lift"),
    (Action::Ban, "Restrict ban"),
    (Action::Ban, "Lift ban"),
    (Action::SetRole, "SetRole"),
    (Action::SetRetention, "SetRetention"),
    (Action::Archive, "Archive"),
    (Action::Import, "Import"),
    (Action::Export, "Export"),
];

#[test]
fn every_method_about_a_room_is_walked() {
    let proto = include_str!("../proto/folkmoot/v1/folkmoot.proto");
    let service = proto.split("service Rooms {").nth(1).unwrap().split("\n}").next().unwrap();
    let rpcs = service.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
    let rpcs = rpcs.map(|line| line.split('(').next().unwrap().to_owned());
    // About no room, or what is walked as frames.
    let others = ["CreateRoom", "ListRooms", "ListOwnRooms", "SetPresence", "Session"];
    let served: BTreeSet<String> = rpcs.filter(|rpc| !others.contains(&rpc.as_str())).collect();
    let walked = METHODS.iter().map(|(_, method)| method.split(' ').next().unwrap().to_owned());
    assert_eq!(walked.collect::<BTreeSet<_>>(), served);
}

#[test]
fn every_method_answers_as_the_table_says() {
    let mut world = World::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = world.cluster.url(0);
    let mut rooms = runtime.block_on(RoomsClient::connect(url)).unwrap();
    let mut asked = 0;
    for kind in KINDS {
        for who in people(kind) {
            for (action, method) in METHODS {
                if !has_own(kind, who) && matches!(action, Action::EditOwn | Action::RedactOwn) {
                    continue;
                }
                let (room, own, theirs) = world.room(kind, who);
                let token = world.token(name(who));
                let called = call(&mut rooms, token, method, &room, (own, theirs));
                let status = runtime.block_on(called).err();
                let got = status.map(|it| pb::Error::decode(it.details()).unwrap().code);
                let wanted = match action {
                    // Refused before the room is looked at.
                    Action::Import | Action::Export if who != Who::Admin => Some("forbidden"),
                    _ => wanted(kind, who, *action),
                };
                assert_eq!(got.as_deref(), wanted, "{who:?} in a {kind:?} room: {method}");
                if *action == Action::Archive && wanted.is_none() {
                    let path = format!("/v1/rooms/{room}/archive");
                    world.must("admin", "DELETE", &path, &Value::Null);
                }
                asked += 1;
            }
        }
    }
    assert!(asked > 500, "{asked} calls");
}
