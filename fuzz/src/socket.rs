//! The client's half of a WebSocket, as little as it takes: frames out without a real mask, and what came in
//! taken apart with suspicion.

use serde_json::Value;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Every `type` of a frame that a node sends.
const TYPES: [&str; 11] = [
    "hello",
    "ack",
    "error",
    "followed",
    "caught_up",
    "ended",
    "presence",
    "typing",
    "receipts",
    "pong",
    "event",
];

/// The request that opens a WebSocket.
pub fn opening(authorization: Option<&str>) -> String {
    let signed =
        authorization.map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
    format!(
        "GET /v1/ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{signed}\r\n"
    )
}

/// Adds a text, as one frame.
pub fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_frame(out, TEXT, text);
}

/// Adds a close with the code 1000.
pub fn put_close(out: &mut Vec<u8>) {
    put_frame(out, CLOSE, &1000u16.to_be_bytes());
}

fn put_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ ..126 => out.push(0x80 | length as u8),
        length @ ..65_536 => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]); // the mask
    out.extend(payload);
}

/// What has come of a node's frames.
#[derive(Debug, Default)]
pub struct Heard {
    bytes: Vec<u8>,
    /// Of a text that is coming in pieces.
    text: Option<Vec<u8>>,
    /// A close was said.
    pub closed: bool,
    /// The answer to the last ping of ours has come.
    pub answered: bool,
}

impl Heard {
    /// Takes what has arrived.
    pub fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        while self.take_frame() {}
    }

    /// Whether what has come ends with a whole frame.
    pub fn is_whole(&self) -> bool {
        self.bytes.is_empty()
    }

    fn take_frame(&mut self) -> bool {
        let Some([first, second]) = self.bytes.first_chunk::<2>().copied() else { return false };
        assert_eq!(first & 0x70, 0, "reserved bits are set");
        assert_eq!(second & 0x80, 0, "a node masks nothing");
        let (wide, head) = match second {
            126 => (2, 4),
            127 => (8, 10),
            _ => (0, 2),
        };
        let Some(length) = self.bytes.get(2..2 + wide) else { return false };
        let length = match wide {
            0 => usize::from(second),
            _ => length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        };
        if self.bytes.len() < head + length {
            return false;
        }
        let payload = self.bytes[head..head + length].to_vec();
        self.bytes.drain(..head + length);
        self.frame(first & 15, first & 0x80 != 0, payload);
        true
    }

    fn frame(&mut self, opcode: u8, is_last: bool, payload: Vec<u8>) {
        assert!(!self.closed, "something follows a close");
        match opcode {
            TEXT => assert!(self.text.replace(payload).is_none(), "a text within a text"),
            CONTINUATION => self.text.as_mut().expect("a text goes on").extend(payload),
            PING | PONG => return assert!(is_last && payload.len() < 126),
            CLOSE => {
                assert!(is_last && payload.len() < 126 && payload.len() != 1);
                let reason = payload.get(2..).unwrap_or_default();
                std::str::from_utf8(reason).expect("a reason is UTF-8");
                self.closed = true;
                return;
            }
            other => panic!("a frame of kind {other}"),
        }
        if is_last {
            let text = self.text.take().unwrap_or_default();
            let json: Value = serde_json::from_slice(&text).expect("a text is JSON");
            let kind = json["type"].as_str().expect("a frame has a type");
            assert!(TYPES.contains(&kind), "{json}");
            assert_ne!(json["error"]["code"], "internal", "{json}");
            self.answered |= kind == "pong" && json["ref"] == "the end";
        }
    }
}
