//! Long polls and event streams.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::server::{Server, posted, read_until, soon, until};
use crate::error::{Code, Error};
use crate::gateway::limits::GatewayLimits;

pub(super) async fn stream(server: &Server, token: &str, query: &str, headers: &str) -> TcpStream {
    let mut stream = server.connect().await;
    let request = format!(
        "GET /v1/rooms/general/events{query} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\
         authorization: Bearer {token}\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// The seqs in the ids of log events, in order.
fn seqs(text: &str) -> Vec<u64> {
    let data = |text: &str| text.contains("\ndata: {\"seq\":") && !text.contains("event: ");
    let ids = text.split("\n\n").filter(|event| data(event)).filter_map(|event| {
        let id = event.lines().find_map(|line| line.trim_end().strip_prefix("id: "))?;
        id.split_once(':')?.1.parse().ok()
    });
    ids.collect()
}

#[tokio::test]
async fn a_stream_gives_history_then_a_mark_then_live_events() {
    let server = Server::start().await;
    server.post("one").await;
    let mut events = stream(&server, &server.bob, "?after=0", "").await;
    let text = read_until(&mut events, |text| text.contains("event: caught_up")).await;
    assert!(text.contains("content-type: text/event-stream"));
    let followed = text.find("event: followed\n").unwrap();
    assert!(followed < text.find("id: ").unwrap());
    assert_eq!(seqs(&text), [1, 2]);
    assert!(text.contains("\"recovered\":true"));
    server.post("two\nlines").await;
    let text = read_until(&mut events, |text| text.contains("lines")).await;
    assert!(text.contains(r#""text":"two\nlines""#), "{text}");
    drop(events);
    until(|| server.fake.feeds.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_stream_resumes_from_its_last_event_id() {
    let server = Server::start().await;
    for text in ["a", "b", "c"] {
        server.post(text).await;
    }
    let page = server.get(&server.ann, "/v1/rooms/general/events?limit=1").await.json();
    let epoch = page["epoch"].as_str().unwrap();
    let last = format!("last-event-id: {epoch}:2\r\n");
    let mut events = stream(&server, &server.ann, "?after=0", &last).await;
    let text = read_until(&mut events, |text| text.contains("event: caught_up")).await;
    assert_eq!(seqs(&text), [3, 4]);
    // Without a cursor: from the head on.
    let mut live = stream(&server, &server.ann, "", "").await;
    let text = read_until(&mut live, |text| text.contains("event: caught_up")).await;
    assert!(seqs(&text).is_empty());
    assert!(text.contains(&format!("id: {epoch}:4")));
}

#[tokio::test]
async fn bad_streams_are_refused_before_they_begin() {
    let server = Server::start().await;
    for (query, headers, code) in [
        ("?after=9", "", "invalid_cursor"),
        ("?after=0", "last-event-id: nonsense\r\n", "invalid_cursor"),
        ("?after=0", "last-event-id: né\r\n", "invalid_cursor"),
        ("?before=1", "", "invalid_argument"),
        ("?limit=0", "", "invalid_argument"),
        ("?after=0&wait=61s", "", "invalid_argument"),
        ("?consistency=eventual", "", "invalid_argument"),
    ] {
        let mut refused = stream(&server, &server.ann, query, headers).await;
        read_until(&mut refused, |text| text.contains(&format!("\"code\":\"{code}\""))).await;
    }
}

#[tokio::test]
async fn an_idle_stream_has_heartbeats() {
    let heartbeat = Duration::from_millis(20);
    let server = Server::with_limits(GatewayLimits { heartbeat, ..Default::default() }).await;
    let mut events = stream(&server, &server.ann, "", "").await;
    read_until(&mut events, |text| text.matches(": heartbeat").count() >= 2).await;
}

fn lost() -> Error {
    Error::new(Code::Unavailable, "the replica is lost")
}

#[tokio::test]
async fn a_stream_goes_on_elsewhere_when_its_replica_is_lost() {
    let server = Server::start().await;
    let mut events = stream(&server, &server.bob, "?after=0", "").await;
    read_until(&mut events, |text| text.contains("event: caught_up")).await;
    // At first nobody can serve the room.
    *server.fake.feeds_refused.lock().unwrap() = Some(lost());
    server.fake.feeds_end.send_replace(Some(lost()));
    until(|| server.fake.feeds.load(Ordering::SeqCst) == 0).await;
    server.post("missed meanwhile").await;
    *server.fake.feeds_refused.lock().unwrap() = None;
    let missed = read_until(&mut events, |text| text.contains("missed meanwhile")).await;
    server.post("live again").await;
    let live = read_until(&mut events, |text| text.contains("live again")).await;
    assert_eq!((seqs(&missed), seqs(&live)), (vec![2], vec![3]));
    // The client was told nothing of it.
    assert!(!(missed + &live).contains("event: "));
}

#[tokio::test]
async fn a_stream_goes_on_through_one_loss_after_another() {
    let server = Server::start().await;
    let mut events = stream(&server, &server.bob, "?after=0", "").await;
    read_until(&mut events, |text| text.contains("event: caught_up")).await;
    let begin = Instant::now();
    // For longer than a single one may take.
    for n in 2.. {
        server.fake.feeds_end.send_replace(Some(lost()));
        let text = format!("message {n}");
        server.post(&text).await;
        let read = read_until(&mut events, |read| read.contains(&text)).await;
        assert_eq!(seqs(&read), [n]);
        if begin.elapsed() > Duration::from_secs(6) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_stream_ends_when_it_may_not_go_on_elsewhere() {
    let server = Server::start().await;
    let banned = Error::new(Code::Banned, "you are banned from this room");
    for (end, refusal, code) in [
        (lost(), Some(banned), "banned"),
        (Error::new(Code::RoomNotFound, "the room is gone"), None, "room_not_found"),
    ] {
        *server.fake.feeds_refused.lock().unwrap() = None;
        let mut events = stream(&server, &server.bob, "?after=0", "").await;
        read_until(&mut events, |text| text.contains("event: caught_up")).await;
        *server.fake.feeds_refused.lock().unwrap() = refusal;
        server.fake.feeds_end.send_replace(Some(end));
        let text = read_until(&mut events, |text| text.contains("event: ended")).await;
        assert!(text.contains(&format!("\"code\":\"{code}\"")), "{text}");
        assert!(text.contains("\"seq\":1"), "{text}");
    }
}

#[tokio::test]
async fn a_reader_whom_retention_overtakes_is_told_to_come_again() {
    let server = Server::start().await;
    let mut events = stream(&server, &server.bob, "?after=0", "").await;
    let text = read_until(&mut events, |text| text.contains("event: caught_up")).await;
    let id = text.lines().find_map(|line| line.trim_end().strip_prefix("id: ")).unwrap();
    let last = format!("last-event-id: {id}\r\n");
    server.fake.overtake((2..=5).map(|_| posted("more")).collect(), "general", 4);
    let text = read_until(&mut events, |text| text.contains("event: ended")).await;
    assert!(text.contains("\"code\":\"unavailable\"") && text.contains("retry: 0"), "{text}");
    let mut again = stream(&server, &server.bob, "", &last).await;
    let text = read_until(&mut again, |text| text.contains("event: caught_up")).await;
    assert!(text.contains("\"recovered\":false"), "{text}");
    assert_eq!(seqs(&text), [4, 5]);
}

#[tokio::test]
async fn a_stream_ends_when_no_other_replica_is_found() {
    let server = Server::start().await;
    let mut events = stream(&server, &server.bob, "?after=0", "").await;
    read_until(&mut events, |text| text.contains("event: caught_up")).await;
    *server.fake.feeds_refused.lock().unwrap() = Some(lost());
    let begin = Instant::now();
    server.fake.feeds_end.send_replace(Some(lost()));
    let text = read_until(&mut events, |text| text.contains("event: ended")).await;
    assert!(begin.elapsed() >= Duration::from_secs(4), "it was looked for");
    assert!(text.contains("\"code\":\"unavailable\""), "{text}");
}

#[tokio::test]
async fn a_ban_ends_the_stream() {
    let server = Server::start().await;
    let mut events = stream(&server, &server.bob, "?after=0", "").await;
    read_until(&mut events, |text| text.contains("event: caught_up")).await;
    let path = "/v1/rooms/general/participants/bob";
    server.send(&server.ann, "PUT", path, r#"{"role":"banned"}"#).await;
    let text = read_until(&mut events, |text| text.contains("event: ended")).await;
    assert!(text.contains("\"code\":\"banned\"") && text.contains("\"seq\":2"), "{text}");
}

#[tokio::test]
async fn what_was_left_or_lifted_long_ago_does_not_end_the_stream() {
    let server = Server::start().await;
    let path = "/v1/rooms/general/participants/bob";
    for role in ["banned", "member"] {
        server.send(&server.ann, "PUT", path, &format!(r#"{{"role":"{role}"}}"#)).await;
    }
    server.send(&server.bob, "POST", "/v1/rooms/general/leave", "").await;
    server.post("for everybody").await;
    let mut events = stream(&server, &server.bob, "?after=0", "").await;
    let text = read_until(&mut events, |text| text.contains("event: caught_up")).await;
    assert_eq!(seqs(&text), [1, 2, 3, 4, 5]);
    assert!(!text.contains("event: ended"), "{text}");
}

#[tokio::test]
async fn a_long_poll_ends_with_an_event_or_its_time() {
    let server = Server::start().await;
    let started = Instant::now();
    let path = "/v1/rooms/general/events?after=1&wait=150ms";
    let page = server.get(&server.ann, path).await.json();
    assert!(started.elapsed() >= Duration::from_millis(150));
    assert_eq!(page["events"].as_array().unwrap().len(), 0);

    let path = "/v1/rooms/general/events?after=1&wait=60s";
    let poll = server.get(&server.ann, path);
    let post = async {
        until(|| server.fake.feeds.load(Ordering::SeqCst) == 1).await;
        server.post("now").await
    };
    let (page, seq) = soon(async { tokio::join!(poll, post) }).await;
    assert_eq!(page.json()["events"][0]["seq"], seq);
    assert_eq!(page.json()["head"], seq);
    until(|| server.fake.feeds.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_its_long_poll() {
    let server = Server::start().await;
    let mut poll = server.connect().await;
    let request = format!(
        "GET /v1/rooms/general/events?after=1&wait=60000 HTTP/1.1\r\nhost: x\r\n\
         authorization: Bearer {}\r\n\r\n",
        server.ann
    );
    poll.write_all(request.as_bytes()).await.unwrap();
    until(|| server.fake.feeds.load(Ordering::SeqCst) == 1).await;
    drop(poll);
    until(|| server.fake.feeds.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_shutdown_ends_streams_with_a_hint() {
    let server = Server::start().await;
    let mut events = stream(&server, &server.ann, "", "").await;
    read_until(&mut events, |text| text.contains("event: caught_up")).await;
    server.shutdown.cancel();
    let text = read_until(&mut events, |text| text.contains("event: ended")).await;
    assert!(text.contains("\"code\":\"shutting_down\"") && text.contains("retry: "), "{text}");
    soon(server.serving).await.unwrap();
}
