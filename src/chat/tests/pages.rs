//! A page's bytes are bounded, whatever was made of its messages.

use super::accounts::World;
use crate::chat::command::{Actor, Command};
use crate::chat::event::EventKind;
use crate::chat::query::{self, Answer, Page, Query};
use crate::chat::state::{Notes, RoomKind, StateMut};
use crate::id::{Cursor, Epoch, RoomId, Seq, UserId};
use crate::limits;

const MESSAGES: u64 = 20;

/// A room of ann's with messages, each of which has as many bytes of reactions.
fn reacted_to(bytes: usize) -> (World, RoomId) {
    let (mut world, room) = (World::new(), RoomId::parse("tea").unwrap());
    let create = Command::CreateRoom {
        room: room.clone(),
        title: "Tea".into(),
        kind: RoomKind::Public,
        epoch: Epoch::mint([1; 8]),
        salt: [1; 16],
    };
    world.ask("ann", create).unwrap();
    for _ in 0..MESSAGES {
        let (kind, text) = (EventKind::Message, "hi".into());
        let post = Command::Post { room: room.clone(), kind, text, reply_to: None, salt: [2; 16] };
        let seq = world.ask("ann", post).unwrap().seq;
        let user = |n: usize| UserId::parse(&format!("{n:064}")).unwrap();
        let users: Vec<UserId> = (0..bytes / 64).map(user).collect();
        let by_symbol = users.chunks(limits::USERS_PER_SYMBOL_MAX).enumerate();
        let reactions = by_symbol.map(|(n, users)| (format!(":{n}:"), users.to_vec())).collect();
        world.state.put_notes(&room, seq, Notes { reactions, ..Notes::default() });
    }
    (world, room)
}

/// How many events a page has that may have all of them.
fn count(world: &World, room: &RoomId, page: Page) -> usize {
    let actor = Actor { user: UserId::parse("ann").unwrap(), admin: false };
    let query = Query::Events { room: room.clone(), page, limit: limits::PAGE_ITEMS_MAX };
    match query::query(&world.state, &actor, &query).unwrap() {
        Answer::Events(events) => events.events.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn reactions_count_to_a_pages_bytes() {
    let (world, room) = reacted_to(limits::PAGE_BYTES_MAX / 8);
    // Behind what the room began with.
    let first = || Page::After(Cursor { epoch: None, seq: Seq(1) });
    assert_eq!(count(&world, &room, first()), 7);
    assert_eq!(count(&world, &room, Page::Newest), 7);
    // What does not fit goes alone.
    let (world, room) = reacted_to(limits::PAGE_BYTES_MAX);
    assert_eq!(count(&world, &room, first()), 1);
    // Few reactions keep no message off a page.
    let (world, room) = reacted_to(64);
    assert_eq!(count(&world, &room, first()), MESSAGES as usize);
}
