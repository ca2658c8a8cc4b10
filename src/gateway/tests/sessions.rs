//! Sessions: pipelined posts, followed rooms, and how they end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::grpc::{code, with_token};
use super::server::{Server, soon, until};
use crate::error::{Code, Error};
use crate::gateway::limits::{DELIVERY_EVENTS_MAX, GatewayLimits};
use crate::proto::v1 as proto;
use crate::proto::v1::rooms_client::RoomsClient;
use crate::proto::v1::session_request::Request as Ask;
use crate::proto::v1::session_response::Response as Said;

pub(super) struct Session {
    requests: mpsc::Sender<proto::SessionRequest>,
    pub(super) responses: Streaming<proto::SessionResponse>,
}

/// Follows a room from its head.
fn follow(room: &str) -> Ask {
    Ask::Follow(proto::Follow { room: room.into(), after: None, presence: false })
}

impl Session {
    pub(super) async fn open(server: &Server, token: &str) -> Result<Session, Status> {
        let (requests, receiver) = mpsc::channel(2048);
        let mut rooms = RoomsClient::new(server.channel().await);
        let stream = with_token(token, ReceiverStream::new(receiver));
        let responses = rooms.session(stream).await?.into_inner();
        Ok(Session { requests, responses })
    }

    pub(super) async fn ask(&self, id: u64, request: Ask) {
        let request = proto::SessionRequest { request: Some(request), id };
        self.requests.send(request).await.unwrap();
    }

    pub(super) async fn follow(&self, id: u64, room: &str, after: Option<u64>) {
        let after = after.map(|seq| proto::Cursor { epoch: String::new(), seq });
        let follow = proto::Follow { room: room.into(), after, presence: false };
        self.ask(id, Ask::Follow(follow)).await;
    }

    pub(super) async fn hear(&mut self) -> (u64, Said) {
        let response = soon(self.responses.message()).await.unwrap().unwrap();
        (response.id, response.response.unwrap())
    }

    /// Hears until a followed room has caught up; returns the seqs delivered.
    pub(super) async fn catch_up(&mut self) -> Vec<u64> {
        let mut seqs = Vec::new();
        loop {
            match self.hear().await {
                (0, Said::Delivery(delivery)) => {
                    assert!(delivery.events.len() <= DELIVERY_EVENTS_MAX);
                    seqs.extend(delivery.events.iter().map(|event| event.seq));
                }
                (0, Said::CaughtUp(_)) => return seqs,
                (_, Said::Followed(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

pub(super) fn post(text: &str) -> Ask {
    Ask::Post(proto::PostRequest {
        room: "general".into(),
        text: text.into(),
        ..Default::default()
    })
}

#[tokio::test]
async fn posts_are_pipelined_in_order_up_to_a_limit() {
    let in_flight_max = 7;
    let limits =
        GatewayLimits { posts_in_flight_per_session_max: in_flight_max, ..Default::default() };
    let server = Server::with_limits(limits).await;
    server.fake.posts_allowed.forget_permits(usize::MAX);
    let mut session = Session::open(&server, &server.ann).await.unwrap();
    for id in 1..=1000 {
        session.ask(id, post(&id.to_string())).await;
    }
    let begun = || server.fake.posts_begun.load(Ordering::SeqCst);
    until(|| begun() == in_flight_max).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(begun(), in_flight_max);
    server.fake.posts_allowed.add_permits(1000);
    for id in 1..=1000 {
        let (answered, said) = session.hear().await;
        let Said::Ack(ack) = said else { panic!("{said:?}") };
        assert_eq!((answered, ack.seq), (id, id + 1));
    }
}

#[tokio::test]
async fn a_room_beyond_the_limit_is_refused_until_another_is_unfollowed() {
    let limits = GatewayLimits { follows_per_session_max: 1, ..Default::default() };
    let server = Server::with_limits(limits).await;
    let body = r#"{"room":"tea","kind":"public"}"#;
    server.send(&server.ann, "POST", "/v1/rooms", body).await;
    let mut session = Session::open(&server, &server.ann).await.unwrap();
    session.follow(1, "general", None).await;
    session.catch_up().await;
    session.follow(2, "tea", None).await;
    let (_, said) = session.hear().await;
    assert!(matches!(said, Said::Error(error) if error.code == "limit_reached"));
    // Following the same room again takes no more room than before.
    session.follow(3, "general", Some(0)).await;
    assert_eq!(session.catch_up().await, [1]);
    server.post("heard").await;
    assert!(matches!(session.hear().await, (0, Said::Delivery(_))));
    session.ask(4, Ask::Unfollow(proto::Unfollow { room: "general".into() })).await;
    assert!(matches!(session.hear().await, (4, Said::Ended(_))));
    session.follow(5, "tea", None).await;
    session.catch_up().await;
}

#[tokio::test]
async fn sessions_streams_and_long_polls_share_one_limit() {
    let server = Server::with_limits(GatewayLimits { sessions_max: 1, ..Default::default() }).await;
    let mut session = Session::open(&server, &server.ann).await.unwrap();
    let refused = Session::open(&server, &server.bob).await.err().unwrap();
    assert_eq!(code(&refused), "too_many_connections");
    let events = "/v1/rooms/general/events?after=1";
    let auth = format!("authorization: Bearer {}\r\n", server.bob);
    let stream = format!("{auth}accept: text/event-stream\r\n");
    for (path, headers) in [(events, &stream), (&format!("{events}&wait=10ms"), &auth)] {
        let reply = server.send_raw("GET", path, headers, b"").await;
        assert_eq!((reply.status, reply.code().as_str()), (503, "too_many_connections"));
        assert!(reply.head.contains("retry-after: 1"));
    }
    // What does not wait is served, and the session that was there goes on.
    assert_eq!(server.get(&server.bob, events).await.status, 200);
    session.ask(1, post("x")).await;
    assert!(matches!(session.hear().await, (1, Said::Ack(_))));
    drop(session);
    let poll = format!("{events}&wait=10ms");
    soon(async { while server.get(&server.bob, &poll).await.status != 200 {} }).await;
}

#[tokio::test]
async fn refused_requests_do_not_end_the_session() {
    let server = Server::start().await;
    let mut session = Session::open(&server, &server.bob).await.unwrap();
    let big = "x".repeat(70_000);
    let cases = [
        (post("x"), "not_participant"),
        (post(""), "invalid_argument"),
        (post(&big), "too_large"),
        (follow("A"), "invalid_argument"),
        (follow("nowhere"), "room_not_found"),
        (Ask::Unfollow(proto::Unfollow { room: "general".into() }), "invalid_argument"),
    ];
    for (id, (request, expected)) in (1..).zip(cases) {
        session.ask(id, request).await;
        let (answered, said) = session.hear().await;
        let Said::Error(error) = said else { panic!("{said:?}") };
        assert_eq!((answered, error.code.as_str()), (id, expected));
    }
    session.follow(9, "general", Some(99)).await;
    let (_, said) = session.hear().await;
    assert!(matches!(said, Said::Error(error) if error.code == "invalid_cursor"));
    session.requests.send(proto::SessionRequest { request: None, id: 10 }).await.unwrap();
    assert!(matches!(session.hear().await, (10, Said::Error(_))));
    session.ask(11, Ask::Ping(proto::Ping {})).await;
    assert!(matches!(session.hear().await, (11, Said::Pong(_))));
}

#[tokio::test]
async fn many_rooms_are_followed_at_once() {
    let server = Server::start().await;
    let body = r#"{"room":"tea","kind":"public"}"#;
    server.send(&server.ann, "POST", "/v1/rooms", body).await;
    for i in 0..600 {
        server.post(&i.to_string()).await;
    }
    let mut session = Session::open(&server, &server.bob).await.unwrap();
    session.follow(1, "general", Some(100)).await;
    assert_eq!(session.catch_up().await, (101..=601).collect::<Vec<_>>());
    session.follow(2, "tea", None).await;
    assert_eq!(session.catch_up().await, Vec::<u64>::new());
    server.post("live").await;
    let (_, said) = session.hear().await;
    let Said::Delivery(delivery) = said else { panic!("{said:?}") };
    assert_eq!((delivery.room.as_str(), delivery.events[0].text.as_str()), ("general", "live"));
    assert_eq!(delivery.events[0].client_msg_id.len(), 16);

    session.ask(3, Ask::Unfollow(proto::Unfollow { room: "general".into() })).await;
    let (id, said) = session.hear().await;
    assert!(matches!(said, Said::Ended(ended) if ended.seq == 602 && ended.error.is_none()));
    assert_eq!(id, 3);
    until(|| server.fake.feeds.load(Ordering::SeqCst) == 1).await;
    server.post("unheard").await;
    session.ask(4, Ask::Ping(proto::Ping {})).await;
    assert!(matches!(session.hear().await, (4, Said::Pong(_))));
    drop(session);
    until(|| server.fake.feeds.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn following_again_begins_anew() {
    let server = Server::start().await;
    server.post("a").await;
    let mut session = Session::open(&server, &server.bob).await.unwrap();
    session.follow(1, "general", Some(0)).await;
    assert_eq!(session.catch_up().await, [1, 2]);
    session.follow(2, "general", Some(1)).await;
    assert_eq!(session.catch_up().await, [2]);
    until(|| server.fake.feeds.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_followed_room_goes_on_elsewhere_when_its_replica_is_lost() {
    let server = Server::start().await;
    let mut session = Session::open(&server, &server.bob).await.unwrap();
    session.follow(1, "general", Some(0)).await;
    assert_eq!(session.catch_up().await, [1]);
    let lost = Error::new(Code::Unavailable, "the replica is lost");
    for n in 2..5 {
        server.fake.feeds_end.send_replace(Some(lost.clone()));
        server.post("one more").await;
        let (_, said) = session.hear().await;
        let Said::Delivery(delivery) = said else { panic!("{said:?}") };
        assert_eq!(delivery.events.iter().map(|event| event.seq).collect::<Vec<_>>(), [n]);
    }
}

#[tokio::test]
async fn a_client_that_says_no_more_hears_its_acks() {
    let server = Server::start().await;
    let mut session = Session::open(&server, &server.ann).await.unwrap();
    for id in 1..=3 {
        session.ask(id, post("x")).await;
    }
    let Session { requests, responses } = &mut session;
    let requests = std::mem::replace(requests, mpsc::channel(1).0);
    drop(requests);
    let mut acks = 0;
    while let Some(response) = soon(responses.message()).await.unwrap() {
        assert!(matches!(response.response, Some(Said::Ack(_))));
        acks += 1;
    }
    assert_eq!(acks, 3);
}

#[tokio::test]
async fn a_session_needs_a_token() {
    let server = Server::start().await;
    let refused = Session::open(&server, "fm_ann_0").await.err().unwrap();
    assert_eq!(code(&refused), "unauthenticated");
}

/// A session hears that its room ends, then the answer to what it had posted, then ends itself.
pub(super) async fn ends_with_what_is_in_flight_acknowledged(server: &Server, end: impl FnOnce()) {
    let mut session = Session::open(server, &server.ann).await.unwrap();
    session.follow(1, "general", None).await;
    session.catch_up().await;
    server.fake.posts_allowed.forget_permits(usize::MAX);
    session.ask(2, post("last")).await;
    until(|| server.fake.posts_begun.load(Ordering::SeqCst) == 1).await;
    end();
    let (_, said) = session.hear().await;
    let Said::Ended(ended) = said else { panic!("{said:?}") };
    assert_eq!(ended.error.unwrap().code, "shutting_down");
    server.fake.posts_allowed.add_permits(1);
    assert!(matches!(session.hear().await, (2, Said::Ack(_))));
    let end = soon(session.responses.message()).await.unwrap_err();
    assert_eq!(code(&end), "shutting_down");
}

#[tokio::test]
async fn a_shutdown_ends_rooms_then_the_session() {
    let server = Server::start().await;
    ends_with_what_is_in_flight_acknowledged(&server, || server.shutdown.cancel()).await;
    soon(server.serving).await.unwrap();
}

#[tokio::test]
async fn a_session_that_is_not_read_holds_up_nobody() {
    let server = Server::start().await;
    let mut slow = Session::open(&server, &server.bob).await.unwrap();
    slow.follow(1, "general", Some(0)).await;
    let text = "x".repeat(30_000);
    let mut quick = Session::open(&server, &server.ann).await.unwrap();
    for id in 1..=300 {
        quick.ask(id, post(&text)).await;
        assert!(matches!(quick.hear().await, (_, Said::Ack(_))));
    }
    let mut seqs = slow.catch_up().await;
    while seqs.last() != Some(&301) {
        let (_, said) = slow.hear().await;
        let Said::Delivery(delivery) = said else { panic!("{said:?}") };
        seqs.extend(delivery.events.iter().map(|event| event.seq));
    }
    assert_eq!(seqs, (1..=301).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_cannot_be_read_ends_the_session_with_its_code() {
    let server = Server::start().await;
    let mut session = Session::open(&server, &server.ann).await.unwrap();
    session.ask(1, post(&"x".repeat(200_000))).await;
    let end = soon(session.responses.message()).await.unwrap_err();
    assert_eq!(code(&end), "too_large");
}

#[tokio::test]
async fn a_revoked_token_ends_the_session() {
    let server = Server::start().await;
    let mut session = Session::open(&server, &server.bob).await.unwrap();
    session.follow(1, "general", None).await;
    session.catch_up().await;
    // Though nothing happens that it could be told of.
    let asked = || server.fake.revocations_asked.load(Ordering::SeqCst);
    let before = asked();
    server.revoke("bob");
    let end = soon(session.responses.message()).await.unwrap_err();
    assert_eq!(code(&end), "unauthenticated");
    // Four times a second it is asked for.
    assert!(asked() <= before + 3, "{} times", asked() - before);
}

#[tokio::test]
async fn a_ban_ends_the_room_and_not_the_session() {
    let server = Server::start().await;
    let mut session = Session::open(&server, &server.bob).await.unwrap();
    session.follow(1, "general", None).await;
    session.catch_up().await;
    let path = "/v1/rooms/general/participants/bob";
    server.send(&server.ann, "PUT", path, r#"{"role":"banned"}"#).await;
    assert!(matches!(session.hear().await, (0, Said::Delivery(_))));
    let (_, said) = session.hear().await;
    let Said::Ended(ended) = said else { panic!("{said:?}") };
    assert_eq!((ended.seq, ended.error.unwrap().code.as_str()), (2, "banned"));
    session.follow(2, "general", None).await;
    assert!(matches!(session.hear().await, (2, Said::Error(error)) if error.code == "banned"));
}

#[tokio::test]
async fn whoever_leaves_a_public_room_follows_it_still() {
    let server = Server::start().await;
    server.send(&server.bob, "POST", "/v1/rooms/general/join", "").await;
    let mut session = Session::open(&server, &server.bob).await.unwrap();
    session.follow(1, "general", Some(2)).await;
    session.catch_up().await;
    server.send(&server.bob, "POST", "/v1/rooms/general/leave", "").await;
    server.post("public all the same").await;
    for seq in [3, 4] {
        let (_, said) = session.hear().await;
        let Said::Delivery(delivery) = said else { panic!("{said:?}") };
        assert_eq!(delivery.events.iter().map(|event| event.seq).collect::<Vec<_>>(), [seq]);
    }
}

/// Processor time of this process so far, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

/// What the gateway, this client and the fake backend spend on a message: posted on one of 16
/// sessions with 16 in flight each, and delivered to 8 more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_cpu_of_a_message() {
    const EACH: usize = 10_000;
    let server = Server::start().await;
    let (before, started) = (cpu_seconds(), std::time::Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut session = Session::open(&server, &server.bob).await.unwrap();
        session.follow(1, "general", None).await;
        tasks.spawn(async move {
            let mut seen = 0;
            while seen < 16 * EACH {
                if let (_, Said::Delivery(delivery)) = session.hear().await {
                    seen += delivery.events.len();
                }
            }
        });
    }
    for _ in 0..16 {
        let mut session = Session::open(&server, &server.ann).await.unwrap();
        tasks.spawn(async move {
            let text = "x".repeat(256);
            for id in 0..EACH as u64 {
                session.ask(id, post(&text)).await;
                if id >= 16 {
                    session.hear().await;
                }
            }
            for _ in 0..16 {
                session.hear().await;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let messages = (16 * EACH) as f64;
    let micros = (cpu_seconds() - before) * 1e6 / messages;
    let rate = messages / started.elapsed().as_secs_f64();
    eprintln!("{micros:.1} µs of CPU a message, {rate:.0} messages/s");
}
