//! A small world over the real rules, in memory: what the gateway of `bodies` and `frames` asks.
//!
//! `root` administers; `ann` owns `general`, `den` (private, keeps five events) and `old` (archived), and has made
//! `crew` (a group); `bob` is in all of them and writes to `ann`; `meg` moderates, `dan` is banned, `mia` is muted; `eve` is in none.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use folkmoot::chat::account::{Change, Scope, Scopes};
use folkmoot::chat::apply;
use folkmoot::chat::codec;
use folkmoot::chat::command::{Actor, Command, Restriction};
use folkmoot::chat::command::{Done, Request};
use folkmoot::chat::event::{EventKind, Role};
use folkmoot::chat::memory::Memory;
use folkmoot::chat::state::{Retention, RoomKind};
use folkmoot::clock::Clock;
use folkmoot::error::Error;
use folkmoot::gateway::auth::Credentials;
use folkmoot::id::{Epoch, RequestId, RoomId, Seq, UserId};
use folkmoot::presence::Presence;
use tokio::sync::watch;

/// When everything happens, in milliseconds since the Unix epoch.
pub const NOW_MS: u64 = 1_700_000_000_000;
/// Users there are, in the order in which inputs name them.
pub const USERS: [&str; 7] = ["eve", "bob", "ann", "root", "dan", "mia", "meg"];
/// Rooms there are, in the order in which inputs name them.
pub const ROOMS: [&str; 5] = ["general", "den", "dm:ann:bob", "crew", "old"];
const SALT: [u8; 16] = [9; 16];

/// A clock that stands.
#[derive(Debug)]
pub struct FixedClock;

impl Clock for FixedClock {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }
}

/// The token of a user; `kind` 1 is good for everything, 2 for reading only.
pub fn token(user: &str, kind: u8) -> String {
    format!("fm_{user}_{}", format!("{kind:02x}").repeat(32))
}

fn hash(user: &str, kind: u8) -> [u8; 32] {
    *Credentials::parse(&token(user, kind)).expect("it is well-formed").hash()
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn room(id: &str) -> RoomId {
    RoomId::parse(id).unwrap()
}

struct Maker {
    state: Memory,
    made: u8,
}

impl Maker {
    fn does(&mut self, who: &str, command: Command) {
        self.made += 1;
        let id = RequestId::mint(NOW_MS - 1_000_000, [self.made; 10]);
        let actor = Actor { user: user(who), admin: who == "root" };
        let request = Request { actor, id, command };
        let done = apply::apply(&mut self.state, request.clone(), &mut Vec::new());
        done.unwrap_or_else(|rejection| panic!("{rejection}: {request:?}"));
    }

    fn users(&mut self) {
        for id in USERS {
            let (display_name, admin) = (id.to_owned(), id == "root");
            let token_hash = Some(hash(id, 1));
            let user = user(id);
            self.does("root", Command::CreateUser { user, display_name, admin, token_hash });
        }
        let (hash, label) = (hash("bob", 2), "bot".to_owned());
        let scopes = Scopes::of([Scope::Read]);
        let change = Change::IssueToken { hash, label, scopes, ttl_ms: Some(86_400_000) };
        self.does("bob", Command::ChangeUser { user: user("bob"), change });
        let change = Change::SetProfile { display_name: None, status: Some("at tea".into()) };
        self.does("ann", Command::ChangeUser { user: user("ann"), change });
    }

    fn rooms(&mut self) {
        let kinds = [
            RoomKind::Public,
            RoomKind::Private,
            RoomKind::Direct,
            RoomKind::Group,
            RoomKind::Public,
        ];
        for (id, kind) in ROOMS.into_iter().zip(kinds) {
            let (title, epoch) = (format!("Room {id}"), Epoch::parse("e1").unwrap());
            let room = room(id);
            self.does("ann", Command::CreateRoom { room, title, kind, epoch, salt: SALT });
        }
        for id in ["general", "old"] {
            for who in ["bob", "meg", "mia"] {
                self.does(who, Command::Join { room: room(id), salt: SALT });
            }
        }
        for id in ["den", "crew"] {
            self.does("ann", Command::Invite { room: room(id), user: user("bob"), salt: SALT });
            self.does("bob", Command::Join { room: room(id), salt: SALT });
        }
        let (general, salt) = (room("general"), SALT);
        let (meg, role) = (user("meg"), Role::Moderator);
        self.does("ann", Command::SetRole { room: general.clone(), user: meg, role, salt });
        for (who, restriction) in [("dan", Restriction::Ban), ("mia", Restriction::Mute)] {
            let (room, user, reason) = (general.clone(), user(who), "noise".to_owned());
            let restrict =
                Command::Restrict { room, user, restriction, for_ms: 3_600_000, reason, salt };
            self.does("meg", restrict);
        }
    }

    fn messages(&mut self) {
        let (general, salt) = (room("general"), SALT);
        let head = |state: &Memory| {
            use folkmoot::chat::state::State as _;
            state.room(&room("general")).map_or(Seq(0), |room| room.head)
        };
        let post = |room: &RoomId, text: &str, reply_to| Command::Post {
            room: room.clone(),
            kind: EventKind::Message,
            text: text.into(),
            reply_to,
            salt,
        };
        self.does("ann", post(&general, "tea at four, @bob?", None));
        let target = head(&self.state);
        self.does("bob", post(&general, "gladly", Some(target)));
        let text = "tea at five, @bob?".to_owned();
        self.does("ann", Command::Edit { room: general.clone(), target, text, salt });
        let (symbol, withdraw) = ("+1".to_owned(), false);
        self.does("bob", Command::React { room: general.clone(), target, symbol, withdraw, salt });
        self.does("ann", Command::Pin { room: general.clone(), target, withdraw, salt });
        self.does("bob", post(&general, "not meant for here", None));
        let target = head(&self.state);
        self.does("meg", Command::Redact { room: general.clone(), target, salt });
        self.does("ann", Command::SetTopic { room: general.clone(), topic: "tea".into(), salt });
        self.does("bob", Command::MarkRead { room: general, seq: target });
        for id in &ROOMS[1..] {
            self.does("ann", post(&room(id), "hello", None));
        }
        let retention = Retention { max_age_ms: 0, max_events: 5 };
        self.does("ann", Command::SetRetention { room: room("den"), retention, salt });
        self.does("ann", Command::Archive { room: room("old"), withdraw: false, salt });
    }
}

/// The world as each input finds it.
pub fn start() -> Memory {
    let mut maker = Maker { state: Memory::default(), made: 0 };
    apply::apply_batch(&mut maker.state, NOW_MS - 1000, &[], |_, _| (), &mut Vec::new());
    maker.users();
    maker.rooms();
    maker.messages();
    // Or the first request that is refused would move the time on.
    apply::apply_batch(&mut maker.state, NOW_MS, &[], |_, _| (), &mut Vec::new());
    maker.state
}

/// What the backend is about.
pub struct World {
    start: Memory,
    state: Mutex<Memory>,
    /// Rises with every command.
    pub(super) changed: watch::Sender<u64>,
    pub(super) presence: Arc<Presence>,
}

impl World {
    /// One that is as it begins.
    pub fn new() -> Arc<World> {
        let start = start();
        Arc::new(World {
            state: Mutex::new(start.clone()),
            start,
            changed: watch::channel(0).0,
            presence: Presence::new(Arc::new(FixedClock)),
        })
    }

    /// Makes everything as it was in the beginning.
    pub fn reset(&self) {
        *self.lock() = self.start.clone();
    }

    /// What there is now. Rows are shared: it costs little.
    pub fn snapshot(&self) -> Memory {
        self.lock().clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Memory> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a request as a shard does, by way of its bytes and those of the reply.
    pub(super) fn execute(&self, request: &Request) -> Result<Done, Error> {
        let bytes = codec::encode_request(request);
        let mut replied = None;
        let mut state = self.lock();
        let reply = |_, reply| replied = Some(reply);
        apply::apply_batch(&mut *state, NOW_MS, &[bytes], reply, &mut Vec::new());
        drop(state);
        self.changed.send_modify(|n| *n += 1);
        let reply = replied.expect("each request has a reply");
        let again = codec::decode_reply(codec::encode_reply(&reply)).expect("it was encoded here");
        assert_eq!(again, reply);
        Ok(reply?)
    }
}
