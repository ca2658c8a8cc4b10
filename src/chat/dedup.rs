//! Exactly once: recognises a repeated request, for as long as the horizon.
//!
//! Called by `apply` before anything else, so a repeat gets the first outcome even when its sender
//! has been banned since: it has happened already. A rejected request is not remembered, its
//! repeat is a new attempt. Nor is a read mark, which only moves on, however often it is sent.
//!
//! Nothing can slip through between remembering and expiry: a row may be dropped once its id's own
//! time is older than the horizon, and from then on the id itself is refused. Imports have no
//! horizon; their marks make repeats harmless for ever.

use crate::chat::access;
use crate::chat::account::{Change, Link};
use crate::chat::command::{Command, Done, Rejection, Target};
use crate::chat::event::Body;
use crate::chat::state::{Scope, Sent, State};
use crate::id::{RequestId, UserId};
use crate::limits;

/// What is known about a request.
pub(super) enum Verdict {
    /// It was applied before, with this outcome.
    Repeat(Done),
    /// It is new; remember it by this memo, if at all.
    Fresh(Option<Memo>),
}

/// What an accepted request is remembered by.
pub(super) struct Memo {
    pub scope: Scope,
    pub body_hash: [u8; 16],
}

/// Tells whether a request was applied before.
///
/// # Errors
/// `Expired`, `ClockSkew` or `IdReused`.
pub(super) fn recognise(
    state: &impl State,
    sender: &UserId,
    id: RequestId,
    command: &Command,
) -> Result<Verdict, Rejection> {
    if matches!(command, Command::Import { .. } | Command::MarkRead { .. }) {
        return Ok(Verdict::Fresh(None));
    }
    let now_ms = state.log_time_ms();
    // Saturating: before the first stamp log time is 0, and nothing is older than that.
    if id.unix_ms() < now_ms.saturating_sub(limits::DEDUP_HORIZON_MS) {
        return Err(Rejection::Expired { horizon_ms: limits::DEDUP_HORIZON_MS });
    }
    if id.unix_ms() > now_ms.saturating_add(limits::CLOCK_SKEW_MS_MAX) {
        return Err(Rejection::ClockSkew { server_time_ms: now_ms });
    }
    let scope = match command.target() {
        Target::Room(room) => Scope::Room(room.clone()),
        Target::User(user) => Scope::User(user.clone()),
    };
    let body_hash = body_hash(command);
    let sent = state.sent(&scope, sender, id).filter(|_| !mutant!(RepeatsApplied));
    let Some(sent) = sent else {
        return Ok(Verdict::Fresh(Some(Memo { scope, body_hash })));
    };
    let other = sent.body_hash != body_hash || said_otherwise(state, &sent, command);
    if other && !mutant!(BodyNotCompared) {
        return Err(Rejection::IdReused);
    }
    let epoch = match &scope {
        Scope::Room(room) => state.room(room).map(|room| room.epoch.clone()),
        Scope::User(_) => None,
    };
    let done = Done { seq: sent.seq, epoch, at_ms: sent.at_ms, duplicate: true, imported: None };
    Ok(Verdict::Repeat(done))
}

/// Whether a repeat has another text than what was said. Of a text that is not there any more, redacted
/// or kept no longer, it can't be told: the repeat gets the first outcome.
fn said_otherwise(state: &impl State, sent: &Sent, command: &Command) -> bool {
    let (Command::Post { room, text, .. } | Command::Edit { room, text, .. }) = command else {
        return false;
    };
    let room = state.room(room);
    let said = room.and_then(|room| access::event(state, &room, sent.seq));
    said.is_some_and(|event| match &event.body {
        Body::Present { text: first, .. } => first != text,
        Body::Erased { .. } => false,
    })
}

/// Tells one command from another: blake3 of a canonical encoding, cut to 16 bytes. What a gateway
/// mints (salts, epochs, tokens) is left out, for a client's retry through another gateway gets
/// new ones. So is what can be redacted, whose hash would tell it to whoever guesses right. Pinned by a
/// test: it is kept for the horizon, across upgrades.
fn body_hash(command: &Command) -> [u8; 16] {
    let mut out = Canonical(Vec::with_capacity(256));
    match command {
        Command::CreateUser { user, display_name, admin, token_hash: _ } => {
            out.byte(10).str(user.as_str()).str(display_name).byte((*admin).into())
        }
        Command::IssueToken { user, token_hash: _, label } => {
            out.byte(11).str(user.as_str()).str(label)
        }
        Command::RevokeToken { user, token_hash } => {
            out.byte(12).str(user.as_str()).bytes(token_hash)
        }
        Command::ChangeUser { user, change } => {
            out.byte(22).str(user.as_str());
            put_change(&mut out, change)
        }
        Command::CreateRoom { room, title, kind, epoch: _, salt: _ } => {
            out.byte(13).str(room.as_str()).str(title).byte(*kind as u8)
        }
        Command::Join { room, salt: _ } => out.byte(14).str(room.as_str()),
        Command::Leave { room, salt: _ } => out.byte(15).str(room.as_str()),
        Command::Post { room, kind, text: _, reply_to, salt: _ } => {
            let reply_to = reply_to.map_or(0, |seq| seq.0);
            out.byte(16).str(room.as_str()).byte(*kind as u8).number(reply_to)
        }
        Command::Edit { room, target, text: _, salt: _ } => {
            out.byte(17).str(room.as_str()).number(target.0)
        }
        Command::Redact { room, target, salt: _ } => {
            out.byte(18).str(room.as_str()).number(target.0)
        }
        Command::React { room, target, symbol, withdraw, salt: _ } => {
            let out = out.byte(19).str(room.as_str()).number(target.0);
            out.str(symbol).byte((*withdraw).into())
        }
        Command::SetRole { room, user, role, salt: _ } => {
            out.byte(20).str(room.as_str()).str(user.as_str()).byte(*role as u8)
        }
        // Never asked, as is MarkRead: neither is remembered.
        Command::Import { room, source, .. } => out.byte(21).str(room.as_str()).str(source),
        other => put_room_command(&mut out, other),
    };
    let mut hash = [0; 16];
    hash.copy_from_slice(&blake3::hash(&out.0).as_bytes()[..16]);
    hash
}

/// A change of a user: the hashes of secrets that the gateway mints are left out, and so is a
/// password's, whose salt is.
fn put_change<'a>(out: &'a mut Canonical, change: &Change) -> &'a mut Canonical {
    match change {
        Change::SetPassword { password: _, previous, keep } => {
            out.byte(1).maybe(previous.as_ref()).maybe(keep.as_ref())
        }
        Change::OpenSession { hash: _, password, user_agent, address, ttl_ms, idle_ms } => {
            let out = out.byte(2).bytes(password).str(user_agent).str(address);
            out.number(*ttl_ms).number(*idle_ms)
        }
        Change::TouchSession { hash, address } => out.byte(3).bytes(hash).str(address),
        Change::EndSessions { keep } => out.byte(4).maybe(keep.as_ref()),
        Change::SetDisabled { disabled } => out.byte(5).byte((*disabled).into()),
        Change::SetProfile { display_name, status } => {
            out.byte(6).maybe(display_name.as_ref()).maybe(status.as_ref())
        }
        Change::IssueToken { hash: _, label, scopes, ttl_ms } => {
            let out = out.byte(7).str(label).number(scopes.number().into());
            out.maybe(ttl_ms.map(u64::to_le_bytes))
        }
        Change::Register { display_name, password: _ } => out.byte(8).str(display_name),
        Change::MakeInvite { hash: _, uses_max, ttl_ms } => {
            out.byte(9).number((*uses_max).into()).number(*ttl_ms)
        }
        Change::DropInvite { hash } => out.byte(10).bytes(hash),
        Change::UseInvite { hash, guest, give_back } => {
            out.byte(11).bytes(hash).str(guest.as_str()).byte((*give_back).into())
        }
        Change::ClaimSubject { link, user } => put_link(out.byte(12), link).str(user.as_str()),
        Change::RegisterLinked { display_name, link } => {
            put_link(out.byte(13), link).str(display_name)
        }
        Change::OpenLinkedSession {
            hash: _,
            link,
            admin,
            user_agent,
            address,
            ttl_ms,
            idle_ms,
        } => {
            let out = put_link(out.byte(14), link).maybe(admin.map(|admin| [u8::from(admin)]));
            out.str(user_agent).str(address).number(*ttl_ms).number(*idle_ms)
        }
        Change::SetLink { link } => put_link(out.byte(15), link),
    }
}

fn put_link<'a>(out: &'a mut Canonical, link: &Link) -> &'a mut Canonical {
    out.str(&link.issuer).str(&link.subject)
}

/// The commands on who is in a room, and on the room itself.
fn put_room_command<'a>(out: &'a mut Canonical, command: &Command) -> &'a mut Canonical {
    match command {
        Command::Invite { room, user, salt: _ } => {
            out.byte(60).str(room.as_str()).str(user.as_str())
        }
        Command::Kick { room, user, reason, salt: _ } => {
            out.byte(61).str(room.as_str()).str(user.as_str()).str(reason)
        }
        Command::Restrict { room, user, restriction, for_ms, reason, salt: _ } => {
            let out = out.byte(62).str(room.as_str()).str(user.as_str());
            out.byte(*restriction as u8).number(*for_ms).str(reason)
        }
        Command::Lift { room, user, restriction, salt: _ } => {
            out.byte(63).str(room.as_str()).str(user.as_str()).byte(*restriction as u8)
        }
        Command::SetTopic { room, topic, salt: _ } => out.byte(64).str(room.as_str()).str(topic),
        Command::Pin { room, target, withdraw, salt: _ } => {
            out.byte(65).str(room.as_str()).number(target.0).byte((*withdraw).into())
        }
        Command::Archive { room, withdraw, salt: _ } => {
            out.byte(66).str(room.as_str()).byte((*withdraw).into())
        }
        Command::SetRetention { room, retention, salt: _ } => {
            let out = out.byte(67).str(room.as_str());
            out.number(retention.max_age_ms).number(retention.max_events)
        }
        Command::Trim { room, salt: _ } => out.byte(68).str(room.as_str()),
        // `body_hash` has the rest.
        _ => out,
    }
}

/// An unambiguous concatenation of fields.
struct Canonical(Vec<u8>);

impl Canonical {
    fn byte(&mut self, byte: u8) -> &mut Canonical {
        self.0.push(byte);
        self
    }

    fn number(&mut self, number: u64) -> &mut Canonical {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Canonical {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn maybe(&mut self, bytes: Option<impl AsRef<[u8]>>) -> &mut Canonical {
        match bytes {
            Some(bytes) => self.byte(1).bytes(bytes.as_ref()),
            None => self.byte(0),
        }
    }

    fn str(&mut self, s: &str) -> &mut Canonical {
        self.bytes(s.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::command::Restriction;
    use crate::chat::event::EventKind;
    use crate::chat::state::{Retention, RoomKind};
    use crate::id::{Epoch, RoomId, Seq};

    fn hex(command: &Command) -> String {
        body_hash(command).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn post(text: &str, reply_to: Option<Seq>, salt: u8) -> Command {
        Command::Post {
            room: RoomId::parse("general").unwrap(),
            kind: EventKind::Message,
            text: text.into(),
            reply_to,
            salt: [salt; 16],
        }
    }

    #[test]
    fn the_body_hash_is_pinned() {
        assert_eq!(hex(&post("hi", Some(Seq(5)), 1)), "e6b16f84e1c3fb9b69d8cdb157d17935");
    }

    #[test]
    fn what_a_gateway_mints_does_not_tell_requests_apart() {
        assert_eq!(hex(&post("hi", None, 1)), hex(&post("hi", None, 2)));
        let room = || RoomId::parse("general").unwrap();
        let ban = |salt| Command::Restrict {
            room: room(),
            user: UserId::parse("bob").unwrap(),
            restriction: Restriction::Ban,
            for_ms: 60_000,
            reason: "spam".into(),
            salt: [salt; 16],
        };
        assert_eq!(hex(&ban(1)), "7649991728bb4ab1e659b56e341dbbbb");
        assert_eq!(hex(&ban(1)), hex(&ban(2)));
        let retention = Retention { max_age_ms: 1000, max_events: 7 };
        let kept = Command::SetRetention { room: room(), retention, salt: [1; 16] };
        assert_eq!(hex(&kept), "69d6944799257a1f7f2801c0b404a7a2");
        assert_eq!(hex(&post("hi", None, 1)), hex(&post("ho", None, 1)), "it would be guessed");
        assert_ne!(hex(&post("hi", None, 1)), hex(&post("hi", Some(Seq(1)), 1)));
        let room = |epoch, salt| Command::CreateRoom {
            room: RoomId::parse("general").unwrap(),
            title: String::new(),
            kind: RoomKind::Public,
            epoch: Epoch::mint([epoch; 8]),
            salt: [salt; 16],
        };
        assert_eq!(hex(&room(1, 1)), hex(&room(2, 2)));
        let user = |token_hash| Command::CreateUser {
            user: UserId::parse("ann").unwrap(),
            display_name: String::new(),
            admin: false,
            token_hash,
        };
        assert_eq!(hex(&user(None)), hex(&user(Some([1; 32]))));
    }
}
