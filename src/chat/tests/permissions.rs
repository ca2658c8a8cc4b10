//! The table of permissions against the rules: every command and every query, as everybody, in every
//! kind of room, archived or not, is answered as the table says. And a room that is hidden from
//! somebody cannot be told from none.

use proptest::prelude::*;

use crate::chat::apply;
use crate::chat::command::{Actor, Command, ImportLine, Rejection, Reply, Request, Restriction};
use crate::chat::event::{EventKind, Role};
use crate::chat::memory::Memory;
use crate::chat::permission::{self, Action, Denial, Who};
use crate::chat::query::{self, Page, Query};
use crate::chat::state::{Retention, RoomKind, State, StateMut};
use crate::error::{Code, Error};
use crate::id::{Epoch, RequestId, RoomId, Seq, UserId};

const KINDS: [RoomKind; 4] =
    [RoomKind::Public, RoomKind::Private, RoomKind::Group, RoomKind::Direct];

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn room_of(kind: RoomKind) -> RoomId {
    RoomId::parse(if kind == RoomKind::Direct { "dm:member:other" } else { "parlour" }).unwrap()
}

/// The user who is this to the room; strangers never get to the rules.
fn actor(who: Who) -> Actor {
    let id = match who {
        Who::Stranger => unreachable!("the gateway knows no stranger's name"),
        who => format!("{who:?}").to_lowercase(),
    };
    Actor { user: user(&id), admin: who == Who::Admin }
}

/// A room of a kind with everybody in it who can be, and a message of each.
struct World {
    state: Memory,
    room: RoomId,
    kind: RoomKind,
    requests: u64,
}

impl World {
    fn new(kind: RoomKind, archived: bool) -> World {
        let mut world = World { state: Memory::default(), room: room_of(kind), kind, requests: 0 };
        world.state.advance_log_time(1_700_000_000_000);
        let creator = match kind {
            RoomKind::Public | RoomKind::Private => actor(Who::Owner),
            RoomKind::Group | RoomKind::Direct => actor(Who::Member),
        };
        let (room, salt) = (world.room.clone(), [1; 16]);
        let epoch = Epoch::mint([1; 8]);
        let title = "Parlour".into();
        world.must(&creator, Command::CreateRoom { room, title, kind, epoch, salt });
        if kind != RoomKind::Direct {
            world.people(&creator);
        }
        let room = world.room.clone();
        if archived {
            let admin = actor(Who::Admin);
            world.must(&admin, Command::Archive { room, withdraw: false, salt });
        }
        world
    }

    /// Brings in everybody else.
    fn people(&mut self, creator: &Actor) {
        let (room, salt) = (self.room.clone(), [1; 16]);
        let admin = actor(Who::Admin);
        let others = ["outsider", "banned", "muted", "member", "moderator", "other", "owner"];
        for id in others {
            let them = Actor { user: user(id), admin: false };
            if them.user == creator.user {
                continue;
            }
            let (user, room) = (them.user.clone(), || room.clone());
            self.must(&admin, Command::Invite { room: room(), user, salt });
            self.must(&them, Command::Join { room: room(), salt });
            if self.kind == RoomKind::Public || self.kind == RoomKind::Private {
                let post = self.post(EventKind::Message, None);
                self.must(&them, post);
            }
        }
        let outsider = Actor { user: user("outsider"), admin: false };
        self.must(&outsider, Command::Leave { room: room.clone(), salt });
        let invite = Command::Invite { room: room.clone(), user: user("invited"), salt };
        self.must(&admin, invite);
        if self.kind == RoomKind::Group {
            return;
        }
        for (id, role) in
            [("moderator", Role::Moderator), ("muted", Role::Muted), ("banned", Role::Banned)]
        {
            let set = Command::SetRole { room: room.clone(), user: user(id), role, salt };
            self.must(creator, set);
        }
    }

    fn post(&self, kind: EventKind, reply_to: Option<Seq>) -> Command {
        Command::Post { room: self.room.clone(), kind, text: "hi".into(), reply_to, salt: [2; 16] }
    }

    fn apply(&mut self, actor: &Actor, command: Command) -> Reply {
        self.requests += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.requests.to_be_bytes());
        let id = RequestId::mint(self.state.log_time_ms(), random);
        let request = Request { actor: actor.clone(), id, command };
        apply::apply(&mut self.state, request, &mut Vec::new())
    }

    fn must(&mut self, actor: &Actor, command: Command) {
        let shown = format!("{command:?}");
        let done = self.apply(actor, command);
        assert!(done.is_ok(), "{shown} by {}: {done:?}", actor.user);
    }

    /// A message that is the actor's own; an admin says it, if need be, where nobody else may.
    fn own_message(&mut self, actor: &Actor) -> Seq {
        let command = self.import(actor);
        self.must(&self::actor(Who::Admin), command);
        self.state.room(&self.room).unwrap().head
    }

    fn import(&self, sender: &Actor) -> Command {
        let line = ImportLine {
            line: self.requests + 1,
            original_at_ms: 1,
            sender: sender.user.clone(),
            original_sender: "x".into(),
            kind: EventKind::Message,
            text: "imported".into(),
        };
        let (room, source) = (self.room.clone(), "log".into());
        Command::Import { room, source, lines: vec![line], salt: [3; 16] }
    }
}

/// A command that stands for an action, aimed so that nothing but permission stands in its way.
fn command_for(action: Action, room: &RoomId, own: Seq, theirs: Seq, fresh: u8) -> Option<Command> {
    let (room, salt, other) = (room.clone(), [9; 16], user("other"));
    let symbol = format!("+{fresh}");
    Some(match action {
        Action::See | Action::Read | Action::SeePresence | Action::Export => return None,
        Action::Join => Command::Join { room, salt },
        Action::Leave => Command::Leave { room, salt },
        Action::Post => Command::Post {
            room,
            kind: EventKind::Action,
            text: "waves".into(),
            reply_to: Some(theirs),
            salt,
        },
        Action::React => Command::React { room, target: theirs, symbol, withdraw: false, salt },
        Action::EditOwn => Command::Edit { room, target: own, text: "ho".into(), salt },
        Action::RedactOwn => Command::Redact { room, target: own, salt },
        Action::RedactOthers => Command::Redact { room, target: theirs, salt },
        Action::SetTopic => Command::SetTopic { room, topic: symbol, salt },
        Action::Pin => Command::Pin { room, target: theirs, withdraw: false, salt },
        Action::Invite => Command::Invite { room, user: user("newcomer"), salt },
        Action::Kick => Command::Kick { room, user: other, reason: String::new(), salt },
        Action::Mute | Action::Ban => Command::Restrict {
            room,
            user: other,
            restriction: match action {
                Action::Mute => Restriction::Mute,
                _ => Restriction::Ban,
            },
            for_ms: 1000 + u64::from(fresh),
            reason: "why".into(),
            salt,
        },
        Action::MarkRead => Command::MarkRead { room, seq: theirs },
        Action::SetRole => Command::SetRole { room, user: other, role: Role::Moderator, salt },
        Action::SetRetention => {
            let retention = Retention { max_age_ms: 0, max_events: 1_000_000 };
            Command::SetRetention { room, retention, salt }
        }
        Action::Archive => Command::Archive { room, withdraw: fresh % 2 == 1, salt },
        Action::Import => Command::Import {
            room,
            source: "more".into(),
            lines: vec![ImportLine {
                line: 1,
                original_at_ms: 1,
                sender: other,
                original_sender: String::new(),
                kind: EventKind::Notice,
                text: "x".into(),
            }],
            salt,
        },
    })
}

/// The queries on one room, with the action that each needs.
fn queries(room: &RoomId, root: Seq) -> Vec<(Action, Query)> {
    let room = || room.clone();
    vec![
        (Action::See, Query::Room { room: room() }),
        (Action::See, Query::Participants { room: room(), after: None, limit: 10 }),
        (Action::Read, Query::Events { room: room(), page: Page::Newest, limit: 10 }),
        (Action::Read, Query::Thread { room: room(), root, page: Page::Newest, limit: 10 }),
        (Action::Export, Query::Export { room: room(), after: Seq(0), limit: 10 }),
    ]
}

fn code_of(denial: Denial) -> Code {
    match denial {
        Denial::Unauthenticated => Code::Unauthenticated,
        Denial::Hidden => Code::RoomNotFound,
        Denial::Banned => Code::Banned,
        Denial::NotParticipant => Code::NotParticipant,
        Denial::Muted => Code::Muted,
        Denial::Forbidden(_) => Code::Forbidden,
        Denial::WrongRoomKind => Code::WrongRoomKind,
        Denial::Archived => Code::Archived,
    }
}

/// What the table says to an action, as a code.
fn wanted(kind: RoomKind, archived: bool, who: Who, action: Action) -> Option<Code> {
    permission::ask(kind, archived, who, action).err().map(code_of)
}

/// Whether a rule besides the table stands in the way, whoever asks.
fn other_rule(kind: RoomKind, archived: bool, who: Who, action: Action) -> Option<Code> {
    let last_owner = who == Who::Owner && !archived && action == Action::Leave;
    let own = action == Action::Leave && kind != RoomKind::Direct || action == Action::MarkRead;
    let not_in = who == Who::Admin && own;
    match () {
        () if last_owner => Some(Code::Forbidden),
        () if not_in => Some(Code::NotParticipant),
        () => None,
    }
}

fn people(kind: RoomKind) -> impl Iterator<Item = Who> {
    let here = move |who: &Who| *who != Who::Stranger && permission::occurs(kind, *who);
    Who::ALL.into_iter().filter(here)
}

#[test]
fn every_command_is_answered_as_the_table_says() {
    let mut asked = 0;
    for kind in KINDS {
        for archived in [false, true] {
            for who in people(kind) {
                for action in Action::ALL {
                    asked += usize::from(check_command(kind, archived, who, *action));
                }
            }
        }
    }
    assert!(asked > 700, "{asked} commands");
}

/// Whether there is a command, and it was answered right.
fn check_command(kind: RoomKind, archived: bool, who: Who, action: Action) -> bool {
    let mut world = World::new(kind, false);
    let actor = actor(who);
    let (own, theirs) = match kind {
        // Nothing is imported there.
        RoomKind::Direct => {
            let member = self::actor(Who::Member);
            let other = Actor { user: user("other"), admin: false };
            for them in [&member, &other] {
                let post = world.post(EventKind::Message, None);
                world.must(them, post);
            }
            let head = world.state.room(&world.room).unwrap().head;
            (Seq(head.0 - 1), head)
        }
        _ => {
            let own = world.own_message(&actor);
            let other = Actor { user: user("other"), admin: false };
            (own, world.own_message(&other))
        }
    };
    if archived {
        let (room, salt) = (world.room.clone(), [1; 16]);
        let archive = Command::Archive { room, withdraw: false, salt };
        world.must(&self::actor(Who::Admin), archive);
    }
    let fresh = u8::from(archived);
    let Some(command) = command_for(action, &world.room, own, theirs, fresh) else { return false };
    // An own message there is in a direct room of one of the two only.
    let about_own = matches!(action, Action::EditOwn | Action::RedactOwn);
    if kind == RoomKind::Direct && about_own && who == Who::Admin {
        return false;
    }
    let before = world.state.clone();
    let reply = world.apply(&actor, command.clone());
    let got = reply.as_ref().err().map(Rejection::code);
    let mut wanted = wanted(kind, archived, who, action);
    // Whether a message is one's own, is seen by those only who may read.
    let redacts = matches!(action, Action::RedactOwn | Action::RedactOthers);
    if redacts && let Some(unread) = self::wanted(kind, archived, who, Action::Read) {
        wanted = Some(unread);
    }
    let wanted = wanted.or_else(|| other_rule(kind, archived, who, action));
    assert_eq!(got, wanted, "{who:?} in a {kind:?} room, archived: {archived}: {command:?}");
    if got.is_some() {
        assert!(before == world.state, "refused, and changed something: {command:?}");
    }
    true
}

#[test]
fn every_query_is_answered_as_the_table_says() {
    for kind in KINDS {
        for archived in [false, true] {
            for who in people(kind) {
                let mut world = World::new(kind, false);
                let root = match kind {
                    RoomKind::Direct => {
                        let post = world.post(EventKind::Message, None);
                        world.must(&actor(Who::Member), post);
                        world.state.room(&world.room).unwrap().head
                    }
                    _ => world.own_message(&actor(Who::Member)),
                };
                if archived {
                    let (room, salt) = (world.room.clone(), [1; 16]);
                    let archive = Command::Archive { room, withdraw: false, salt };
                    world.must(&actor(Who::Admin), archive);
                }
                for (action, query) in queries(&world.room, root) {
                    let got = query::query(&world.state, &actor(who), &query);
                    let got = got.err().map(|error: Error| error.code);
                    let wanted = wanted(kind, archived, who, action);
                    assert_eq!(got, wanted, "{who:?} in a {kind:?} room: {query:?}");
                }
                let listed = listed(&world.state, &actor(who), &world.room);
                let seen = permission::ask(kind, archived, who, Action::See).is_ok();
                assert_eq!(listed, seen, "{who:?} in a {kind:?} room");
            }
        }
    }
}

/// Whether a list of rooms has this one, by whatever is searched for.
fn listed(state: &Memory, actor: &Actor, room: &RoomId) -> bool {
    let mut found = ["", "parlour", "PARLOUR", "dm:"].into_iter().map(|search| {
        let query = Query::Rooms { after: None, limit: 100, search: search.into() };
        match query::query(state, actor, &query) {
            Ok(query::Answer::Rooms { rooms }) => rooms.iter().any(|found| found.id == *room),
            other => panic!("{other:?}"),
        }
    });
    found.any(|found| found)
}

fn action() -> impl Strategy<Value = Action> {
    (0..Action::ALL.len()).prop_map(|n| Action::ALL[n])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happened in a hidden room before, to those who may not know of it it is none: the
    /// answers are those of a room that does not exist, but for its name.
    #[test]
    fn a_hidden_room_cannot_be_told_from_none(
        kind in prop_oneof![Just(RoomKind::Private), Just(RoomKind::Group), Just(RoomKind::Direct)],
        archived in any::<bool>(),
        banned in any::<bool>(),
        target in 0..40u64,
        actions in prop::collection::vec((action(), any::<u8>()), 1..12),
    ) {
        let mut world = World::new(kind, archived);
        let nobody = Actor { user: user("eve"), admin: false };
        if banned && kind == RoomKind::Private {
            let (room, reason) = (world.room.clone(), String::new());
            let restriction = Restriction::Ban;
            let ban = Command::Restrict {
                room, user: user("eve"), restriction, for_ms: 0, reason, salt: [1; 16],
            };
            world.must(&actor(Who::Admin), ban);
        }
        let missing = RoomId::parse(match kind {
            RoomKind::Direct => "dm:member:nobody",
            _ => "missing",
        }).unwrap();
        let room = world.room.clone();
        let before = world.state.clone();
        for (action, fresh) in actions {
            let target = Seq(target.max(1));
            let ask = |room: &RoomId| command_for(action, room, target, target, fresh);
            if let (Some(here), Some(nowhere)) = (ask(&room), ask(&missing)) {
                let here = world.apply(&nobody, here);
                let nowhere = world.apply(&nobody, nowhere);
                prop_assert_eq!(here, Err(Rejection::RoomNotFound(room.clone())));
                prop_assert_eq!(nowhere, Err(Rejection::RoomNotFound(missing.clone())));
            }
            for ((_, here), (_, nowhere)) in
                queries(&room, target).into_iter().zip(queries(&missing, target))
            {
                let said = |query: &Query, name: &RoomId| {
                    let error = query::query(&world.state, &nobody, query).unwrap_err();
                    (error.code, error.message.replace(name.as_str(), "…"))
                };
                prop_assert_eq!(said(&here, &room), said(&nowhere, &missing));
            }
        }
        prop_assert!(!listed(&world.state, &nobody, &room));
        prop_assert!(before == world.state);
    }
}
