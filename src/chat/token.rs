//! IssueToken and RevokeToken: by which a user signs in. The user itself, and admins.
//!
//! A session is revoked as a token is, by its hash.

use std::sync::Arc;

use crate::chat::append::Call;
use crate::chat::check;
use crate::chat::command::{Rejection, Reply};
use crate::chat::create_user::done;
use crate::chat::event::Hash;
use crate::chat::state::{StateMut, Token, User};
use crate::id::UserId;
use crate::limits;

/// Adds a token to a user.
pub(super) fn issue<S: StateMut>(
    call: &mut Call<'_, S>,
    user: &UserId,
    token_hash: Hash,
    label: String,
) -> Reply {
    add(call, user, Token::new(token_hash, label, 0))
}

/// Adds this token to a user, as of now. Those that have expired make room.
pub(super) fn add<S: StateMut>(call: &mut Call<'_, S>, user: &UserId, token: Token) -> Reply {
    let mut row = Arc::unwrap_or_clone(owned(call, user)?);
    check::line("label", &token.label, limits::LABEL_BYTES_MAX)?;
    if row.tokens.iter().any(|other| other.hash == token.hash) {
        return Ok(done(call, true));
    }
    row.tokens.retain(|token| token.expires_at_ms.is_none_or(|at_ms| at_ms > call.now_ms));
    if row.tokens.len() >= limits::TOKENS_PER_USER_MAX {
        return Err(Rejection::LimitReached(format!(
            "user {user} has {} tokens: revoke one first",
            limits::TOKENS_PER_USER_MAX
        )));
    }
    row.tokens.push(Token { issued_at_ms: call.now_ms, ..token });
    call.state.put_user(row);
    Ok(done(call, false))
}

/// Takes a token, or a session, from a user.
pub(super) fn revoke<S: StateMut>(
    call: &mut Call<'_, S>,
    user: &UserId,
    token_hash: &Hash,
) -> Reply {
    let row = owned(call, user)?;
    let mut kept = Arc::unwrap_or_clone(row.clone());
    kept.tokens.retain(|token| token.hash != *token_hash);
    kept.sessions.retain(|session| session.hash != *token_hash);
    if kept == *row {
        return Ok(done(call, true));
    }
    call.state.put_user(kept);
    call.state.note_revocation();
    Ok(done(call, false))
}

/// The user's row, if the actor may handle its tokens.
pub(super) fn owned<S: StateMut>(
    call: &Call<'_, S>,
    user: &UserId,
) -> Result<Arc<User>, Rejection> {
    if !call.actor.admin && call.actor.user != *user {
        return Err(Rejection::Forbidden("these are another user's tokens".into()));
    }
    call.state.user(user).ok_or_else(|| Rejection::UserNotFound(user.clone()))
}
