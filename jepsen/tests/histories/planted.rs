//! Each anomaly is planted and found, under its name only, with the operations that show it; and
//! what is nearly the same but right is valid.

use std::collections::BTreeSet;

use crate::story::{Story, events, id};
use folkmoot_jepsen::check::{Anomaly, Verdict};
use folkmoot_jepsen::history::{F, Phase, Value};

/// A planted history: the anomalies that must be found, and the lines of the first one's witness.
pub struct Planted {
    pub found: &'static [&'static str],
    pub witness: &'static [&'static [usize]],
    pub tell: fn(&mut Story),
}

const PLANTED: &[Planted] = &[
    // An acknowledged message was shown once, and is not there at the end.
    Planted {
        found: &["lost-write"],
        witness: &[&[2, 3], &[4, 5], &[6, 7]],
        tell: |s| {
            s.sends("a b");
            s.read(0, "a b");
            s.final_read("n1", "a");
        },
    },
    // Nobody acknowledged it; but it had been read, and so was there for good.
    Planted {
        found: &["lost-write"],
        witness: &[&[4, 5], &[6, 7]],
        tell: |s| {
            s.send("a", 1);
            s.send_unanswered("b");
            s.read(0, "a b");
            s.final_read("n1", "a");
        },
    },
    // The same, delivered.
    Planted {
        found: &["lost-write"],
        witness: &[&[4], &[5, 6]],
        tell: |s| {
            s.send_unanswered("a");
            s.subscribe(7, 0);
            s.deliver(7, 1, "a");
            s.final_read("n1", "");
        },
    },
    // Another message is in its place.
    Planted {
        found: &["lost-write", "inconsistent-offsets"],
        witness: &[&[0, 1], &[4, 5]],
        tell: |s| {
            s.send("a", 1);
            s.send_unanswered("b");
            s.final_read("n1", "b");
        },
    },
    // A page goes past it.
    Planted {
        found: &["lost-write", "gap"],
        witness: &[&[2, 3], &[6, 7]],
        tell: |s| {
            s.sends("a b c");
            let all = events(1, "a b c");
            s.read_page(0, 3, vec![all[0], all[2]]);
        },
    },
    // Two texts under one id.
    Planted {
        found: &["lost-write"],
        witness: &[&[0, 1], &[2, 3]],
        tell: |s| {
            s.send("a", 1);
            s.resend_other("a", Some(1));
            s.read(0, "a");
        },
    },
    Planted {
        found: &["unseen"],
        witness: &[&[2, 3], &[4, 5]],
        tell: |s| {
            s.sends("a b");
            s.final_read("n1", "a");
        },
    },
    // A subscription never comes to the head.
    Planted {
        found: &["unseen"],
        witness: &[&[6], &[7, 8]],
        tell: |s| {
            s.sends("a b");
            s.subscribe(1, 0);
            s.deliver(1, 1, "a");
            let op = s.begin(F::Unsubscribe, Value::subscription(1, None));
            s.ok(&op, Value::Subscription { subscription: 1, after: None, head: Some(2) });
            s.read(0, "a b");
        },
    },
    Planted {
        found: &["duplicate"],
        witness: &[&[0, 1], &[2, 3]],
        tell: |s| {
            s.send("a", 1);
            s.read(0, "a a");
        },
    },
    // A retry through another node is appended again.
    Planted {
        found: &["duplicate"],
        witness: &[&[0, 1], &[2, 3]],
        tell: |s| {
            s.send("a", 1);
            s.resend("a", 2);
        },
    },
    Planted {
        found: &["inconsistent-offsets"],
        witness: &[&[4, 5], &[8]],
        tell: |s| {
            s.send_unanswered("a");
            s.send_unanswered("b");
            s.read(0, "a");
            s.subscribe(1, 0);
            s.deliver(1, 1, "b");
        },
    },
    // A response whose head is below what it shows.
    Planted {
        found: &["inconsistent-offsets"],
        witness: &[&[2, 3]],
        tell: |s| {
            s.send_unanswered("a");
            s.read_page(0, 0, events(1, "a"));
        },
    },
    Planted {
        found: &["aborted-read"],
        witness: &[&[0, 1], &[2, 3]],
        tell: |s| {
            s.send_refused("a");
            s.read(0, "a");
        },
    },
    Planted { found: &["phantom"], witness: &[&[0, 1]], tell: |s| s.read(0, "a") },
    // It was sent later.
    Planted {
        found: &["phantom"],
        witness: &[&[0, 1], &[2, 3]],
        tell: |s| {
            s.read(0, "a");
            s.send("a", 1);
        },
    },
    Planted {
        found: &["gap"],
        witness: &[&[0, 1]],
        tell: |s| {
            s.send("a", 2);
            s.read(1, "a");
        },
    },
    // Something is at seq 1, but nothing that could be there had been sent yet.
    Planted {
        found: &["gap"],
        witness: &[&[0, 1], &[2, 3]],
        tell: |s| {
            s.send("b", 2);
            s.send_unanswered("a");
        },
    },
    // An empty page before the head.
    Planted {
        found: &["gap"],
        witness: &[&[2, 3]],
        tell: |s| {
            s.send("a", 1);
            s.read_page(0, 1, vec![]);
        },
    },
    Planted { found: &["gap"], witness: &[&[0, 1]], tell: |s| s.send("a", 0) },
    Planted {
        found: &["poll-skip"],
        witness: &[&[8], &[9]],
        tell: |s| {
            s.sends("a b c");
            s.subscribe(1, 0);
            s.deliver(1, 1, "a");
            s.deliver(1, 3, "c");
            s.read(0, "a b c");
        },
    },
    // After a reconnect, not from where it was to go on.
    Planted {
        found: &["poll-skip"],
        witness: &[&[9, 10], &[11]],
        tell: |s| {
            s.sends("a b c");
            s.subscribe(1, 0);
            s.deliver(1, 1, "a");
            s.subscribe(1, 1);
            s.deliver(1, 3, "c");
            s.read(0, "a b c");
        },
    },
    // From the head on, which was at 0.
    Planted {
        found: &["poll-skip"],
        witness: &[&[0, 1], &[6]],
        tell: |s| {
            s.subscribe_at_head(1, 0, None);
            s.sends("a b");
            s.deliver(1, 2, "b");
            s.read(0, "a b");
        },
    },
    // The first delivery may be recorded before the answer that says where it begins.
    Planted {
        found: &["poll-skip"],
        witness: &[&[0, 6], &[5]],
        tell: |s| {
            let op = s.begin(F::Subscribe, Value::subscription(1, None));
            s.sends("a b");
            s.deliver(1, 2, "b");
            s.ok(&op, Value::Subscription { subscription: 1, after: Some(0), head: None });
            s.read(0, "a b");
        },
    },
    Planted {
        found: &["nonmonotonic-poll"],
        witness: &[&[7], &[8]],
        tell: |s| {
            s.sends("a b");
            s.subscribe(1, 0);
            s.deliver(1, 1, "a");
            s.deliver(1, 2, "b");
            s.deliver(1, 2, "b");
        },
    },
    Planted {
        found: &["nonmonotonic-send"],
        witness: &[&[0, 1], &[2, 3]],
        tell: |s| {
            s.send("b", 2);
            s.send("a", 1);
            s.read(0, "a b");
        },
    },
    Planted {
        found: &["stale-read"],
        witness: &[&[2, 3], &[4, 5]],
        tell: |s| {
            s.sends("a b");
            s.read(0, "a");
            s.read(0, "a b");
        },
    },
    // The last read is stale, but the message is still there: a subscription has it.
    Planted {
        found: &["stale-read"],
        witness: &[&[2, 3], &[4, 5]],
        tell: |s| {
            s.sends("a b");
            s.read(0, "a");
            s.subscribe(1, 1);
            s.deliver(1, 2, "b");
        },
    },
    // Two reads go back, of a message that nobody acknowledged.
    Planted {
        found: &["stale-read"],
        witness: &[&[2, 3], &[4, 5]],
        tell: |s| {
            s.send_unanswered("a");
            s.read(0, "a");
            s.read(0, "");
        },
    },
    // A new subscription begins before what was acknowledged.
    Planted {
        found: &["stale-read"],
        witness: &[&[2, 3], &[4, 5]],
        tell: |s| {
            s.sends("a b");
            s.subscribe_at_head(1, 1, Some(1));
            s.deliver(1, 2, "b");
            s.read(0, "a b");
        },
    },
    Planted {
        found: &["inconsistent-offsets", "diverged"],
        witness: &[&[4, 5], &[6, 7]],
        tell: |s| {
            s.send_unanswered("a");
            s.send_unanswered("b");
            s.final_read("n1", "a");
            s.final_read("n2", "b");
        },
    },
    // One node contradicts itself: that is no difference between replicas.
    Planted {
        found: &["inconsistent-offsets"],
        witness: &[&[4, 5], &[6, 7]],
        tell: |s| {
            s.send_unanswered("a");
            s.send_unanswered("b");
            s.final_read("n1", "a");
            s.final_read("n1", "b");
        },
    },
    // One node is behind, of what nobody acknowledged.
    Planted {
        found: &["diverged"],
        witness: &[&[4, 5], &[6, 7]],
        tell: |s| {
            s.send("a", 1);
            s.send_unanswered("b");
            s.final_read("n1", "a b");
            s.final_read("n2", "a");
        },
    },
    Planted {
        found: &["diverged"],
        witness: &[&[4, 5], &[6, 7]],
        tell: |s| {
            s.send("a", 1);
            s.read(0, "a");
            s.chain("n1", 1, "aa");
            s.chain("n2", 1, "ab");
        },
    },
    Planted {
        found: &["unavailable"],
        witness: &[&[5], &[6, 7]],
        tell: |s| {
            until_faults_end(s);
            let op = s.begin(F::Send, Value::send(id("b")));
            s.wait(31_000);
            s.ok(&op, Value::sent(id("b"), 2));
        },
    },
    Planted {
        found: &["unavailable"],
        witness: &[&[5], &[6, 7]],
        tell: |s| {
            until_faults_end(s);
            let op = s.begin(F::Send, Value::send(id("b")));
            s.wait(31_000);
            s.fail(&op);
        },
    },
];

fn until_faults_end(s: &mut Story) {
    s.send("a", 1);
    s.read(0, "a");
    s.fault("kill", Phase::Start, None);
    s.fault("kill", Phase::Stop, None);
}

/// Each is found under its names only, with its witness.
pub fn are_found(planted: &[Planted]) {
    for (number, planted) in planted.iter().enumerate() {
        let mut story = Story::new();
        (planted.tell)(&mut story);
        let report = story.check();
        let (names, witness) = story.anomalies();
        assert_eq!(report.verdict, Verdict::Invalid, "{number}");
        assert_eq!(
            BTreeSet::from_iter(names),
            planted.found.iter().copied().collect(),
            "{number}: {report}"
        );
        assert_eq!(witness, planted.witness, "{number}: {report}");
    }
}

#[test]
fn each_planted_anomaly_is_found_under_its_name() {
    are_found(PLANTED);
    for anomaly in Anomaly::ALL {
        let name = anomaly.as_str();
        let fires = PLANTED.iter().any(|planted| planted.found.contains(&name));
        assert!(fires, "{name} is never shown to fire");
    }
}

#[test]
fn what_is_right_is_valid() {
    let right: &[fn(&mut Story)] = &[
        // An unanswered send may come to the log late, or never.
        |s| {
            s.send_unanswered("b");
            s.send("a", 1);
            s.read(0, "a");
            s.send("c", 3);
            s.read(0, "a b c");
            s.send_unanswered("d");
        },
        // It fills a place that nobody looked at.
        |s| {
            s.send_unanswered("a");
            s.send("b", 2);
            s.read(1, "b");
        },
        // A retry of what failed for certain, and one of what did not.
        |s| {
            s.send_refused("a");
            s.send_unanswered("b");
            s.read(0, "b");
            s.resend("a", 2);
            s.resend("b", 1);
            s.read(0, "b a");
        },
        // Another text under a used id is refused; one under an id whose first try is unknown
        // may be the one that counts.
        |s| {
            s.send("a", 1);
            s.resend_other("a", None);
            s.send_unanswered("b");
            s.resend_other("b", Some(2));
            s.read(0, "a b");
        },
        // Local reads and deliveries may be late; overlapping reads may go back.
        |s| {
            s.sends("a b");
            let early = s.begin(F::Read, Value::range(0, None));
            let local = s.begin(F::ReadLocal, Value::range(0, None));
            s.ok(&local, Value::Page { head: 0, events: vec![] });
            s.subscribe(1, 0);
            s.deliver(1, 1, "a");
            s.send("c", 3);
            s.read(0, "a b c");
            s.ok(&early, Value::Page { head: 2, events: events(1, "a b") });
            s.deliver(1, 2, "b");
            s.subscribe(1, 1);
            s.deliver(1, 2, "b");
            s.deliver(1, 3, "c");
        },
        // A page may be short of its head.
        |s| {
            s.sends("a b c");
            s.read_page(0, 3, events(1, "a"));
            s.read(1, "b c");
        },
        // Final reads in pages, one of them before the last unanswered send came to the log.
        |s| {
            s.send("a", 1);
            s.send_unanswered("b");
            s.final_read("n1", "a");
            for (after, word) in [(0, "a"), (1, "b")] {
                let op = s.begin_on("n2", F::FinalRead, Value::range(after, Some(1)));
                s.ok(&op, Value::Page { head: 2, events: events(after + 1, word) });
            }
            s.chain("n1", 1, "aa");
            s.chain("n2", 1, "aa");
            s.chain("n2", 2, "bb");
        },
        // Faults end, and the cluster serves again.
        |s| {
            s.send("a", 1);
            s.fault("kill", Phase::Start, Some(false));
            s.send_unanswered("b");
            s.fault("kill", Phase::Stop, None);
            s.wait(29_000);
            s.read(0, "a");
        },
    ];
    for (number, tell) in right.iter().enumerate() {
        let mut story = Story::new();
        tell(&mut story);
        let report = story.check();
        assert_eq!(report.verdict, Verdict::Valid, "{number}: {report}");
    }
}
