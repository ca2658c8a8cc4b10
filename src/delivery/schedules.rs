//! Delivery under random schedules of posts, subscribers, reads, snapshots and stalls.

use std::sync::Arc;

use proptest::prelude::*;

use crate::chat::event::EventKind;
use crate::delivery::model::{Follower, Shard, event, stalled};
use crate::delivery::ring;
use crate::id::Seq;

/// One step of a random schedule.
#[derive(Debug, Clone)]
enum Step {
    Post(usize),
    PostLarge,
    Subscribe { share: u8 },
    Drop(usize),
    Next(usize),
    Drain(usize),
    Jump(usize),
    StallAndResume,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..20_usize).prop_map(Step::Post),
        1 => (200..600_usize).prop_map(Step::Post),
        1 => Just(Step::PostLarge),
        3 => any::<u8>().prop_map(|share| Step::Subscribe { share }),
        1 => any::<usize>().prop_map(Step::Drop),
        6 => any::<usize>().prop_map(Step::Next),
        2 => any::<usize>().prop_map(Step::Drain),
        1 => (1..300_usize).prop_map(Step::Jump),
        1 => Just(Step::StallAndResume),
    ];
    prop::collection::vec(step, 1..120)
}

fn run(shard: &Arc<Shard>, followers: &mut Vec<Follower>, step: &Step) {
    let pick = |i: usize, len: usize| if len == 0 { None } else { Some(i % len) };
    match *step {
        Step::Post(count) => shard.post(count),
        Step::PostLarge => shard.post_texts(&vec!["x".repeat(ring::BYTES_MAX / 2); 3]),
        Step::Subscribe { share } => {
            followers.push(shard.follow(shard.head() * share as u64 / 255))
        }
        Step::Drop(i) => {
            if let Some(i) = pick(i, followers.len()) {
                followers.swap_remove(i);
            }
        }
        Step::Next(i) => {
            if let Some(i) = pick(i, followers.len()) {
                followers[i].step();
            }
        }
        Step::Drain(i) => {
            if let Some(i) = pick(i, followers.len()) {
                followers[i].drain();
                assert_eq!(followers[i].last(), shard.head(), "nothing is withheld");
            }
        }
        Step::Jump(count) => {
            let mut events = shard.events.lock().unwrap();
            for _ in 0..count {
                let seq = events.len() as u64 + 1;
                events.push(event(seq, EventKind::Message, None, "snapshot"));
            }
            let head = Seq(events.len() as u64);
            shard.hub.jump(&stalled(), |_| Some(head));
        }
        Step::StallAndResume => {
            shard.hub.stall(&stalled());
            shard.hub.resume();
            for follower in std::mem::take(followers) {
                let after = follower.last();
                followers.push(shard.follow(after));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_interleaving_delivers_every_event_once_in_order(steps in steps()) {
        let shard = Shard::new();
        let mut followers = vec![];
        for step in &steps {
            run(&shard, &mut followers, step);
            prop_assert_eq!(shard.hub.followers(), followers.len());
            prop_assert_eq!(shard.hub.rooms(), usize::from(!followers.is_empty()));
        }
        for follower in &mut followers {
            follower.drain();
            prop_assert_eq!(follower.last(), shard.head());
            prop_assert!(follower.caught_up.is_some());
        }
    }
}
