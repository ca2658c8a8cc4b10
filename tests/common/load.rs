//! A load of posts that are retried until they are acknowledged, and the check of what they left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cluster::TestCluster;
use super::http::Http;
use super::new_id;

/// How long one post may take, retries included, before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message that was acknowledged.
#[derive(Debug, Clone)]
pub struct Acked {
    pub room: String,
    pub id: String,
    pub text: String,
    pub seq: u64,
    pub when: Instant,
}

/// An event as a history page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub seq: u64,
    pub id: String,
    pub kind: String,
    pub text: String,
}

/// Posts one message, trying node after node with the same id until one acknowledges it.
///
/// # Panics
/// On an error that is not temporary, and after a minute.
pub fn post(urls: &[String], token: &str, room: &str, id: &str, text: &str) -> Acked {
    let body = json!({ "client_msg_id": id, "text": text });
    let begin = Instant::now();
    let mut last = String::new();
    for url in urls.iter().cycle() {
        if begin.elapsed() > PATIENCE {
            break;
        }
        let http = Http::new(url).with_token(token).with_timeout(Duration::from_secs(5));
        match http.post(&format!("/v1/rooms/{room}/messages"), &body) {
            Ok(answer) if answer.status == 200 => {
                let seq = answer.json()["seq"].as_u64().expect("a seq");
                let (room, id, text) = (room.to_owned(), id.to_owned(), text.to_owned());
                return Acked { room, id, text, seq, when: Instant::now() };
            }
            Ok(answer) => {
                // A load balancer that finds no node says so in its own words.
                let said: Option<Value> = serde_json::from_slice(&answer.body).ok();
                let error = said.map(|said| said["error"].clone()).unwrap_or_default();
                let proxied = error.is_null() && matches!(answer.status, 502..=504);
                assert!(proxied || error["temporary"] == true, "{}: {error}", answer.status);
                last = format!("{}: {error}", answer.status);
            }
            Err(error) => last = error.to_string(),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not acknowledged within {PATIENCE:?}: {last}");
}

/// Threads that post, one message at a time each.
pub struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    acked: Arc<Mutex<Vec<Acked>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `workers` threads; each posts to the rooms in turn, and prefers a node of its own.
    pub fn start(urls: &[String], token: &str, rooms: &[String], workers: usize) -> Load {
        Load::start_padded(urls, token, rooms, workers, 0)
    }

    /// The same, with texts of at least `bytes` bytes that do not compress well.
    pub fn start_padded(
        urls: &[String],
        token: &str,
        rooms: &[String],
        workers: usize,
        bytes: usize,
    ) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let acked = Arc::new(Mutex::new(vec![]));
        let thread = |worker: usize| {
            let mut urls = urls.to_vec();
            let own = worker % urls.len();
            urls.rotate_left(own);
            let (token, rooms) = (token.to_owned(), rooms.to_vec());
            let (stop, count, acked) = (stop.clone(), count.clone(), acked.clone());
            std::thread::spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let room = &rooms[(worker + n) % rooms.len()];
                    let mut text = format!("message {n} of worker {worker}");
                    while text.len() < bytes {
                        text.push_str(&new_id());
                    }
                    let done = post(&urls, &token, room, &new_id(), &text);
                    acked.lock().unwrap().push(done);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = (0..workers).map(thread).collect();
        Load { stop, count, acked, threads }
    }

    /// How many messages have been acknowledged so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The longest time without an acknowledgement in a room between `from` and `until`, the times that
    /// only begin or end there included; `None` as long as there was none after `until`.
    pub fn longest_silence(&self, room: &str, from: Instant, until: Instant) -> Option<Duration> {
        let acked = self.acked.lock().unwrap();
        let mut times: Vec<Instant> =
            acked.iter().filter(|a| a.room == room).map(|a| a.when).collect();
        times.sort_unstable();
        let first = times.partition_point(|when| *when <= from).saturating_sub(1);
        let end = times.partition_point(|when| *when <= until);
        let times = times.get(first..=end)?;
        times.windows(2).map(|pair| pair[1].duration_since(pair[0].max(from))).max()
    }

    /// Waits until `more` further messages have been acknowledged.
    ///
    /// # Panics
    /// When none is for a minute.
    pub fn wait_more(&self, more: u64) {
        let goal = self.count() + more;
        while self.count() < goal {
            let before = self.count();
            super::wait_for("posts to go on", PATIENCE, || match self.count() {
                count if count > before || count >= goal => Ok(()),
                count => Err(format!("{count} of {goal} acknowledged")),
            });
        }
    }

    /// Ends the load. Every message that was begun is acknowledged then.
    pub fn finish(self) -> Vec<Acked> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no worker failed");
        }
        std::mem::take(&mut self.acked.lock().unwrap())
    }
}

/// A room's whole log as one node tells it.
pub fn read_room(http: &Http, room: &str, consistency: &str) -> Vec<Seen> {
    let mut seen: Vec<Seen> = vec![];
    loop {
        let after = seen.len();
        let path =
            format!("/v1/rooms/{room}/events?after={after}&limit=1000&consistency={consistency}");
        let page = http.get(&path).unwrap().expect(200);
        let events = page["events"].as_array().expect("events");
        seen.extend(events.iter().map(seen_event));
        let head = page["head"].as_u64().expect("a head");
        assert!(!events.is_empty() || seen.len() as u64 >= head, "a page short of head {head}");
        if seen.len() as u64 >= head {
            return seen;
        }
    }
}

fn seen_event(event: &Value) -> Seen {
    let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let seq = event["seq"].as_u64().expect("a seq");
    Seen { seq, id: text("client_msg_id"), kind: text("kind"), text: text("text") }
}

/// Checks that a room's log is dense, that each acknowledged message is in it once, at its seq
/// and with its text, and that nobody else's is.
pub fn check_log(log: &[Seen], acked: &[Acked]) {
    for (seen, expected) in log.iter().zip(1..) {
        assert_eq!(seen.seq, expected, "the log is dense");
    }
    let ids: BTreeSet<_> = log.iter().map(|seen| &seen.id).collect();
    assert_eq!(ids.len(), log.len(), "an id is there twice");
    let by_seq: BTreeMap<u64, &Seen> = log.iter().map(|seen| (seen.seq, seen)).collect();
    for message in acked {
        let seen = by_seq.get(&message.seq);
        let seen = seen.unwrap_or_else(|| panic!("lost: {message:?}, log ends at {}", log.len()));
        assert_eq!((&seen.id, &seen.text), (&message.id, &message.text), "at {}", message.seq);
    }
    let sent: BTreeSet<_> = acked.iter().map(|message| &message.id).collect();
    for seen in log.iter().filter(|seen| seen.kind == "message") {
        assert!(sent.contains(&seen.id), "nobody sent {seen:?}");
    }
}

/// Checks every room on these nodes.
pub fn check_on(
    cluster: &TestCluster,
    nodes: std::ops::Range<usize>,
    rooms: &[String],
    acked: &[Acked],
) {
    for room in rooms {
        let mine: Vec<_> = acked.iter().filter(|a| a.room == *room).cloned().collect();
        for i in nodes.clone() {
            check_log(&read_room(&cluster.admin(i), room, "linearizable"), &mine);
        }
    }
}

/// Checks every room on every node, which must all tell the same.
pub fn check_everywhere(cluster: &TestCluster, rooms: &[String], acked: &[Acked]) {
    for room in rooms {
        let mine: Vec<_> = acked.iter().filter(|a| a.room == *room).cloned().collect();
        let first = read_room(&cluster.admin(0), room, "linearizable");
        check_log(&first, &mine);
        for i in 1..cluster.len() {
            let log = read_room(&cluster.admin(i), room, "linearizable");
            assert_eq!(log, first, "room {room} on node {i}");
        }
        // What each replica has by itself comes to the same, once it has caught up.
        for i in 0..cluster.len() {
            super::wait_for("replicas to agree", PATIENCE, || {
                let log = read_room(&cluster.admin(i), room, "local");
                if log == first { Ok(()) } else { Err(format!("{room} differs on node {i}")) }
            });
        }
    }
}
