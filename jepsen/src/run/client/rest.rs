//! JSON over HTTP/1.1: one connection to one node, used again while it lasts.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::run::client::{CONNECT_WITHIN, Outcome, PATIENCE};

/// A user at one node.
#[derive(Debug)]
pub struct Rest {
    pub(super) address: SocketAddr,
    pub(super) token: String,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// How long to wait for an answer.
    pub patience: Duration,
}

impl Rest {
    /// Not connected yet; an empty token is sent with nothing.
    #[must_use]
    pub fn new(address: SocketAddr, token: &str) -> Rest {
        Rest { address, token: token.into(), connection: None, patience: PATIENCE }
    }

    /// Asks, and reads the answer.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Outcome<Value> {
        match self.exchange(method, path, body).await {
            Outcome::Ok((_, answer)) => Outcome::Ok(answer),
            Outcome::Failed(why) => Outcome::Failed(why),
            Outcome::Unknown(why) => Outcome::Unknown(why),
        }
    }

    /// The same, with the answer's status.
    pub async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Outcome<(u16, Value)> {
        let Some(request) = self.build(method, path, body, "application/json") else {
            return Outcome::Failed("bad-request".into());
        };
        let mut connection = match self.connection.take().filter(|open| open.is_ready()) {
            Some(open) => open,
            None => match connect(self.address).await {
                Ok(open) => open,
                Err(why) => return Outcome::Failed(why),
            },
        };
        let asked = async {
            let response = connection.send_request(request).await?;
            let status = response.status().as_u16();
            Ok::<_, hyper::Error>((status, response.into_body().collect().await?.to_bytes()))
        };
        match timeout(self.patience, asked).await {
            Err(_) => Outcome::Unknown("client-timeout".into()),
            Ok(Err(_)) => Outcome::Unknown("connection-lost".into()),
            Ok(Ok((status, bytes))) => {
                self.connection = Some(connection);
                judge(status, &bytes)
            }
        }
    }

    /// Asks for a stream of events, on a connection of its own.
    pub(super) async fn open_stream(
        &self,
        path: &str,
        header: Option<(&str, String)>,
    ) -> Outcome<Incoming> {
        let Some(mut request) = self.build("GET", path, None, "text/event-stream") else {
            return Outcome::Failed("bad-request".into());
        };
        if let Some((name, value)) = header
            && let (Ok(name), Ok(value)) =
                (hyper::header::HeaderName::try_from(name), value.try_into())
        {
            request.headers_mut().insert(name, value);
        }
        let mut connection = match connect(self.address).await {
            Ok(open) => open,
            Err(why) => return Outcome::Failed(why),
        };
        let response: Response<Incoming> =
            match timeout(self.patience, connection.send_request(request)).await {
                Err(_) => return Outcome::Unknown("client-timeout".into()),
                Ok(Err(_)) => return Outcome::Unknown("connection-lost".into()),
                Ok(Ok(response)) => response,
            };
        let status = response.status().as_u16();
        if status == 200 {
            return Outcome::Ok(response.into_body());
        }
        match timeout(self.patience, response.into_body().collect()).await {
            Ok(Ok(body)) => judge(status, &body.to_bytes()).and_then(|_| None),
            _ => Outcome::Unknown("connection-lost".into()),
        }
    }

    fn build(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        accept: &str,
    ) -> Option<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("accept", accept);
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        let bytes = match body {
            None => Bytes::new(),
            Some(body) => {
                request = request.header("content-type", "application/json");
                Bytes::from(body.to_string())
            }
        };
        request.body(Full::new(bytes)).ok()
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = timeout(CONNECT_WITHIN, TcpStream::connect(address)).await;
    let stream = stream.map_err(|_| "connect-timeout")?.map_err(|_| "connect")?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let shaken = handshake(TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(|_| "connect")?;
    // It ends with the sender, or with the connection; whoever asks is told why.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// What an answer says.
pub(super) fn judge(status: u16, body: &[u8]) -> Outcome<(u16, Value)> {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        return Outcome::Unknown(format!("odd-answer-{status}"));
    };
    if (200..300).contains(&status) {
        return Outcome::Ok((status, answer));
    }
    let error = &answer["error"];
    match (error["code"].as_str(), error["may_have_applied"].as_bool()) {
        (Some(code), Some(may_have_applied)) => Outcome::refused(code, may_have_applied),
        _ => Outcome::Unknown(format!("odd-answer-{status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_no_is_a_failure() {
        let no = br#"{"error":{"code":"not_participant","may_have_applied":false}}"#;
        assert_eq!(judge(403, no).code(), Some("not_participant"));
        assert!(matches!(judge(403, no), Outcome::Failed(_)));
        let unsure = br#"{"error":{"code":"timeout","may_have_applied":true}}"#;
        assert!(matches!(judge(504, unsure), Outcome::Unknown(code) if code == "timeout"));
        let silent = br#"{"error":{"code":"timeout"}}"#;
        assert!(matches!(judge(504, silent), Outcome::Unknown(_)), "it does not say");
        assert!(matches!(judge(502, b"<html>"), Outcome::Unknown(_)), "somebody else answered");
        assert!(matches!(judge(200, b"{"), Outcome::Unknown(_)), "cut off");
        assert!(matches!(judge(200, b"{}"), Outcome::Ok((200, _))));
    }
}
