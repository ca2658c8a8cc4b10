//! The comparison of a state with its model, the rules' own [`Memory`].

use crate::chat::memory::Memory;
use crate::chat::state::{Room, State};
use crate::id::{Seq, UserId};
use crate::limits;
use crate::store::state::ShardState;

/// Asserts that both answer everything alike.
pub fn compare(state: &ShardState, model: &Memory) {
    assert_eq!(state.log_time_ms(), model.log_time_ms());
    let rooms = state.rooms(None, usize::MAX);
    assert_eq!(rooms, model.rooms(None, usize::MAX));
    for after in rooms.iter().map(|room| &room.id) {
        assert_eq!(state.room(after), model.room(after));
        assert_eq!(state.rooms(Some(after), 3), model.rooms(Some(after), 3));
    }
    let users = state.users(None, usize::MAX);
    assert_eq!(users, model.users(None, usize::MAX));
    for user in &users {
        assert_eq!(state.user(&user.id), model.user(&user.id));
        assert_eq!(state.users(Some(&user.id), 2), model.users(Some(&user.id), 2));
    }
    rooms.iter().for_each(|room| compare_room(state, model, room));
    for ((room, source), line) in &model.marks {
        assert_eq!(state.import_mark(room, source), *line);
    }
    // The model keeps everything; a state forgets whole minutes.
    let horizon = model.log_time_ms().saturating_sub(limits::DEDUP_HORIZON_MS) / 60_000;
    for ((scope, sender, id), sent) in &model.sent {
        let expected = Some(sent).filter(|_| id.unix_ms() / 60_000 >= horizon);
        let found = state.sent(scope, sender, *id);
        assert_eq!(found.as_ref(), expected, "{scope:?} {sender} {id}");
        let other = UserId::parse("nobody").unwrap();
        assert_eq!(state.sent(scope, &other, *id), None);
    }
}

fn compare_room(state: &ShardState, model: &Memory, room: &Room) {
    let id = &room.id;
    let participants = state.participants(id, None, usize::MAX);
    assert_eq!(participants, model.participants(id, None, usize::MAX));
    for (user, participant) in &participants {
        assert_eq!(state.participant(id, user).as_ref(), Some(participant));
        assert_eq!(state.participants(id, Some(user), 2), model.participants(id, Some(user), 2));
    }
    let (least, most) = (Seq(0), Seq(u64::MAX));
    assert_eq!(state.notes_in(id, least, most), model.notes_in(id, least, most));
    assert_eq!(state.notes_in(id, Seq(5), Seq(9)), model.notes_in(id, Seq(5), Seq(9)));
    for seq in 0..room.head.0 + 2 {
        assert_eq!(state.notes(id, Seq(seq)), model.notes(id, Seq(seq)));
    }
    let all = state.events(id, Seq(1), most, usize::MAX, usize::MAX);
    assert_eq!(all, model.events(id, Seq(1), most, usize::MAX, usize::MAX));
    assert_eq!(all.len() as u64, room.head.0 + 1 - room.first_seq.0.max(1));
    for (first, last, limit, bytes) in
        [(1, 7, 3, 9999), (3, 900, 5, 500), (room.head.0 / 2, room.head.0, 50, 2000), (9, 4, 9, 9)]
    {
        assert_eq!(
            state.events(id, Seq(first), Seq(last), limit, bytes),
            model.events(id, Seq(first), Seq(last), limit, bytes),
            "{id} {first}..={last}, {limit} events, {bytes} bytes"
        );
    }
}
