//! What clients send: JSON objects with a `type`, and with a `ref` that comes back with the answer.
//!
//! Unknown types are refused, unknown fields ignored: a newer client finds out what an older node
//! does not know, and may say more than it understands.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chat::command::Command;
use crate::chat::event::EventKind;
use crate::error::{Code, Error};
use crate::gateway::app::{Post, salt};
use crate::gateway::convert;
use crate::gateway::http::messages::PostedKind;
use crate::gateway::limits::{GatewayLimits, REF_BYTES_MAX};
use crate::gateway::session::{Asked, Request};
use crate::id::{Cursor, RequestId, RoomId, Seq};
use crate::limits::SYMBOL_BYTES_MAX;

/// A frame's `ref`, as the client wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Ref {
    /// A whole number.
    Number(u64),
    /// A short text.
    Text(String),
}

#[derive(Deserialize)]
struct SignIn {
    token: String,
}

#[derive(Deserialize)]
struct Follow {
    rooms: Vec<FollowRoom>,
    #[serde(default)]
    presence: bool,
}

#[derive(Deserialize)]
struct FollowRoom {
    room: String,
    after: Option<After>,
}

/// A cursor, `epoch:seq` or only `seq`; or the seq as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum After {
    Seq(u64),
    Cursor(String),
}

#[derive(Deserialize)]
struct Unfollow {
    rooms: Vec<String>,
}

#[derive(Deserialize)]
struct PostFrame {
    room: String,
    client_msg_id: Option<String>,
    text: String,
    reply_to: Option<u64>,
    #[serde(default)]
    kind: PostedKind,
}

#[derive(Deserialize)]
struct Edit {
    room: String,
    target: u64,
    text: String,
    request_id: Option<String>,
}

#[derive(Deserialize)]
struct Redact {
    room: String,
    target: u64,
    request_id: Option<String>,
}

#[derive(Deserialize)]
struct React {
    room: String,
    target: u64,
    symbol: String,
    #[serde(default)]
    withdraw: bool,
    request_id: Option<String>,
}

#[derive(Deserialize)]
struct Presence {
    status: String,
}

#[derive(Deserialize)]
struct Typing {
    room: String,
    typing: bool,
}

#[derive(Deserialize)]
struct MarkRead {
    room: String,
    seq: u64,
}

/// The token of a frame that signs its client in.
///
/// # Errors
/// [`Code::Unauthenticated`] for any other frame; what [`parse`] has for what is no frame.
pub fn token(text: &str) -> Result<String, Error> {
    let frame = json(text)?;
    if frame["type"] != "sign_in" {
        let message = "sign in first: {\"type\":\"sign_in\",\"token\":\"fm_…\"}";
        return Err(Error::new(Code::Unauthenticated, message));
    }
    Ok(body::<SignIn>(frame)?.token)
}

/// The requests that a frame makes. One that is malformed is a single request that is refused.
///
/// # Errors
/// [`Code::InvalidArgument`] when it is not JSON at all: such a client will not get any better.
pub fn parse(text: &str, limits: &GatewayLimits) -> Result<Vec<Request<Option<Ref>>>, Error> {
    let frame = json(text)?;
    let (tag, asked) = match tag(&frame) {
        Ok(tag) => (tag, requests(frame, limits)),
        Err(error) => (None, Err(error)),
    };
    Ok(match asked {
        Ok(asked) => {
            asked.into_iter().map(|asked| Request { tag: tag.clone(), asked: Ok(asked) }).collect()
        }
        Err(error) => vec![Request { tag, asked: Err(error) }],
    })
}

/// serde_json's own limit of 128 levels bounds nesting.
fn json(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| Error::invalid(format!("bad JSON: {error}")))
}

fn body<T: DeserializeOwned>(frame: Value) -> Result<T, Error> {
    serde_json::from_value(frame).map_err(|error| Error::invalid(error.to_string()))
}

fn tag(frame: &Value) -> Result<Option<Ref>, Error> {
    let malformed = || {
        let message =
            format!("ref must be a whole number, or text of at most {REF_BYTES_MAX} bytes");
        Error::invalid(message)
    };
    match &frame["ref"] {
        Value::Null => Ok(None),
        Value::Number(number) => Ok(Some(Ref::Number(number.as_u64().ok_or_else(malformed)?))),
        Value::String(text) if text.len() <= REF_BYTES_MAX => Ok(Some(Ref::Text(text.clone()))),
        _ => Err(malformed()),
    }
}

fn requests(frame: Value, limits: &GatewayLimits) -> Result<Vec<Asked>, Error> {
    let Some(kind) = frame["type"].as_str() else {
        return Err(Error::invalid("a frame is an object with a `type`"));
    };
    Ok(match kind {
        "follow" => return follow(body(frame)?, limits),
        "unfollow" => return unfollow(&body(frame)?, limits),
        "post" => vec![Asked::Post(post(body(frame)?)?)],
        "edit" => vec![edit(body(frame)?, limits)?],
        "redact" => vec![redact(&body(frame)?)?],
        "react" => vec![react(body(frame)?)?],
        "mark_read" => vec![mark_read(&body(frame)?)?],
        "presence" => vec![Asked::Present(convert::status(&body::<Presence>(frame)?.status)?)],
        "typing" => vec![typing(&body(frame)?)?],
        "ping" => vec![Asked::Ping],
        "sign_in" => return Err(Error::invalid("you have signed in")),
        _ => {
            let kind: String = kind.chars().take(32).collect();
            return Err(Error::invalid(format!("this node knows no frames of type {kind:?}")));
        }
    })
}

/// Refuses lists of rooms that no session could follow, and any room that is there twice.
fn distinct(rooms: &[RoomId], limits: &GatewayLimits) -> Result<(), Error> {
    if rooms.is_empty() {
        return Err(Error::invalid("rooms is empty"));
    }
    let rooms_max = limits.follows_per_session_max;
    if rooms.len() > rooms_max {
        let message = format!("a session follows at most {rooms_max} rooms");
        return Err(Error::new(Code::LimitReached, message));
    }
    let mut seen = BTreeSet::new();
    match rooms.iter().find(|room| !seen.insert(*room)) {
        Some(twice) => Err(Error::invalid(format!("{twice} is there twice"))),
        None => Ok(()),
    }
}

fn follow(frame: Follow, limits: &GatewayLimits) -> Result<Vec<Asked>, Error> {
    let mut rooms = Vec::with_capacity(frame.rooms.len());
    let mut asked = Vec::with_capacity(frame.rooms.len());
    for FollowRoom { room, after } in frame.rooms {
        let room = RoomId::parse(&room)?;
        let after = match after {
            None => None,
            Some(After::Seq(seq)) => Some(Cursor { epoch: None, seq: Seq(seq) }),
            Some(After::Cursor(cursor)) => Some(Cursor::parse(&cursor)?),
        };
        rooms.push(room.clone());
        asked.push(Asked::Follow { room, after, presence: frame.presence });
    }
    distinct(&rooms, limits)?;
    Ok(asked)
}

fn unfollow(frame: &Unfollow, limits: &GatewayLimits) -> Result<Vec<Asked>, Error> {
    let rooms = frame.rooms.iter().map(|room| RoomId::parse(room));
    let rooms = rooms.collect::<Result<Vec<_>, _>>()?;
    distinct(&rooms, limits)?;
    Ok(rooms.into_iter().map(Asked::Unfollow).collect())
}

fn request_id(id: Option<&str>) -> Result<Option<RequestId>, Error> {
    Ok(id.map(RequestId::parse).transpose()?)
}

fn post(frame: PostFrame) -> Result<Post, Error> {
    Ok(Post {
        room: RoomId::parse(&frame.room)?,
        id: request_id(frame.client_msg_id.as_deref())?,
        text: frame.text,
        reply_to: frame.reply_to.map(convert::target).transpose()?,
        kind: match frame.kind {
            PostedKind::Message => EventKind::Message,
            PostedKind::Action => EventKind::Action,
        },
    })
}

fn edit(frame: Edit, limits: &GatewayLimits) -> Result<Asked, Error> {
    convert::text("text", &frame.text, limits.text_bytes_max)?;
    let (room, target) = (RoomId::parse(&frame.room)?, convert::target(frame.target)?);
    let id = request_id(frame.request_id.as_deref())?;
    let command = Command::Edit { room, target, text: frame.text, salt: salt() };
    Ok(Asked::Execute { id, command })
}

fn mark_read(frame: &MarkRead) -> Result<Asked, Error> {
    let command = Command::MarkRead { room: RoomId::parse(&frame.room)?, seq: Seq(frame.seq) };
    Ok(Asked::Execute { id: None, command })
}

fn typing(frame: &Typing) -> Result<Asked, Error> {
    Ok(Asked::Type { room: RoomId::parse(&frame.room)?, types: frame.typing })
}

fn redact(frame: &Redact) -> Result<Asked, Error> {
    let (room, target) = (RoomId::parse(&frame.room)?, convert::target(frame.target)?);
    let id = request_id(frame.request_id.as_deref())?;
    Ok(Asked::Execute { id, command: Command::Redact { room, target, salt: salt() } })
}

fn react(frame: React) -> Result<Asked, Error> {
    convert::text("symbol", &frame.symbol, SYMBOL_BYTES_MAX)?;
    let (room, target) = (RoomId::parse(&frame.room)?, convert::target(frame.target)?);
    let id = request_id(frame.request_id.as_deref())?;
    let React { symbol, withdraw, .. } = frame;
    Ok(Asked::Execute {
        id,
        command: Command::React { room, target, symbol, withdraw, salt: salt() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<Request<Option<Ref>>> {
        parse(text, &GatewayLimits::default()).unwrap()
    }

    /// The one refusal of a frame: its `ref`, and the code.
    fn refused(text: &str) -> (Option<Ref>, Code) {
        let mut requests = parsed(text);
        assert_eq!(requests.len(), 1, "{text}");
        let Request { tag, asked } = requests.remove(0);
        (tag, asked.expect_err(text).code)
    }

    #[test]
    fn what_is_no_json_is_no_frame() {
        let deep = "[".repeat(200);
        for text in
            ["", "post", "{", "{\"type\":\"ping\"}x", "{'type':'ping'}", "\u{feff}{}", &deep]
        {
            let error = parse(text, &GatewayLimits::default()).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument, "{text}");
            assert!(token(text).is_err());
        }
    }

    #[test]
    fn malformed_frames_are_refused_with_their_ref() {
        let long = format!(r#"{{"type":"ping","ref":"{}"}}"#, "x".repeat(REF_BYTES_MAX + 1));
        for text in [
            "1",
            "null",
            "[]",
            "\"ping\"",
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"ping","ref":-1}"#,
            r#"{"type":"ping","ref":1.5}"#,
            r#"{"type":"ping","ref":{}}"#,
            &long,
        ] {
            assert_eq!(refused(text), (None, Code::InvalidArgument), "{text}");
        }
        let id = "01890000-0000-7000-8000-000000000000";
        let (argument, cursor) = (Code::InvalidArgument, Code::InvalidCursor);
        for (fields, code) in [
            (r#""type":"knock""#, argument),
            (r#""type":"Post""#, argument),
            (r#""type":"sign_in","token":"x""#, argument),
            (r#""type":"post""#, argument),
            (r#""type":"post","room":"tea""#, argument),
            (r#""type":"post","room":7,"text":"x""#, argument),
            (r#""type":"post","room":"Tea","text":"x""#, argument),
            (r#""type":"post","room":"tea","text":null"#, argument),
            (r#""type":"post","room":"tea","text":"x","client_msg_id":"1""#, argument),
            (r#""type":"post","room":"tea","text":"x","reply_to":0"#, argument),
            (r#""type":"post","room":"tea","text":"x","kind":"notice""#, argument),
            (r#""type":"edit","room":"tea","target":1,"text":"""#, argument),
            (r#""type":"edit","room":"tea","text":"x""#, argument),
            (r#""type":"redact","room":"tea","target":0"#, argument),
            (r#""type":"redact","room":"tea","target":-1"#, argument),
            (r#""type":"react","room":"tea","target":1,"symbol":"""#, argument),
            (r#""type":"react","room":"tea","target":1,"symbol":"x","withdraw":1"#, argument),
            (r#""type":"follow""#, argument),
            (r#""type":"follow","rooms":[]"#, argument),
            (r#""type":"follow","rooms":"tea""#, argument),
            (r#""type":"follow","rooms":["tea"]"#, argument),
            (r#""type":"follow","rooms":[{"room":"tea"},{"room":"tea","after":1}]"#, argument),
            (r#""type":"follow","rooms":[{"room":"tea"},{"room":"dm:b:a"}]"#, argument),
            (r#""type":"follow","rooms":[{"room":"tea","after":-1}]"#, argument),
            (r#""type":"follow","rooms":[{"room":"tea","after":"a:b:1"}]"#, cursor),
            (r#""type":"unfollow","rooms":[]"#, argument),
            (r#""type":"unfollow","rooms":["tea","tea"]"#, argument),
            (r#""type":"unfollow","room":"tea""#, argument),
            (r#""type":"follow","rooms":[{"room":"tea"}],"presence":1"#, argument),
            (r#""type":"presence""#, argument),
            (r#""type":"presence","status":"happy""#, argument),
            (r#""type":"presence","status":2"#, argument),
            (r#""type":"typing","room":"tea""#, argument),
            (r#""type":"typing","room":"Tea","typing":true"#, argument),
            (r#""type":"typing","room":"tea","typing":"yes""#, argument),
        ] {
            let text = format!(r#"{{"ref":"r-1",{fields}}}"#);
            assert_eq!(refused(&text), (Some(Ref::Text("r-1".into())), code), "{text}");
        }
        let symbol = "x".repeat(SYMBOL_BYTES_MAX + 1);
        let text = format!(r#"{{"type":"react","room":"a","target":1,"symbol":"{symbol}"}}"#);
        assert_eq!(refused(&text), (None, Code::TooLarge));
        let bad_id = id.replacen('7', "4", 1);
        let text = format!(r#"{{"type":"redact","room":"a","target":1,"request_id":"{bad_id}"}}"#);
        assert_eq!(refused(&text), (None, Code::InvalidArgument));
    }

    #[test]
    fn a_follow_of_more_rooms_than_may_be_followed_is_refused_whole() {
        let limits = GatewayLimits { follows_per_session_max: 2, ..Default::default() };
        let text = r#"{"type":"follow","rooms":[{"room":"a"},{"room":"b"},{"room":"c"}]}"#;
        let requests = parse(text, &limits).unwrap();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].asked.as_ref().unwrap_err().code, Code::LimitReached);
    }

    #[test]
    fn unknown_fields_are_ignored_and_every_type_is_known() {
        let text = r#"{"type":"ping","ref":7,"mood":"good"}"#;
        assert!(matches!(
            parsed(text)[0],
            Request { tag: Some(Ref::Number(7)), asked: Ok(Asked::Ping) }
        ));
        let text = r#"{"type":"post","room":"tea","text":"x","kind":"action","reply_to":3}"#;
        let Ok(Asked::Post(post)) = parsed(text).remove(0).asked else { panic!() };
        assert_eq!((post.kind, post.reply_to), (EventKind::Action, Some(Seq(3))));
        let text = r#"{"type":"follow","rooms":[
            {"room":"a","after":"e:7"},{"room":"b","after":7},{"room":"c","after":"7"},{"room":"d"}]}"#;
        let after = |asked: &Request<_>| match &asked.asked {
            Ok(Asked::Follow { after, .. }) => after.clone().map(|after| after.seq.0),
            other => panic!("{other:?}"),
        };
        let cursors: Vec<_> = parsed(text).iter().map(after).collect();
        assert_eq!(cursors, [Some(7), Some(7), Some(7), None]);
        for text in [
            r#"{"type":"unfollow","rooms":["a","b"]}"#,
            r#"{"type":"edit","room":"tea","target":1,"text":"x"}"#,
            r#"{"type":"redact","room":"tea","target":1}"#,
            r#"{"type":"react","room":"tea","target":1,"symbol":"+1"}"#,
            r#"{"type":"mark_read","room":"tea","seq":1}"#,
            r#"{"type":"presence","status":"away"}"#,
            r#"{"type":"typing","room":"tea","typing":false}"#,
        ] {
            assert!(parsed(text).iter().all(|request| request.asked.is_ok()), "{text}");
        }
    }

    #[test]
    fn only_a_frame_with_a_token_signs_in() {
        assert_eq!(token(r#"{"type":"sign_in","token":"fm_x"}"#).unwrap(), "fm_x");
        for (text, code) in [
            (r#"{"type":"post","room":"tea","text":"x"}"#, Code::Unauthenticated),
            ("[]", Code::Unauthenticated),
            (r#"{"type":"sign_in"}"#, Code::InvalidArgument),
            (r#"{"type":"sign_in","token":7}"#, Code::InvalidArgument),
        ] {
            assert_eq!(token(text).unwrap_err().code, code, "{text}");
        }
    }
}
