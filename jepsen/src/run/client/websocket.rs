//! A WebSocket that follows one room and posts into it.

use std::pin::Pin;
use std::task::Poll;

use futures_util::future::poll_fn;
use futures_util::{FutureExt, Sink, SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use uuid::Uuid;

use crate::run::client::rest::{Rest, judge};
use crate::run::client::session::{Followed, Item};
use crate::run::client::{CONNECT_WITHIN, Outcome, ack, event};

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    room: String,
    socket: WebSocketStream<TcpStream>,
}

impl WebSocket {
    /// Follows a room, from `after` on or from its head on; with an epoch the cursor names it. The
    /// token goes into a header, or into the first frame, as a browser sends it.
    pub async fn open(
        rest: &Rest,
        in_header: bool,
        room: &str,
        after: Option<u64>,
        epoch: Option<&str>,
    ) -> Outcome<(Followed, WebSocket)> {
        let Some(request) = request(rest, in_header) else {
            return Outcome::Failed("bad-request".into());
        };
        let stream = match timeout(CONNECT_WITHIN, TcpStream::connect(rest.address)).await {
            Err(_) => return Outcome::Failed("connect-timeout".into()),
            Ok(Err(_)) => return Outcome::Failed("connect".into()),
            Ok(Ok(stream)) => stream,
        };
        let _ = stream.set_nodelay(true);
        let after = after.map(|after| match epoch {
            Some(epoch) => json!(format!("{epoch}:{after}")),
            None => json!(after),
        });
        let opening = async {
            let (socket, _) = client_async(request, stream).await.map_err(refusal)?;
            let mut opened = WebSocket { room: room.into(), socket };
            if !in_header {
                opened.say(&json!({ "type": "sign_in", "token": rest.token })).await?;
            }
            let rooms = json!([{ "room": room, "after": after }]);
            opened.say(&json!({ "type": "follow", "ref": "follow", "rooms": rooms })).await?;
            opened.expect("hello").await?;
            let said = opened.expect("followed").await?;
            Ok((said, opened))
        };
        let (said, opened) = match timeout(rest.patience, opening).await {
            Err(_) => return Outcome::Unknown("client-timeout".into()),
            Ok(Err(outcome)) => return outcome,
            Ok(Ok(opened)) => opened,
        };
        let followed = (|| {
            Some(Followed {
                head: said["head"].as_u64()?,
                recovered: said["recovered"].as_bool()?,
                epoch: said["epoch"].as_str()?.to_owned(),
            })
        })();
        match followed {
            Some(followed) => Outcome::Ok((followed, opened)),
            None => Outcome::Unknown("odd-answer".into()),
        }
    }

    async fn say<T>(&mut self, frame: &Value) -> Result<(), Outcome<T>> {
        let sent = self.socket.send(Message::text(frame.to_string())).await;
        sent.map_err(|_| Outcome::Unknown("connection-lost".into()))
    }

    /// The next frame, which must be of this type.
    async fn expect<T>(&mut self, kind: &str) -> Result<Value, Outcome<T>> {
        let frame = self.frame().await.map_err(Outcome::Unknown)?;
        if frame["type"] == kind { Ok(frame) } else { Err(refused(&frame)) }
    }

    /// The next frame. Cancel safe.
    async fn frame(&mut self) -> Result<Value, String> {
        loop {
            let next = poll_fn(|cx| {
                // What was posted is sent meanwhile.
                if let Poll::Ready(Err(error)) = Pin::new(&mut self.socket).poll_flush(cx) {
                    return Poll::Ready(Some(Err(error)));
                }
                self.socket.poll_next_unpin(cx)
            });
            match next.await {
                Some(Ok(Message::Text(text))) => {
                    return serde_json::from_str(&text).map_err(|error| error.to_string());
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(Some(frame)))) => return Err(frame.reason.to_string()),
                Some(Ok(_)) => return Err("odd-answer".into()),
                Some(Err(_)) | None => return Err("connection-lost".into()),
            }
        }
    }

    /// Posts; the answer comes as an item. `false`: nothing was sent.
    pub fn post(&mut self, uuid: Uuid, text: &str) -> bool {
        let id = uuid.to_string();
        let post = json!({
            "type": "post", "ref": id, "room": self.room, "client_msg_id": id, "text": text,
        });
        // Where there is no room for it at once, it is not posted.
        self.socket
            .feed(Message::text(post.to_string()))
            .now_or_never()
            .is_some_and(|fed| fed.is_ok())
    }

    /// What comes next.
    ///
    /// # Errors
    ///
    /// Why the connection is over.
    pub async fn next(&mut self) -> Result<Item, String> {
        let frame = self.frame().await?;
        match frame["type"].as_str().unwrap_or_default() {
            "event" => event(&frame["event"]).map(Item::Event).ok_or_else(|| "odd-answer".into()),
            "ack" => {
                let ack = ack(&frame).ok_or("odd-answer")?;
                Ok(Item::Posted(Outcome::Ok(ack)))
            }
            "error" if frame["ref"].is_string() => Ok(Item::Posted(refused(&frame))),
            "error" | "ended" => Err(frame["error"]["code"].as_str().unwrap_or("ended").to_owned()),
            _ => Ok(Item::Other),
        }
    }
}

fn request(rest: &Rest, in_header: bool) -> Option<Request> {
    let mut request = format!("ws://{}/v1/ws", rest.address).into_client_request().ok()?;
    if in_header {
        let value = format!("Bearer {}", rest.token).parse().ok()?;
        request.headers_mut().insert("authorization", value);
    }
    Some(request)
}

/// What an `error` says; anything else says nothing of what became of the request.
fn refused<T>(frame: &Value) -> Outcome<T> {
    let error = &frame["error"];
    match (error["code"].as_str(), error["may_have_applied"].as_bool()) {
        (Some(code), Some(may_have_applied)) => Outcome::refused(code, may_have_applied),
        _ => Outcome::Unknown("odd-answer".into()),
    }
}

/// Why there was no upgrade.
fn refusal<T>(error: Error) -> Outcome<T> {
    let Error::Http(response) = error else { return Outcome::Unknown("connection-lost".into()) };
    let (status, body) = (response.status().as_u16(), response.into_body().unwrap_or_default());
    judge(status, &body).and_then(|_| None)
}
