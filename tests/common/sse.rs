//! A follower over server-sent events.

use std::io::{self, BufRead};

use serde_json::Value;

use super::http::Http;

/// An open stream of one room.
pub struct Sse {
    /// What the node said first: the room's epoch, first_seq and head, and `recovered`.
    pub followed: Value,
    body: Box<dyn BufRead + Send>,
}

/// One event of the stream, as its sender wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// `epoch:seq`, to be sent back as `Last-Event-ID`; empty where there is none.
    pub id: String,
    /// The event's name; empty stands for `message`.
    pub event: String,
    /// JSON.
    pub data: String,
}

impl SseEvent {
    /// The data as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|e| panic!("{e}: {}", self.data))
    }

    /// The room event's seq; `None` for `caught_up` and the like.
    pub fn seq(&self) -> Option<u64> {
        let json: Value = serde_json::from_str(&self.data).ok()?;
        if json["client_msg_id"].is_string() { json["seq"].as_u64() } else { None }
    }

    /// Whether this says that history has been delivered.
    pub fn is_caught_up(&self) -> bool {
        self.event == "caught_up"
    }
}

impl Sse {
    /// Follows a room, from `after` or from the last event seen.
    ///
    /// # Errors
    /// Also where the node answers with another status than 200.
    pub fn open(
        http: &Http,
        room: &str,
        after: Option<u64>,
        last_event_id: Option<&str>,
    ) -> io::Result<Sse> {
        let query = after.map(|after| format!("?after={after}")).unwrap_or_default();
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(last_event_id.map(|id| ("last-event-id", id)));
        let path = format!("/v1/rooms/{room}/events{query}");
        let mut opened = http.open("GET", &path, &headers, b"")?;
        if opened.status != 200 {
            let mut body = String::new();
            opened.body.read_to_string(&mut body)?;
            return Err(io::Error::other(format!("status {}: {body}", opened.status)));
        }
        let mut stream = Sse { followed: Value::Null, body: opened.body };
        let first = stream.read()?;
        if first.event != "followed" {
            return Err(io::Error::other(format!("expected `followed`: {first:?}")));
        }
        stream.followed = first.json();
        Ok(stream)
    }

    /// The next event; heartbeats are skipped.
    ///
    /// # Errors
    /// Where the stream breaks, ends, or is silent beyond the client's timeout.
    pub fn next(&mut self) -> io::Result<SseEvent> {
        let event = self.read()?;
        if event.event == "ended" {
            return Err(io::Error::other(event.data));
        }
        Ok(event)
    }

    fn read(&mut self) -> io::Result<SseEvent> {
        let mut event = SseEvent::default();
        loop {
            let mut line = String::new();
            if self.body.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                if !event.data.is_empty() {
                    return Ok(event);
                }
                event = SseEvent::default();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => event.id = value.into(),
                "event" => event.event = value.into(),
                "data" => event.data.push_str(value),
                _ => {}
            }
        }
    }
}
