//! Two tables, of which one tells the other: what is told, when, and what is made of it.

use super::*;

const MINUTE_MS: u64 = 60_000;

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn tea() -> RoomId {
    RoomId::parse("tea").unwrap()
}

/// Two nodes, 1 and 2, of which the first tells the second.
struct Pair {
    one: Table,
    two: Table,
    stream: u64,
    now_ms: u64,
}

impl Pair {
    fn new() -> Pair {
        let (mut one, mut two) = (Table::default(), Table::default());
        one.begin_telling(NodeId(2));
        let stream = two.begin_hearing(NodeId(1));
        Pair { one, two, stream, now_ms: MINUTE_MS }
    }

    /// A quarter of a second passes at both, and the frames that there are arrive; returns how many.
    fn tick(&mut self) -> usize {
        self.now_ms += 250;
        self.one.tick(self.now_ms);
        self.two.tick(self.now_ms);
        let mut frames = 0;
        while let Some(frame) = self.one.next_frame(NodeId(2)) {
            assert!(self.two.hear(NodeId(1), self.stream, &frame, self.now_ms));
            frames += 1;
        }
        frames
    }

    /// The same, and what the first node says is lost.
    fn tick_deaf(&mut self) {
        self.now_ms += 250;
        self.two.tick(self.now_ms);
    }

    fn reconnect(&mut self) {
        self.one.begin_telling(NodeId(2));
        self.stream = self.two.begin_hearing(NodeId(1));
    }

    fn at_two(&self, id: &str) -> Status {
        self.two.seen(&user(id)).status
    }
}

#[test]
fn a_person_is_as_present_as_the_most_present_device_anywhere() {
    let mut pair = Pair::new();
    let phone = pair.one.enter(&user("ann"), Status::Away, pair.now_ms);
    let laptop = pair.one.enter(&user("ann"), Status::Online, pair.now_ms);
    let other = pair.two.enter(&user("ann"), Status::Away, pair.now_ms);
    assert_eq!(pair.at_two("ann"), Status::Away);
    pair.tick();
    assert_eq!(pair.at_two("ann"), Status::Online);
    pair.one.leave(&user("ann"), laptop, pair.now_ms);
    pair.tick();
    assert_eq!(pair.at_two("ann"), Status::Away);
    pair.one.leave(&user("ann"), phone, pair.now_ms);
    pair.tick();
    assert_eq!(pair.at_two("ann"), Status::Away, "at the second node itself");
    let now_ms = pair.now_ms;
    pair.two.leave(&user("ann"), other, now_ms);
    let seen = Seen { status: Status::Offline, last_seen_ms: Some(now_ms) };
    assert_eq!(pair.two.seen(&user("ann")), seen);
    assert_eq!(pair.two.seen(&user("nobody")), Seen::default());
}

#[test]
fn a_node_that_is_not_heard_of_is_given_up_and_one_that_is_quiet_is_not() {
    let mut pair = Pair::new();
    pair.one.enter(&user("ann"), Status::Online, pair.now_ms);
    let frames: usize = (0..400).map(|_| pair.tick()).sum();
    assert_eq!(pair.at_two("ann"), Status::Online);
    assert!((45..60).contains(&frames), "one in two seconds, not {frames} in 100 s");
    assert!(!pair.two.take_changes().node_lost);
    let mut ticks = 0;
    while pair.at_two("ann") == Status::Online {
        pair.tick_deaf();
        ticks += 1;
    }
    assert!(ticks <= 40 - 8, "{ticks}: later than ten seconds after a last word that was two old");
    let changes = pair.two.take_changes();
    assert_eq!((changes.users, changes.node_lost), (BTreeSet::from([user("ann")]), true));
    // It was only cut off.
    pair.reconnect();
    pair.tick();
    assert_eq!(pair.at_two("ann"), Status::Online);
}

#[test]
fn a_new_stream_begins_with_everything_and_takes_nobody_away_before_it_is_whole() {
    let mut pair = Pair::new();
    let users: Vec<UserId> = (0..2500).map(|i| user(&format!("u{i:04}"))).collect();
    let devices: Vec<u64> =
        users.iter().map(|id| pair.one.enter(id, Status::Online, pair.now_ms)).collect();
    assert_eq!(pair.tick(), 3);
    pair.one.leave(&users[7], devices[7], pair.now_ms);
    pair.two.take_changes();
    // What was said last is lost with the stream.
    pair.reconnect();
    assert_eq!(pair.tick(), 3);
    let changes = pair.two.take_changes();
    assert_eq!(changes.users, BTreeSet::from([users[7].clone()]), "nobody else was ever offline");
    // A frame of the stream before that is late says nothing any more.
    assert!(!pair.two.hear(NodeId(1), pair.stream - 1, &pb::PresenceFrame::default(), 0));
}

#[test]
fn a_lease_ends_by_itself_and_is_put_off_by_another() {
    let mut pair = Pair::new();
    pair.one.lease(&user("ann"), Status::Online, 4, pair.now_ms);
    (0..3).for_each(|_| assert!(pair.tick() <= 1));
    pair.one.lease(&user("ann"), Status::Away, 4, pair.now_ms);
    (0..3).for_each(|_| assert!(pair.tick() <= 1));
    assert_eq!(pair.at_two("ann"), Status::Away);
    pair.tick();
    assert_eq!(pair.at_two("ann"), Status::Offline);
    assert_eq!(pair.two.seen(&user("ann")).last_seen_ms, Some(pair.now_ms));
}

#[test]
fn typing_is_told_now_and_then_and_ends() {
    let mut pair = Pair::new();
    let device = pair.one.enter(&user("ann"), Status::Online, 0);
    pair.one.enter(&user("bob"), Status::Online, 0);
    pair.tick();
    let mut frames = 0;
    for _ in 0..40 {
        pair.one.type_here(&tea(), &user("ann"), true);
        frames += pair.tick();
        assert_eq!(pair.two.typing_in(&tea()), [user("ann")]);
    }
    // Every three seconds, and in between that the node is there.
    assert!(frames <= 8, "{frames} frames in ten seconds");
    assert_eq!(pair.two.take_changes().typing, BTreeSet::from([tea()]));
    pair.one.type_here(&tea(), &user("ann"), false);
    pair.tick();
    assert!(pair.two.typing_in(&tea()).is_empty());
    pair.one.type_here(&tea(), &user("ann"), true);
    pair.one.leave(&user("ann"), device, pair.now_ms);
    pair.tick();
    assert!(pair.two.typing_in(&tea()).is_empty(), "who has gone types nothing");
    pair.one.type_here(&tea(), &user("bob"), true);
    for _ in 0..TYPING_TICKS {
        pair.tick();
    }
    assert!(pair.one.typing_in(&tea()).is_empty(), "who says nothing any more has stopped");
    pair.tick();
    assert!(pair.two.typing_in(&tea()).is_empty());
}

#[test]
fn read_marks_never_go_back_and_only_the_last_is_told() {
    let mut pair = Pair::new();
    pair.tick();
    pair.one.begin_telling(NodeId(3)); // which does not listen
    for seq in [1, 5, 3] {
        pair.one.read_here(&tea(), &user("ann"), Seq(seq));
    }
    assert_eq!(pair.tick(), 1);
    let expected = BTreeMap::from([((tea(), user("ann")), Seq(5))]);
    assert_eq!(pair.two.take_changes().reads, expected);
    assert_eq!(pair.one.take_changes().reads, expected);
    for seq in 0..READS_MAX as u64 + 10 {
        pair.one.read_here(&RoomId::parse(&format!("r{seq}")).unwrap(), &user("ann"), Seq(seq));
    }
    assert_eq!(pair.one.outboxes[&NodeId(3)].reads.len(), READS_MAX);
}

#[test]
fn what_makes_no_sense_changes_nothing() {
    let mut pair = Pair::new();
    let bad = |id: &str, state| frame::User { user: id.into(), state, seen_ms: 0 };
    for users in [vec![bad("ann", 3)], vec![bad("ann", 2), bad("An n", 2)]] {
        let frame = pb::PresenceFrame { users, ..Default::default() };
        assert!(!pair.two.hear(NodeId(1), pair.stream, &frame, 0));
    }
    assert_eq!(pair.two.take_changes(), Changes::default());
    assert_eq!(pair.at_two("ann"), Status::Offline);
}

#[test]
fn those_who_are_offline_are_forgotten_first() {
    let mut table = Table::default();
    let keep = table.enter(&user("ann"), Status::Online, 1);
    for i in 0..=USERS_MAX {
        let id = user(&format!("u{i}"));
        let device = table.enter(&id, Status::Online, 1);
        table.leave(&id, device, 1);
    }
    table.tick(2);
    assert_eq!((table.users.len(), table.here()), (1, 1));
    table.leave(&user("ann"), keep, 3);
    assert_eq!(table.here(), 0);
}
