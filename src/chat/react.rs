//! React: adds the actor's symbol to a message, or takes it back.

use std::sync::Arc;

use crate::chat::append::Call;
use crate::chat::command::{Rejection, Reply};
use crate::chat::event::{EventKind, Salt};
use crate::chat::permission::Action;
use crate::chat::state::{Notes, StateMut};
use crate::chat::{access, check};
use crate::id::{RoomId, Seq, UserId};
use crate::limits;

/// Reacts to a message, once for each symbol.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    target: Seq,
    symbol: String,
    withdraw: bool,
    salt: Salt,
) -> Reply {
    let seen = access::may(call.state, call.actor, room, Action::React)?;
    if symbol.is_empty() {
        return Err(Rejection::InvalidArgument("the symbol is empty".into()));
    }
    check::line("symbol", &symbol, limits::SYMBOL_BYTES_MAX)?;
    access::message(call.state, &seen.room, target)?;
    let notes = call.state.notes(room, target);
    if notes.as_ref().is_some_and(|notes| notes.redacted_by.is_some()) {
        return Err(Rejection::Redacted);
    }
    let mut notes = notes.map_or_else(Notes::default, Arc::unwrap_or_clone);
    let user = &call.actor.user;
    let changed =
        if withdraw { take(&mut notes, &symbol, user) } else { add(&mut notes, &symbol, user)? };
    if !changed {
        return Ok(call.nothing_to_do(&seen.room, call.now_ms));
    }
    let mut draft = call.draft(EventKind::Reaction, salt);
    draft.target = Some(target);
    draft.withdrawn = withdraw;
    draft.text = symbol;
    call.state.put_notes(room, target, notes);
    Ok(call.append(Arc::unwrap_or_clone(seen.room), draft))
}

/// Adds a reaction to notes; false when it is there.
fn add(notes: &mut Notes, symbol: &str, user: &UserId) -> Result<bool, Rejection> {
    let place = notes.reactions.binary_search_by(|(present, _)| present.as_str().cmp(symbol));
    match place {
        Ok(index) => {
            let users = &mut notes.reactions[index].1;
            if users.contains(user) {
                return Ok(false);
            }
            if users.len() >= limits::USERS_PER_SYMBOL_MAX {
                return Err(limit(limits::USERS_PER_SYMBOL_MAX, "users per symbol"));
            }
            users.push(user.clone());
        }
        Err(_) if notes.reactions.len() >= limits::SYMBOLS_PER_MESSAGE_MAX => {
            return Err(limit(limits::SYMBOLS_PER_MESSAGE_MAX, "symbols"));
        }
        Err(index) => notes.reactions.insert(index, (symbol.to_owned(), vec![user.clone()])),
    }
    Ok(true)
}

/// Takes a reaction from notes, and the symbol with its last user; false when it is not there.
fn take(notes: &mut Notes, symbol: &str, user: &UserId) -> bool {
    let place = notes.reactions.binary_search_by(|(present, _)| present.as_str().cmp(symbol));
    let Ok(index) = place else { return false };
    let users = &mut notes.reactions[index].1;
    let Some(position) = users.iter().position(|present| present == user) else { return false };
    users.remove(position);
    if users.is_empty() {
        notes.reactions.remove(index);
    }
    true
}

fn limit(max: usize, what: &str) -> Rejection {
    Rejection::LimitReached(format!("a message takes reactions with at most {max} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: usize) -> UserId {
        UserId::parse(&format!("u{n}")).unwrap()
    }

    #[test]
    fn a_symbol_takes_so_many_users() {
        let mut notes = Notes::default();
        for n in 0..limits::USERS_PER_SYMBOL_MAX {
            assert_eq!(add(&mut notes, "+1", &user(n)), Ok(true));
        }
        let next = user(limits::USERS_PER_SYMBOL_MAX);
        assert!(matches!(add(&mut notes, "+1", &next), Err(Rejection::LimitReached(_))));
        assert_eq!(add(&mut notes, "+1", &user(0)), Ok(false), "present: nothing to refuse");
        assert!(take(&mut notes, "+1", &user(0)));
        assert_eq!(add(&mut notes, "+1", &next), Ok(true));
    }

    #[test]
    fn symbols_are_in_order_and_go_with_their_last_user() {
        let mut notes = Notes::default();
        for symbol in ["b", "c", "a"] {
            assert_eq!(add(&mut notes, symbol, &user(1)), Ok(true));
        }
        let symbols: Vec<&str> =
            notes.reactions.iter().map(|(symbol, _)| symbol.as_str()).collect();
        assert_eq!(symbols, ["a", "b", "c"]);
        assert!(!take(&mut notes, "b", &user(2)));
        assert!(take(&mut notes, "b", &user(1)));
        assert!(!take(&mut notes, "b", &user(1)));
        assert_eq!(notes.reactions.len(), 2);
    }
}
