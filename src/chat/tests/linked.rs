//! Who signs in by a provider of OpenID Connect: whose account it is, and what comes of it.

use super::accounts::{DAY, NOW, World, id, refused};
use crate::chat::account::{Change, Link, User};
use crate::chat::command::{Actor, Command, Done, Rejection};
use crate::chat::query::{Answer, Query, query};
use crate::error::Code;

fn link(subject: &str) -> Link {
    Link { issuer: "https://id.example.org".into(), subject: subject.into() }
}

fn session(n: u8, subject: &str, admin: Option<bool>) -> Change {
    Change::OpenLinkedSession {
        hash: [n; 32],
        link: link(subject),
        admin,
        user_agent: "a browser".into(),
        address: "192.0.2.7".into(),
        ttl_ms: 10 * DAY,
        idle_ms: 3 * DAY,
    }
}

fn register(subject: &str) -> Change {
    Change::RegisterLinked { display_name: "Cid".into(), link: link(subject) }
}

impl World {
    fn claim(&mut self, actor: &str, subject: &str, owner: &str) -> Result<Done, Rejection> {
        let change = Change::ClaimSubject { link: link(subject), user: id(owner) };
        self.ask(actor, Command::ChangeUser { user: link(subject).row(), change })
    }
}

#[test]
fn an_account_of_a_provider_is_one_users_for_good() {
    let mut world = World::new();
    assert!(!world.claim("cid", "1", "cid").unwrap().duplicate);
    assert!(world.claim("cid", "1", "cid").unwrap().duplicate);
    assert_eq!(refused(world.claim("ann", "1", "ann")), Code::AlreadyExists);
    assert_eq!(refused(world.claim("root", "1", "ann")), Code::AlreadyExists);
    assert_eq!(refused(world.claim("ann", "2", "bob")), Code::Forbidden);
    world.claim("root", "2", "bob").unwrap();
    // Another account's row, a user's, and nobody at all.
    let change = Change::ClaimSubject { link: link("3"), user: id("ann") };
    for row in [link("4").row(), id("ann")] {
        let claim = Command::ChangeUser { user: row, change: change.clone() };
        assert_eq!(refused(world.ask("ann", claim)), Code::InvalidArgument);
    }
    assert_eq!(refused(world.claim("ann", "", "ann")), Code::InvalidArgument);
    assert_eq!(refused(world.claim("ann", &"x".repeat(256), "ann")), Code::InvalidArgument);
}

#[test]
fn rows_of_accounts_are_no_users() {
    let mut world = World::new();
    world.claim("ann", "1", "ann").unwrap();
    let actor = Actor { user: id("ann"), admin: false };
    let list = query(&world.state, &actor, &Query::Users { after: None, limit: 9 }).unwrap();
    let Answer::Users { users } = list else { panic!("{list:?}") };
    let names: Vec<_> = users.iter().map(|user| user.id.as_str()).collect();
    assert_eq!(names, ["ann", "bob", "root"]);
    let row = link("1").row();
    let set = Change::SetLink { link: link("2") };
    let set = world.ask("root", Command::ChangeUser { user: row, change: set });
    assert_eq!(refused(set), Code::UserNotFound);
}

#[test]
fn a_name_that_is_somebody_elses_stays_theirs() {
    let mut world = World::new();
    assert_eq!(refused(world.change("ann", "ann", register("1"))), Code::AlreadyExists);
    assert_eq!(refused(world.change("ann", "ann", session(1, "1", None))), Code::Forbidden);
    assert_eq!(refused(world.change("ann", "cid", register("1"))), Code::Forbidden);
    assert_eq!(refused(world.change("cluster", "cluster", register("1"))), Code::InvalidArgument);
    world.change("cid", "cid", register("1")).unwrap();
    assert!(world.change("cid", "cid", register("1")).unwrap().duplicate);
    assert_eq!(refused(world.change("cid", "cid", register("2"))), Code::AlreadyExists);
    let expected = User::new(id("cid"), "Cid".into(), false, NOW);
    assert_eq!(world.user("cid"), User { link: Some(link("1")), ..expected });
}

#[test]
fn a_session_needs_the_account_and_says_who_administers() {
    let mut world = World::new();
    world.change("cid", "cid", register("1")).unwrap();
    assert_eq!(refused(world.change("cid", "cid", session(1, "2", None))), Code::Forbidden);
    assert_eq!(refused(world.change("ann", "cid", session(1, "1", None))), Code::Forbidden);
    assert!(!world.revokes("cid", "cid", session(1, "1", None)));
    assert!(world.revokes("cid", "cid", session(2, "1", Some(true))), "what is remembered is old");
    assert!(world.user("cid").admin);
    assert!(!world.revokes("cid", "cid", session(3, "1", None)));
    assert!(world.user("cid").admin, "the provider has no say in it");
    assert!(world.revokes("cid", "cid", session(4, "1", Some(false))));
    assert!(!world.user("cid").admin);
    assert_eq!(world.sessions("cid"), [1, 2, 3, 4]);
    world.change("root", "cid", Change::SetDisabled { disabled: true }).unwrap();
    let admin = session(5, "1", Some(true));
    assert_eq!(refused(world.change("cid", "cid", admin)), Code::Forbidden);
}

#[test]
fn administrators_link_users() {
    let mut world = World::new();
    let set = |subject: &str| Change::SetLink { link: link(subject) };
    assert_eq!(refused(world.change("ann", "ann", set("1"))), Code::Forbidden);
    assert!(!world.revokes("root", "ann", set("1")));
    assert!(world.change("root", "ann", set("1")).unwrap().duplicate);
    world.change("ann", "ann", session(1, "1", None)).unwrap();
    assert!(world.revokes("root", "ann", set("2")), "tokens of the former account are not valid");
    assert_eq!(refused(world.change("ann", "ann", session(2, "1", None))), Code::Forbidden);
}
