//! Arbitrary valid values, for round trips.

use proptest::prelude::*;

use super::samples::{changes, rejections};
use crate::chat::command::{
    Actor, Command, Done, ImportLine, Imported, Reply, Request, Restriction,
};
use crate::chat::event::{Body, Event, EventKind, Role};
use crate::chat::query::{Page, Query};
use crate::chat::state::{Retention, RoomKind};
use crate::id::{Cursor, Epoch, RequestId, RoomId, Seq, UserId};

pub(crate) fn user() -> impl Strategy<Value = UserId> {
    "[a-z0-9][a-z0-9._-]{0,63}".prop_map(|s| UserId::parse(&s).unwrap())
}

pub(crate) fn room() -> impl Strategy<Value = RoomId> {
    prop_oneof![
        3 => "[a-z0-9][a-z0-9._-]{0,63}".prop_map(|s| RoomId::parse(&s).unwrap()),
        1 => ("a[a-z]{0,9}", "b[a-z]{0,9}")
            .prop_map(|(a, b)| RoomId::parse(&format!("dm:{a}:{b}")).unwrap()),
    ]
}

pub(super) fn request_id() -> impl Strategy<Value = RequestId> {
    (0..1u64 << 48, any::<[u8; 10]>()).prop_map(|(ms, random)| RequestId::mint(ms, random))
}

pub(crate) fn epoch() -> impl Strategy<Value = Epoch> {
    "[0-9a-zA-Z]{1,32}".prop_map(|s| Epoch::parse(&s).unwrap())
}

pub(crate) fn seq() -> impl Strategy<Value = Seq> {
    prop_oneof![1..100u64, 1..=u64::MAX].prop_map(Seq)
}

pub(super) fn event_kind() -> impl Strategy<Value = EventKind> {
    (1..=15u32).prop_map(|n| EventKind::from_number(n).unwrap())
}

pub(crate) fn role() -> impl Strategy<Value = Role> {
    (1..=5u32).prop_map(|n| Role::from_number(n).unwrap())
}

pub(crate) fn room_kind() -> impl Strategy<Value = RoomKind> {
    (1..=4u32).prop_map(|n| RoomKind::from_number(n).unwrap())
}

pub(super) fn actor() -> impl Strategy<Value = Actor> {
    (user(), any::<bool>()).prop_map(|(user, admin)| Actor { user, admin })
}

pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), Just(String::new())]
}

pub(super) fn import_line() -> impl Strategy<Value = ImportLine> {
    (any::<u64>(), any::<u64>(), user(), text(), event_kind(), text()).prop_map(
        |(line, original_at_ms, sender, original_sender, kind, text)| ImportLine {
            line,
            original_at_ms,
            sender,
            original_sender,
            kind,
            text,
        },
    )
}

pub(super) fn command() -> impl Strategy<Value = Command> {
    let salt = any::<[u8; 16]>;
    let hash = any::<[u8; 32]>;
    prop_oneof![
        (user(), text(), any::<bool>(), proptest::option::of(hash())).prop_map(
            |(user, display_name, admin, token_hash)| Command::CreateUser {
                user,
                display_name,
                admin,
                token_hash
            }
        ),
        (user(), hash(), text()).prop_map(|(user, token_hash, label)| Command::IssueToken {
            user,
            token_hash,
            label
        }),
        (user(), hash()).prop_map(|(user, token_hash)| Command::RevokeToken { user, token_hash }),
        (user(), 0..changes().len())
            .prop_map(|(user, n)| Command::ChangeUser { user, change: changes().swap_remove(n) }),
        (room(), text(), room_kind(), epoch(), salt()).prop_map(
            |(room, title, kind, epoch, salt)| Command::CreateRoom {
                room,
                title,
                kind,
                epoch,
                salt
            }
        ),
        (room(), salt()).prop_map(|(room, salt)| Command::Join { room, salt }),
        (room(), salt()).prop_map(|(room, salt)| Command::Leave { room, salt }),
        (room(), event_kind(), text(), proptest::option::of(seq()), salt()).prop_map(
            |(room, kind, text, reply_to, salt)| Command::Post { room, kind, text, reply_to, salt }
        ),
        (room(), seq(), text(), salt()).prop_map(|(room, target, text, salt)| Command::Edit {
            room,
            target,
            text,
            salt
        }),
        (room(), seq(), salt()).prop_map(|(room, target, salt)| Command::Redact {
            room,
            target,
            salt
        }),
        (room(), seq(), text(), any::<bool>(), salt()).prop_map(
            |(room, target, symbol, withdraw, salt)| Command::React {
                room,
                target,
                symbol,
                withdraw,
                salt
            }
        ),
        (room(), user(), role(), salt()).prop_map(|(room, user, role, salt)| Command::SetRole {
            room,
            user,
            role,
            salt
        }),
        (room(), text(), prop::collection::vec(import_line(), 0..4), salt())
            .prop_map(|(room, source, lines, salt)| Command::Import { room, source, lines, salt }),
        moderation(),
    ]
}

/// The commands on who is in a room, and on the room itself.
fn moderation() -> impl Strategy<Value = Command> {
    let salt = any::<[u8; 16]>;
    let restriction = || (1..=2u32).prop_map(|n| Restriction::from_number(n).unwrap());
    prop_oneof![
        (room(), user(), salt()).prop_map(|(room, user, salt)| Command::Invite {
            room,
            user,
            salt
        }),
        (room(), user(), text(), salt()).prop_map(|(room, user, reason, salt)| Command::Kick {
            room,
            user,
            reason,
            salt
        }),
        (room(), user(), restriction(), any::<u64>(), text(), salt()).prop_map(
            |(room, user, restriction, for_ms, reason, salt)| Command::Restrict {
                room,
                user,
                restriction,
                for_ms,
                reason,
                salt
            }
        ),
        (room(), user(), restriction(), salt()).prop_map(|(room, user, restriction, salt)| {
            Command::Lift { room, user, restriction, salt }
        }),
        (room(), text(), salt()).prop_map(|(room, topic, salt)| Command::SetTopic {
            room,
            topic,
            salt
        }),
        (room(), seq(), any::<bool>(), salt()).prop_map(|(room, target, withdraw, salt)| {
            Command::Pin { room, target, withdraw, salt }
        }),
        (room(), any::<bool>(), salt()).prop_map(|(room, withdraw, salt)| Command::Archive {
            room,
            withdraw,
            salt
        }),
        (room(), any::<[u64; 2]>(), salt()).prop_map(|(room, [max_age_ms, max_events], salt)| {
            let retention = Retention { max_age_ms, max_events };
            Command::SetRetention { room, retention, salt }
        }),
        (room(), salt()).prop_map(|(room, salt)| Command::Trim { room, salt }),
        (room(), seq()).prop_map(|(room, seq)| Command::MarkRead { room, seq }),
    ]
}

pub(super) fn request() -> impl Strategy<Value = Request> {
    (actor(), request_id(), command()).prop_map(|(actor, id, command)| Request {
        actor,
        id,
        command,
    })
}

/// An event; few are too long for a row of the base.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    let text = prop_oneof![
        2 => text(),
        2 => ".{0,80}",
        1 => "[a-z ]{0,4000}",
        1 => "\\PC{900,9000}",
    ];
    let body = prop_oneof![
        5 => (any::<[u8; 16]>(), text).prop_map(|(salt, text)| Body::Present { salt, text }),
        1 => any::<[u8; 32]>().prop_map(|hash| Body::Erased { hash }),
    ];
    let head = (seq(), any::<u64>(), user(), event_kind(), request_id(), body);
    let rest = (
        proptest::option::of(seq()),
        proptest::option::of(user()),
        proptest::option::of(role()),
        any::<bool>(),
        proptest::option::of(prop_oneof![1 => Just(0), 9 => any::<u64>()]),
        proptest::option::of(".{0,20}"),
        proptest::option::of(any::<u64>()),
    );
    (head, rest).prop_map(|((seq, at_ms, sender, kind, request_id, body), rest)| {
        let (target, subject, role, withdrawn, original_at_ms, original_sender, until_ms) = rest;
        Event {
            seq,
            at_ms,
            sender,
            kind,
            request_id,
            target,
            subject,
            role,
            withdrawn,
            until_ms,
            original_at_ms,
            original_sender,
            body,
        }
    })
}

pub(super) fn cursor() -> impl Strategy<Value = Cursor> {
    (proptest::option::of(epoch()), any::<u64>().prop_map(Seq))
        .prop_map(|(epoch, seq)| Cursor { epoch, seq })
}

pub(super) fn query() -> impl Strategy<Value = Query> {
    let page = prop_oneof![
        cursor().prop_map(Page::After),
        cursor().prop_map(Page::Before),
        Just(Page::Newest),
    ];
    let limit = any::<usize>;
    prop_oneof![
        room().prop_map(|room| Query::Room { room }),
        (room(), proptest::option::of(user()), limit())
            .prop_map(|(room, after, limit)| Query::Participants { room, after, limit }),
        (proptest::option::of(room()), limit(), text())
            .prop_map(|(after, limit, search)| Query::Rooms { after, limit, search }),
        (room(), seq(), cursor(), limit()).prop_map(|(room, root, after, limit)| Query::Thread {
            room,
            root,
            page: Page::After(after),
            limit
        }),
        (room(), page, limit()).prop_map(|(room, page, limit)| Query::Events { room, page, limit }),
        (room(), any::<u64>(), limit()).prop_map(|(room, after, limit)| Query::Export {
            room,
            after: Seq(after),
            limit
        }),
        user().prop_map(|user| Query::User { user }),
        (proptest::option::of(user()), limit())
            .prop_map(|(after, limit)| Query::Users { after, limit }),
        (proptest::option::of(room()), limit())
            .prop_map(|(after, limit)| Query::Mine { after, limit }),
        Just(Query::Revocations),
    ]
}

pub(super) fn reply() -> impl Strategy<Value = Reply> {
    let imported = (any::<u64>(), any::<u64>()).prop_map(|(line, count)| Imported { line, count });
    let done = (
        any::<u64>(),
        proptest::option::of(epoch()),
        any::<u64>(),
        any::<bool>(),
        proptest::option::of(imported),
    );
    prop_oneof![
        done.prop_map(|(seq, epoch, at_ms, duplicate, imported)| Ok(Done {
            seq: Seq(seq),
            epoch,
            at_ms,
            duplicate,
            imported
        })),
        (0..rejections().len()).prop_map(|n| Err(rejections().swap_remove(n))),
    ]
}
