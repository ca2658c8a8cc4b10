//! ChangeUser: password, sessions, profile, scoped tokens, registration, invites. `linked.rs` has
//! what is about providers.
//!
//! That somebody knows a password was found out by the gateway; the command names the hash that it
//! was compared with, so that it does nothing once another one is in force.

use std::sync::Arc;

use crate::chat::account::{
    BAD_INVITE, Change, Invite, Password, PasswordTag, Session, Token, User,
};
use crate::chat::append::Call;
use crate::chat::check;
use crate::chat::command::{Rejection, Reply};
use crate::chat::create_user::{check_name, done};
use crate::chat::event::Hash;
use crate::chat::linked;
use crate::chat::state::StateMut;
use crate::chat::token;
use crate::id::UserId;
use crate::limits;

/// Changes a user.
pub(super) fn apply<S: StateMut>(call: &mut Call<'_, S>, user: UserId, change: Change) -> Reply {
    match change {
        Change::SetPassword { password, previous, keep } => {
            set_password(call, &user, password, previous, keep)
        }
        Change::OpenSession { hash, password, user_agent, address, ttl_ms, idle_ms } => {
            let session = new_session(call.now_ms, hash, user_agent, address, ttl_ms, idle_ms)?;
            open_session(call, &user, session, password)
        }
        Change::TouchSession { hash, address } => touch_session(call, &user, &hash, address),
        Change::EndSessions { keep } => end_sessions(call, &user, keep),
        Change::SetDisabled { disabled } => set_disabled(call, &user, disabled),
        Change::SetProfile { display_name, status } => {
            set_profile(call, &user, display_name, status)
        }
        Change::IssueToken { hash, label, scopes, ttl_ms } => {
            let expires_at_ms = ttl_ms.map(|ttl| until(call.now_ms, "token", ttl)).transpose()?;
            let token = Token { scopes, expires_at_ms, ..Token::new(hash, label, 0) };
            token::add(call, &user, token)
        }
        Change::Register { display_name, password } => register(call, user, display_name, password),
        Change::MakeInvite { hash, uses_max, ttl_ms } => {
            make_invite(call, &user, hash, uses_max, ttl_ms)
        }
        Change::DropInvite { hash } => drop_invite(call, &user, &hash),
        Change::UseInvite { hash, guest, give_back } => {
            use_invite(call, &user, &hash, guest, give_back)
        }
        Change::ClaimSubject { link, user: owner } => linked::claim(call, user, link, owner),
        Change::RegisterLinked { display_name, link } => {
            linked::register(call, user, display_name, link)
        }
        Change::OpenLinkedSession { hash, link, admin, user_agent, address, ttl_ms, idle_ms } => {
            let session = new_session(call.now_ms, hash, user_agent, address, ttl_ms, idle_ms)?;
            linked::open_session(call, &user, session, &link, admin)
        }
        Change::SetLink { link } => linked::set(call, &user, link),
    }
}

/// A session that begins now.
fn new_session(
    now_ms: u64,
    hash: Hash,
    user_agent: String,
    address: String,
    ttl_ms: u64,
    idle_ms: u64,
) -> Result<Session, Rejection> {
    let expires_at_ms = until(now_ms, "session", ttl_ms)?;
    until(now_ms, "session's idle time", idle_ms)?;
    let (created_at_ms, used_at_ms) = (now_ms, now_ms);
    Ok(Session { hash, created_at_ms, used_at_ms, expires_at_ms, idle_ms, user_agent, address })
}

/// The end of something that begins now.
fn until(now_ms: u64, what: &str, ttl_ms: u64) -> Result<u64, Rejection> {
    if !(1..=limits::TTL_MS_MAX).contains(&ttl_ms) {
        return Err(Rejection::InvalidArgument(format!("the {what} must last 1 ms to ten years")));
    }
    Ok(now_ms.saturating_add(ttl_ms))
}

pub(super) fn find<S: StateMut>(call: &Call<'_, S>, user: &UserId) -> Result<User, Rejection> {
    let row = call.state.user(user).ok_or_else(|| Rejection::UserNotFound(user.clone()))?;
    Ok(Arc::unwrap_or_clone(row))
}

/// The user's row, if the actor is that user.
pub(super) fn own<S: StateMut>(call: &Call<'_, S>, user: &UserId) -> Result<User, Rejection> {
    if call.actor.user != *user {
        return Err(Rejection::Forbidden("this is another user's".into()));
    }
    find(call, user)
}

/// The user's row, if the actor administers the cluster.
pub(super) fn administered<S: StateMut>(
    call: &Call<'_, S>,
    user: &UserId,
) -> Result<User, Rejection> {
    if !call.actor.admin {
        return Err(Rejection::Forbidden("only administrators may do this".into()));
    }
    find(call, user)
}

/// Writes the row, and counts a revocation if it makes invalid what was valid.
pub(super) fn put<S: StateMut>(call: &mut Call<'_, S>, row: User, revokes: bool) -> Reply {
    call.state.put_user(row);
    if revokes {
        call.state.note_revocation();
    }
    Ok(done(call, false))
}

fn set_password<S: StateMut>(
    call: &mut Call<'_, S>,
    user: &UserId,
    password: Password,
    previous: Option<PasswordTag>,
    keep: Option<Hash>,
) -> Reply {
    let own = call.actor.user == *user;
    let mut row = if own { find(call, user)? } else { administered(call, user)? };
    if own && row.password.as_ref().map(Password::tag) != previous {
        return Err(Rejection::Forbidden("the old password is another one".into()));
    }
    row.password = Some(password);
    let before = row.sessions.len();
    row.sessions.retain(|session| own && keep == Some(session.hash));
    let revokes = row.sessions.len() < before;
    put(call, row, revokes)
}

fn open_session<S: StateMut>(
    call: &mut Call<'_, S>,
    user: &UserId,
    session: Session,
    password: PasswordTag,
) -> Reply {
    let row = own(call, user)?;
    if row.password.as_ref().map(Password::tag) != Some(password) && !row.disabled {
        return Err(Rejection::Forbidden("the password was changed meanwhile".into()));
    }
    begin(call, row, session, false)
}

/// Begins a session of the user whose row this is; `revokes` says that the row makes something invalid
/// anyhow.
pub(super) fn begin<S: StateMut>(
    call: &mut Call<'_, S>,
    mut row: User,
    session: Session,
    mut revokes: bool,
) -> Reply {
    check::line("user agent", &session.user_agent, limits::USER_AGENT_BYTES_MAX)?;
    check::line("address", &session.address, limits::ADDRESS_BYTES_MAX)?;
    if row.disabled {
        return Err(Rejection::Forbidden(format!("user {} is disabled", row.id)));
    }
    if row.sessions.iter().any(|other| other.hash == session.hash) {
        return Ok(done(call, true));
    }
    row.sessions.retain(|session| session.ends_at_ms() > call.now_ms);
    if row.sessions.len() >= limits::SESSIONS_PER_USER_MAX {
        // The first of those that were not used for the longest time.
        let oldest = row.sessions.iter().enumerate().min_by_key(|(_, session)| session.used_at_ms);
        if let Some((oldest, _)) = oldest {
            row.sessions.remove(oldest);
            revokes = true;
        }
    }
    row.sessions.push(session);
    put(call, row, revokes)
}

fn touch_session<S: StateMut>(
    call: &mut Call<'_, S>,
    user: &UserId,
    hash: &Hash,
    address: String,
) -> Reply {
    let mut row = own(call, user)?;
    check::line("address", &address, limits::ADDRESS_BYTES_MAX)?;
    let now_ms = call.now_ms;
    let session = row.sessions.iter_mut().find(|session| session.hash == *hash);
    match session {
        Some(session) if session.ends_at_ms() > now_ms => {
            session.used_at_ms = session.used_at_ms.max(now_ms);
            if !address.is_empty() {
                session.address = address;
            }
            put(call, row, false)
        }
        _ => Err(Rejection::Forbidden("this session has ended".into())),
    }
}

fn end_sessions<S: StateMut>(call: &mut Call<'_, S>, user: &UserId, keep: Option<Hash>) -> Reply {
    let mut row = Arc::unwrap_or_clone(token::owned(call, user)?);
    let before = row.sessions.len();
    row.sessions.retain(|session| keep == Some(session.hash));
    if row.sessions.len() == before {
        return Ok(done(call, true));
    }
    put(call, row, true)
}

fn set_disabled<S: StateMut>(call: &mut Call<'_, S>, user: &UserId, disabled: bool) -> Reply {
    let mut row = administered(call, user)?;
    if disabled && call.actor.user == *user {
        return Err(Rejection::Forbidden("nobody disables themselves: ask another one".into()));
    }
    if row.disabled == disabled {
        return Ok(done(call, true));
    }
    row.disabled = disabled;
    row.sessions.clear();
    put(call, row, disabled)
}

fn set_profile<S: StateMut>(
    call: &mut Call<'_, S>,
    user: &UserId,
    display_name: Option<String>,
    status: Option<String>,
) -> Reply {
    let own = call.actor.user == *user;
    let mut row = if own { find(call, user)? } else { administered(call, user)? };
    let before = row.clone();
    if let Some(name) = display_name {
        check::line("display name", &name, limits::DISPLAY_NAME_BYTES_MAX)?;
        row.display_name = if name.is_empty() { user.as_str().to_owned() } else { name };
    }
    if let Some(status) = status {
        check::line("status", &status, limits::STATUS_BYTES_MAX)?;
        row.status = status;
    }
    if row == before {
        return Ok(done(call, true));
    }
    put(call, row, false)
}

fn register<S: StateMut>(
    call: &mut Call<'_, S>,
    user: UserId,
    display_name: String,
    password: Password,
) -> Reply {
    if call.actor.user != user {
        return Err(Rejection::Forbidden("everybody registers themselves".into()));
    }
    check_name(&user)?;
    check::line("display name", &display_name, limits::DISPLAY_NAME_BYTES_MAX)?;
    if call.state.user(&user).is_some() {
        return Err(Rejection::AlreadyExists(format!("user {user}")));
    }
    let name = if display_name.is_empty() { user.as_str().to_owned() } else { display_name };
    let row = User { password: Some(password), ..User::new(user, name, false, call.now_ms) };
    put(call, row, false)
}

fn make_invite<S: StateMut>(
    call: &mut Call<'_, S>,
    user: &UserId,
    hash: Hash,
    uses_max: u32,
    ttl_ms: u64,
) -> Reply {
    let mut row = administered(call, user)?;
    if call.actor.user != *user {
        return Err(Rejection::Forbidden("everybody invites for themselves".into()));
    }
    if !(1..=limits::INVITE_USES_MAX).contains(&uses_max) {
        let max = limits::INVITE_USES_MAX;
        return Err(Rejection::InvalidArgument(format!("an invite lets in 1 to {max}")));
    }
    let expires_at_ms = until(call.now_ms, "invite", ttl_ms)?;
    if row.invites.iter().any(|invite| invite.hash == hash) {
        return Ok(done(call, true));
    }
    row.invites.retain(|invite| invite.expires_at_ms > call.now_ms);
    if row.invites.len() >= limits::INVITES_PER_USER_MAX {
        let max = limits::INVITES_PER_USER_MAX;
        return Err(Rejection::LimitReached(format!("you have {max} invites: take one back")));
    }
    let (created_at_ms, used_by) = (call.now_ms, Vec::new());
    row.invites.push(Invite { hash, created_at_ms, expires_at_ms, uses_max, used_by });
    put(call, row, false)
}

fn drop_invite<S: StateMut>(call: &mut Call<'_, S>, user: &UserId, hash: &Hash) -> Reply {
    let mut row = administered(call, user)?;
    let before = row.invites.len();
    row.invites.retain(|invite| invite.hash != *hash);
    if row.invites.len() == before {
        return Ok(done(call, true));
    }
    put(call, row, false)
}

fn use_invite<S: StateMut>(
    call: &mut Call<'_, S>,
    user: &UserId,
    hash: &Hash,
    guest: UserId,
    give_back: bool,
) -> Reply {
    let unknown = || Rejection::Forbidden(BAD_INVITE.into());
    let mut row = find(call, user).map_err(|_| unknown())?;
    let now_ms = call.now_ms;
    let invite = row.invites.iter_mut().find(|invite| invite.hash == *hash);
    let Some(invite) = invite.filter(|invite| invite.expires_at_ms > now_ms) else {
        return Err(unknown());
    };
    let place = invite.used_by.iter().position(|used| *used == guest);
    match (place, give_back) {
        (Some(place), true) => {
            invite.used_by.remove(place);
        }
        (Some(_), false) | (None, true) => return Ok(done(call, true)),
        (None, false) if row.disabled || !row.admin || !invite.admits(&guest, now_ms) => {
            return Err(unknown());
        }
        (None, false) => invite.used_by.push(guest),
    }
    put(call, row, false)
}
