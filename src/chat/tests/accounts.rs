//! What may be changed of a user, by whom, and what it does to those who are signed in.

use crate::chat::account::{Change, Password, Scope, Scopes, Token, User};
use crate::chat::apply;
use crate::chat::command::{Actor, Command, Done, Rejection, Request};
use crate::chat::event::Hash;
use crate::chat::memory::Memory;
use crate::chat::query::{Answer, Query, query};
use crate::chat::state::{State, StateMut};
use crate::error::Code;
use crate::id::{RequestId, UserId};
use crate::limits;

pub(super) const NOW: u64 = 1_700_000_000_000;
pub(super) const DAY: u64 = 24 * 3600 * 1000;

/// `root` administers; `ann` and `bob` are anybody.
pub(super) struct World {
    pub(super) state: Memory,
    requests: u8,
}

pub(super) fn id(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn password(name: &str) -> Password {
    Password::parse(&format!("$argon2id$v=19${name}")).unwrap()
}

pub(super) fn refused<T: std::fmt::Debug>(reply: Result<T, Rejection>) -> Code {
    reply.unwrap_err().code()
}

impl World {
    pub(super) fn new() -> World {
        let mut world = World { state: Memory::default(), requests: 0 };
        world.state.advance_log_time(NOW);
        for (name, admin) in [("root", true), ("ann", false), ("bob", false)] {
            world.state.put_user(User::new(id(name), name.into(), admin, NOW));
        }
        world
    }

    pub(super) fn ask(&mut self, actor: &str, command: Command) -> Result<Done, Rejection> {
        self.requests = self.requests.wrapping_add(1);
        let now_ms = self.state.log_time_ms();
        let request = Request {
            actor: Actor { user: id(actor), admin: actor == "root" },
            id: RequestId::mint(now_ms, [self.requests; 10]),
            command,
        };
        let before = self.state.clone();
        let reply = apply::apply(&mut self.state, request, &mut Vec::new());
        if reply.is_err() {
            assert!(before == self.state, "a rejected command has changed something");
        }
        reply
    }

    pub(super) fn change(
        &mut self,
        actor: &str,
        user: &str,
        change: Change,
    ) -> Result<Done, Rejection> {
        self.ask(actor, Command::ChangeUser { user: id(user), change })
    }

    /// Whether a change was a revocation.
    pub(super) fn revokes(&mut self, actor: &str, user: &str, change: Change) -> bool {
        let before = self.state.revocations();
        self.change(actor, user, change).unwrap();
        let after = self.state.revocations();
        assert!(after <= before + 1);
        after > before
    }

    pub(super) fn user(&self, name: &str) -> User {
        (*self.state.user(&id(name)).unwrap()).clone()
    }

    fn set_password(
        &mut self,
        user: &str,
        new: &str,
        old: Option<&str>,
    ) -> Result<Done, Rejection> {
        let previous = old.map(|old| password(old).tag());
        self.change(
            user,
            user,
            Change::SetPassword { password: password(new), previous, keep: None },
        )
    }

    fn open(&mut self, user: &str, hash: Hash, with: &str) -> Result<Done, Rejection> {
        self.change(user, user, session(hash, with))
    }

    pub(super) fn sessions(&self, user: &str) -> Vec<u8> {
        self.user(user).sessions.iter().map(|session| session.hash[0]).collect()
    }

    fn later(&mut self, ms: u64) {
        let now_ms = self.state.log_time_ms();
        self.state.advance_log_time(now_ms + ms);
    }
}

fn session(hash: Hash, with: &str) -> Change {
    Change::OpenSession {
        hash,
        password: password(with).tag(),
        user_agent: "a browser".into(),
        address: "192.0.2.7".into(),
        ttl_ms: 10 * DAY,
        idle_ms: 3 * DAY,
    }
}

#[test]
fn ones_own_password_needs_the_old_one_and_ends_other_sessions() {
    let mut world = World::new();
    assert_eq!(refused(world.set_password("ann", "a", Some("none"))), Code::Forbidden);
    world.set_password("ann", "a", None).unwrap();
    assert_eq!(refused(world.set_password("ann", "b", None)), Code::Forbidden);
    assert_eq!(refused(world.set_password("ann", "b", Some("wrong"))), Code::Forbidden);
    for n in 1..=3 {
        world.open("ann", [n; 32], "a").unwrap();
    }
    let change = Change::SetPassword {
        password: password("b"),
        previous: Some(password("a").tag()),
        keep: Some([2; 32]),
    };
    assert!(world.revokes("ann", "ann", change));
    assert_eq!(world.sessions("ann"), [2]);
    assert_eq!(world.user("ann").password, Some(password("b")));
}

#[test]
fn administrators_set_the_passwords_of_others_only_without_the_old_one() {
    let mut world = World::new();
    world.set_password("ann", "a", None).unwrap();
    world.open("ann", [1; 32], "a").unwrap();
    let change = |keep| Change::SetPassword { password: password("r"), previous: None, keep };
    assert_eq!(refused(world.change("bob", "ann", change(None))), Code::Forbidden);
    assert!(world.revokes("root", "ann", change(Some([1; 32]))), "none goes on");
    assert!(world.sessions("ann").is_empty());
    world.set_password("root", "mine", None).unwrap();
    assert_eq!(refused(world.change("root", "root", change(None))), Code::Forbidden);
    assert_eq!(refused(world.change("root", "nobody", change(None))), Code::UserNotFound);
}

#[test]
fn a_session_begins_by_the_password_in_force() {
    let mut world = World::new();
    assert_eq!(refused(world.open("ann", [1; 32], "a")), Code::Forbidden);
    world.set_password("ann", "a", None).unwrap();
    assert_eq!(refused(world.open("ann", [1; 32], "b")), Code::Forbidden);
    assert_eq!(refused(world.change("bob", "ann", session([1; 32], "a"))), Code::Forbidden);
    assert_eq!(refused(world.change("root", "ann", session([1; 32], "a"))), Code::Forbidden);
    assert!(!world.open("ann", [1; 32], "a").unwrap().duplicate);
    assert!(world.open("ann", [1; 32], "a").unwrap().duplicate, "the same secret");
    let begun = world.user("ann").sessions.remove(0);
    assert_eq!((begun.created_at_ms, begun.used_at_ms), (NOW, NOW));
    assert_eq!(begun.ends_at_ms(), NOW + 3 * DAY);
    assert_eq!(begun.expires_at_ms, NOW + 10 * DAY);
}

#[test]
fn a_session_is_checked_in_all_its_parts() {
    let mut world = World::new();
    world.set_password("ann", "a", None).unwrap();
    let mut bad = |spoil: fn(&mut String, &mut String, &mut u64, &mut u64)| {
        let mut change = session([1; 32], "a");
        let Change::OpenSession { user_agent, address, ttl_ms, idle_ms, .. } = &mut change else {
            unreachable!()
        };
        spoil(user_agent, address, ttl_ms, idle_ms);
        assert_eq!(refused(world.change("ann", "ann", change)), Code::InvalidArgument);
    };
    bad(|agent, _, _, _| *agent = "x".repeat(limits::USER_AGENT_BYTES_MAX + 1));
    bad(|agent, _, _, _| *agent = "a\nb".into());
    bad(|_, address, _, _| *address = "1".repeat(limits::ADDRESS_BYTES_MAX + 1));
    bad(|_, _, ttl, _| *ttl = 0);
    bad(|_, _, ttl, _| *ttl = u64::MAX);
    bad(|_, _, _, idle| *idle = 0);
    bad(|_, _, _, idle| *idle = limits::TTL_MS_MAX + 1);
}

#[test]
fn the_session_that_was_not_used_for_the_longest_time_makes_room() {
    let mut world = World::new();
    world.set_password("ann", "a", None).unwrap();
    for n in 0..limits::SESSIONS_PER_USER_MAX as u8 {
        assert!(!world.revokes("ann", "ann", session([n; 32], "a")));
        world.later(1000);
    }
    let touch = Change::TouchSession { hash: [0; 32], address: "192.0.2.9".into() };
    assert!(!world.revokes("ann", "ann", touch));
    assert_eq!(world.user("ann").sessions[0].address, "192.0.2.9");
    assert!(world.revokes("ann", "ann", session([99; 32], "a")));
    let kept = world.sessions("ann");
    assert_eq!(kept.len(), limits::SESSIONS_PER_USER_MAX);
    assert!(kept.contains(&0) && !kept.contains(&1) && kept.contains(&99), "{kept:?}");
}

#[test]
fn sessions_end_by_themselves_unless_they_are_used() {
    let mut world = World::new();
    world.set_password("ann", "a", None).unwrap();
    world.open("ann", [1; 32], "a").unwrap();
    world.open("ann", [2; 32], "a").unwrap();
    let touch = |hash| Change::TouchSession { hash, address: String::new() };
    for _ in 0..3 {
        world.later(2 * DAY);
        world.change("ann", "ann", touch([1; 32])).unwrap();
    }
    assert_eq!(refused(world.change("ann", "ann", touch([2; 32]))), Code::Forbidden);
    assert_eq!(refused(world.change("bob", "ann", touch([1; 32]))), Code::Forbidden);
    world.later(2 * DAY);
    world.change("ann", "ann", touch([1; 32])).unwrap();
    world.later(2 * DAY);
    assert_eq!(refused(world.change("ann", "ann", touch([1; 32]))), Code::Forbidden, "10 days");
    world.open("ann", [3; 32], "a").unwrap();
    assert_eq!(world.sessions("ann"), [3], "what has ended goes when another begins");
}

#[test]
fn sessions_are_ended_one_by_one_or_but_for_one() {
    let mut world = World::new();
    world.set_password("ann", "a", None).unwrap();
    for n in 1..=4 {
        world.open("ann", [n; 32], "a").unwrap();
    }
    let revoke = |n| Command::RevokeToken { user: id("ann"), token_hash: [n; 32] };
    assert_eq!(refused(world.ask("bob", revoke(1))), Code::Forbidden);
    let before = world.state.revocations();
    assert!(!world.ask("ann", revoke(1)).unwrap().duplicate);
    assert!(world.ask("ann", revoke(1)).unwrap().duplicate);
    assert_eq!(world.state.revocations(), before + 1);
    let end = |keep| Change::EndSessions { keep };
    assert_eq!(refused(world.change("bob", "ann", end(None))), Code::Forbidden);
    assert!(world.revokes("ann", "ann", end(Some([3; 32]))));
    assert!(!world.revokes("ann", "ann", end(Some([3; 32]))), "nothing to end");
    assert_eq!(world.sessions("ann"), [3]);
    assert!(world.revokes("root", "ann", end(None)));
    assert!(world.sessions("ann").is_empty());
}

#[test]
fn a_disabled_user_does_not_sign_in_and_nobody_disables_themselves() {
    let mut world = World::new();
    world.set_password("ann", "a", None).unwrap();
    world.open("ann", [1; 32], "a").unwrap();
    let disable = |disabled| Change::SetDisabled { disabled };
    assert_eq!(refused(world.change("bob", "ann", disable(true))), Code::Forbidden);
    assert_eq!(refused(world.change("ann", "ann", disable(true))), Code::Forbidden);
    assert_eq!(refused(world.change("root", "root", disable(true))), Code::Forbidden);
    assert!(world.revokes("root", "ann", disable(true)));
    assert!(!world.revokes("root", "ann", disable(true)));
    assert!(world.sessions("ann").is_empty());
    assert_eq!(refused(world.open("ann", [2; 32], "a")), Code::Forbidden);
    assert!(!world.revokes("root", "ann", disable(false)));
    world.open("ann", [2; 32], "a").unwrap();
}

#[test]
fn a_profile_is_ones_own_and_on_one_line() {
    let mut world = World::new();
    let set = |name: Option<&str>, status: Option<&str>| Change::SetProfile {
        display_name: name.map(Into::into),
        status: status.map(Into::into),
    };
    world.change("ann", "ann", set(Some("Ann"), Some("at lunch"))).unwrap();
    assert!(world.change("ann", "ann", set(Some("Ann"), None)).unwrap().duplicate);
    assert_eq!(world.user("ann").status, "at lunch");
    assert_eq!(refused(world.change("bob", "ann", set(Some("B"), None))), Code::Forbidden);
    world.change("root", "ann", set(Some(""), Some(""))).unwrap();
    let ann = world.user("ann");
    assert_eq!((ann.display_name.as_str(), ann.status.as_str()), ("ann", ""));
    let long = "x".repeat(limits::STATUS_BYTES_MAX + 1);
    for (name, status) in [
        (None, Some(long.as_str())),
        (Some(long.as_str()), None),
        (Some("a\u{7}"), None),
        (None, Some("a\nb")),
    ] {
        let reply = world.change("ann", "ann", set(name, status));
        assert_eq!(refused(reply), Code::InvalidArgument);
    }
}

#[test]
fn a_token_has_its_scopes_and_its_end_and_makes_room_then() {
    let mut world = World::new();
    let issue = |n: u8, ttl_ms| Change::IssueToken {
        hash: [n; 32],
        label: "bot".into(),
        scopes: Scopes::of([Scope::Read]),
        ttl_ms,
    };
    assert_eq!(refused(world.change("bob", "ann", issue(1, None))), Code::Forbidden);
    for bad in [Some(0), Some(u64::MAX)] {
        assert_eq!(refused(world.change("ann", "ann", issue(1, bad))), Code::InvalidArgument);
    }
    world.change("root", "ann", issue(1, Some(5))).unwrap();
    let token = world.user("ann").tokens.remove(0);
    assert_eq!(token.scopes, Scopes::of([Scope::Read]));
    assert_eq!((token.issued_at_ms, token.expires_at_ms), (NOW, Some(NOW + 5)));
    for n in 2..=limits::TOKENS_PER_USER_MAX as u8 {
        world.change("ann", "ann", issue(n, None)).unwrap();
    }
    assert_eq!(refused(world.change("ann", "ann", issue(99, None))), Code::LimitReached);
    world.later(5);
    world.change("ann", "ann", issue(99, None)).unwrap();
    let tokens: Vec<u8> = world.user("ann").tokens.iter().map(|token| token.hash[0]).collect();
    assert!(!tokens.contains(&1) && tokens.contains(&99), "{tokens:?}");
    // The command of before there were scopes: good for everything, for ever.
    let user = id("bob");
    let old = Command::IssueToken { user, token_hash: [7; 32], label: String::new() };
    world.ask("bob", old).unwrap();
    assert_eq!(world.user("bob").tokens, [Token::new([7; 32], String::new(), NOW + 5)]);
}

#[test]
fn everybody_registers_themselves_once() {
    let mut world = World::new();
    let register =
        |name: &str| Change::Register { display_name: name.into(), password: password("p") };
    assert_eq!(refused(world.change("ann", "cid", register(""))), Code::Forbidden);
    assert_eq!(refused(world.change("root", "cid", register(""))), Code::Forbidden);
    assert_eq!(refused(world.change("ann", "ann", register(""))), Code::AlreadyExists);
    assert_eq!(refused(world.change("cid", "cid", register("a\nb"))), Code::InvalidArgument);
    let reserved = world.change("cluster", "cluster", register(""));
    assert_eq!(refused(reserved), Code::InvalidArgument);
    world.change("cid", "cid", register("")).unwrap();
    let cid = world.user("cid");
    let expected = User::new(id("cid"), "cid".into(), false, NOW);
    assert_eq!(cid, User { password: Some(password("p")), ..expected });
    assert_eq!(refused(world.change("cid", "cid", register(""))), Code::AlreadyExists);
}

#[test]
fn an_invite_lets_in_as_many_as_it_says_each_once() {
    let mut world = World::new();
    let make = |uses_max, ttl_ms| Change::MakeInvite { hash: [1; 32], uses_max, ttl_ms };
    assert_eq!(refused(world.change("ann", "ann", make(1, DAY))), Code::Forbidden);
    assert_eq!(refused(world.change("ann", "root", make(1, DAY))), Code::Forbidden);
    assert_eq!(refused(world.change("root", "ann", make(1, DAY))), Code::Forbidden);
    for (uses, ttl) in [(0, DAY), (101, DAY), (1, 0), (1, u64::MAX)] {
        assert_eq!(refused(world.change("root", "root", make(uses, ttl))), Code::InvalidArgument);
    }
    world.change("root", "root", make(2, DAY)).unwrap();
    let enter = |guest: &str, hash: u8, give_back| Change::UseInvite {
        hash: [hash; 32],
        guest: id(guest),
        give_back,
    };
    assert_eq!(refused(world.change("cid", "root", enter("cid", 2, false))), Code::Forbidden);
    assert_eq!(refused(world.change("cid", "eve", enter("cid", 1, false))), Code::Forbidden);
    assert!(!world.change("cid", "root", enter("cid", 1, false)).unwrap().duplicate);
    assert!(world.change("cid", "root", enter("cid", 1, false)).unwrap().duplicate);
    world.change("dan", "root", enter("dan", 1, false)).unwrap();
    assert_eq!(refused(world.change("eve", "root", enter("eve", 1, false))), Code::Forbidden);
    world.change("dan", "root", enter("dan", 1, true)).unwrap();
    world.change("eve", "root", enter("eve", 1, false)).unwrap();
    assert_eq!(world.user("root").invites[0].used_by, [id("cid"), id("eve")]);
    world.change("eve", "root", enter("eve", 1, true)).unwrap();
    world.later(DAY);
    assert_eq!(refused(world.change("eve", "root", enter("eve", 1, false))), Code::Forbidden);
}

#[test]
fn invites_are_taken_back_and_there_are_only_so_many() {
    let mut world = World::new();
    let make = |n: u8| Change::MakeInvite { hash: [n; 32], uses_max: 1, ttl_ms: DAY };
    for n in 0..limits::INVITES_PER_USER_MAX as u8 {
        world.change("root", "root", make(n)).unwrap();
    }
    assert_eq!(refused(world.change("root", "root", make(99))), Code::LimitReached);
    let take = Change::DropInvite { hash: [3; 32] };
    assert_eq!(refused(world.change("ann", "root", take.clone())), Code::Forbidden);
    world.change("root", "root", take.clone()).unwrap();
    assert!(world.change("root", "root", take).unwrap().duplicate);
    let enter = Change::UseInvite { hash: [3; 32], guest: id("cid"), give_back: false };
    assert_eq!(refused(world.change("cid", "root", enter)), Code::Forbidden);
    world.change("root", "root", make(99)).unwrap();
    world.later(DAY);
    world.change("root", "root", make(100)).unwrap();
    assert_eq!(world.user("root").invites.len(), 1, "those that have expired make room");
}

#[test]
fn a_repeat_of_a_change_has_the_first_outcome() {
    let mut world = World::new();
    world.set_password("ann", "a", None).unwrap();
    let actor = Actor { user: id("ann"), admin: false };
    let same = RequestId::mint(NOW, [200; 10]);
    let mut again = |change: Change| {
        let command = Command::ChangeUser { user: id("ann"), change };
        let request = Request { actor: actor.clone(), id: same, command };
        apply::apply(&mut world.state, request, &mut Vec::new())
    };
    // Another gateway mints another secret.
    assert!(!again(session([1; 32], "a")).unwrap().duplicate);
    assert!(again(session([2; 32], "a")).unwrap().duplicate);
    assert_eq!(refused(again(Change::EndSessions { keep: None })), Code::IdReused);
    assert_eq!(world.sessions("ann"), [1]);
}

#[test]
fn lists_of_users_have_no_secrets() {
    let mut world = World::new();
    world.set_password("ann", "a", None).unwrap();
    world.open("ann", [1; 32], "a").unwrap();
    let anybody = Actor { user: id("bob"), admin: false };
    let list = query(&world.state, &anybody, &Query::Users { after: None, limit: 9 }).unwrap();
    let Answer::Users { users } = list else { panic!("{list:?}") };
    assert_eq!(users.len(), 3);
    assert!(users.iter().all(|user| user.password.is_none() && user.sessions.is_empty()));
    let count = query(&world.state, &anybody, &Query::Revocations).unwrap();
    assert_eq!(count, Answer::Revocations { count: world.state.revocations() });
}
