//! Changes of users, as the Raft log has them.

use bytes::Bytes;

use crate::chat::account::{Change, Link, Password, Scopes};
use crate::chat::codec::{Malformed, array, copied, parse};
use crate::chat::command::Command;
use crate::chat::event::Hash;
use crate::id::UserId;
use crate::proto::internal as proto;
use crate::proto::internal::change_user as wire;
use crate::proto::internal::change_user::Change as Wire;

/// Encodes a change.
pub(super) fn encode(user: &UserId, change: &Change) -> proto::ChangeUser {
    let change = match change {
        Change::SetPassword { password, previous, keep } => Wire::SetPassword(wire::SetPassword {
            password: password.phc().into(),
            previous: maybe(previous.as_ref()),
            keep: maybe(keep.as_ref()),
        }),
        Change::OpenSession { hash, password, user_agent, address, ttl_ms, idle_ms } => {
            Wire::OpenSession(wire::OpenSession {
                hash: copied(hash),
                password: copied(password),
                user_agent: user_agent.clone(),
                address: address.clone(),
                ttl_ms: *ttl_ms,
                idle_ms: *idle_ms,
            })
        }
        Change::TouchSession { hash, address } => {
            Wire::TouchSession(wire::TouchSession { hash: copied(hash), address: address.clone() })
        }
        Change::EndSessions { keep } => {
            Wire::EndSessions(wire::EndSessions { keep: maybe(keep.as_ref()) })
        }
        Change::SetDisabled { disabled } => {
            Wire::SetDisabled(wire::SetDisabled { disabled: *disabled })
        }
        Change::SetProfile { display_name, status } => Wire::SetProfile(wire::SetProfile {
            display_name: display_name.clone(),
            status: status.clone(),
        }),
        Change::IssueToken { hash, label, scopes, ttl_ms } => Wire::IssueToken(wire::IssueToken {
            hash: copied(hash),
            label: label.clone(),
            scopes: scopes.number(),
            ttl_ms: *ttl_ms,
        }),
        Change::Register { display_name, password } => Wire::Register(wire::Register {
            display_name: display_name.clone(),
            password: password.phc().into(),
        }),
        Change::MakeInvite { hash, uses_max, ttl_ms } => Wire::MakeInvite(wire::MakeInvite {
            hash: copied(hash),
            uses_max: *uses_max,
            ttl_ms: *ttl_ms,
        }),
        Change::DropInvite { hash } => Wire::DropInvite(wire::DropInvite { hash: copied(hash) }),
        Change::UseInvite { hash, guest, give_back } => Wire::UseInvite(wire::UseInvite {
            hash: copied(hash),
            guest: guest.as_str().into(),
            give_back: *give_back,
        }),
        linked => encode_linked(linked),
    };
    proto::ChangeUser { user: user.as_str().into(), change: Some(change) }
}

/// Those about accounts of providers.
///
/// # Panics
/// For every other one.
fn encode_linked(change: &Change) -> Wire {
    match change {
        Change::ClaimSubject { link, user } => {
            Wire::ClaimSubject(wire::ClaimSubject { link: to_wire(link), user: user.to_string() })
        }
        Change::RegisterLinked { display_name, link } => {
            let (display_name, link) = (display_name.clone(), to_wire(link));
            Wire::RegisterLinked(wire::RegisterLinked { display_name, link })
        }
        Change::OpenLinkedSession { hash, link, admin, user_agent, address, ttl_ms, idle_ms } => {
            Wire::OpenLinkedSession(wire::OpenLinkedSession {
                hash: copied(hash),
                link: to_wire(link),
                admin: *admin,
                user_agent: user_agent.clone(),
                address: address.clone(),
                ttl_ms: *ttl_ms,
                idle_ms: *idle_ms,
            })
        }
        Change::SetLink { link } => Wire::SetLink(wire::SetLink { link: to_wire(link) }),
        _ => unreachable!("`encode` has the others"),
    }
}

fn to_wire(link: &Link) -> Option<wire::Link> {
    Some(wire::Link { issuer: link.issuer.clone(), subject: link.subject.clone() })
}

fn link(link: Option<wire::Link>) -> Result<Link, Malformed> {
    let wire::Link { issuer, subject } = link.ok_or(Malformed("link"))?;
    Ok(Link { issuer, subject })
}

/// Decodes a change.
pub(super) fn decode(change: proto::ChangeUser) -> Result<Command, Malformed> {
    let user = parse::user(&change.user)?;
    let change = match change.change.ok_or(Malformed("change"))? {
        Wire::SetPassword(c) => Change::SetPassword {
            password: password(&c.password)?,
            previous: maybe_array(&c.previous, "password tag")?,
            keep: maybe_array(&c.keep, "session hash")?,
        },
        Wire::OpenSession(c) => Change::OpenSession {
            hash: hash(&c.hash)?,
            password: array(&c.password, "password tag")?,
            user_agent: c.user_agent,
            address: c.address,
            ttl_ms: c.ttl_ms,
            idle_ms: c.idle_ms,
        },
        Wire::TouchSession(c) => Change::TouchSession { hash: hash(&c.hash)?, address: c.address },
        Wire::EndSessions(c) => Change::EndSessions { keep: maybe_array(&c.keep, "session hash")? },
        Wire::SetDisabled(c) => Change::SetDisabled { disabled: c.disabled },
        Wire::SetProfile(c) => {
            Change::SetProfile { display_name: c.display_name, status: c.status }
        }
        Wire::IssueToken(c) => Change::IssueToken {
            hash: hash(&c.hash)?,
            label: c.label,
            scopes: Scopes::from_number(c.scopes).ok_or(Malformed("scopes"))?,
            ttl_ms: c.ttl_ms,
        },
        Wire::Register(c) => {
            Change::Register { display_name: c.display_name, password: password(&c.password)? }
        }
        Wire::MakeInvite(c) => {
            Change::MakeInvite { hash: hash(&c.hash)?, uses_max: c.uses_max, ttl_ms: c.ttl_ms }
        }
        Wire::DropInvite(c) => Change::DropInvite { hash: hash(&c.hash)? },
        Wire::UseInvite(c) => Change::UseInvite {
            hash: hash(&c.hash)?,
            guest: parse::user(&c.guest)?,
            give_back: c.give_back,
        },
        Wire::ClaimSubject(c) => {
            Change::ClaimSubject { link: link(c.link)?, user: parse::user(&c.user)? }
        }
        Wire::RegisterLinked(c) => {
            Change::RegisterLinked { display_name: c.display_name, link: link(c.link)? }
        }
        Wire::OpenLinkedSession(c) => Change::OpenLinkedSession {
            hash: hash(&c.hash)?,
            link: link(c.link)?,
            admin: c.admin,
            user_agent: c.user_agent,
            address: c.address,
            ttl_ms: c.ttl_ms,
            idle_ms: c.idle_ms,
        },
        Wire::SetLink(c) => Change::SetLink { link: link(c.link)? },
    };
    Ok(Command::ChangeUser { user, change })
}

fn password(phc: &str) -> Result<Password, Malformed> {
    Password::parse(phc).ok_or(Malformed("password"))
}

fn hash(bytes: &[u8]) -> Result<Hash, Malformed> {
    array(bytes, "hash")
}

fn maybe<const N: usize>(bytes: Option<&[u8; N]>) -> Bytes {
    bytes.map(copied).unwrap_or_default()
}

fn maybe_array<const N: usize>(
    bytes: &[u8],
    what: &'static str,
) -> Result<Option<[u8; N]>, Malformed> {
    if bytes.is_empty() { Ok(None) } else { array(bytes, what).map(Some) }
}
