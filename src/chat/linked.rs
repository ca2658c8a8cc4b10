//! ChangeUser, as far as it is about those who sign in by a provider of OpenID Connect.
//!
//! A user's row names the one account of a provider by which they sign in: that decides. Rows are
//! found by the user's id, and who signs in shows an account; so that account has a row too, of
//! an id that no user can have, in whatever shard that id is, which says whose it is. It is written
//! once. That somebody has shown the account was found out by the gateway.

use crate::chat::account::{Link, Session, User};
use crate::chat::append::Call;
use crate::chat::change_user::{administered, begin, own, put};
use crate::chat::check;
use crate::chat::command::{Rejection, Reply};
use crate::chat::create_user::{check_name, done};
use crate::chat::state::StateMut;
use crate::id::UserId;
use crate::limits;

fn check_link(link: &Link) -> Result<(), Rejection> {
    check::line("issuer", &link.issuer, limits::ISSUER_BYTES_MAX)?;
    check::line("subject", &link.subject, limits::SUBJECT_BYTES_MAX)?;
    if link.issuer.is_empty() || link.subject.is_empty() {
        let reason = "an account of a provider has an issuer and a subject";
        return Err(Rejection::InvalidArgument(reason.into()));
    }
    Ok(())
}

/// Says whose an account is. Whoever owns it does, and administrators.
pub(super) fn claim<S: StateMut>(
    call: &mut Call<'_, S>,
    row: UserId,
    link: Link,
    owner: UserId,
) -> Reply {
    check_link(&link)?;
    if row != link.row() || owner.is_subject() {
        return Err(Rejection::InvalidArgument("this row is not that account's".into()));
    }
    if call.actor.user != owner && !call.actor.admin {
        return Err(Rejection::Forbidden("everybody signs in for themselves".into()));
    }
    match call.state.user(&row).map(|row| row.stands_for.clone()) {
        Some(known) if known.as_ref() == Some(&owner) => Ok(done(call, true)),
        Some(_) => Err(Rejection::AlreadyExists("this account of the provider".into())),
        None => {
            let empty = User::new(row, String::new(), false, call.now_ms);
            put(call, User { link: Some(link), stands_for: Some(owner), ..empty }, false)
        }
    }
}

/// Creates a user who signs in by this account; one that does so already stays as it is.
pub(super) fn register<S: StateMut>(
    call: &mut Call<'_, S>,
    user: UserId,
    display_name: String,
    link: Link,
) -> Reply {
    if call.actor.user != user {
        return Err(Rejection::Forbidden("everybody registers themselves".into()));
    }
    check_name(&user)?;
    check_link(&link)?;
    check::line("display name", &display_name, limits::DISPLAY_NAME_BYTES_MAX)?;
    match call.state.user(&user) {
        Some(row) if row.link.as_ref() == Some(&link) => return Ok(done(call, true)),
        Some(_) => return Err(Rejection::AlreadyExists(format!("user {user}"))),
        None => {}
    }
    let name = if display_name.is_empty() { user.as_str().to_owned() } else { display_name };
    let row = User { link: Some(link), ..User::new(user, name, false, call.now_ms) };
    put(call, row, false)
}

/// Begins a session by this account, and makes the user an administrator or takes that back.
pub(super) fn open_session<S: StateMut>(
    call: &mut Call<'_, S>,
    user: &UserId,
    session: Session,
    link: &Link,
    admin: Option<bool>,
) -> Reply {
    let mut row = own(call, user)?;
    if row.link.as_ref() != Some(link) {
        return Err(Rejection::Forbidden(format!("user {user} does not sign in by this")));
    }
    let is_admin = admin.unwrap_or(row.admin);
    // What is remembered of those who are signed in says whether they are administrators.
    let changed = is_admin != row.admin;
    row.admin = is_admin;
    begin(call, row, session, changed)
}

/// Lets a user sign in by this account, and by no other one any more.
pub(super) fn set<S: StateMut>(call: &mut Call<'_, S>, user: &UserId, link: Link) -> Reply {
    let mut row = administered(call, user)?;
    check_link(&link)?;
    if user.is_subject() {
        return Err(Rejection::UserNotFound(user.clone()));
    }
    if row.link.as_ref() == Some(&link) {
        return Ok(done(call, true));
    }
    // Whoever signed in by the former account is signed out, and its tokens stop being valid.
    let revokes = row.link.replace(link).is_some();
    if revokes {
        row.sessions.clear();
    }
    put(call, row, revokes)
}
