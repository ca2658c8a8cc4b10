//! A client of the WebSocket, over a real connection: whatever it sends, it hears well-formed frames of known
//! types, and the connection ends.
//!
//! The first byte of an input says what the rest is and who sends it: bit 0, the bytes after the opening as
//! they are, or texts with `00` between them; bits 1 and 2, who ([`CALLERS`]).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use folkmoot::gateway::drain::Drain;
use folkmoot::gateway::limits::GatewayLimits;
use folkmoot::gateway::websocket::frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::bodies::gateway;
use super::input::Input;
use super::socket::{Heard, opening, put_close, put_text};
use super::world::{World, token};

/// Who may send; nobody has to sign in with a first frame.
const CALLERS: [Option<&str>; 4] = [Some("bob"), None, Some("ann"), Some("root")];
/// Texts in one input.
const TEXTS_MAX: usize = 64;
/// A connection whose client has closed its side is over after this.
const ENDS_WITHIN: Duration = Duration::from_secs(90);
/// Tasks that there may be while nobody is connected.
const TASKS_MAX: usize = 16;

/// What takes the inputs.
pub struct Frames {
    world: Arc<World>,
    address: SocketAddr,
    drain: Drain,
}

impl Frames {
    /// A gateway that serves on a port of this machine, on this runtime.
    pub async fn new() -> Frames {
        let world = World::new();
        let drain = Drain::new(CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(gateway(&world, drain.clone()).serve(listener));
        Frames { world, address, drain }
    }

    /// Makes everything as it was in the beginning.
    pub fn reset(&self) {
        self.world.reset();
    }

    /// Runs one input.
    pub async fn run(&self, data: &[u8]) {
        let mut input = Input(data);
        let choice = input.byte();
        let caller = CALLERS[usize::from(choice >> 1 & 3)].map(|user| token(user, 1));
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut heard = Heard::default();
        stream.write_all(opening(caller.as_deref()).as_bytes()).await.unwrap();
        upgraded(&mut stream, &mut heard).await;
        let mut out = Vec::new();
        let is_raw = choice & 1 == 1;
        if is_raw {
            out.extend(input.0);
        } else {
            for _ in 0..TEXTS_MAX {
                if input.is_empty() {
                    break;
                }
                put_text(&mut out, parsed(input.until(0)));
            }
            put_text(&mut out, br#"{"type":"ping","ref":"the end"}"#);
        }
        let over = async {
            let (mut reader, mut writer) = stream.split();
            let sent = async {
                // Whoever is turned away need not be listened to.
                let _ = writer.write_all(&out).await;
                if is_raw {
                    let _ = writer.shutdown().await;
                }
            };
            let read = hear(&mut reader, &mut heard, !is_raw);
            tokio::join!(sent, read).1?;
            if !is_raw && !heard.closed {
                let mut close = Vec::new();
                put_close(&mut close);
                let _ = writer.write_all(&close).await;
            }
            let _ = writer.shutdown().await;
            hear(&mut reader, &mut heard, false).await
        };
        let ended = timeout(ENDS_WITHIN, over).await.expect("the connection ends");
        assert!(ended.is_err() || heard.is_whole(), "a frame is cut off");
    }

    /// Waits until nobody is connected and nothing of them is left.
    pub async fn settle(&self) {
        let is_quiet = || {
            let tasks = Handle::current().metrics().num_alive_tasks();
            self.drain.streams() == 0 && tasks <= TASKS_MAX
        };
        for _ in 0..1000 {
            if is_quiet() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        let tasks = Handle::current().metrics().num_alive_tasks();
        panic!("{tasks} tasks and {} streams pile up", self.drain.streams());
    }
}

/// Also parses a text by itself, and as the first one.
fn parsed(text: &[u8]) -> &[u8] {
    if let Ok(text) = std::str::from_utf8(text) {
        if let Ok(requests) = frame::parse(text, &GatewayLimits::default()) {
            assert!(!requests.is_empty());
        }
        let _ = frame::token(text);
    }
    text
}

/// Reads the answer to the opening.
async fn upgraded(stream: &mut TcpStream, heard: &mut Heard) {
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    loop {
        let read = timeout(ENDS_WITHIN, stream.read(&mut part)).await.expect("an answer comes");
        let read = read.unwrap();
        assert!(read > 0, "closed after {}", String::from_utf8_lossy(&head));
        head.extend(&part[..read]);
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&head[..at]);
            assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
            return heard.take(&head[at + 4..]);
        }
    }
}

/// Reads to the end, or until the last ping of ours is answered.
async fn hear<R: AsyncReadExt + Unpin>(
    reader: &mut R,
    heard: &mut Heard,
    until_answered: bool,
) -> io::Result<()> {
    let mut part = [0; 4096];
    while !(until_answered && (heard.answered || heard.closed)) {
        match reader.read(&mut part).await? {
            0 => return Ok(()),
            read => heard.take(&part[..read]),
        }
    }
    Ok(())
}
