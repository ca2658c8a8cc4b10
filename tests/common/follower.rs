//! A follower that resumes where its last connection broke, and checks what it sees.

use std::io;
use std::time::{Duration, Instant};

use super::http::Http;
use super::sse::{Sse, SseEvent};

/// Follows a room over one connection after another, each resumed where the last one broke.
pub struct Follower {
    urls: Vec<String>,
    token: String,
    /// The room followed.
    pub room: String,
    /// Of the last event seen.
    last_event_id: Option<String>,
    seqs: Vec<u64>,
    /// Of every event from the first one on.
    pub ids: Vec<String>,
    connections: usize,
}

impl Follower {
    /// Begins nowhere yet; the first connection goes to the node `first_node`.
    pub fn new(urls: &[String], token: &str, room: &str, first_node: usize) -> Follower {
        let mut urls = urls.to_vec();
        urls.rotate_left(first_node);
        Follower {
            urls,
            token: token.into(),
            room: room.into(),
            last_event_id: None,
            seqs: vec![],
            ids: vec![],
            connections: 0,
        }
    }

    fn take(&mut self, event: &SseEvent) {
        let Some(seq) = event.seq() else { return };
        assert_eq!(seq, self.seqs.len() as u64 + 1, "no gap and no repeat in {}", self.room);
        self.seqs.push(seq);
        self.ids.push(event.json()["client_msg_id"].as_str().unwrap().into());
        self.last_event_id = Some(event.id.clone());
    }

    /// Opens a stream somewhere and reads until it breaks or `done` says so.
    fn connect_once(&mut self, done: &dyn Fn(u64) -> bool) -> io::Result<()> {
        let url = &self.urls[self.connections % self.urls.len()];
        self.connections += 1;
        let http = Http::new(url).with_token(&self.token).with_timeout(Duration::from_secs(3));
        let after = self.last_event_id.is_none().then_some(0);
        let mut stream = Sse::open(&http, &self.room, after, self.last_event_id.as_deref())?;
        while !done(self.seqs.len() as u64) {
            let event = stream.next()?;
            self.take(&event);
        }
        Ok(())
    }

    /// Follows until `done` says so of the number of events seen.
    ///
    /// # Panics
    /// On a gap or a repeat, and after a minute in which nothing could be read.
    pub fn run(mut self, done: impl Fn(u64) -> bool) -> Follower {
        let mut progress = (Instant::now(), 0);
        while self.connect_once(&done).is_err() {
            if self.seqs.len() > progress.1 {
                progress = (Instant::now(), self.seqs.len());
            }
            assert!(
                progress.0.elapsed() < Duration::from_secs(60),
                "stuck in {} after {:?}",
                self.room,
                self.seqs.last()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        self
    }
}
