//! Bearer tokens: `fm_<user>_<64 hex digits>`, 32 random bytes of which only the blake3 hash is
//! kept, in the user's replicated row.
//!
//! A session that began with a password has a secret of the same form. Here they are minted and
//! parsed; `authenticator.rs` verifies them.
//!
//! **Invariant:** a secret is neither logged nor kept, only its hash.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::chat::event::Hash;
use crate::error::{Code, Error};
use crate::gateway::oidc::account::Linked;
use crate::gateway::oidc::jwt;
use crate::id::{JOIN_TOKEN_PREFIX, UserId};
use crate::meta::join_token;

const SECRET_BYTES: usize = 32;
/// What an invite begins with; `fm_` cannot be meant by it, for a user's id has no such form.
const INVITE_PREFIX: &str = "fmi_";

/// Mints a token for a user: the token, to be shown once, and the hash, to be kept.
pub fn mint_token(user: &UserId) -> (String, Hash) {
    mint("fm_", user)
}

/// Mints an invite of a user's: to be shown once, and its hash, to be kept.
pub fn mint_invite(user: &UserId) -> (String, Hash) {
    mint(INVITE_PREFIX, user)
}

fn mint(prefix: &str, user: &UserId) -> (String, Hash) {
    let secret: [u8; SECRET_BYTES] = rand::random();
    let mut token = String::with_capacity(8 + user.as_str().len() + 2 * SECRET_BYTES);
    let _ = write!(token, "{prefix}{user}_");
    for byte in secret {
        let _ = write!(token, "{byte:02x}");
    }
    (token, *blake3::hash(&secret).as_bytes())
}

/// Who made an invite, and its hash; `None` when it is none.
pub fn parse_invite(invite: &str) -> Option<(UserId, Hash)> {
    parse(INVITE_PREFIX, invite)
}

fn parse(prefix: &str, token: &str) -> Option<(UserId, Hash)> {
    // User ids may contain underscores, secrets do not.
    let (user, secret) = token.strip_prefix(prefix)?.rsplit_once('_')?;
    let user = UserId::parse(user).ok()?;
    let mut bytes = [0; SECRET_BYTES];
    if secret.len() != 2 * SECRET_BYTES {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(secret.as_bytes().chunks_exact(2)) {
        *byte = hex_digit(digits[0])? << 4 | hex_digit(digits[1])?;
    }
    Some((user, *blake3::hash(&bytes).as_bytes()))
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
    /// By what, where that is a provider's token.
    linked: Option<Arc<Linked>>,
}

/// What a request carries to say whose it is. Well-formed; a token of a provider is to be looked at.
#[derive(Debug, PartialEq, Eq)]
pub enum Offered {
    /// A token of ours.
    Own(Credentials),
    /// A provider's (`oidc/bearer.rs`).
    Jwt(Jwt),
}

/// A provider's token. Not shown by `Debug`.
#[derive(PartialEq, Eq)]
pub struct Jwt(String);

impl std::ops::Deref for Jwt {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Jwt(…)")
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Offered {
    /// Takes an `Authorization` header's value.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when there is none, or it is no bearer token.
    pub fn from_header(value: Option<&[u8]>) -> Result<Offered, Error> {
        let value = value.ok_or_else(|| {
            Error::new(Code::Unauthenticated, "send a token: `Authorization: Bearer fm_…`")
        })?;
        let token = std::str::from_utf8(value).ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        token.ok_or_else(malformed).and_then(Offered::from_token)
    }

    /// Takes a token by itself.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when it is none.
    pub fn from_token(token: &str) -> Result<Offered, Error> {
        if jwt::is_token(token) {
            return Ok(Offered::Jwt(Jwt(token.to_owned())));
        }
        Credentials::parse(token).map(Offered::Own).ok_or_else(malformed)
    }
}

impl Credentials {
    /// Takes a token.
    ///
    /// `None` when it is none of ours.
    pub fn parse(token: &str) -> Option<Credentials> {
        let (user, hash) = parse("fm_", token)?;
        Some(Credentials { user, hash, linked: None })
    }

    /// Those of a user who has shown a provider's token, which is good.
    pub fn linked(user: UserId, token: &str, linked: Linked) -> Credentials {
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        Credentials { user, hash, linked: Some(Arc::new(linked)) }
    }

    /// What a provider's token has to do with the user; `None` when it is a token of ours.
    pub fn by_provider(&self) -> Option<&Linked> {
        self.linked.as_deref()
    }

    /// Whose they are said to be.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// blake3 of the secret.
    pub fn hash(&self) -> &Hash {
        &self.hash
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

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> Result<Offered, Error> {
        Offered::from_header(Some(value.as_bytes()))
    }

    #[test]
    fn a_minted_token_parses_to_its_hash() {
        let user = UserId::parse("some_one").unwrap();
        let (token, hash) = mint_token(&user);
        assert_eq!(
            header(&format!("Bearer {token}")),
            Ok(Offered::Own(Credentials { user, hash, linked: None }))
        );
        assert_ne!(mint_token(&UserId::parse("x").unwrap()).1, hash);
    }

    #[test]
    fn what_looks_like_a_providers_token_is_not_shown() {
        let jwt = header("Bearer eyJhbGciOiJub25lIn0.e30.").unwrap();
        assert_eq!(format!("{jwt:?}"), "Jwt(Jwt(…))");
        let long = format!("eyJ.{}.x", "a".repeat(jwt::TOKEN_BYTES_MAX));
        for bad in ["eyJ.a", "eyJ.a.b.c", "eyJ.ü.b", "eyJ.a b.c", &long] {
            assert!(Offered::from_token(bad).is_err(), "{bad}");
        }
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
        assert!(Offered::from_header(None).is_err());
        assert!(Offered::from_header(Some(b"Bearer \xff")).is_err());
    }
}
