//! The client against fake nodes that fail in every way it must survive.

use std::time::Duration;

use crate::client::fake::{Fake, Fault};
use crate::client::{Client, ClientOptions, Delivered, Post, Session};
use crate::error::{Code, Error};
use crate::id::{Cursor, RequestId, RoomId, Seq};

fn room() -> RoomId {
    RoomId::parse("general").unwrap()
}

async fn client_of(servers: Vec<String>) -> Client {
    Client::connect(ClientOptions {
        servers,
        deadline: Duration::from_secs(10),
        backoff_max: Duration::from_millis(50),
        silence_max: Duration::from_millis(900),
        ..ClientOptions::default()
    })
    .unwrap()
}

async fn client(fake: &Fake) -> Client {
    client_of(vec![fake.serve().await, fake.serve().await]).await
}

fn id_times(ids: &[Vec<u8>]) -> Vec<u64> {
    ids.iter().map(|id| RequestId::from_slice(id).unwrap().unix_ms()).collect()
}

#[tokio::test]
async fn a_retry_carries_the_same_id_and_applies_once() {
    let faults = [
        Fault::ApplyAndRefuse(Error::new(Code::Timeout, "late").maybe_applied()),
        Fault::Refuse(Error::new(Code::Unavailable, "electing")),
        Fault::Refuse(Error::new(Code::Overloaded, "busy").retry_after(30)),
    ];
    let fake = Fake::new(0, faults);
    let ack = client(&fake).await.post(&Post::message(&room(), "hi")).await.unwrap();
    assert!(ack.duplicate);
    let state = fake.state.lock().unwrap();
    assert_eq!(state.applied.len(), 1);
    assert_eq!(state.arrived.len(), 4);
    assert!(state.arrived.iter().all(|id| *id == state.arrived[0]));
}

#[tokio::test]
async fn a_dead_server_is_passed_over() {
    let fake = Fake::new(0, []);
    let dead = "http://127.0.0.1:1".to_string();
    let client = client_of(vec![dead, fake.serve().await]).await;
    client.post(&Post::message(&room(), "hi")).await.unwrap();
    assert_eq!(fake.state.lock().unwrap().arrived.len(), 1);
}

#[tokio::test]
async fn a_rejection_is_not_retried() {
    let fake = Fake::new(0, [Fault::Refuse(Error::new(Code::NotParticipant, "join first"))]);
    let error = client(&fake).await.post(&Post::message(&room(), "hi")).await.unwrap_err();
    assert_eq!(error, Error::new(Code::NotParticipant, "join first"));
    assert_eq!(fake.state.lock().unwrap().arrived.len(), 1);
}

#[tokio::test]
async fn a_rejection_after_a_lost_answer_may_have_applied() {
    let faults = [
        Fault::ApplyAndRefuse(Error::new(Code::Timeout, "late").maybe_applied()),
        Fault::Refuse(Error::new(Code::Banned, "no")),
    ];
    let error =
        client(&Fake::new(0, faults)).await.post(&Post::message(&room(), "")).await.unwrap_err();
    assert_eq!((error.code, error.may_have_applied), (Code::Banned, true));
}

#[tokio::test]
async fn a_skewed_clock_is_corrected_and_a_new_id_minted() {
    let skew = Error {
        server_time_ms: Some(1_000_000_000_000),
        ..Error::new(Code::ClockSkew, "your clock is ahead")
    };
    let fake = Fake::new(0, [Fault::Refuse(skew.clone())]);
    let client = client(&fake).await;
    client.post(&Post::message(&room(), "hi")).await.unwrap();
    let times = id_times(&fake.state.lock().unwrap().arrived);
    assert!(times[0] > 1_500_000_000_000 && times[1] < 1_000_000_060_000, "{times:?}");

    // An id of the caller's is never replaced, nor one that may have been applied.
    fake.state.lock().unwrap().faults = [Fault::Refuse(skew.clone())].into();
    let post = Post { id: Some(client.mint_id()), ..Post::message(&room(), "hi") };
    assert_eq!(client.post(&post).await.unwrap_err().code, Code::ClockSkew);
    let lost = Error::new(Code::Timeout, "late").maybe_applied();
    fake.state.lock().unwrap().faults = [Fault::Refuse(lost), Fault::Refuse(skew)].into();
    let error = client.post(&Post::message(&room(), "hi")).await.unwrap_err();
    assert_eq!((error.code, error.may_have_applied), (Code::ClockSkew, true));
}

#[tokio::test]
async fn the_deadline_returns_the_last_error() {
    let full = Error::new(Code::DiskFull, "disk is full");
    let refuse = || Fault::Refuse(full.clone());
    // The last asks for a wait beyond the deadline.
    let faults = [refuse(), refuse(), Fault::Refuse(full.clone().retry_after(60_000))];
    let fake = Fake::new(0, faults);
    let options = ClientOptions {
        servers: vec![fake.serve().await],
        deadline: Duration::from_secs(3),
        attempt_timeout: Duration::from_secs(3),
        ..ClientOptions::default()
    };
    let client = Client::connect(options).unwrap();
    let error = client.post(&Post::message(&room(), "hi")).await.unwrap_err();
    assert_eq!((error.code, error.may_have_applied), (Code::DiskFull, false));
    assert_eq!(fake.state.lock().unwrap().arrived.len(), 3);
    // An attempt that the deadline cuts short says less.
    fake.state.lock().unwrap().faults = [refuse(), Fault::Silence].into();
    let error = client.post(&Post::message(&room(), "hi")).await.unwrap_err();
    assert_eq!((error.code, error.may_have_applied), (Code::DiskFull, true));
}

#[tokio::test]
async fn a_room_that_is_unfollowed_does_not_disturb_the_others() {
    let fake = Fake::new(3, []);
    let session = Session::open(&client(&fake).await).await.unwrap();
    let rooms = ["general", "tea"].map(|room| RoomId::parse(room).unwrap());
    let mut follows = vec![];
    for room in &rooms {
        let mut follow = session.follow(room, None).await.unwrap();
        assert_eq!(follow.next().await, Some(Ok(Delivered::CaughtUp(Seq(3)))));
        follows.push(follow);
    }
    session.unfollow(&rooms[0]).await;
    // Its ack comes after the answer to the Unfollow.
    session.post(Post::message(&rooms[1], "hi")).await.unwrap();
    let state = fake.state.lock().unwrap();
    assert_eq!((state.cursors.len(), state.arrived.len()), (2, 1), "the stream is the same");
}

#[tokio::test]
async fn posts_in_flight_are_resent_with_their_ids_when_a_session_breaks() {
    let fake = Fake::new(0, [Fault::BreakAfter(5), Fault::BreakAfter(3)]);
    let session = Session::open(&client(&fake).await).await.unwrap();
    let posts = (0..20).map(|n| session.post(Post::message(&room(), n.to_string())));
    let acks = futures_util::future::join_all(posts).await;
    let mut seqs: Vec<u64> = acks.into_iter().map(|ack| ack.unwrap().seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=20).collect::<Vec<_>>());
    let state = fake.state.lock().unwrap();
    assert_eq!(state.applied.len(), 20);
    assert!(state.arrived.len() > 20, "some were resent");
}

#[tokio::test]
async fn a_session_retries_refused_posts_in_place() {
    for code in [Code::Overloaded, Code::ShuttingDown] {
        let fake = Fake::new(0, [Fault::RefusePostsOnce(Error::new(code, "later"))]);
        let session = Session::open(&client(&fake).await).await.unwrap();
        session.post(Post::message(&room(), "hi")).await.unwrap();
        let state = fake.state.lock().unwrap();
        assert_eq!((state.applied.len(), state.arrived.len()), (1, 2));
        assert_eq!(state.arrived[0], state.arrived[1]);
    }
}

#[tokio::test]
async fn a_session_corrects_a_skewed_clock() {
    let skew = Error { server_time_ms: Some(1_000_000_000_000), ..Error::new(Code::ClockSkew, "") };
    let fake = Fake::new(0, [Fault::RefusePostsOnce(skew)]);
    let session = Session::open(&client(&fake).await).await.unwrap();
    // The new id has not been seen either, so it is refused too, until corrections run out.
    let error = session.post(Post::message(&room(), "hi")).await.unwrap_err();
    assert_eq!(error.code, Code::ClockSkew);
    let times = id_times(&fake.state.lock().unwrap().arrived);
    assert_eq!(times.len(), 4);
    assert!(times[1..].iter().all(|at| *at < 1_000_000_060_000), "{times:?}");
}

#[tokio::test]
async fn a_follow_resumes_without_a_gap() {
    let faults =
        [Fault::EndFollowAt(30), Fault::BreakAfter(1), Fault::EndFollowAt(31), Fault::None];
    let fake = Fake::new(100, faults);
    let session = Session::open(&client(&fake).await).await.unwrap();
    let from = Some(Cursor { epoch: None, seq: Seq(0) });
    let mut follow = session.follow(&room(), from).await.unwrap();
    for seq in 1..=100 {
        assert_eq!(follow.next_event().await.unwrap().unwrap().seq, seq);
    }
    assert_eq!(follow.next().await, Some(Ok(Delivered::CaughtUp(Seq(100)))));
    assert_eq!(fake.state.lock().unwrap().cursors, [Some(0), Some(30), Some(30), Some(31)]);
    session.unfollow(&room()).await;
    assert_eq!(follow.next().await, None);
}

#[tokio::test]
async fn a_silent_server_is_left() {
    let fake = Fake::new(3, [Fault::Silence]);
    let session = Session::open(&client(&fake).await).await.unwrap();
    let from = Some(Cursor { epoch: None, seq: Seq(0) });
    let mut follow = session.follow(&room(), from).await.unwrap();
    let post = session.post(Post::message(&room(), "hi"));
    assert_eq!(post.await.unwrap().seq, 4);
    assert_eq!(follow.next_event().await.unwrap().unwrap().seq, 1);
}

#[tokio::test]
async fn a_client_that_had_no_time_does_not_take_the_server_for_silent() {
    let fake = Fake::new(3, []);
    let session = Session::open(&client(&fake).await).await.unwrap();
    let mut follow = session.follow(&room(), None).await.unwrap();
    assert_eq!(follow.next().await, Some(Ok(Delivered::CaughtUp(Seq(3)))));
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(1200)); // longer than a server may be silent
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    session.post(Post::message(&room(), "hi")).await.unwrap();
    assert_eq!(fake.state.lock().unwrap().cursors.len(), 1, "the stream is the same");
}

#[tokio::test]
async fn a_gap_ends_a_follow_with_an_error() {
    let fake = Fake::new(10, [Fault::Skip(5)]);
    let session = Session::open(&client(&fake).await).await.unwrap();
    let from = Some(Cursor { epoch: None, seq: Seq(0) });
    let mut follow = session.follow(&room(), from).await.unwrap();
    let error = loop {
        match follow.next().await.unwrap() {
            Ok(Delivered::Event(event)) => assert!(event.seq < 5),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code, Code::Internal);
    assert_eq!(follow.next().await, None);
}

#[tokio::test]
async fn lost_history_is_said() {
    let fake = Fake::new(10, [Fault::LoseUpTo(8)]);
    let session = Session::open(&client(&fake).await).await.unwrap();
    let from = Some(Cursor::parse("old:3").unwrap());
    let mut follow = session.follow(&room(), from).await.unwrap();
    let lost = follow.next().await.unwrap().unwrap();
    assert!(matches!(lost, Delivered::Lost { first_seq: Seq(8), .. }), "{lost:?}");
    assert_eq!(follow.next_event().await.unwrap().unwrap().seq, 8);
}

#[tokio::test]
async fn a_refused_session_says_why() {
    let refuse = Fault::Refuse(Error::new(Code::Unauthenticated, "unknown token"));
    let error = Session::open(&client(&Fake::new(0, [refuse])).await).await.unwrap_err();
    assert_eq!(error.code, Code::Unauthenticated);
}

#[tokio::test]
async fn a_room_is_followed_once_in_a_session() {
    let fake = Fake::new(1, []);
    let session = Session::open(&client(&fake).await).await.unwrap();
    let first = session.follow(&room(), None).await.unwrap();
    let mut second = session.follow(&room(), None).await.unwrap();
    assert_eq!(second.next().await.unwrap().unwrap_err().code, Code::InvalidArgument);
    drop(first);
    let from = Some(Cursor { epoch: None, seq: Seq(0) });
    let mut third = session.follow(&room(), from).await.unwrap();
    assert_eq!(third.next_event().await.unwrap().unwrap().seq, 1);
}

#[tokio::test]
async fn a_killed_server_is_left_without_a_loss_or_a_gap() {
    let fake = Fake::new(20, []);
    let (first, server) = fake.serve_killable();
    let client = client_of(vec![first, fake.serve().await]).await;
    let session = Session::open(&client).await.unwrap();
    let from = Some(Cursor { epoch: None, seq: Seq(0) });
    let mut follow = session.follow(&room(), from).await.unwrap();
    for seq in 1..=20 {
        assert_eq!(follow.next_event().await.unwrap().unwrap().seq, seq);
    }
    assert_eq!(session.post(Post::message(&room(), "before")).await.unwrap().seq, 21);
    server.kill();
    assert_eq!(session.post(Post::message(&room(), "after")).await.unwrap().seq, 22);
    for seq in 21..=22 {
        assert_eq!(follow.next_event().await.unwrap().unwrap().seq, seq);
    }
    let state = fake.state.lock().unwrap();
    assert_eq!((state.applied.len(), &*state.cursors), (22, &[Some(0), Some(21)][..]));
}
