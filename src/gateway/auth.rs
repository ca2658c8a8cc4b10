//! Bearer tokens: `fm_<user>_<64 hex digits>`, 32 random bytes of which only the blake3 hash is
//! kept, in the user's replicated row.
//!
//! Called for every request, and again during long ones. A token that was found valid is trusted
//! for [`TOKEN_TRUST`] and then looked up again, on this node's own replica where it has one; so a
//! revoked token stops working within about that time, everywhere.
//!
//! **Invariants:** a secret is neither logged nor kept, only its hash; a lookup that fails is an
//! error, never an old answer.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::chat::command::Actor;
use crate::chat::event::Hash;
use crate::chat::query::{Answer, Query};
use crate::error::{Code, Error};
use crate::gateway::backend::Backend;
use crate::gateway::limits::{TOKEN_CACHE_MAX, TOKEN_TRUST};
use crate::id::{JOIN_TOKEN_PREFIX, UserId};
use crate::meta::join_token;
use crate::router::Consistency;

const SECRET_BYTES: usize = 32;

/// Mints a token for a user: the token, to be shown once, and the hash, to be kept.
pub fn mint_token(user: &UserId) -> (String, Hash) {
    let secret: [u8; SECRET_BYTES] = rand::random();
    let mut token = String::with_capacity(4 + user.as_str().len() + 2 * SECRET_BYTES);
    let _ = write!(token, "fm_{user}_");
    for byte in secret {
        let _ = write!(token, "{byte:02x}");
    }
    (token, *blake3::hash(&secret).as_bytes())
}

/// Mints a token that lets a new node join: the token, to be shown once, and the hash, to be kept.
pub fn mint_join_token() -> (String, bytes::Bytes) {
    let secret: [u8; SECRET_BYTES] = rand::random();
    let mut token = JOIN_TOKEN_PREFIX.to_owned();
    for byte in secret {
        let _ = write!(token, "{byte:02x}");
    }
    let hash = join_token::hash(&token);
    (token, hash)
}

/// Who a request claims to come from, with the proof. Well-formed, not verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: UserId,
    hash: Hash,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Takes an `Authorization` header's value.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when there is none, or it is no bearer token of ours.
    pub fn from_header(value: Option<&[u8]>) -> Result<Credentials, Error> {
        let value = value.ok_or_else(|| {
            Error::new(Code::Unauthenticated, "send a token: `Authorization: Bearer fm_…`")
        })?;
        let token = std::str::from_utf8(value).ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        token.and_then(Credentials::parse).ok_or_else(malformed)
    }

    /// Takes a token by itself.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when it is none of ours.
    pub fn from_token(token: &str) -> Result<Credentials, Error> {
        Credentials::parse(token).ok_or_else(malformed)
    }

    fn parse(token: &str) -> Option<Credentials> {
        // User ids may contain underscores, secrets do not.
        let (user, secret) = token.strip_prefix("fm_")?.rsplit_once('_')?;
        let user = UserId::parse(user).ok()?;
        let mut bytes = [0; SECRET_BYTES];
        if secret.len() != 2 * SECRET_BYTES {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(secret.as_bytes().chunks_exact(2)) {
            *byte = hex_digit(digits[0])? << 4 | hex_digit(digits[1])?;
        }
        Some(Credentials { user, hash: *blake3::hash(&bytes).as_bytes() })
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn malformed() -> Error {
    Error::new(Code::Unauthenticated, "this is not a token: `fm_<user>_<64 hex digits>`")
}

fn unknown() -> Error {
    Error::new(Code::Unauthenticated, "this token is not valid, or not any more")
}

/// Compares in a time that does not depend on where the hashes differ.
fn same_hash(a: &Hash, b: &Hash) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b));
    black_box(difference) == 0
}

#[derive(Debug)]
struct Verified {
    user: UserId,
    admin: bool,
    until: Instant,
}

/// Verifies credentials, remembering for a moment those that were good.
#[derive(Debug, Default)]
pub struct Authenticator {
    // Keyed by the hash of the secret: whoever can choose it does not know which hash it has.
    verified: Mutex<HashMap<Hash, Verified>>,
}

impl Authenticator {
    /// Finds out who is calling.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when the token is not the user's; any other when that could not
    /// be found out.
    pub async fn verify(
        &self,
        backend: &dyn Backend,
        credentials: &Credentials,
    ) -> Result<Actor, Error> {
        let now = Instant::now();
        if let Some(actor) = self.remembered(credentials, now) {
            return Ok(actor);
        }
        // A token that was just issued may not have reached this node's replica yet, so only a
        // linearizable read can tell that there is none.
        let local = look_up(backend, credentials, Consistency::Local).await?;
        let admin = match local {
            Some(admin) => admin,
            None => look_up(backend, credentials, Consistency::Linearizable)
                .await?
                .ok_or_else(unknown)?,
        };
        self.remember(credentials, admin, now);
        Ok(Actor { user: credentials.user.clone(), admin })
    }

    fn remembered(&self, credentials: &Credentials, now: Instant) -> Option<Actor> {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let found = verified.get(&credentials.hash)?;
        let good = found.until > now && found.user == credentials.user;
        good.then(|| Actor { user: found.user.clone(), admin: found.admin })
    }

    fn remember(&self, credentials: &Credentials, admin: bool, now: Instant) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= TOKEN_CACHE_MAX {
            verified.retain(|_, verified| verified.until > now);
        }
        if verified.len() >= TOKEN_CACHE_MAX {
            return; // those beyond are looked up each time
        }
        let entry = Verified { user: credentials.user.clone(), admin, until: now + TOKEN_TRUST };
        verified.insert(credentials.hash, entry);
    }
}

/// Whether the token's user administers the cluster; `None` when there is no such user or token.
async fn look_up(
    backend: &dyn Backend,
    credentials: &Credentials,
    consistency: Consistency,
) -> Result<Option<bool>, Error> {
    let claimed = Actor { user: credentials.user.clone(), admin: false };
    let query = Query::User { user: credentials.user.clone() };
    let user = match backend.query(&claimed, query, consistency).await {
        Ok(Answer::User { user }) => user,
        Ok(_) => return Err(Error::new(Code::Internal, "a user query had another answer")),
        Err(error) if error.code == Code::UserNotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let known = user
        .tokens
        .iter()
        .fold(false, |known, token| known | same_hash(&token.hash, &credentials.hash));
    Ok(known.then_some(user.admin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> Result<Credentials, Error> {
        Credentials::from_header(Some(value.as_bytes()))
    }

    #[test]
    fn a_minted_token_parses_to_its_hash() {
        let user = UserId::parse("some_one").unwrap();
        let (token, hash) = mint_token(&user);
        assert_eq!(header(&format!("Bearer {token}")), Ok(Credentials { user, hash }));
        assert_ne!(mint_token(&UserId::parse("x").unwrap()).1, hash);
    }

    #[test]
    fn malformed_tokens_are_unauthenticated() {
        let hex = "0".repeat(64);
        let bad = [
            String::new(),
            "Bearer".into(),
            "Bearer ".into(),
            format!("Basic fm_a_{hex}"),
            format!("Bearer fm__{hex}"),
            format!("Bearer fm_A_{hex}"),
            format!("Bearer fm_a_{}", &hex[1..]),
            format!("Bearer fm_a_{}g", &hex[1..]),
            format!("Bearer fm_a_{}A", &hex[1..]),
            format!("Bearer xx_a_{hex}"),
            format!("Bearer fm_a{hex}"),
            format!("Bearer fm_a_{}ä", &hex[2..]),
        ];
        for bad in bad {
            assert_eq!(header(&bad).unwrap_err().code, Code::Unauthenticated, "{bad}");
        }
        assert!(Credentials::from_header(None).is_err());
        assert!(Credentials::from_header(Some(b"Bearer \xff")).is_err());
    }

    #[test]
    fn hashes_are_compared_whole() {
        let a = [7; 32];
        for i in 0..32 {
            let mut b = a;
            b[i] ^= 1;
            assert!(!same_hash(&a, &b));
        }
        assert!(same_hash(&a, &a.clone()));
    }
}
