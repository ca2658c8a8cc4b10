//! CreateUser: an account, and its first token. Admins only.

use crate::chat::append::Call;
use crate::chat::check;
use crate::chat::command::{Done, Rejection, Reply};
use crate::chat::event::Hash;
use crate::chat::retention;
use crate::chat::state::{StateMut, Token, User};
use crate::id::{Seq, UserId};
use crate::limits;

/// Creates a user. One that is there already stays as it is, and its tokens too: only the request
/// that created it may be repeated.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    user: UserId,
    display_name: String,
    admin: bool,
    token_hash: Option<Hash>,
) -> Reply {
    if !call.actor.admin {
        return Err(Rejection::Forbidden("only administrators create users".into()));
    }
    check_name(&user)?;
    check::line("display name", &display_name, limits::DISPLAY_NAME_BYTES_MAX)?;
    if call.state.user(&user).is_some() {
        return Err(Rejection::AlreadyExists(format!("user {user}")));
    }
    let display_name =
        if display_name.is_empty() { user.as_str().to_owned() } else { display_name };
    let mut row = User::new(user, display_name, admin, call.now_ms);
    row.tokens.extend(token_hash.map(|hash| Token::new(hash, String::new(), call.now_ms)));
    call.state.put_user(row);
    Ok(done(call, false))
}

/// Refuses the one name that nobody can have.
pub(super) fn check_name(user: &UserId) -> Result<(), Rejection> {
    if user.as_str() == retention::CLUSTER {
        let reason = format!("{user} is what the cluster calls itself in rooms");
        return Err(Rejection::InvalidArgument(reason));
    }
    Ok(())
}

/// The outcome of a command on a user.
pub(super) fn done<S>(call: &Call<'_, S>, duplicate: bool) -> Done {
    Done { seq: Seq(0), epoch: None, at_ms: call.now_ms, duplicate, imported: None }
}
