//! What a report says beside anomalies: when nobody can say, how well the cluster served, and how
//! it reads.

use crate::story::{Story, events, id};
use folkmoot_jepsen::check::{self, Anomaly, Options, Verdict};
use folkmoot_jepsen::history::{F, Phase, Value};

#[test]
fn too_little_is_unknown() {
    let reasons = |tell: fn(&mut Story)| {
        let mut story = Story::new();
        tell(&mut story);
        let report = story.check();
        assert_eq!(report.verdict, Verdict::Unknown, "{report}");
        report.unknown.join("; ")
    };
    assert_eq!(reasons(|_| {}), "no send was ok; nothing was read");
    assert_eq!(reasons(|s| s.read(0, "")), "no send was ok");
    let unread = reasons(|s| s.send("a", 1));
    assert_eq!(
        unread,
        "room tea: sends were acknowledged (1), and nobody read it; nothing was read"
    );
    let partial = reasons(|s| {
        s.sends("a b");
        let op = s.begin_on("n1", F::FinalRead, Value::range(0, None));
        s.ok(&op, Value::Page { head: 2, events: events(1, "a") });
        s.final_read("n2", "a b");
    });
    assert_eq!(partial, "room tea: the final read on n1 ends before seq 2, and the head is 2");

    let holed = reasons(|s| {
        s.sends("a b c");
        for (after, word) in [(0, "a"), (2, "c")] {
            let op = s.begin_on("n1", F::FinalRead, Value::range(after, Some(1)));
            s.ok(&op, Value::Page { head: 3, events: events(after + 1, word) });
        }
    });
    let holed_at = "room tea: the final read on n1 ends before seq 2, and the head is 3";
    let unshown = "room tea: 1 of 3 acknowledged sends were never shown to anybody, b first";
    assert_eq!(holed, format!("{holed_at}; {unshown}"));

    let mut story = Story::new();
    story.sends("a b c d e");
    story.read(0, "a b c d e");
    let report = check::check(&story.history, &Options::default());
    assert_eq!(report.unknown, ["6 sends and reads were ok; a verdict takes 10"]);
}

/// The reasons for which a history has no verdict, which it must have.
fn why_unknown(tell: impl FnOnce(&mut Story)) -> String {
    let mut story = Story::new();
    tell(&mut story);
    let report = story.check();
    assert_eq!(report.verdict, Verdict::Unknown, "{report}");
    report.unknown.join("; ")
}

/// What was acknowledged is there only if somebody has seen it there.
#[test]
fn what_nobody_was_shown_is_not_said_to_be_there() {
    // Most of it was acknowledged after the only read.
    let late = why_unknown(|s| {
        s.sends("a b c");
        s.read(0, "a b c");
        s.send("d", 4);
        s.send("e", 5);
    });
    assert_eq!(late, "room tea: 2 of 5 acknowledged sends were never shown to anybody, d first");
    // A page that shows one event says how many there are, and not which.
    let short = why_unknown(|s| {
        s.sends("a b c");
        s.read_page(0, 3, events(1, "a"));
    });
    assert_eq!(short, "room tea: 2 of 3 acknowledged sends were never shown to anybody, b first");
    let end_only = why_unknown(|s| {
        s.sends("a b c");
        s.read(2, "c");
    });
    assert_eq!(
        end_only,
        "room tea: 2 of 3 acknowledged sends were never shown to anybody, a first"
    );
    let head_only = why_unknown(|s| {
        s.sends("a b c");
        s.read(3, "");
    });
    assert!(head_only.starts_with("room tea: 3 of 3 acknowledged sends"), "{head_only}");
    // Shown by another node, after a node's final read.
    let early = why_unknown(|s| {
        s.send("a", 1);
        s.final_read("n1", "a");
        s.send("b", 2);
        s.read(0, "a b");
    });
    let begun = "1 of 2 sends were acknowledged after the final read on n1 had begun";
    assert_eq!(early, format!("room tea: {begun}, which does not have them"));
}

/// A node that took part is read at the end, unless it is gone for good.
#[test]
fn final_reads_are_due_on_every_node_that_was_asked() {
    let tell = |s: &mut Story| {
        let op = s.begin_on("n3", F::Send, Value::send(id("a")));
        s.ok(&op, Value::sent(id("a"), 1));
        s.final_read("n1", "a");
        s.final_read("n2", "a");
    };
    let missing = "room tea: no final read on n3, but on other nodes or of other rooms";
    assert_eq!(why_unknown(tell), missing);
    let mut story = Story::new();
    tell(&mut story);
    story.gone("n3");
    let report = story.check();
    assert_eq!(report.verdict, Verdict::Valid, "{report}");
    // It is back.
    let op = story.begin_on("n3", F::Read, Value::range(0, None));
    story.ok(&op, Value::Page { head: 1, events: events(1, "a") });
    assert_eq!(story.check().unknown, [missing]);
}

/// What was asked for and refused everywhere is as little read as what was asked for on one node only.
#[test]
fn final_reads_that_all_failed_are_missed() {
    let failed = why_unknown(|s| {
        s.send("a", 1);
        s.read(0, "a");
        let op = s.begin(F::FinalRead, Value::range(0, None));
        s.fail(&op);
    });
    assert_eq!(failed, "room tea: no final read on n1, though some were asked for");
}

/// What a node answers late, or had delivered, does not bring it back.
#[test]
fn what_a_node_had_said_before_it_was_gone_makes_no_final_read_due() {
    let mut story = Story::new();
    story.send("a", 1);
    story.subscribe(1, 0);
    let asked = story.begin_on("n3", F::Read, Value::range(0, None));
    story.final_read("n2", "a");
    story.gone("n1");
    story.gone("n3");
    story.deliver(1, 1, "a");
    story.ok(&asked, Value::Page { head: 1, events: events(1, "a") });
    let report = story.check();
    assert_eq!(report.verdict, Verdict::Valid, "{report}");
}

/// Each page of a node contradicts the one before: that is counted in one pass.
#[test]
fn many_contradictions_take_no_longer_than_many_pages() {
    let mut story = Story::new();
    story.send_unanswered("a");
    story.send_unanswered("b");
    for page in 0..60_000 {
        let op = story.begin_on("n1", F::FinalRead, Value::range(0, Some(1)));
        let events = events(1, if page % 2 == 0 { "a" } else { "b" });
        story.ok(&op, Value::Page { head: 1, events });
    }
    story.final_read("n2", "b");
    let began = std::time::Instant::now();
    let report = story.check();
    assert_eq!(report.anomalies.get(&Anomaly::Diverged), Some(&1), "{report}");
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[test]
fn every_room_is_read_on_every_node() {
    let mut story = Story::new();
    story.send("a", 1);
    story.final_read("n1", "a");
    story.final_read("n2", "a");
    story.room = "coffee";
    story.final_read("n2", "");
    let report = story.check();
    let missing = "room coffee: no final read on n1, but on other nodes or of other rooms";
    assert_eq!(report.unknown, [missing]);
}

#[test]
fn a_cluster_is_held_to_what_it_does_while_a_majority_is_healthy() {
    let mut story = Story::new();
    story.send("a", 1);
    let late = story.begin(F::Send, Value::send(id("b")));
    story.fault("partition", Phase::Start, Some(true));
    story.info(&late); // began before, ended after: not counted
    let op = story.begin(F::Read, Value::range(0, None));
    story.fail(&op); // a majority was healthy
    story.fault("kill", Phase::Start, None);
    let op = story.begin(F::Read, Value::range(0, None));
    story.fail(&op); // it was not
    story.fault("kill", Phase::Stop, None);
    story.fault("partition", Phase::Stop, None);
    story.wait(500);
    story.read(0, "a");
    let measured = story.check().availability;
    assert_eq!((measured.healthy_operations, measured.healthy_ok, measured.heals), (3, 2, 1));
    assert_eq!(measured.recovery_max_ms, Some(1.0), "nobody had asked before");
}

#[test]
fn a_room_is_slow_only_when_somebody_waits() {
    let after_heal = |tell: fn(&mut Story)| {
        let mut story = Story::new();
        story.sends("a b c d e f g h i j");
        story.fault("kill", Phase::Start, None);
        tell(&mut story);
        story.read(0, "a b c d e f g h i j");
        story.check()
    };
    let report = after_heal(|s| {
        s.fault("kill", Phase::Stop, None);
        s.wait(40_000);
    });
    assert_eq!(report.verdict, Verdict::Valid, "{report}");
    assert_eq!(report.availability.recovery_max_ms, Some(1.0));
    // Asked while a fault was active: it waits from the end of that on.
    let report = after_heal(|s| {
        let early = s.begin(F::Read, Value::range(0, None));
        s.fault("kill", Phase::Stop, None);
        s.wait(40_000);
        let events = events(1, "a b c d e f g h i j");
        s.ok(&early, Value::Page { head: 10, events });
    });
    assert!(report.has(Anomaly::Unavailable), "{report}");
    // Refused once, then nobody asks for long.
    fn refused(s: &mut Story) {
        let op = s.begin(F::Read, Value::range(0, None));
        s.fail(&op);
    }
    let report = after_heal(|s| {
        s.fault("kill", Phase::Stop, None);
        refused(s);
        s.wait(40_000);
    });
    assert_eq!(report.verdict, Verdict::Valid, "{report}");
    assert_eq!(report.availability.recovery_max_ms, Some(2.0), "a refusal, and an answer");
    // Another text under the same id is refused, as it should be: nobody waits for more.
    let report = after_heal(|s| {
        s.fault("kill", Phase::Stop, None);
        let op = s.begin(F::Resend, Value::send(id("a")));
        s.fail(&op);
        s.resend_other("a", None);
        s.wait(40_000);
    });
    assert_eq!(report.verdict, Verdict::Valid, "{report}");
    // Nor does that refusal answer whoever does wait.
    let mut story = Story::new();
    story.send("a", 1);
    story.fault("kill", Phase::Start, None);
    story.fault("kill", Phase::Stop, None);
    let _waits = story.begin(F::Send, Value::send(id("b")));
    story.resend_other("a", None);
    story.wait(40_000);
    story.read(0, "a");
    assert!(story.check().has(Anomaly::Unavailable));
    // Refused again and again, also when nobody is ever served; and whoever waits all the time.
    for served in [true, false] {
        let mut story = Story::new();
        story.send("a", 1);
        story.fault("kill", Phase::Start, None);
        story.fault("kill", Phase::Stop, None);
        refused(&mut story);
        story.wait(40_000);
        refused(&mut story);
        if served {
            story.wait(40_000);
            story.read(0, "a");
        }
        assert!(story.check().has(Anomaly::Unavailable), "{served}");
    }
    let mut story = Story::new();
    story.fault("kill", Phase::Start, None);
    story.fault("kill", Phase::Stop, None);
    let _waits = story.begin(F::Read, Value::range(0, None));
    refused(&mut story);
    story.wait(40_000);
    story.read(0, "");
    assert!(story.check().has(Anomaly::Unavailable));
}

#[test]
fn a_report_reads_well() {
    let mut story = Story::new();
    story.sends("a b");
    story.read(0, "a");
    let report = story.check();
    let text = "\
invalid: 1 unseen, 1 stale-read

unseen in room tea: b was acknowledged as seq 2, nobody was ever shown it, and the room ends at seq 1
  process 1 on n1: send b → seq 2, from 2.000 to 3.000 ms [2, 3]
  process 2 on n1: read after 0 → head 1, seq 1, from 4.000 to 5.000 ms [4, 5]

stale-read in room tea: a read that began when seq 2 was acknowledged has the log end at seq 1
  process 1 on n1: send b → seq 2, from 2.000 to 3.000 ms [2, 3]
  process 2 on n1: read after 0 → head 1, seq 1, from 4.000 to 5.000 ms [4, 5]

3 operations, rooms: 1; 3 ok, 0 fail, 0 of unknown outcome; 0 deliveries
100.00 % ok while a majority was healthy
";
    assert_eq!(report.to_string(), text);
}

#[test]
fn a_gap_says_how_many_sends_could_have_filled_it() {
    let mut story = Story::new();
    story.send_unanswered("a");
    story.send("c", 3);
    story.send_unanswered("b");
    let report = story.check();
    assert_eq!(report.violations.len(), 1, "{report}");
    assert_eq!(
        report.violations[0].what,
        "the log had reached seq 3 when only 1 of the sends of unknown outcome had begun that could be at \
         the places up to there that nobody saw"
    );
}

#[test]
fn all_are_counted_and_few_are_shown() {
    let mut story = Story::new();
    for _ in 0..20 {
        story.read(0, "x");
        story.read(0, "");
    }
    let report = story.check();
    assert_eq!(report.anomalies[&Anomaly::Phantom], 1);
    assert_eq!(report.anomalies[&Anomaly::StaleRead], 20);
    let shown = report.violations.iter().filter(|v| v.anomaly == Anomaly::StaleRead).count();
    assert_eq!(shown, 5);
}

#[test]
fn a_subscription_that_went_back_goes_on_from_there() {
    let mut story = Story::new();
    story.sends("a b c");
    story.subscribe(1, 0);
    for event in [events(1, "a b"), events(1, "a b c")].concat() {
        story.deliver(1, event.seq, &event.id.to_string());
    }
    let report = story.check();
    assert_eq!(report.anomalies.into_iter().collect::<Vec<_>>(), [(Anomaly::NonmonotonicPoll, 1)]);
}
