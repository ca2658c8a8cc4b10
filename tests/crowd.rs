//! One room that thousands follow over three nodes: how soon a post has reached all of them.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::common::cluster::{Options, TestCluster};
use crate::common::ws::Ws;

/// Subscribers, if this process may open as many files.
const COUNT: usize = 5_000;
/// Posts of a round; one before the first is not measured.
const POSTS: usize = 20;
/// Rounds, of which the middle one counts: a disk or host that takes half a second once makes a
/// twentieth of a round late.
const ROUNDS: usize = 3;
/// The target for 99 of a hundred deliveries.
const P99_MAX: Duration = Duration::from_millis(500);
/// For one post to have reached everybody.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads frames of a server (RFC 6455, section 5.2: not masked), and tells when each has come whole.
async fn take(mut stream: TcpStream, came: mpsc::UnboundedSender<Instant>) {
    loop {
        let Ok(head) = stream.read_u16().await else { return };
        let length = match head & 0x7f {
            126 => u64::from(stream.read_u16().await.unwrap()),
            127 => stream.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut body = vec![0; length as usize];
        stream.read_exact(&mut body).await.unwrap();
        let is_text = head >> 8 == 0x81;
        assert!(!is_text || body.starts_with(br#"{"type":"event""#), "{head:x} {body:?}");
        if is_text && came.send(Instant::now()).is_err() {
            return;
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
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let count = files.map_or(COUNT, |files| COUNT.min(files.saturating_sub(500) as usize));
    if count < COUNT {
        crate::common::say!("SKIPPED: only {files:?} files may be open");
        return;
    }
    // None of these clients answers a ping.
    let arguments = vec!["--set".into(), "limits.keep_alive=10m".into()];
    let cluster = TestCluster::start_with(3, Options { arguments, ..Options::default() });
    cluster.room("square");
    let streams: Vec<std::net::TcpStream> = (0..count)
        .map(|n| {
            let mut ws = Ws::open(&cluster.url(n % 3), cluster.admin_token()).unwrap();
            ws.follow("square", &json!(0)).unwrap();
            assert_eq!(ws.catch_up(), [1]);
            ws.into_stream()
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (came, mut coming) = mpsc::unbounded_channel();
    let mut latencies = Vec::new();
    runtime.block_on(async {
        for stream in streams {
            stream.set_nonblocking(true).unwrap();
            tokio::spawn(take(TcpStream::from_std(stream).unwrap(), came.clone()));
        }
        for n in 0..=ROUNDS * POSTS {
            let (http, text) = (cluster.admin(n % 3), format!("post {n}"));
            let sent = Instant::now();
            let posting = tokio::task::spawn_blocking(move || {
                http.post("/v1/rooms/square/messages", &json!({ "text": text }))
                    .unwrap()
                    .expect(200)
            });
            for _ in 0..count {
                let at = tokio::time::timeout(PATIENCE, coming.recv()).await;
                let at = at.expect("each post reaches everybody").unwrap();
                if n > 0 {
                    latencies.push(at - sent);
                }
            }
            posting.await.unwrap();
        }
        assert!(coming.try_recv().is_err(), "and once");
    });
    let mut rounds: Vec<_> = latencies.chunks_mut(POSTS * count).map(figures).collect();
    rounds.sort_unstable();
    crate::common::say!(
        "{count} subscribers, {POSTS} posts a round: delivered after (p99, median, at most): {rounds:?}"
    );
    assert!(rounds[ROUNDS / 2][0] < P99_MAX, "{rounds:?}");
}
