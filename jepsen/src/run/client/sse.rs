//! A room as server-sent events.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::run::client::rest::Rest;
use crate::run::client::session::{Followed, Item};
use crate::run::client::{Outcome, event};

/// An open stream.
#[derive(Debug)]
pub struct Sse {
    body: Incoming,
    read: Vec<u8>,
    epoch: String,
}

/// One event as its sender wrote it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Block {
    event: String,
    data: String,
}

impl Sse {
    /// Follows a room, from `after` on or from its head on. With an epoch the place is told as
    /// `Last-Event-ID`, as a browser does when it reconnects.
    pub async fn open(
        rest: &Rest,
        room: &str,
        after: Option<u64>,
        epoch: Option<&str>,
    ) -> Outcome<(Followed, Sse)> {
        let path = format!("/v1/rooms/{room}/events");
        let opened = match (after, epoch) {
            (Some(after), Some(epoch)) => {
                let header = ("last-event-id", format!("{epoch}:{after}"));
                rest.open_stream(&path, Some(header)).await
            }
            (Some(after), None) => rest.open_stream(&format!("{path}?after={after}"), None).await,
            (None, _) => rest.open_stream(&path, None).await,
        };
        let body = match opened {
            Outcome::Ok(body) => body,
            Outcome::Failed(why) => return Outcome::Failed(why),
            Outcome::Unknown(why) => return Outcome::Unknown(why),
        };
        let mut stream = Sse { body, read: vec![], epoch: String::new() };
        let first = match tokio::time::timeout(rest.patience, stream.block()).await {
            Ok(Ok(block)) if block.event == "followed" => block,
            Ok(Ok(_)) => return Outcome::Unknown("odd-answer".into()),
            Ok(Err(why)) => return Outcome::Unknown(why),
            Err(_) => return Outcome::Unknown("client-timeout".into()),
        };
        let said: Value = serde_json::from_str(&first.data).unwrap_or_default();
        let followed = (|| {
            Some(Followed {
                head: said["head"].as_u64()?,
                recovered: said["recovered"].as_bool()?,
                epoch: said["epoch"].as_str()?.to_owned(),
            })
        })();
        match followed {
            Some(followed) => {
                stream.epoch.clone_from(&followed.epoch);
                Outcome::Ok((followed, stream))
            }
            None => Outcome::Unknown("odd-answer".into()),
        }
    }

    /// What comes next.
    ///
    /// # Errors
    ///
    /// Why the stream is over.
    pub async fn next(&mut self) -> Result<Item, String> {
        let block = self.block().await?;
        let said: Value = serde_json::from_str(&block.data).map_err(|error| error.to_string())?;
        match block.event.as_str() {
            "" => event(&said).map(Item::Event).ok_or_else(|| "odd-answer".into()),
            "caught_up" => Ok(Item::Other),
            "ended" => Err(said["error"]["code"].as_str().unwrap_or("ended").to_owned()),
            _ => Err("odd-answer".into()),
        }
    }

    async fn block(&mut self) -> Result<Block, String> {
        loop {
            if let Some(block) = take_block(&mut self.read) {
                return Ok(block);
            }
            let frame = self.body.frame().await.ok_or("connection-lost")?;
            let frame = frame.map_err(|_| "connection-lost")?;
            if let Some(data) = frame.data_ref() {
                let data: &Bytes = data;
                self.read.extend_from_slice(data);
            }
        }
    }
}

/// Takes the first whole block with data out of what was read; comments are passed over.
fn take_block(read: &mut Vec<u8>) -> Option<Block> {
    loop {
        let end = read.windows(2).position(|two| two == b"\n\n")?;
        let bytes: Vec<u8> = read.drain(..end + 2).collect();
        let mut block = Block::default();
        for line in String::from_utf8_lossy(&bytes).lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => block.event = value.into(),
                "data" => block.data.push_str(value),
                _ => {}
            }
        }
        if !block.data.is_empty() {
            return Some(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_taken_however_they_are_cut() {
        let stream = b"retry: 1\nevent: followed\ndata: {\"head\":3}\n\n: heartbeat\n\nid: e:4\ndata: {}\n\n";
        let expected = [("followed", "{\"head\":3}"), ("", "{}")];
        for cut in 0..stream.len() {
            let mut read = vec![];
            let mut found = vec![];
            for part in [&stream[..cut], &stream[cut..]] {
                read.extend_from_slice(part);
                while let Some(block) = take_block(&mut read) {
                    found.push((block.event, block.data));
                }
            }
            let found: Vec<_> = found.iter().map(|(e, d)| (e.as_str(), d.as_str())).collect();
            assert_eq!(found, expected, "cut at {cut}");
            assert!(read.is_empty());
        }
    }
}
