//! A model of a shard for the tests of delivery: events, a lock, and a history that can be slow,
//! broken or held back; and a follower that checks what it is given.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::chat::event::{Body, Event, EventKind};
use crate::delivery::history::History;
use crate::delivery::hub::Hub;
use crate::delivery::subscription::{Next, Start, Subscription};
use crate::error::{Code, Error};
use crate::id::{Epoch, RequestId, RoomId, Seq, UserId};

/// A shard with one room.
#[derive(Default)]
pub struct Shard {
    pub events: Mutex<Vec<Arc<Event>>>,
    pub hub: Hub,
    pub reads: AtomicUsize,
    /// While set, reads of history wait for `release`.
    pub held: AtomicBool,
    pub release: Notify,
    /// While set, history leaves out the first event of each page.
    pub lossy: AtomicBool,
}

pub fn room() -> RoomId {
    RoomId::parse("general").unwrap()
}

pub fn event(seq: u64, kind: EventKind, target: Option<u64>, text: &str) -> Arc<Event> {
    Arc::new(Event {
        seq: Seq(seq),
        at_ms: seq,
        sender: UserId::parse("ann").unwrap(),
        kind,
        request_id: RequestId::mint(seq, [1; 10]),
        target: target.map(Seq),
        subject: None,
        role: None,
        withdrawn: false,
        until_ms: None,
        original_at_ms: None,
        original_sender: None,
        body: Body::Present { salt: [7; 16], text: text.into() },
    })
}

impl Shard {
    pub fn new() -> Arc<Shard> {
        Arc::new(Shard::default())
    }

    /// Appends and publishes `count` messages in one critical section.
    pub fn post(&self, count: usize) {
        self.post_texts(&vec![String::from("hello"); count]);
    }

    pub fn post_texts(&self, texts: &[String]) {
        let mut events = self.events.lock().unwrap();
        let first = events.len();
        for text in texts {
            let seq = events.len() as u64 + 1;
            events.push(event(seq, EventKind::Message, None, text));
        }
        let wake = self.hub.publish(&room(), &events[first..]);
        drop(events);
        drop(wake);
    }

    pub fn head(&self) -> u64 {
        self.events.lock().unwrap().len() as u64
    }

    pub fn subscribe(self: &Arc<Shard>, after: u64) -> Subscription {
        let events = self.events.lock().unwrap();
        let tail = self.hub.register(&room(), Seq(events.len() as u64));
        drop(events);
        Subscription::new(tail, Arc::clone(self) as Arc<dyn History>, start(after))
    }

    pub fn follow(self: &Arc<Shard>, after: u64) -> Follower {
        Follower { subscription: self.subscribe(after), seqs: vec![], caught_up: None, after }
    }
}

impl History for Shard {
    fn page(
        &self,
        room_id: &RoomId,
        after: Seq,
        limit: usize,
        bytes: usize,
    ) -> BoxFuture<'static, Result<Vec<Arc<Event>>, Error>> {
        assert_eq!(*room_id, room());
        assert!(limit > 0 && bytes > 0);
        self.reads.fetch_add(1, SeqCst);
        let skip = after.0 as usize + usize::from(self.lossy.load(SeqCst));
        let events = self.events.lock().unwrap();
        let page: Vec<_> = events.iter().skip(skip).take(limit).cloned().collect();
        async move { Ok(page) }.boxed()
    }
}

/// A history whose pages wait while the shard holds them.
pub struct Held(pub Arc<Shard>);

impl History for Held {
    fn page(
        &self,
        room: &RoomId,
        after: Seq,
        limit: usize,
        bytes: usize,
    ) -> BoxFuture<'static, Result<Vec<Arc<Event>>, Error>> {
        let shard = Arc::clone(&self.0);
        let page = shard.page(room, after, limit, bytes);
        async move {
            loop {
                let release = shard.release.notified();
                if !shard.held.load(SeqCst) {
                    break;
                }
                release.await;
            }
            page.await
        }
        .boxed()
    }
}

pub fn start(after: u64) -> Start {
    let epoch = Epoch::parse("e1").unwrap();
    Start { epoch, first_seq: Seq(1), after: Seq(after), recovered: true }
}

/// Reads a subscription and checks that it is dense.
pub struct Follower {
    pub subscription: Subscription,
    pub seqs: Vec<u64>,
    pub caught_up: Option<u64>,
    pub after: u64,
}

impl Follower {
    pub fn take(&mut self, next: Next) {
        match next {
            Next::Events(events) => {
                assert!(!events.is_empty());
                for encoded in events {
                    let expected = self.after + self.seqs.len() as u64 + 1;
                    assert_eq!(encoded.event.seq.0, expected);
                    self.seqs.push(expected);
                }
                let mark = self.subscription.head.0.max(self.after);
                let last = self.after + self.seqs.len() as u64;
                assert!(self.caught_up.is_some() || last <= mark, "the mark comes at the head");
            }
            Next::CaughtUp(head) => {
                assert_eq!(self.caught_up, None, "one mark");
                assert_eq!(head, self.subscription.head);
                assert!(self.after + self.seqs.len() as u64 >= head.0);
                self.caught_up = Some(head.0);
            }
            Next::Ended(error) => panic!("ended: {error}"),
        }
    }

    /// Takes what is there without waiting.
    pub fn drain(&mut self) {
        while let Some(next) = self.subscription.next().now_or_never() {
            self.take(next);
        }
    }

    /// Takes one thing if it is there.
    pub fn step(&mut self) {
        if let Some(next) = self.subscription.next().now_or_never() {
            self.take(next);
        }
    }

    pub fn last(&self) -> u64 {
        self.after + self.seqs.len() as u64
    }

    /// Waits until `head` has been delivered.
    pub async fn read_to(&mut self, head: u64) {
        let reading = async {
            while self.last() < head || self.caught_up.is_none() {
                let next = self.subscription.next().await;
                self.take(next);
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reading).await.expect("it gets there");
    }
}

pub fn stalled() -> Error {
    Error::new(Code::Unavailable, "no leader")
}
