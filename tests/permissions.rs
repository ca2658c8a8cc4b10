//! Every endpoint of a room, as everybody, answers as the table of permissions says; and who may
//! not know of a room cannot tell it from none.

use std::collections::BTreeSet;

use folkmoot::chat::permission::{self, Action, Denial, Who};
use folkmoot::chat::state::RoomKind;
use folkmoot::gateway::http::ROUTES;
use serde_json::{Value, json};

use crate::common::cluster::{TestCluster, succeed};
use crate::common::http::{Http, Response};
use crate::common::sse::Sse;
use crate::common::ws::Ws;

/// An endpoint below `/v1/rooms/{room}`: what it needs, and how it is called.
struct Endpoint {
    action: Action,
    method: &'static str,
    /// As in the table of routes, behind `/v1/rooms/{room}`.
    path: &'static str,
    body: Value,
}

fn endpoint(action: Action, method: &'static str, path: &'static str, body: Value) -> Endpoint {
    Endpoint { action, method, path, body }
}

fn endpoints() -> Vec<Endpoint> {
    use Action::*;
    let none = || Value::Null;
    let message = "/messages/{seq}";
    let reaction = "/messages/{seq}/reactions/{symbol}";
    vec![
        endpoint(See, "GET", "", none()),
        endpoint(See, "GET", "/participants", none()),
        endpoint(Read, "GET", "/events", none()),
        endpoint(Read, "GET", "/threads/{seq}", none()),
        endpoint(Join, "POST", "/join", json!({})),
        endpoint(Leave, "POST", "/leave", json!({})),
        endpoint(Post, "POST", "/messages", json!({ "text": "hi" })),
        endpoint(React, "PUT", reaction, none()),
        endpoint(React, "DELETE", reaction, none()),
        endpoint(EditOwn, "PATCH", message, json!({ "text": "ho" })),
        endpoint(RedactOwn, "DELETE", message, none()),
        endpoint(RedactOthers, "DELETE", message, none()),
        endpoint(MarkRead, "PUT", "/read", json!({ "seq": 1 })),
        endpoint(SetTopic, "PUT", "/topic", json!({ "topic": "a topic" })),
        endpoint(Pin, "PUT", "/pins/{seq}", none()),
        endpoint(Pin, "DELETE", "/pins/{seq}", none()),
        endpoint(Invite, "PUT", "/invitations/{user}", json!({})),
        endpoint(Kick, "DELETE", "/participants/{user}", none()),
        endpoint(Mute, "PUT", "/mutes/{user}", json!({ "for_ms": 60_000 })),
        endpoint(Mute, "DELETE", "/mutes/{user}", none()),
        endpoint(Ban, "PUT", "/bans/{user}", json!({ "reason": "spam" })),
        endpoint(Ban, "DELETE", "/bans/{user}", none()),
        endpoint(SetRole, "PUT", "/participants/{user}", json!({ "role": "moderator" })),
        endpoint(SetRetention, "PUT", "/retention", json!({ "max_events": 1_000_000 })),
        endpoint(Archive, "PUT", "/archive", none()),
        endpoint(Archive, "DELETE", "/archive", none()),
    ]
}

#[test]
fn every_route_of_a_room_is_walked() {
    let below = |path: &str| path.strip_prefix("/v1/rooms/{room}").map(str::to_owned);
    let served: BTreeSet<(String, String)> = ROUTES
        .iter()
        .filter_map(|(method, path)| Some((method.to_uppercase(), below(path)?)))
        .collect();
    let walked = endpoints().into_iter().map(|e| (e.method.to_owned(), e.path.to_owned()));
    assert_eq!(walked.collect::<BTreeSet<_>>(), served);
}

/// A cluster with one user for each sort of person, and two more.
pub struct World {
    pub cluster: TestCluster,
    tokens: Vec<(&'static str, String)>,
    rooms: usize,
}

const USERS: [&str; 9] =
    ["outsider", "invited", "banned", "muted", "member", "moderator", "owner", "other", "newcomer"];

impl World {
    pub fn new() -> World {
        let cluster = TestCluster::start(1);
        let mut tokens: Vec<_> = USERS.iter().map(|user| (*user, cluster.user(user))).collect();
        tokens.push(("admin", cluster.admin_token().to_owned()));
        World { cluster, tokens, rooms: 0 }
    }

    pub fn token(&self, user: &str) -> &str {
        &self.tokens.iter().find(|(known, _)| *known == user).unwrap().1
    }

    fn of(&self, user: &str) -> Http {
        let http = self.cluster.http(0);
        match self.tokens.iter().find(|(known, _)| *known == user) {
            Some((_, token)) => http.with_token(token),
            None => http,
        }
    }

    pub fn must(&self, user: &str, method: &str, path: &str, body: &Value) -> Value {
        let answer = call(&self.of(user), method, path, body);
        assert!(matches!(answer.status, 200 | 201), "{user} {method} {path}: {answer:?}");
        answer.json()
    }

    /// Brings somebody into a room, and has them say something: its seq.
    fn bring(&self, user: &str, creator: &str, room: &str) -> u64 {
        let path = format!("/v1/rooms/{room}");
        if user != creator && user != "admin" {
            self.must(creator, "PUT", &format!("{path}/invitations/{user}"), &json!({}));
            self.must(user, "POST", &format!("{path}/join"), &json!({}));
        }
        let said = json!({ "text": "something" });
        self.must(user, "POST", &format!("{path}/messages"), &said)["seq"].as_u64().unwrap()
    }

    /// A room with this person in it, and another: the seqs of what each has said.
    pub fn room(&mut self, kind: RoomKind, who: Who) -> (String, u64, u64) {
        self.rooms += 1;
        let user = name(who);
        let creator = match kind {
            RoomKind::Public | RoomKind::Private => "owner",
            RoomKind::Group | RoomKind::Direct => "member",
        };
        let room = match kind {
            RoomKind::Direct => "dm:member:other".to_owned(),
            _ => format!("room-{}", self.rooms),
        };
        self.must(creator, "POST", "/v1/rooms", &json!({ "room": room, "kind": kind.name() }));
        let path = format!("/v1/rooms/{room}");
        if kind == RoomKind::Direct {
            let said = |who: &str| {
                let message = json!({ "text": "something" });
                self.must(who, "POST", &format!("{path}/messages"), &message)["seq"].as_u64()
            };
            return (room, said("member").unwrap(), said("other").unwrap());
        }
        let theirs = self.bring("other", creator, &room);
        if who == Who::Stranger {
            return (room, theirs, theirs);
        }
        let own = self.bring(user, creator, &room);
        let (empty, none) = (json!({}), Value::Null);
        match who {
            Who::Outsider | Who::Invited => {
                self.must(user, "POST", &format!("{path}/leave"), &empty);
                if who == Who::Invited {
                    self.must(creator, "PUT", &format!("{path}/invitations/{user}"), &empty);
                }
            }
            Who::Banned => drop(self.must(creator, "PUT", &format!("{path}/bans/{user}"), &none)),
            Who::Muted => drop(self.must(creator, "PUT", &format!("{path}/mutes/{user}"), &none)),
            Who::Moderator => {
                let role = json!({ "role": "moderator" });
                self.must(creator, "PUT", &format!("{path}/participants/{user}"), &role);
            }
            _ => {}
        }
        (room, own, theirs)
    }
}

pub fn name(who: Who) -> &'static str {
    match who {
        Who::Stranger => "stranger",
        Who::Outsider => "outsider",
        Who::Invited => "invited",
        Who::Banned => "banned",
        Who::Muted => "muted",
        Who::Member => "member",
        Who::Moderator => "moderator",
        Who::Owner => "owner",
        Who::Admin => "admin",
    }
}

fn call(http: &Http, method: &str, path: &str, body: &Value) -> Response {
    if body.is_null() {
        return http.send(method, path, &[], b"").unwrap();
    }
    let json_type = [("content-type", "application/json")];
    http.send(method, path, &json_type, body.to_string().as_bytes()).unwrap()
}

/// The path of an endpoint, about somebody's message and somebody else.
fn path(endpoint: &Endpoint, room: &str, own: u64, theirs: u64) -> String {
    let about_own = matches!(endpoint.action, Action::EditOwn | Action::RedactOwn);
    let seq = if about_own { own } else { theirs };
    let user = if endpoint.action == Action::Invite { "newcomer" } else { "other" };
    let path = endpoint.path.replace("{seq}", &seq.to_string()).replace("{symbol}", "%2B1");
    format!("/v1/rooms/{room}{}", path.replace("{user}", user))
}

pub fn code(denial: Denial) -> &'static str {
    match denial {
        Denial::Unauthenticated => "unauthenticated",
        Denial::Hidden => "room_not_found",
        Denial::Banned => "banned",
        Denial::NotParticipant => "not_participant",
        Denial::Muted => "muted",
        Denial::Forbidden(_) => "forbidden",
        Denial::WrongRoomKind => "wrong_room_kind",
        Denial::Archived => "archived",
    }
}

/// The code that the table wants, or that of a rule beside it.
pub fn wanted(kind: RoomKind, who: Who, action: Action) -> Option<&'static str> {
    if let Err(denial) = permission::ask(kind, false, who, action) {
        // Whose a message is, is seen by those only who may read.
        let redacts = matches!(action, Action::RedactOwn | Action::RedactOthers);
        let unread = permission::ask(kind, false, who, Action::Read).err().filter(|_| redacts);
        return Some(code(unread.unwrap_or(denial)));
    }
    match (who, action) {
        (Who::Owner, Action::Leave) => Some("forbidden"), // the last one
        (Who::Admin, Action::Leave | Action::MarkRead) => Some("not_participant"),
        _ => None,
    }
}

#[test]
fn every_endpoint_answers_as_the_table_says() {
    let mut world = World::new();
    let mut asked = 0;
    for kind in [RoomKind::Public, RoomKind::Private, RoomKind::Group, RoomKind::Direct] {
        for who in Who::ALL.into_iter().filter(|who| permission::occurs(kind, *who)) {
            for endpoint in endpoints() {
                let own_there = kind != RoomKind::Direct || who != Who::Admin;
                let about_own = matches!(endpoint.action, Action::EditOwn | Action::RedactOwn);
                if about_own && !own_there {
                    continue;
                }
                let (room, own, theirs) = world.room(kind, who);
                let path = path(&endpoint, &room, own, theirs);
                let answer = call(&world.of(name(who)), endpoint.method, &path, &endpoint.body);
                let got = answer.json()["error"]["code"].as_str().map(str::to_owned);
                let wanted = wanted(kind, who, endpoint.action);
                let what = format!("{who:?} in a {kind:?} room: {} {path}", endpoint.method);
                assert_eq!(got.as_deref(), wanted, "{what}: {answer:?}");
                assert_eq!(answer.status < 300, wanted.is_none(), "{what}: {answer:?}");
                if endpoint.action == Action::Archive && wanted.is_none() {
                    let path = format!("/v1/rooms/{room}/archive");
                    world.must("admin", "DELETE", &path, &Value::Null);
                }
                asked += 1;
            }
        }
    }
    assert!(asked > 500, "{asked} requests");
}

#[test]
fn a_hidden_room_cannot_be_told_from_none() {
    let mut world = World::new();
    for kind in [RoomKind::Private, RoomKind::Group, RoomKind::Direct] {
        let (room, own, theirs) = world.room(kind, Who::Member);
        let missing = match kind {
            RoomKind::Direct => "dm:member:owner".to_owned(),
            _ => "r".repeat(room.len()), // as long, so that answers are, too
        };
        // One who was never there, and one whom a ban concerns that they need not know of.
        if kind == RoomKind::Private {
            let path = format!("/v1/rooms/{room}/bans/banned");
            world.must("owner", "PUT", &path, &Value::Null);
        }
        for user in ["outsider", "banned"] {
            let http = world.of(user);
            let said = |method: &str, path: &str, body: &Value, room: &str| {
                let answer = call(&http, method, path, body);
                let body = String::from_utf8_lossy(&answer.body).replace(room, "…");
                (answer.status, body)
            };
            for endpoint in endpoints() {
                let ask = |room: &str| {
                    let path = path(&endpoint, room, own, theirs);
                    said(endpoint.method, &path, &endpoint.body, room)
                };
                let here = ask(&room);
                assert_eq!(here, ask(&missing), "{user} {} {}", endpoint.method, endpoint.path);
                assert_eq!(here.0, 404, "{here:?}");
            }
            for query in ["after=0", "before=3", "after=999999", "after=abc:1", "wait=1&after=0"] {
                let ask = |room: &str| {
                    said("GET", &format!("/v1/rooms/{room}/events?{query}"), &Value::Null, room)
                };
                assert_eq!(ask(&room), ask(&missing), "{user} {query}");
            }
            let streamed = Sse::open(&http, &room, Some(0), None).map(|_| ());
            assert!(streamed.is_err(), "{user} follows {room}");
            for query in ["", "?search=r", "?search=room", "?search=dm:"] {
                let list = http.get(&format!("/v1/rooms{query}")).unwrap().expect(200);
                assert_eq!(list["rooms"], json!([]), "{user} {query}");
            }
            let own = http.get("/v1/me/rooms").unwrap().expect(200);
            assert_eq!(own, json!({ "rooms": [], "next": null }), "{user}");
        }
    }
}

/// Every frame of a WebSocket that names a room.
fn frames(room: &str, seq: u64) -> [Value; 6] {
    [
        json!({ "type": "follow", "rooms": [{ "room": room, "after": 0 }] }),
        json!({ "type": "post", "room": room, "text": "hi" }),
        json!({ "type": "edit", "room": room, "target": seq, "text": "ho" }),
        json!({ "type": "redact", "room": room, "target": seq }),
        json!({ "type": "react", "room": room, "target": seq, "symbol": "+1" }),
        json!({ "type": "mark_read", "room": room, "seq": 1 }),
    ]
}

#[test]
fn a_hidden_room_cannot_be_told_from_none_over_a_websocket() {
    let mut world = World::new();
    let (room, own, _) = world.room(RoomKind::Private, Who::Member);
    let missing = "r".repeat(room.len());
    let mut outsider = Ws::open(&world.cluster.url(0), world.token("outsider")).unwrap();
    for (here, nowhere) in frames(&room, own).into_iter().zip(frames(&missing, own)) {
        let mut said = |frame: &Value, room: &str| {
            outsider.say(frame).unwrap();
            let answer = outsider.expect("error");
            assert_eq!(answer["error"]["code"], "room_not_found", "{frame}: {answer}");
            answer.to_string().replace(room, "…")
        };
        assert_eq!(said(&here, &room), said(&nowhere, &missing), "{here}");
    }
    // Whoever is removed hears so, and then nothing more: the room is gone for them.
    let mut member = Ws::open(&world.cluster.url(0), world.token("member")).unwrap();
    member.follow(&room, &json!(0)).unwrap();
    member.catch_up();
    let path = format!("/v1/rooms/{room}");
    world.must("owner", "DELETE", &format!("{path}/participants/member"), &Value::Null);
    world.must("owner", "POST", &format!("{path}/messages"), &json!({ "text": "they are gone" }));
    let removed = member.expect("event");
    assert_eq!(removed["event"]["subject"], "member", "{removed}");
    let ended = member.expect("ended");
    assert_eq!(ended["error"]["code"], "room_not_found", "{ended}");
}

#[test]
fn a_ban_ends_what_an_open_websocket_may() {
    let mut world = World::new();
    for (kind, refused) in [(RoomKind::Public, "banned"), (RoomKind::Private, "room_not_found")] {
        let (room, own, _) = world.room(kind, Who::Member);
        let mut member = Ws::open(&world.cluster.url(0), world.token("member")).unwrap();
        member.follow(&room, &json!(0)).unwrap();
        member.catch_up();
        let path = format!("/v1/rooms/{room}");
        let spam = json!({ "reason": "spam", "for_ms": 3_600_000 });
        world.must("owner", "PUT", &format!("{path}/bans/member"), &spam);
        world.must("owner", "POST", &format!("{path}/messages"), &json!({ "text": "quiet now" }));
        let banned = member.expect("event");
        assert_eq!(banned["event"]["role"], "banned", "{banned}");
        assert_eq!(member.expect("ended")["error"]["code"], refused);
        for frame in frames(&room, own) {
            member.say(&frame).unwrap();
            assert_eq!(member.expect("error")["error"]["code"], refused, "{frame}");
        }
        // What they followed does not come back by itself when the ban is lifted.
        world.must("owner", "DELETE", &format!("{path}/bans/member"), &Value::Null);
        member.say(&json!({ "type": "ping" })).unwrap();
        member.expect("pong");
    }
}

#[test]
fn a_room_is_run_from_the_command_line() {
    let cluster = TestCluster::start(1);
    for user in ["bob", "cid"] {
        cluster.user(user);
    }
    let run = |arguments: &[&str]| {
        let mut all = vec!["room"];
        all.extend(arguments);
        String::from_utf8(succeed(&mut cluster.cli(0, &all))).unwrap().trim().to_owned()
    };
    let json = |arguments: &[&str]| -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        serde_json::from_str(&run(&all)).unwrap()
    };
    run(&["create", "secret", "--title", "The Secret", "--kind", "private"]);
    assert_eq!(run(&["invite", "secret", "bob"]), "invited bob");
    assert_eq!(run(&["invite", "secret", "bob"]), "already invited, or in: bob");
    assert_eq!(run(&["topic", "secret", "hush"]), "set the topic of secret");
    let seq = |text: &str, reply_to: Option<&str>| {
        let mut arguments = vec!["post", "secret", text];
        arguments.extend(reply_to.into_iter().flat_map(|seq| ["--reply-to", seq]));
        let shown = String::from_utf8(succeed(&mut cluster.cli(0, &arguments))).unwrap();
        shown.trim().trim_start_matches('#').to_owned()
    };
    let root = seq("root for @bob", None);
    seq("reply", Some(&root));
    assert_eq!(run(&["pin", "secret", &root]), format!("pinned #{root}"));
    let thread = json(&["thread", "secret", &root]);
    assert_eq!(thread["events"][0]["text"], "reply");
    assert_eq!(thread["events"].as_array().unwrap().len(), 1);
    assert_eq!(run(&["ban", "secret", "cid", "--for", "7d", "--reason", "spam"]), "banned cid");
    let room = json(&["show", "secret"]);
    assert_eq!(room["topic"], "hush");
    assert_eq!(room["pins"], json!([root.parse::<u64>().unwrap()]));
    let part = |user: &str| {
        let parts = room["participants"].as_array().unwrap();
        parts.iter().find(|part| part["user"] == user).unwrap().clone()
    };
    assert_eq!(part("bob")["invited"], true);
    assert!(part("cid")["until"].is_string(), "{room}");
    assert_eq!(run(&["unban", "secret", "cid"]), "no longer banned: cid");
    assert_eq!(run(&["kick", "secret", "bob"]), "removed bob");
    assert_eq!(run(&["retention", "secret", "--max-events", "1000"]), "set what is kept of secret");
    assert_eq!(run(&["archive", "secret"]), "archived secret");
    assert!(run(&["show", "secret"]).contains("1000 events"));
    assert_eq!(run(&["unarchive", "secret"]), "unarchived secret");
    assert_eq!(run(&["unpin", "secret", &root]), format!("unpinned #{root}"));
    assert_eq!(json(&["list", "--search", "SECRET"])["rooms"][0]["room"], "secret");
    assert_eq!(json(&["list", "--search", "nothing"])["rooms"], json!([]));
    let history = String::from_utf8(succeed(&mut cluster.cli(0, &["history", "secret"]))).unwrap();
    for line in ["admin invited bob", "admin set the topic: hush", "made cid banned until"] {
        assert!(history.contains(line), "{line}:\n{history}");
    }
    let page = ["history", "secret", "--json"];
    let page = String::from_utf8(succeed(&mut cluster.cli(0, &page))).unwrap();
    let page: Value = serde_json::from_str(&page).unwrap();
    let number: u64 = root.parse().unwrap();
    let shown = page["events"].as_array().unwrap().iter().find(|event| event["seq"] == number);
    let shown = shown.unwrap();
    assert_eq!((&shown["mentions"], &shown["reply_count"]), (&json!(["bob"]), &json!(1)));
    // What is exported verifies offline, with the new kinds of events and a ban's end.
    let file = cluster.directory().join("secret.jsonl");
    let exported = succeed(&mut cluster.cli(0, &["export", "secret"]));
    std::fs::write(&file, exported).unwrap();
    succeed(&mut cluster.cli(0, &["verify", file.to_str().unwrap()]));
}
