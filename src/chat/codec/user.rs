//! Users' rows, as they come back from the node that has a replica. Hashes of secrets are among
//! what nodes tell each other; no client is told them.

use crate::chat::account::{Invite, Link, Password, Scopes, Session, Token, User};
use crate::chat::codec::{Malformed, array, copied, nonzero, parse};
use crate::id::UserId;
use crate::proto::internal::chat_answer as wire;

pub(super) fn user_to_wire(user: &User) -> wire::User {
    wire::User {
        user: user.id.as_str().into(),
        display_name: user.display_name.clone(),
        admin: user.admin,
        created_at_ms: user.created_at_ms,
        tokens: user.tokens.iter().map(token_to_wire).collect(),
        status: user.status.clone(),
        disabled: user.disabled,
        password: user.password.as_ref().map_or("", Password::phc).into(),
        sessions: user.sessions.iter().map(session_to_wire).collect(),
        invites: user.invites.iter().map(invite_to_wire).collect(),
        link: user.link.as_ref().map(link_to_wire),
        stands_for: user.stands_for.as_ref().map_or("", UserId::as_str).into(),
    }
}

fn link_to_wire(link: &Link) -> wire::Link {
    wire::Link { issuer: link.issuer.clone(), subject: link.subject.clone() }
}

fn token_to_wire(token: &Token) -> wire::Token {
    wire::Token {
        hash: copied(&token.hash),
        label: token.label.clone(),
        issued_at_ms: token.issued_at_ms,
        scopes: token.scopes.number(),
        expires_at_ms: token.expires_at_ms.unwrap_or(0),
    }
}

fn session_to_wire(session: &Session) -> wire::Session {
    wire::Session {
        hash: copied(&session.hash),
        created_at_ms: session.created_at_ms,
        used_at_ms: session.used_at_ms,
        expires_at_ms: session.expires_at_ms,
        idle_ms: session.idle_ms,
        user_agent: session.user_agent.clone(),
        address: session.address.clone(),
    }
}

fn invite_to_wire(invite: &Invite) -> wire::Invite {
    wire::Invite {
        hash: copied(&invite.hash),
        created_at_ms: invite.created_at_ms,
        expires_at_ms: invite.expires_at_ms,
        uses_max: invite.uses_max,
        used_by: invite.used_by.iter().map(|user| user.as_str().into()).collect(),
    }
}

pub(super) fn user_from_wire(user: wire::User) -> Result<User, Malformed> {
    let password = match user.password.as_str() {
        "" => None,
        phc => Some(Password::parse(phc).ok_or(Malformed("password"))?),
    };
    Ok(User {
        id: parse::user(&user.user)?,
        display_name: user.display_name,
        admin: user.admin,
        created_at_ms: user.created_at_ms,
        tokens: user.tokens.into_iter().map(token_from_wire).collect::<Result<_, _>>()?,
        status: user.status,
        disabled: user.disabled,
        password,
        sessions: user.sessions.into_iter().map(session_from_wire).collect::<Result<_, _>>()?,
        invites: user.invites.into_iter().map(invite_from_wire).collect::<Result<_, _>>()?,
        link: user.link.map(|wire::Link { issuer, subject }| Link { issuer, subject }),
        stands_for: parse::maybe_user(&user.stands_for)?,
    })
}

fn token_from_wire(token: wire::Token) -> Result<Token, Malformed> {
    Ok(Token {
        hash: array(&token.hash, "token hash")?,
        label: token.label,
        issued_at_ms: token.issued_at_ms,
        scopes: Scopes::from_number(token.scopes).ok_or(Malformed("scopes"))?,
        expires_at_ms: nonzero(token.expires_at_ms),
    })
}

fn session_from_wire(session: wire::Session) -> Result<Session, Malformed> {
    Ok(Session {
        hash: array(&session.hash, "session hash")?,
        created_at_ms: session.created_at_ms,
        used_at_ms: session.used_at_ms,
        expires_at_ms: session.expires_at_ms,
        idle_ms: session.idle_ms,
        user_agent: session.user_agent,
        address: session.address,
    })
}

fn invite_from_wire(invite: wire::Invite) -> Result<Invite, Malformed> {
    Ok(Invite {
        hash: array(&invite.hash, "invite hash")?,
        created_at_ms: invite.created_at_ms,
        expires_at_ms: invite.expires_at_ms,
        uses_max: invite.uses_max,
        used_by: invite.used_by.iter().map(|user| parse::user(user)).collect::<Result<_, _>>()?,
    })
}
