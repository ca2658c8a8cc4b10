//! One room of thousands over three nodes: how soon a post has reached all of them, and how calm it is
//! while they come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::common::cluster::{Options, TestCluster};
use crate::common::ws::Ws;
use crate::common::{settings, wait_for};

/// Subscribers, if this process may open as many files.
const COUNT: usize = 5_000;
/// Posts of a round; one before the first is not measured.
const POSTS: usize = 20;
/// Rounds, of which the middle one counts: a host that takes half a second once makes a twentieth of
/// a round late.
const ROUNDS: usize = 3;
/// What takes longer to be acknowledged has waited for a disk, and says nothing of its delivery:
/// another one is posted in its place.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(250);
/// In place of how many posts, at the most.
const REPLACED_MAX: usize = 20;
/// The target for 99 of a hundred deliveries.
const P99_MAX: Duration = Duration::from_millis(500);
/// For one post to have reached everybody.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether this process may open as many connections; says so where it may not.
fn may_open(wanted: usize) -> bool {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let may = files.is_none_or(|files| files >= wanted as u64 + 500);
    if !may {
        crate::common::say!("SKIPPED: only {files:?} files may be open");
    }
    may
}

/// Reads a server's frames (RFC 6455, section 5.2: not masked) to the end, and hands over the texts.
async fn take(mut stream: TcpStream, mut text: impl FnMut(Vec<u8>)) -> std::io::Result<()> {
    loop {
        let head = stream.read_u16().await?;
        let length = match head & 0x7f {
            126 => u64::from(stream.read_u16().await?),
            127 => stream.read_u64().await?,
            short => u64::from(short),
        };
        let mut body = vec![0; length as usize];
        stream.read_exact(&mut body).await?;
        if head >> 8 == 0x81 {
            text(body);
        }
    }
}

/// The time that 99 of a hundred deliveries take at most, half of them, and all.
fn figures(latencies: &mut [Duration]) -> [Duration; 3] {
    latencies.sort_unstable();
    [99, 50, 100].map(|percent| latencies[(latencies.len() - 1) * percent / 100])
}

#[test]
fn a_post_reaches_five_thousand_subscribers_soon() {
    if !may_open(COUNT) {
        return;
    }
    // None of these clients answers a ping.
    let arguments = settings(&["limits.keep_alive=10m"]);
    let cluster = TestCluster::start_with(3, Options { arguments, ..Options::default() });
    cluster.room("square");
    let streams: Vec<std::net::TcpStream> = (0..COUNT)
        .map(|n| {
            let mut ws = Ws::open(&cluster.url(n % 3), cluster.admin_token()).unwrap();
            ws.follow("square", &json!(0)).unwrap();
            assert_eq!(ws.catch_up(), [1]);
            ws.into_stream()
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (came, mut coming) = mpsc::unbounded_channel();
    let (mut latencies, mut replaced) = (Vec::new(), 0);
    runtime.block_on(async {
        for stream in streams {
            stream.set_nonblocking(true).unwrap();
            let came = came.clone();
            tokio::spawn(take(TcpStream::from_std(stream).unwrap(), move |text| {
                assert!(text.starts_with(br#"{"type":"event""#), "{text:?}");
                came.send(Instant::now()).ok(); // nobody listens at the end
            }));
        }
        for n in 0.. {
            if latencies.len() == ROUNDS * POSTS * COUNT {
                break;
            }
            let (http, text) = (cluster.admin(n % 3), format!("post {n}"));
            let sent = Instant::now();
            let posting = tokio::task::spawn_blocking(move || {
                http.post("/v1/rooms/square/messages", &json!({ "text": text }))
                    .unwrap()
                    .expect(200);
                sent.elapsed()
            });
            let mut delivered = Vec::with_capacity(COUNT);
            for _ in 0..COUNT {
                let at = tokio::time::timeout(PATIENCE, coming.recv()).await;
                let at = at.expect("each post reaches everybody").unwrap();
                delivered.push(at - sent);
            }
            let acknowledged = posting.await.unwrap();
            if n > 0 && acknowledged <= ACKNOWLEDGED_WITHIN {
                latencies.extend(delivered);
            } else if n > 0 {
                replaced += 1;
                assert!(replaced <= REPLACED_MAX, "too many posts wait, now {acknowledged:?}");
            }
        }
        assert!(coming.try_recv().is_err(), "and once");
    });
    let mut rounds: Vec<_> = latencies.chunks_mut(POSTS * COUNT).map(figures).collect();
    rounds.sort_unstable();
    crate::common::say!(
        "{COUNT} subscribers, {POSTS} posts a round, {replaced} replaced: delivered after (p99, \
         median, at most): {rounds:?}"
    );
    assert!(rounds[ROUNDS / 2][0] < P99_MAX, "{rounds:?}");
}

/// People of a large room, each with a WebSocket of their own.
const PEOPLE: usize = 10_000;
/// How many of them lose their network at the same time.
const LOSE: usize = 3_000;
/// Between two numbers of who is there that somebody is told.
const TOLD_EVERY: Duration = Duration::from_secs(2);
/// Within which a number is right, also after a node's death.
const RIGHT_WITHIN: Duration = Duration::from_secs(10);
/// How long a post may take meanwhile: a disk may take a second by itself.
const POST_WITHIN: Duration = Duration::from_secs(5);

/// What one of them has been told of who is there.
struct Told {
    since: Instant,
    times: AtomicU64,
    present: AtomicU64,
}

/// Somebody who is in the room; dropped, they leave.
struct Somebody {
    told: Arc<Told>,
    reading: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Drop for Somebody {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Somebody {
    /// Follows the room at a node; needs a runtime.
    fn enter(url: &str, token: &str) -> Somebody {
        let mut ws = Ws::open(url, token).unwrap();
        let rooms = json!([{ "room": "square" }]);
        ws.say(&json!({ "type": "follow", "rooms": rooms, "presence": true })).unwrap();
        let stream = ws.into_stream();
        stream.set_nonblocking(true).unwrap();
        let (times, present) = Default::default();
        let told = Arc::new(Told { since: Instant::now(), times, present });
        let notes = told.clone();
        let reading = take(TcpStream::from_std(stream).unwrap(), move |text| {
            let frame: Value = serde_json::from_slice(&text).unwrap();
            if frame["type"] == "presence" {
                assert_eq!(frame["people"], json!([]), "nobody is named");
                notes.times.fetch_add(1, Ordering::Relaxed);
                notes.present.store(frame["present"].as_u64().unwrap(), Ordering::Relaxed);
            }
        });
        Somebody { told, reading: tokio::spawn(reading) }
    }
}

/// Does something for each of some numbers, on eight threads.
fn for_each<T: Send>(numbers: &[usize], each: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let part = |part: &[usize]| {
            let (part, each) = (part.to_vec(), &each);
            scope.spawn(move || part.into_iter().map(each).collect::<Vec<T>>())
        };
        let threads: Vec<_> = numbers.chunks(numbers.len().div_ceil(8)).map(part).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// Waits until all of these know how many are there, which must be soon, and checks that nobody was told
/// all the time.
fn must_be_calm(people: &[Option<Somebody>], what: &str) {
    let there: Vec<&Told> = people.iter().flatten().map(|it| &*it.told).collect();
    let begin = Instant::now();
    let count = there.len() as u64;
    wait_for(what, RIGHT_WITHIN, || {
        let wrong = there.iter().filter(|told| told.present.load(Ordering::Relaxed) != count);
        match wrong.count() {
            0 => Ok(()),
            wrong => Err(format!("{wrong} do not know that {count} are there")),
        }
    });
    let took = begin.elapsed();
    let mut most = 0;
    for told in &there {
        let times = told.times.load(Ordering::Relaxed);
        // At first, and when a node is lost, at once.
        let may = told.since.elapsed().as_millis() / TOLD_EVERY.as_millis() + 3;
        assert!(u128::from(times) <= may, "{what}: {times} times in {:?}", told.since.elapsed());
        most = most.max(times);
    }
    crate::common::say!("{what}: {count} know it after {took:?}; told {most} times at most");
}

#[test]
fn ten_thousand_people_come_and_go_and_a_node_dies_and_all_are_told_a_number_now_and_then() {
    if !may_open(PEOPLE) {
        return;
    }
    let arguments =
        settings(&["limits.keep_alive=10m", "limits.address_requests_per_second=1000000"]);
    let mut cluster = TestCluster::start_with(3, Options { arguments, ..Options::default() });
    cluster.room("square");
    let everybody: Vec<usize> = (0..PEOPLE).collect();
    let tokens = for_each(&everybody, |n| {
        let token = cluster.user(&format!("u{n}"));
        let http = cluster.http(n % 3).with_token(&token);
        http.post("/v1/rooms/square/join", &json!({})).unwrap().expect(200);
        token
    });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let enter = |cluster: &TestCluster, numbers: &[usize]| {
        for_each(numbers, |n| {
            let _inside = runtime.enter();
            Some(Somebody::enter(&cluster.url(n % 3), &tokens[n]))
        })
    };
    let mut people = enter(&cluster, &everybody);
    must_be_calm(&people, "everybody has come");

    people[..LOSE].fill_with(|| None);
    let http = cluster.admin(0);
    let posting = std::thread::spawn(move || {
        let begin = Instant::now();
        let body = json!({ "text": "is anybody there?" });
        http.post("/v1/rooms/square/messages", &body).unwrap().expect(200);
        begin.elapsed()
    });
    let again = enter(&cluster, &everybody[..LOSE]);
    let acknowledged = posting.join().unwrap();
    for (place, somebody) in people.iter_mut().zip(again) {
        *place = somebody;
    }
    must_be_calm(&people, "some have gone and come back");
    crate::common::say!("a post meanwhile took {acknowledged:?}");
    assert!(acknowledged < POST_WITHIN, "{acknowledged:?}");

    cluster.kill(2);
    people.iter_mut().skip(2).step_by(3).for_each(|somebody| drop(somebody.take()));
    must_be_calm(&people, "a node has died");
}
