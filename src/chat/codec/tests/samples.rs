//! One value of each kind, with everything set: pinned, or too intricate for a strategy.

use std::sync::Arc;

use crate::chat::account::{Change, Invite, Link, Password, Scope, Scopes, Session};
use crate::chat::command::{Command, ImportLine, Rejection, Restriction};
use crate::chat::event::{Body, Event, EventKind, Role};
use crate::chat::query::{Annotated, Answer, Events, OwnRoom, Unread};
use crate::chat::state::{Notes, Part, Participant, Retention, Room, RoomKind, Token, User};
use crate::id::{Epoch, RequestId, RoomId, Seq, UserId};

/// One of each.
pub(super) fn rejections() -> Vec<Rejection> {
    let room = || RoomId::parse("general").unwrap();
    let all = vec![
        Rejection::InvalidArgument("why".into()),
        Rejection::TooLarge { max: 7 },
        Rejection::RoomNotFound(room()),
        Rejection::UserNotFound(UserId::parse("ann").unwrap()),
        Rejection::EventNotFound { room: room(), seq: Seq(3) },
        Rejection::AlreadyExists("room general".into()),
        Rejection::NotParticipant(room()),
        Rejection::Muted(room()),
        Rejection::Banned(room()),
        Rejection::Forbidden("why".into()),
        Rejection::WrongRoomKind("direct"),
        Rejection::IdReused,
        Rejection::Expired { horizon_ms: 5 },
        Rejection::ClockSkew { server_time_ms: 6 },
        Rejection::Redacted,
        Rejection::LimitReached("why".into()),
        Rejection::Undecodable,
        Rejection::NotInRoom { room: room(), user: UserId::parse("ann").unwrap() },
        Rejection::Archived(room()),
    ];
    // A new rejection needs a place above, and a row in the codec's table.
    for rejection in &all {
        match rejection {
            Rejection::InvalidArgument(_) | Rejection::TooLarge { .. } => {}
            Rejection::RoomNotFound(_) | Rejection::UserNotFound(_) => {}
            Rejection::EventNotFound { .. } | Rejection::AlreadyExists(_) => {}
            Rejection::NotParticipant(_) | Rejection::Muted(_) | Rejection::Banned(_) => {}
            Rejection::Forbidden(_) | Rejection::WrongRoomKind(_) | Rejection::IdReused => {}
            Rejection::Expired { .. } | Rejection::ClockSkew { .. } | Rejection::Redacted => {}
            Rejection::LimitReached(_) | Rejection::Undecodable => {}
            Rejection::NotInRoom { .. } | Rejection::Archived(_) => {}
        }
    }
    all
}

/// One answer of each kind, with everything set.
pub(super) fn answers() -> Vec<Answer> {
    let ann = UserId::parse("ann").unwrap();
    let room = Arc::new(Room {
        id: RoomId::parse("general").unwrap(),
        kind: RoomKind::Private,
        title: "General".into(),
        topic: "talk".into(),
        epoch: Epoch::parse("e1").unwrap(),
        first_seq: Seq(2),
        head: Seq(9),
        chain: [1; 32],
        chain_base: [2; 32],
        participants: 3,
        created_at_ms: 1000,
        creator: ann.clone(),
        archived: true,
        pins: vec![Seq(7), Seq(3)],
        retention: Retention { max_age_ms: 1000, max_events: 100 },
    });
    let invited = Participant {
        role: Role::Muted,
        since_ms: 1000,
        until_ms: Some(2000),
        part: Part::Invited,
        read: Seq(4),
    };
    let user = Arc::new(User {
        tokens: vec![
            Token::new([3; 32], "laptop".into(), 1001),
            Token {
                scopes: Scopes::of([Scope::Read]),
                expires_at_ms: Some(9),
                ..Token::new([4; 32], "bot".into(), 1002)
            },
        ],
        status: "away".into(),
        disabled: true,
        password: Password::parse("$argon2id$v=19$x"),
        sessions: vec![Session {
            hash: [5; 32],
            created_at_ms: 1,
            used_at_ms: 2,
            expires_at_ms: 3,
            idle_ms: 4,
            user_agent: "a browser".into(),
            address: "192.0.2.7".into(),
        }],
        invites: vec![Invite {
            hash: [6; 32],
            created_at_ms: 1,
            expires_at_ms: 2,
            uses_max: 3,
            used_by: vec![ann.clone()],
        }],
        link: Some(link()),
        stands_for: Some(ann.clone()),
        ..User::new(ann.clone(), "Ann".into(), true, 1000)
    });
    let notes = Notes {
        edits: vec![Seq(3)],
        reactions: vec![("+1".into(), vec![ann.clone()])],
        redacted_by: Some(Seq(8)),
        replies: Vec::new(),
    };
    let [event, erased] = events().map(Arc::new);
    let annotated = Annotated {
        event: event.clone(),
        notes: Some(Arc::new(notes)),
        edits: vec![(Seq(3), 1002, "edited".into())],
        replies: Some((2, Seq(9))),
    };
    let plain = Annotated { event: erased.clone(), notes: None, edits: Vec::new(), replies: None };
    vec![
        Answer::Room {
            room: room.clone(),
            participants: vec![(ann.clone(), invited.clone())],
            sees_presence: true,
        },
        Answer::Rooms { rooms: vec![room.clone()] },
        Answer::Events(Events {
            epoch: room.epoch.clone(),
            first_seq: Seq(2),
            head: Seq(9),
            recovered: false,
            events: vec![annotated, plain],
        }),
        Answer::Mine {
            rooms: vec![OwnRoom {
                room: room.clone(),
                own: (ann, invited),
                unread: Unread { messages: 5, mentions: 1, more: true },
            }],
            next: Some(room.id.clone()),
        },
        Answer::Export { room, events: vec![event, erased] },
        Answer::User { user: user.clone() },
        Answer::Users { users: vec![user] },
        Answer::Revocations { count: 7 },
    ]
}

fn link() -> Link {
    Link { issuer: "https://id.example.org".into(), subject: "7f3a".into() }
}

/// One change of a user of each kind.
pub(super) fn changes() -> Vec<Change> {
    let (hash, keep, previous) = ([3; 32], Some([4; 32]), Some([5; 16]));
    let password = || Password::parse("$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA").unwrap();
    let (user_agent, address) = ("a browser".to_owned(), "192.0.2.7".to_owned());
    vec![
        Change::SetPassword { password: password(), previous, keep },
        Change::OpenSession {
            hash,
            password: [5; 16],
            user_agent,
            address: address.clone(),
            ttl_ms: 9,
            idle_ms: 8,
        },
        Change::TouchSession { hash, address },
        Change::EndSessions { keep },
        Change::SetDisabled { disabled: true },
        Change::SetProfile { display_name: Some("Bob".into()), status: Some(String::new()) },
        Change::IssueToken {
            hash,
            label: "bot".into(),
            scopes: Scopes::of([Scope::Read, Scope::Post]),
            ttl_ms: Some(7),
        },
        Change::Register { display_name: "Bob".into(), password: password() },
        Change::MakeInvite { hash, uses_max: 2, ttl_ms: 6 },
        Change::DropInvite { hash },
        Change::UseInvite { hash, guest: UserId::parse("cid").unwrap(), give_back: true },
        Change::ClaimSubject { link: link(), user: UserId::parse("cid").unwrap() },
        Change::RegisterLinked { display_name: "Bob".into(), link: link() },
        Change::OpenLinkedSession {
            hash,
            link: link(),
            admin: Some(false),
            user_agent: "a browser".into(),
            address: "192.0.2.7".into(),
            ttl_ms: 9,
            idle_ms: 8,
        },
        Change::SetLink { link: link() },
    ]
}

/// Two events that have everything set between them.
pub(super) fn events() -> [Event; 2] {
    let event = Event {
        seq: Seq(7),
        at_ms: 1_700_000_000_000,
        sender: UserId::parse("ann").unwrap(),
        kind: EventKind::Message,
        request_id: RequestId::mint(1_700_000_000_000, [7; 10]),
        target: Some(Seq(5)),
        subject: Some(UserId::parse("bob").unwrap()),
        role: Some(Role::Muted),
        withdrawn: true,
        until_ms: None,
        original_at_ms: Some(1000),
        original_sender: Some("Ann|away".into()),
        body: Body::Present { salt: [9; 16], text: "hi".into() },
    };
    let erased = event.erased();
    [event, erased]
}

/// An event with every field set, those that an import may leave empty to that.
pub(crate) fn imported_event() -> Event {
    let [event, _] = events();
    Event {
        seq: Seq(300),
        kind: EventKind::Role,
        request_id: RequestId::mint(1_700_000_000_001, [5; 10]),
        target: Some(Seq(7)),
        original_at_ms: Some(0),
        original_sender: Some(String::new()),
        body: Body::Present { salt: [9; 16], text: "hello".into() },
        ..event
    }
}

/// One command of each kind.
pub(super) fn commands() -> Vec<Command> {
    let room = || RoomId::parse("general").unwrap();
    let user = || UserId::parse("bob").unwrap();
    let (salt, target) = ([9; 16], Seq(5));
    let changes = changes().into_iter().map(|change| Command::ChangeUser { user: user(), change });
    let mut commands = vec![
        Command::CreateUser {
            user: user(),
            display_name: "Bob".into(),
            admin: true,
            token_hash: Some([3; 32]),
        },
        Command::IssueToken { user: user(), token_hash: [3; 32], label: "laptop".into() },
        Command::RevokeToken { user: user(), token_hash: [3; 32] },
        Command::CreateRoom {
            room: RoomId::parse("dm:ann:bob").unwrap(),
            title: "Us".into(),
            kind: RoomKind::Direct,
            epoch: Epoch::parse("e1").unwrap(),
            salt,
        },
        Command::Join { room: room(), salt },
        Command::Leave { room: room(), salt },
        Command::Post {
            room: room(),
            kind: EventKind::Action,
            text: "waves".into(),
            reply_to: Some(target),
            salt,
        },
        Command::Edit { room: room(), target, text: "nods".into(), salt },
        Command::Redact { room: room(), target, salt },
        Command::React { room: room(), target, symbol: "+1".into(), withdraw: true, salt },
        Command::SetRole { room: room(), user: user(), role: Role::Moderator, salt },
        Command::Import {
            room: room(),
            source: "irc.log".into(),
            lines: vec![ImportLine {
                line: 4,
                original_at_ms: 1000,
                sender: user(),
                original_sender: "Bob".into(),
                kind: EventKind::Notice,
                text: "joins".into(),
            }],
            salt,
        },
        Command::Invite { room: room(), user: user(), salt },
        Command::Kick { room: room(), user: user(), reason: "spam".into(), salt },
        Command::Restrict {
            room: room(),
            user: user(),
            restriction: Restriction::Ban,
            for_ms: 60_000,
            reason: "spam".into(),
            salt,
        },
        Command::Lift { room: room(), user: user(), restriction: Restriction::Mute, salt },
        Command::SetTopic { room: room(), topic: "talk".into(), salt },
        Command::Pin { room: room(), target, withdraw: true, salt },
        Command::Archive { room: room(), withdraw: true, salt },
        Command::SetRetention {
            room: room(),
            retention: Retention { max_age_ms: 86_400_000, max_events: 1000 },
            salt,
        },
        Command::Trim { room: room(), salt },
        Command::MarkRead { room: room(), seq: target },
    ];
    commands.extend(changes);
    commands
}
