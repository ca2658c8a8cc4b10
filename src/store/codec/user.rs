//! Users' rows.
//!
//! What an older release wrote has tokens only, and these are good for everything.

use std::io;

use bytes::Bytes;

use super::{damaged, hash, message, parse};
use crate::chat::account::{Invite, Link, Password, Scopes, Session, Token, User};
use crate::chat::event::Hash;
use crate::id::UserId;
use crate::proto::internal as proto;

const WHAT: &str = "a user's row";

/// Encodes a user's row.
pub fn user_value(user: &User) -> Vec<u8> {
    let token = |token: &Token| proto::TokenRow {
        hash: bytes(&token.hash),
        label: token.label.clone(),
        issued_at_ms: token.issued_at_ms,
        scopes: token.scopes.number(),
        expires_at_ms: token.expires_at_ms.unwrap_or(0),
    };
    let session = |session: &Session| proto::SessionRow {
        hash: bytes(&session.hash),
        created_at_ms: session.created_at_ms,
        used_at_ms: session.used_at_ms,
        expires_at_ms: session.expires_at_ms,
        idle_ms: session.idle_ms,
        user_agent: session.user_agent.clone(),
        address: session.address.clone(),
    };
    let invite = |invite: &Invite| proto::InviteRow {
        hash: bytes(&invite.hash),
        created_at_ms: invite.created_at_ms,
        expires_at_ms: invite.expires_at_ms,
        uses_max: invite.uses_max,
        used_by: invite.used_by.iter().map(|user| user.as_str().into()).collect(),
    };
    message(&proto::UserRow {
        display_name: user.display_name.clone(),
        admin: user.admin,
        created_at_ms: user.created_at_ms,
        tokens: user.tokens.iter().map(token).collect(),
        status: user.status.clone(),
        disabled: user.disabled,
        password: user.password.as_ref().map_or("", Password::phc).into(),
        sessions: user.sessions.iter().map(session).collect(),
        invites: user.invites.iter().map(invite).collect(),
        link: user.link.as_ref().map(|link| proto::LinkRow {
            issuer: link.issuer.clone(),
            subject: link.subject.clone(),
        }),
        stands_for: user.stands_for.as_ref().map_or("", UserId::as_str).into(),
    })
}

/// Decodes a user's row.
///
/// # Errors
/// When it is damaged.
pub fn user_from(id: &UserId, value: &[u8]) -> io::Result<User> {
    let row: proto::UserRow = parse(value, WHAT)?;
    let password = match row.password.as_str() {
        "" => None,
        phc => Some(Password::parse(phc).ok_or_else(|| damaged(WHAT))?),
    };
    Ok(User {
        id: id.clone(),
        display_name: row.display_name,
        admin: row.admin,
        created_at_ms: row.created_at_ms,
        tokens: row.tokens.into_iter().map(token_from).collect::<io::Result<_>>()?,
        status: row.status,
        disabled: row.disabled,
        password,
        sessions: row.sessions.into_iter().map(session_from).collect::<io::Result<_>>()?,
        invites: row.invites.into_iter().map(invite_from).collect::<io::Result<_>>()?,
        link: row.link.map(|proto::LinkRow { issuer, subject }| Link { issuer, subject }),
        stands_for: match row.stands_for.as_str() {
            "" => None,
            user => Some(UserId::parse(user).map_err(|_| damaged(WHAT))?),
        },
    })
}

fn token_from(token: proto::TokenRow) -> io::Result<Token> {
    Ok(Token {
        hash: hash(&token.hash, WHAT)?,
        label: token.label,
        issued_at_ms: token.issued_at_ms,
        scopes: Scopes::from_number(token.scopes).ok_or_else(|| damaged(WHAT))?,
        expires_at_ms: Some(token.expires_at_ms).filter(|at_ms| *at_ms > 0),
    })
}

fn session_from(session: proto::SessionRow) -> io::Result<Session> {
    Ok(Session {
        hash: hash(&session.hash, WHAT)?,
        created_at_ms: session.created_at_ms,
        used_at_ms: session.used_at_ms,
        expires_at_ms: session.expires_at_ms,
        idle_ms: session.idle_ms,
        user_agent: session.user_agent,
        address: session.address,
    })
}

fn invite_from(invite: proto::InviteRow) -> io::Result<Invite> {
    let used_by = invite.used_by.iter().map(|user| UserId::parse(user));
    Ok(Invite {
        hash: hash(&invite.hash, WHAT)?,
        created_at_ms: invite.created_at_ms,
        expires_at_ms: invite.expires_at_ms,
        uses_max: invite.uses_max,
        used_by: used_by.collect::<Result<_, _>>().map_err(|_| damaged(WHAT))?,
    })
}

fn bytes(hash: &Hash) -> Bytes {
    Bytes::copy_from_slice(hash)
}
