//! Clients that are slow, half-sent, or too many.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::server::{Server, read_reply, read_until, soon, until};
use crate::gateway::limits::GatewayLimits;

#[tokio::test]
async fn half_sent_requests_time_out() {
    let limits = GatewayLimits {
        header_read_timeout: Duration::from_millis(200),
        body_read_timeout: Duration::from_millis(200),
        ..Default::default()
    };
    let server = Server::with_limits(limits).await;
    for opening in ["", "G", "PRI * HT", "GET / HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(opening.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = soon(stream.read_to_end(&mut rest)).await;
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"), "{opening}");
    }
    let mut stream = server.connect().await;
    let head = format!(
        "POST /v1/rooms/general/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\
         authorization: Bearer {}\r\ncontent-type: application/json\r\n\r\n{{\"text\":",
        server.ann
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let reply = read_reply(&mut stream).await;
    assert_eq!((reply.status, reply.code().as_str()), (504, "timeout"));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_turned_away() {
    let server = Server::with_limits(GatewayLimits { connections_max: 2, ..Default::default() });
    let server = server.await;
    let held = [server.connect().await, server.connect().await];
    let request = |path| server.send_raw("GET", path, "", b"");
    // The one that set up the server may not have ended yet.
    let reply = soon(async {
        loop {
            let reply = request("/health/live").await;
            if reply.status == 503 {
                return reply;
            }
        }
    })
    .await;
    assert_eq!(reply.code(), "too_many_connections");
    assert!(reply.head.contains("retry-after: 1"));
    drop(held);
    soon(async { while request("/health/live").await.status != 200 {} }).await;
}

#[tokio::test]
async fn nonsense_is_answered_or_closed_and_harms_nobody() {
    let server = Server::start().await;
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for nonsense in ["\0\0\0\0", "HELO there\r\n\r\n", &long, &format!("{preface}nonsense!")] {
        let mut stream = server.connect().await;
        let _ = stream.write_all(nonsense.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        let _ = soon(stream.read_to_end(&mut rest)).await;
    }
    assert_eq!(server.get(&server.ann, "/v1/rooms").await.status, 200);
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody_and_misses_nothing() {
    let server = Server::start().await;
    let text = "x".repeat(60_000);
    let mut slow = server.connect().await;
    let request = format!(
        "GET /v1/rooms/general/events?after=0 HTTP/1.1\r\nhost: x\r\n\
         accept: text/event-stream\r\nauthorization: Bearer {}\r\n\r\n",
        server.ann
    );
    slow.write_all(request.as_bytes()).await.unwrap();
    until(|| server.fake.feeds.load(Ordering::SeqCst) == 1).await;
    for _ in 0..100 {
        soon(server.post(&text)).await;
    }
    let all = read_until(&mut slow, |text| text.contains(":101\ndata: ")).await;
    for seq in 1..=101 {
        assert_eq!(all.matches(&format!(":{seq}\ndata: {{\"seq\":{seq},")).count(), 1, "{seq}");
    }
}

#[tokio::test]
async fn requests_in_flight_survive_a_shutdown() {
    let server = Server::start().await;
    server.fake.posts_allowed.forget_permits(usize::MAX);
    let post = server.post("last words");
    let stop = async {
        until(|| server.fake.posts_begun.load(Ordering::SeqCst) == 1).await;
        server.shutdown.cancel();
        // A load balancer hears of it, as long as the node is there.
        let ready = server.send_raw("GET", "/health/ready", "", b"").await;
        assert_eq!(ready.status, 503);
        server.fake.posts_allowed.add_permits(1);
    };
    let (seq, ()) = soon(async { tokio::join!(post, stop) }).await;
    assert_eq!(seq, 2);
    soon(server.serving).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let drain_timeout = Duration::from_millis(200);
    let server = Server::with_limits(GatewayLimits { drain_timeout, ..Default::default() }).await;
    server.fake.posts_allowed.forget_permits(usize::MAX);
    let mut stream = server.connect().await;
    let body = r#"{"text":"stuck"}"#;
    let request = format!(
        "POST /v1/rooms/general/messages HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\
         authorization: Bearer {}\r\ncontent-type: application/json\r\n\r\n{body}",
        body.len(),
        server.ann
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    until(|| server.fake.posts_begun.load(Ordering::SeqCst) == 1).await;
    server.shutdown.cancel();
    soon(server.serving).await.unwrap();
}

#[tokio::test]
async fn limits_change_while_the_gateway_serves() {
    let server = Server::start().await;
    server.post("twelve bytes").await;
    server.limits.set(GatewayLimits { text_bytes_max: 4, ..Default::default() });
    let post = |text: &str| format!(r#"{{"text":"{text}"}}"#);
    let path = "/v1/rooms/general/messages";
    let refused = server.send(&server.ann, "POST", path, &post("twelve bytes")).await;
    assert_eq!((refused.status, refused.code().as_str()), (413, "too_large"));
    server.post("four").await;
    server.limits.set(GatewayLimits { sessions_max: 0, ..Default::default() });
    let wait = "/v1/rooms/general/events?after=3&wait=1s";
    assert_eq!(server.get(&server.ann, wait).await.code(), "too_many_connections");
    server.limits.set(GatewayLimits { sessions_max: 1, ..Default::default() });
    for _ in 0..2 {
        let wait = "/v1/rooms/general/events?after=3&wait=1ms";
        assert_eq!(server.get(&server.ann, wait).await.status, 200, "a seat is given back");
    }
}
