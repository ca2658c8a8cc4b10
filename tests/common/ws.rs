//! A blocking client of the WebSocket protocol.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// How long a client waits for a frame.
const PATIENCE: Duration = Duration::from_secs(10);

/// An open connection of one user.
pub struct Ws {
    socket: WebSocket<TcpStream>,
    /// What the node said first.
    pub hello: Value,
}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With this code and reason.
    Closed(u16, String),
    /// Without a close frame.
    Lost(String),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Ws {
    /// Connects to a node's URL and signs in with the first frame, as a browser does.
    pub fn open(url: &str, token: &str) -> Result<Ws, End> {
        let lost = |error: &dyn std::fmt::Display| End::Lost(error.to_string());
        let address = url.trim_start_matches("http://");
        let stream = TcpStream::connect(address).map_err(|error| lost(&error))?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let request = format!("ws://{address}/v1/ws").into_client_request().unwrap();
        let (socket, _) = tungstenite::client(request, stream).map_err(|error| lost(&error))?;
        let mut ws = Ws { socket, hello: Value::Null };
        ws.say(&json!({ "type": "sign_in", "token": token }))?;
        ws.hello = ws.hear()?;
        if ws.hello["type"] == "hello" { Ok(ws) } else { Err(ws.end()) }
    }

    /// Says something.
    pub fn say(&mut self, frame: &Value) -> Result<(), End> {
        let sent = self.socket.send(Message::text(frame.to_string()));
        sent.map_err(|error| End::Lost(error.to_string()))
    }

    /// Follows a room from a cursor, or from its head.
    pub fn follow(&mut self, room: &str, after: &Value) -> Result<(), End> {
        self.say(&json!({ "type": "follow", "rooms": [{ "room": room, "after": after }] }))
    }

    /// The next frame.
    ///
    /// # Panics
    /// When nothing comes.
    pub fn hear(&mut self) -> Result<Value, End> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(Some(frame))) => {
                    return Err(End::Closed(frame.code.into(), frame.reason.to_string()));
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    panic!("nothing came for {PATIENCE:?}")
                }
                Err(error) => return Err(End::Lost(error.to_string())),
            }
        }
    }

    /// The next frame, which must be of this type.
    pub fn expect(&mut self, kind: &str) -> Value {
        let frame = self.hear().unwrap();
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    /// Hears until the end.
    pub fn end(&mut self) -> End {
        loop {
            if let Err(end) = self.hear() {
                return end;
            }
        }
    }

    /// Hears until a room has caught up; the seqs of its events.
    pub fn catch_up(&mut self) -> Vec<u64> {
        let mut seqs = vec![];
        loop {
            let frame = self.hear().unwrap();
            match frame["type"].as_str().unwrap() {
                "followed" => {}
                "event" => seqs.push(frame["event"]["seq"].as_u64().unwrap()),
                "caught_up" => return seqs,
                _ => panic!("{frame}"),
            }
        }
    }

    /// The connection without the client: nobody reads, nor answers pings.
    pub fn into_stream(self) -> TcpStream {
        self.socket.get_ref().try_clone().unwrap()
    }
}
