//! More planted histories: final reads of one node that contradict what was there before, what is sent again,
//! subscriptions that begin elsewhere than at the head, and who waits when faults end.

use crate::planted::{Planted, are_found};
use crate::story::{Story, events, id};
use folkmoot_jepsen::check::Verdict;
use folkmoot_jepsen::history::{F, Op, Phase, Value};

const PLANTED: &[Planted] = &[
    // A node loses its log's end between two of its own final reads.
    Planted {
        found: &["lost-write"],
        witness: &[&[2, 3], &[4, 5], &[6, 7]],
        tell: |s| {
            s.sends("a b");
            s.final_read("n1", "a b");
            s.final_read("n1", "a");
        },
    },
    // The same, of what nobody acknowledged.
    Planted {
        found: &["lost-write"],
        witness: &[&[4, 5], &[6, 7]],
        tell: |s| {
            s.send("a", 1);
            s.send_unanswered("b");
            s.final_read("n1", "a b");
            s.final_read("n1", "a");
        },
    },
    // Acknowledged, and shown to nobody: between two final reads, of which the second lacks it.
    Planted {
        found: &["unseen"],
        witness: &[&[4, 5], &[6, 7]],
        tell: |s| {
            s.send("a", 1);
            s.final_read("n1", "a");
            s.send("b", 2);
            s.final_read("n1", "a");
        },
    },
    // Read by a client between the two.
    Planted {
        found: &["lost-write"],
        witness: &[&[6, 7], &[8, 9]],
        tell: |s| {
            s.send("a", 1);
            s.send_unanswered("b");
            s.final_read("n1", "a");
            s.read(0, "a b");
            s.final_read("n1", "a");
        },
    },
    // Read on another node between the two.
    Planted {
        found: &["diverged"],
        witness: &[&[6, 7], &[8, 9]],
        tell: |s| {
            s.send("a", 1);
            s.send_unanswered("b");
            s.final_read("n1", "a");
            s.final_read("n2", "a b");
            s.final_read("n1", "a");
        },
    },
    // Refused for certain, read, and only then sent again.
    Planted {
        found: &["aborted-read"],
        witness: &[&[0, 1], &[2, 3]],
        tell: |s| {
            s.send_refused("a");
            s.read(0, "a");
            s.resend("a", 1);
        },
    },
    // The same, delivered while the first try was still open.
    Planted {
        found: &["aborted-read"],
        witness: &[&[2, 4], &[3]],
        tell: |s| {
            s.subscribe(1, 0);
            let op = s.begin(F::Send, Value::send(id("a")));
            s.deliver(1, 1, "a");
            s.fail(&op);
            s.resend("a", 1);
        },
    },
    // A new subscription begins behind the head, or before it.
    Planted {
        found: &["poll-skip"],
        witness: &[&[2, 3]],
        tell: |s| {
            s.send("a", 1);
            s.subscribe_at_head(1, 2, Some(1));
            s.send("b", 2);
            s.read(0, "a b");
        },
    },
    Planted {
        found: &["nonmonotonic-poll"],
        witness: &[&[4, 5]],
        tell: |s| {
            s.sends("a b");
            s.subscribe_at_head(1, 1, Some(2));
            s.deliver(1, 2, "b");
            s.read(0, "a b");
        },
    },
    // A delivery was recorded before the answer that says so.
    Planted {
        found: &["nonmonotonic-poll"],
        witness: &[&[4, 6]],
        tell: |s| {
            s.sends("a b");
            let op = s.begin(F::Subscribe, Value::subscription(1, None));
            s.deliver(1, 2, "b");
            s.ok(&op, Value::Subscription { subscription: 1, after: Some(1), head: Some(2) });
            s.read(0, "a b");
        },
    },
    // Asked before the faults ended, and never answered; nobody asks anew.
    Planted {
        found: &["unavailable"],
        witness: &[&[5], &[6]],
        tell: |s| {
            let _waits = asked_before_faults_end(s);
            s.wait(60_000);
            s.chain("n1", 1, "aa");
        },
    },
    // The same, given up after a minute.
    Planted {
        found: &["unavailable"],
        witness: &[&[5, 7], &[6]],
        tell: |s| {
            let op = asked_before_faults_end(s);
            s.wait(60_000);
            s.info(&op);
        },
    },
    // Somebody else was served, but late.
    Planted {
        found: &["unavailable"],
        witness: &[&[6], &[7, 8]],
        tell: |s| {
            let _waits = asked_before_faults_end(s);
            s.wait(60_000);
            s.read(0, "a");
        },
    },
];

/// A read that is open when the faults end.
fn asked_before_faults_end(s: &mut Story) -> Op {
    s.send("a", 1);
    s.read(0, "a");
    s.fault("kill", Phase::Start, None);
    let op = s.begin(F::Read, Value::range(0, None));
    s.fault("kill", Phase::Stop, None);
    op
}

#[test]
fn each_of_these_is_found_under_its_name_too() {
    are_found(PLANTED);
}

#[test]
fn what_is_nearly_as_these_but_right_is_valid() {
    let right: &[fn(&mut Story)] = &[
        // Nodes come on between their final reads.
        |s| {
            s.send("a", 1);
            s.send_unanswered("b");
            s.final_read("n1", "a");
            s.final_read("n2", "a b");
            s.final_read("n1", "a b");
            s.final_read("n2", "a b");
        },
        // Two final reads of one node at once: the second one's answer may be the older.
        |s| {
            s.send("a", 1);
            s.send_unanswered("b");
            let early = s.begin_on("n1", F::FinalRead, Value::range(0, None));
            s.final_read("n1", "a b");
            s.ok(&early, Value::Page { head: 1, events: events(1, "a") });
        },
        // A new subscription begins at the head, and both are said.
        |s| {
            s.sends("a b");
            s.subscribe_at_head(1, 2, Some(2));
            s.send("c", 3);
            s.deliver(1, 3, "c");
            s.read(0, "a b c");
        },
        // One that is resumed begins where it was, wherever the head is.
        |s| {
            s.sends("a b");
            let op = s.begin(F::Subscribe, Value::subscription(1, Some(0)));
            s.ok(&op, Value::Subscription { subscription: 1, after: Some(0), head: Some(2) });
            s.deliver(1, 1, "a");
            s.read(0, "a b");
        },
        // Chains are the same in small letters and in capitals.
        |s| {
            s.send("a", 1);
            s.final_read("n1", "a");
            s.final_read("n2", "a");
            s.chain("n1", 1, "aB");
            s.chain("n2", 1, "Ab");
        },
        // Asked before the faults ended, and answered in time.
        |s| {
            let op = asked_before_faults_end(s);
            s.wait(20_000);
            s.ok(&op, Value::Page { head: 1, events: events(1, "a") });
            s.wait(60_000);
            s.read(0, "a");
        },
        // Given up in time, and then nobody asks for long.
        |s| {
            let op = asked_before_faults_end(s);
            s.wait(20_000);
            s.info(&op);
            s.wait(60_000);
            s.chain("n1", 1, "aa");
        },
        // Given up before the faults end: nobody waits.
        |s| {
            s.send("a", 1);
            s.fault("kill", Phase::Start, None);
            s.send_unanswered("b");
            s.fault("kill", Phase::Stop, None);
            s.wait(60_000);
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
