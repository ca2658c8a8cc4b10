//! A drain: clients are sent elsewhere, while the gateway goes on.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio_stream::StreamExt;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::grpc::code;
use super::server::{Server, read_until, soon, until};
use super::sessions::{Session, ends_with_what_is_in_flight_acknowledged};
use super::streams::stream;

#[tokio::test]
async fn readiness_says_draining_until_the_drain_is_undone() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel().await);
    let watch = health.watch(HealthCheckRequest::default());
    let mut watch = soon(watch).await.unwrap().into_inner();
    let serving = soon(watch.next()).await.unwrap().unwrap();
    assert_eq!(serving.status(), ServingStatus::Serving);
    for _ in 0..2 {
        assert_eq!(server.get(&server.ann, "/health/ready").await.status, 200);
        server.drain.begin();
        let ready = server.get(&server.ann, "/health/ready").await;
        assert_eq!((ready.status, &ready.json()["status"]), (503, &"draining".into()));
        assert_eq!(server.get(&server.ann, "/health/live").await.status, 200);
        server.drain.end();
    }
    server.drain.begin();
    let not_serving = soon(watch.next()).await.unwrap().unwrap();
    assert_eq!(not_serving.status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn streams_end_with_a_hint_and_requests_are_served() {
    let server = Server::start().await;
    let mut events = stream(&server, &server.ann, "", "").await;
    read_until(&mut events, |text| text.contains("event: caught_up")).await;
    server.drain.begin();
    let ended = read_until(&mut events, |text| text.contains("event: ended")).await;
    assert!(ended.contains("\"code\":\"shutting_down\"") && ended.contains("retry: "), "{ended}");
    server.post("still served").await;
    // EventSource gives up for ever on any status but 200.
    let mut late = stream(&server, &server.ann, "", "").await;
    let ended = read_until(&mut late, |text| text.contains("event: ended")).await;
    assert!(ended.starts_with("HTTP/1.1 200 ") && ended.contains("retry: "), "{ended}");
    server.drain.end();
    let mut events = stream(&server, &server.ann, "?after=0", "").await;
    read_until(&mut events, |text| text.contains("still served")).await;
}

#[tokio::test]
async fn a_long_poll_is_answered_at_once_and_the_next_goes_elsewhere() {
    let server = Server::start().await;
    let path = "/v1/rooms/general/events?after=1&wait=60s";
    let begun = Instant::now();
    let poll = server.get(&server.ann, path);
    let drain = async {
        until(|| server.fake.feeds.load(Ordering::SeqCst) == 1).await;
        server.drain.begin();
    };
    let (page, ()) = soon(async { tokio::join!(poll, drain) }).await;
    assert_eq!((page.status, page.json()["events"].as_array().unwrap().len()), (200, 0));
    let refused = server.get(&server.ann, path).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "shutting_down"));
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    assert!(begun.elapsed() < Duration::from_secs(20), "somebody waited");
    // What need not wait is answered.
    let page = server.get(&server.ann, "/v1/rooms/general/events?after=0&wait=60s").await;
    assert_eq!(page.json()["events"][0]["seq"], 1);
}

#[tokio::test]
async fn a_session_ends_with_what_is_in_flight_acknowledged() {
    let server = Server::start().await;
    ends_with_what_is_in_flight_acknowledged(&server, || server.drain.begin()).await;
    let refused = Session::open(&server, &server.ann).await.err().unwrap();
    assert_eq!(code(&refused), "shutting_down");
    server.drain.end();
    assert!(Session::open(&server, &server.ann).await.is_ok());
}

#[tokio::test]
async fn a_connection_that_is_kept_alive_closes_with_its_next_answer() {
    let server = Server::start().await;
    let mut connection = server.connect().await;
    let request = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    connection.write_all(request).await.unwrap();
    read_until(&mut connection, |text| text.ends_with('}')).await;
    server.drain.begin();
    connection.write_all(request).await.unwrap();
    let answer = super::server::read_reply(&mut connection).await; // reads up to the end
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("connection: close"), "{}", answer.head);
}
