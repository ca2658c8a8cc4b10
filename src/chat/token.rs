//! IssueToken and RevokeToken: by which a user signs in. The user itself, and admins.

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
    let row = owned(call, user)?;
    check::line("label", &label, limits::LABEL_BYTES_MAX)?;
    if row.tokens.iter().any(|token| token.hash == token_hash) {
        return Ok(done(call, true));
    }
    if row.tokens.len() >= limits::TOKENS_PER_USER_MAX {
        return Err(Rejection::LimitReached(format!(
            "user {user} has {} tokens: revoke one first",
            limits::TOKENS_PER_USER_MAX
        )));
    }
    let mut row = Arc::unwrap_or_clone(row);
    row.tokens.push(Token { hash: token_hash, label, issued_at_ms: call.now_ms });
    call.state.put_user(row);
    Ok(done(call, false))
}

/// Takes a token from a user.
pub(super) fn revoke<S: StateMut>(
    call: &mut Call<'_, S>,
    user: &UserId,
    token_hash: &Hash,
) -> Reply {
    let row = owned(call, user)?;
    if row.tokens.iter().all(|token| token.hash != *token_hash) {
        return Ok(done(call, true));
    }
    let mut row = Arc::unwrap_or_clone(row);
    row.tokens.retain(|token| token.hash != *token_hash);
    call.state.put_user(row);
    Ok(done(call, false))
}

/// The user's row, if the actor may handle its tokens.
fn owned<S: StateMut>(call: &Call<'_, S>, user: &UserId) -> Result<Arc<User>, Rejection> {
    if !call.actor.admin && call.actor.user != *user {
        return Err(Rejection::Forbidden("these are another user's tokens".into()));
    }
    call.state.user(user).ok_or_else(|| Rejection::UserNotFound(user.clone()))
}
