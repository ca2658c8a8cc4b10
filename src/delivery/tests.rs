//! Delivery against a model of a shard: every offset, slow readers, ends, jumps, cancellation,
//! and load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, poll};
use tokio::sync::mpsc;

use crate::chat::event::{Body, EventKind};
use crate::delivery::encoded::Encoded;
use crate::delivery::model::{Follower, Held, Shard, event, room, stalled, start};
use crate::delivery::ring;
use crate::delivery::subscription::{Next, Subscription};
use crate::error::{Code, Error};
use crate::id::Seq;

#[test]
fn every_offset_gets_history_then_the_mark_then_live_events() {
    let total = 2 * ring::EVENTS_MAX + 90;
    for followed_before in [false, true] {
        let shard = Shard::new();
        // Keeps the ring alive while the room grows, or lets each registration make a new one.
        let _keep = followed_before.then(|| shard.subscribe(0));
        shard.post(total);
        for after in 0..=total as u64 {
            let mut follower = shard.follow(after);
            follower.drain();
            assert_eq!(follower.last(), shard.head());
            assert_eq!(follower.caught_up, Some(shard.head()));
            if after % 97 == 0 {
                shard.post(3);
                follower.drain();
                assert_eq!(follower.last(), shard.head());
            }
        }
    }
}

#[test]
fn the_mark_comes_at_the_head_noted_even_when_more_was_published_meanwhile() {
    let shard = Shard::new();
    shard.post(10);
    let mut follower = shard.follow(4);
    shard.post(20);
    follower.drain();
    assert_eq!(follower.caught_up, Some(10));
    assert_eq!(follower.last(), 30);
}

#[test]
fn an_empty_room_is_caught_up_at_once() {
    let shard = Shard::new();
    let mut follower = shard.follow(0);
    follower.step();
    assert_eq!(follower.caught_up, Some(0));
    shard.post(1);
    follower.drain();
    assert_eq!(follower.seqs, [1]);
}

#[test]
fn a_reader_that_keeps_up_never_reads_history() {
    let shard = Shard::new();
    shard.post(1000);
    let mut follower = shard.follow(1000);
    for _ in 0..1000 {
        shard.post(ring::EVENTS_MAX / 2);
        follower.drain();
    }
    assert_eq!(follower.last(), shard.head());
    assert_eq!(shard.reads.load(SeqCst), 0);
}

#[test]
fn a_slow_reader_falls_back_to_history_and_comes_back() {
    let shard = Shard::new();
    let mut slow = shard.follow(0);
    let mut quick = shard.follow(0);
    for _ in 0..50 {
        shard.post(ring::EVENTS_MAX);
        quick.drain();
        slow.step();
    }
    shard.post(1);
    assert!(slow.last() < shard.head());
    slow.drain();
    assert_eq!(slow.last(), shard.head());
    let reads = shard.reads.load(SeqCst);
    assert!(reads > 0);
    shard.post(ring::EVENTS_MAX);
    slow.drain();
    assert_eq!(shard.reads.load(SeqCst), reads, "back at the live end");
}

#[test]
fn large_events_overflow_the_ring_by_bytes() {
    let shard = Shard::new();
    let mut follower = shard.follow(0);
    follower.drain();
    let large = "x".repeat(64 * 1024);
    shard.post_texts(&vec![large; 6]);
    follower.drain();
    assert_eq!(follower.last(), 6);
    assert_eq!(shard.reads.load(SeqCst), 1);
    // One event larger than the ring is held all the same.
    shard.post_texts(&["x".repeat(ring::BYTES_MAX + 1)]);
    follower.drain();
    assert_eq!((follower.last(), shard.reads.load(SeqCst)), (7, 1));
}

#[test]
fn an_event_is_encoded_once_for_all_followers() {
    let shard = Shard::new();
    let mut followers: Vec<_> = (0..3).map(|_| shard.subscribe(0)).collect();
    for follower in &mut followers {
        assert!(matches!(follower.next().now_or_never(), Some(Next::CaughtUp(Seq(0)))));
    }
    shard.post(1);
    let mut encoded: Vec<Arc<Encoded>> = vec![];
    for follower in &mut followers {
        match follower.next().now_or_never() {
            Some(Next::Events(events)) => encoded.extend(events),
            other => panic!("{other:?}"),
        }
    }
    assert!(Arc::ptr_eq(&encoded[0], &encoded[1]) && Arc::ptr_eq(&encoded[0], &encoded[2]));
}

#[test]
fn rings_go_with_their_last_follower() {
    let shard = Shard::new();
    assert_eq!((shard.hub.rooms(), shard.hub.followers()), (0, 0));
    let (a, b) = (shard.subscribe(0), shard.subscribe(0));
    assert_eq!((shard.hub.rooms(), shard.hub.followers()), (1, 2));
    drop(a);
    assert_eq!((shard.hub.rooms(), shard.hub.followers()), (1, 1));
    drop(b);
    assert_eq!((shard.hub.rooms(), shard.hub.followers()), (0, 0));
    shard.post(5);
    let mut late = shard.follow(2);
    late.drain();
    assert_eq!(late.seqs, [3, 4, 5]);
}

#[test]
fn an_ended_tail_leaves_its_successor_alone() {
    let shard = Shard::new();
    let old = shard.subscribe(0);
    shard.hub.end_room(&room(), &stalled());
    let mut new = shard.follow(0);
    drop(old);
    assert_eq!((shard.hub.rooms(), shard.hub.followers()), (1, 1));
    shard.post(1);
    new.drain();
    assert_eq!(new.seqs, [1]);
}

#[test]
fn a_stalled_hub_ends_subscriptions_until_it_resumes() {
    let shard = Shard::new();
    let mut before = shard.subscribe(0);
    shard.hub.stall(&stalled());
    let mut during = shard.subscribe(0);
    for subscription in [&mut before, &mut during] {
        // The room was empty, so the mark may come first; then the end, again and again.
        _ = subscription.next().now_or_never();
        for _ in 0..2 {
            let next = subscription.next().now_or_never();
            assert!(matches!(next, Some(Next::Ended(error)) if error == stalled()));
        }
    }
    shard.hub.resume();
    shard.post(2);
    let mut after = shard.follow(0);
    after.drain();
    assert_eq!(after.seqs, [1, 2]);
    drop((before, during));
    assert_eq!(shard.hub.followers(), 1);
}

#[test]
fn a_closed_hub_stays_closed() {
    let shard = Shard::new();
    let stopping = Error::new(Code::ShuttingDown, "the node is stopping");
    shard.hub.close(&stopping);
    shard.hub.resume();
    shard.hub.stall(&stalled());
    shard.hub.resume();
    let mut late = shard.subscribe(0);
    _ = late.next().now_or_never();
    assert!(matches!(late.next().now_or_never(), Some(Next::Ended(error)) if error == stopping));
    assert_eq!(shard.hub.followers(), 0);
}

#[test]
fn end_all_ends_what_is_there_and_takes_what_comes() {
    let shard = Shard::new();
    let mut old = shard.subscribe(0);
    _ = old.next().now_or_never();
    shard.hub.end_all(&stalled());
    assert!(matches!(old.next().now_or_never(), Some(Next::Ended(_))));
    let mut new = shard.follow(0);
    shard.post(1);
    new.drain();
    assert_eq!(new.seqs, [1]);
}

#[test]
fn a_jump_by_snapshot_is_read_from_history() {
    let shard = Shard::new();
    let mut follower = shard.follow(0);
    follower.drain();
    shard.post(5);
    // A snapshot brings events that are never published here.
    let mut events = shard.events.lock().unwrap();
    for seq in 6..=40 {
        events.push(event(seq, EventKind::Message, None, "from the snapshot"));
    }
    shard.hub.jump(&stalled(), |_| Some(Seq(40)));
    drop(events);
    follower.drain();
    assert_eq!(follower.last(), 40);
    // And the next published event follows on even where the jump was not told.
    let mut events = shard.events.lock().unwrap();
    for seq in 41..=60 {
        events.push(event(seq, EventKind::Message, None, "untold"));
    }
    drop(events);
    shard.post(1);
    follower.drain();
    assert_eq!(follower.last(), 61);
    // What was published before is not delivered again.
    let replayed = shard.events.lock().unwrap()[50..].to_vec();
    drop(shard.hub.publish(&room(), &replayed));
    follower.drain();
    assert_eq!(follower.last(), 61);
}

#[test]
fn a_jump_ends_followers_of_rooms_that_are_gone() {
    let shard = Shard::new();
    let mut follower = shard.subscribe(0);
    _ = follower.next().now_or_never();
    let gone = Error::new(Code::RoomNotFound, "the room is gone");
    shard.hub.jump(&gone, |_| None);
    assert!(matches!(follower.next().now_or_never(), Some(Next::Ended(error)) if error == gone));
    assert_eq!((shard.hub.rooms(), shard.hub.followers()), (0, 0));
}

#[test]
fn a_gap_ends_the_subscription_and_is_never_delivered() {
    let shard = Shard::new();
    shard.post(10);
    shard.lossy.store(true, SeqCst);
    let mut broken = shard.subscribe(0);
    let Some(Next::Ended(error)) = broken.next().now_or_never() else { panic!("no end") };
    assert_eq!(error.code, Code::Internal);
    assert_eq!(broken.delivered(), Seq(0));
    // An empty page where there must be events is a gap too.
    let mut empty = shard.subscribe(9);
    assert!(matches!(empty.next().now_or_never(), Some(Next::Ended(_))));
}

#[test]
fn a_redacted_message_is_erased_from_the_ring() {
    let shard = Shard::new();
    let mut follower = shard.subscribe(0);
    _ = follower.next().now_or_never();
    let events = [
        event(1, EventKind::Message, None, "secret"),
        event(2, EventKind::Edit, Some(1), "secret too"),
        event(3, EventKind::Message, Some(1), "a reply"),
        event(4, EventKind::Redaction, Some(1), ""),
    ];
    drop(shard.hub.publish(&room(), &events));
    let Some(Next::Events(delivered)) = follower.next().now_or_never() else { panic!() };
    for (was, is) in events.iter().zip(&delivered) {
        assert_eq!(was.seq, is.event.seq);
        assert_eq!(was.body.hash(), is.event.body.hash(), "the chain still verifies");
    }
    let texts: Vec<_> = delivered.iter().map(|e| e.event.body.text()).collect();
    assert_eq!(texts, ["", "", "a reply", ""]);
    assert!(matches!(delivered[0].event.body, Body::Erased { .. }));
}

#[tokio::test]
async fn dropping_next_loses_nothing_not_even_a_read_under_way() {
    let shard = Shard::new();
    shard.post(5);
    shard.held.store(true, SeqCst);
    let tail = shard.hub.register(&room(), Seq(5));
    let mut subscription = Subscription::new(tail, Arc::new(Held(Arc::clone(&shard))), start(0));
    for _ in 0..20 {
        assert!(subscription.next().now_or_never().is_none());
        shard.post(1);
    }
    assert_eq!(shard.reads.load(SeqCst), 1, "one read survives twenty cancellations");
    shard.held.store(false, SeqCst);
    shard.release.notify_waiters();
    let mut follower = Follower { subscription, seqs: vec![], caught_up: None, after: 0 };
    follower.read_to(25).await;
    assert_eq!(shard.reads.load(SeqCst), 1);
    // At the live end: a wake between two polls of different futures is not lost.
    for _ in 0..100 {
        {
            let waiting = std::pin::pin!(follower.subscription.next());
            assert!(matches!(poll!(waiting), Poll::Pending));
            shard.post(1);
        }
        follower.drain();
        assert_eq!(follower.last(), shard.head());
    }
}

#[tokio::test]
async fn an_end_interrupts_a_read_of_history() {
    let shard = Shard::new();
    shard.post(5);
    shard.held.store(true, SeqCst);
    let tail = shard.hub.register(&room(), Seq(5));
    let mut subscription = Subscription::new(tail, Arc::new(Held(Arc::clone(&shard))), start(0));
    let mut waiting = Box::pin(subscription.next());
    assert!(matches!(poll!(&mut waiting), Poll::Pending));
    shard.hub.stall(&stalled());
    assert!(matches!(poll!(&mut waiting), Poll::Ready(Next::Ended(_))));
}

#[tokio::test]
async fn a_relayed_subscription_is_held_to_the_same_rule() {
    let encoded = |seq| Encoded::new(event(seq, EventKind::Message, None, "hi"));
    let (send, relay) = mpsc::channel(8);
    let mut follower = Subscription::relayed(room(), Seq(2), start(0), relay);
    send.send(Next::Events(vec![encoded(1), encoded(2)])).await.unwrap();
    send.send(Next::CaughtUp(Seq(2))).await.unwrap();
    send.send(Next::Events(vec![encoded(4)])).await.unwrap();
    assert!(matches!(follower.next().await, Next::Events(events) if events.len() == 2));
    assert!(matches!(follower.next().await, Next::CaughtUp(Seq(2))));
    assert!(matches!(follower.next().await, Next::Ended(error) if error.code == Code::Internal));

    let (send, relay) = mpsc::channel(8);
    let mut follower = Subscription::relayed(room(), Seq(2), start(0), relay);
    drop(send);
    assert!(matches!(follower.next().await, Next::Ended(error) if error.code == Code::Unavailable));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn followers_that_come_and_go_under_load_see_dense_sequences() {
    let shard = Shard::new();
    let total = 30_000;
    let publisher = std::thread::spawn({
        let shard = Arc::clone(&shard);
        move || {
            let mut batch = 0;
            while shard.head() < total {
                batch = (batch * 7 + 3) % 61;
                shard.post(batch.min((total - shard.head()) as usize));
                if batch % 5 == 0 {
                    std::thread::yield_now();
                }
            }
        }
    });
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..48_u64 {
        let shard = Arc::clone(&shard);
        tasks.spawn(async move {
            // Some resume over and over where they stopped, some stay; some dawdle.
            let mut after = task % 3 * (shard.head() / 3);
            loop {
                let mut follower = shard.follow(after);
                for turn in 0.. {
                    if follower.last() == total || (task % 4 == 0 && turn == 20) {
                        break;
                    }
                    let next = follower.subscription.next().await;
                    follower.take(next);
                    if task % 5 == 0 {
                        tokio::time::sleep(Duration::from_micros(200)).await;
                    }
                }
                after = follower.last();
                if after == total {
                    return;
                }
            }
        });
    }
    let all = async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap()
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all).await.expect("every follower finishes");
    publisher.join().unwrap();
    assert_eq!((shard.hub.rooms(), shard.hub.followers()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_followers_of_one_room_get_everything() {
    let shard = Shard::new();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..5000 {
        let mut follower = shard.follow(0);
        tasks.spawn(async move { follower.read_to(200).await });
    }
    for _ in 0..200 {
        shard.post(1);
        tokio::task::yield_now().await;
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(shard.hub.followers(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_is_lost_between_looking_and_waiting() {
    let rounds = 10_000;
    let shard = Shard::new();
    let mut follower = shard.follow(0);
    let delivered = Arc::new(AtomicU64::new(0));
    let publisher = std::thread::spawn({
        let (shard, delivered) = (Arc::clone(&shard), Arc::clone(&delivered));
        move || {
            // Posts at the very moment at which the follower turns to waiting.
            for round in 1..=rounds {
                shard.post(1);
                let (patience, mut spins) = (std::time::Instant::now(), 0_u32);
                while delivered.load(SeqCst) < round {
                    assert!(patience.elapsed() < Duration::from_secs(20), "round {round} hangs");
                    // The follower may need this very core.
                    spins += 1;
                    match spins % 10_000 {
                        0 => std::thread::yield_now(),
                        _ => std::hint::spin_loop(),
                    }
                }
            }
        }
    });
    let reading = async {
        while follower.last() < rounds {
            let next = follower.subscription.next().await;
            follower.take(next);
            delivered.store(follower.last(), SeqCst);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading).await.expect("no wake is lost");
    publisher.join().unwrap();
}
