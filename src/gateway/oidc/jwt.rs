//! Tokens that a provider has signed: ID tokens, and the access tokens that are taken.
//!
//! Both go one way, that of the crate `openidconnect` for ID tokens (OpenID Connect Core 1.0, section
//! 3.1.3.7): access tokens (RFC 9068) have the same claims, for another audience. The crate looks at
//! the signature, the issuer, the audience, the end and the nonce. What it leaves open is here:
//!
//! - Only signatures with public keys are taken. So there is no `none`, and no HMAC for which somebody
//!   could use a public key as the secret.
//! - RSA keys have 2048 bits at least.
//! - Where several keys may have signed a token that names none, each of a few is tried.
//! - `azp`, `nbf` and `iat` are looked at, and what the subject is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::{
    CoreGenderClaim, CoreJsonWebKey, CoreJsonWebKeyType, CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm as Algorithm,
};
use openidconnect::{
    AdditionalClaims, ClaimsVerificationError, ClientId, IdToken, IdTokenClaims, IdTokenVerifier,
    IssuerUrl, JsonWebKey, JsonWebKeySet, JsonWebTokenType, Nonce, NonceVerifier,
    SignatureVerificationError,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::chat::account::Link;
use crate::limits;

/// A token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How far clocks may be apart, in milliseconds.
const LEEWAY_MS: u64 = 30_000;
/// Keys that may have signed one token that names none. Each costs half a millisecond, also for a
/// token that somebody has made up.
const TRIES_MAX: usize = 4;
/// An RSA key's modulus, in bits.
const RSA_BITS_MIN: usize = 2048;

const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RsaSsaPkcs1V15Sha256,
    Algorithm::RsaSsaPkcs1V15Sha384,
    Algorithm::RsaSsaPkcs1V15Sha512,
    Algorithm::RsaSsaPssSha256,
    Algorithm::RsaSsaPssSha384,
    Algorithm::RsaSsaPssSha512,
    Algorithm::EcdsaP256Sha256,
    Algorithm::EcdsaP384Sha384,
    Algorithm::EdDsa,
];

/// A token's claims, or what else is said of somebody.
pub type Claims = Map<String, Value>;

/// Claims that the crate does not know.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Others(Claims);

impl AdditionalClaims for Others {}

type Token = IdToken<Others, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, Algorithm>;

/// What a token must be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Who issued it.
    pub issuer: &'a str,
    /// For whom.
    pub audience: &'a str,
    /// What it is for.
    pub kind: Kind<'a>,
    /// The time, milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// It says who has signed in; with this nonce, where one was sent.
    Id(Option<&'a str>),
    /// It comes with requests.
    Access,
}

/// What a token says that is what it must be.
#[derive(Debug)]
pub struct Verified {
    /// Whose it is.
    pub link: Link,
    /// Until when it is good, milliseconds since the Unix epoch.
    pub ends_at_ms: u64,
    /// All of it.
    pub claims: Claims,
}

/// Why a token is not what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// It is no signed token.
    #[error("this is not a signed token")]
    Malformed,
    /// It is signed in a way that is not taken.
    #[error("the token's algorithm is not one that is taken")]
    Algorithm,
    /// The issuer has no such key: perhaps not yet.
    #[error("the token's key is not among its issuer's")]
    UnknownKey,
    /// Somebody else has signed it.
    #[error("the token's signature is not its issuer's")]
    Signature,
    /// It says something else.
    #[error("{0}")]
    Claim(&'static str),
}

impl From<ClaimsVerificationError> for Bad {
    fn from(error: ClaimsVerificationError) -> Bad {
        use ClaimsVerificationError as Claim;
        use SignatureVerificationError as Signature;
        match error {
            Claim::InvalidIssuer(_) => Bad::Claim("the token is of another issuer"),
            Claim::InvalidAudience(_) => Bad::Claim("the token is for somebody else"),
            Claim::Expired(_) => Bad::Claim("the token has expired"),
            Claim::InvalidNonce(_) => Bad::Claim("the ID token is of another sign-in"),
            Claim::SignatureVerification(error) => match error {
                // A key of another curve is another key.
                Signature::NoMatchingKey | Signature::InvalidKey(_) => Bad::UnknownKey,
                Signature::NoSignature
                | Signature::DisallowedAlg(_)
                | Signature::UnsupportedAlg(_) => Bad::Algorithm,
                _ => Bad::Signature,
            },
            _ => Bad::Malformed,
        }
    }
}

/// Whether a text looks like a signed token.
pub fn is_token(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    text.len() <= TOKEN_BYTES_MAX
        && text.starts_with("ey")
        && text.bytes().filter(|byte| *byte == b'.').count() == 2
        && text.bytes().all(is_plain)
}

/// What a token says, true or not.
///
/// # Errors
/// [`Bad::Malformed`].
pub fn unverified(token: &str) -> Result<Claims, Bad> {
    let claims = token.split('.').nth(1).ok_or(Bad::Malformed)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| Bad::Malformed)?;
    serde_json::from_slice(&claims).map_err(|_| Bad::Malformed)
}

/// Whether a key of a provider's is one that tokens may be signed with.
pub fn is_usable(key: &CoreJsonWebKey) -> bool {
    match key.key_type() {
        CoreJsonWebKeyType::RSA => {
            // The crate takes keys of any size, and shows a key's modulus in no other way.
            let key = serde_json::to_value(key).unwrap_or_default();
            let modulus = URL_SAFE_NO_PAD.decode(key["n"].as_str().unwrap_or_default());
            let modulus = modulus.unwrap_or_default();
            let mut bytes = modulus.iter().skip_while(|byte| **byte == 0);
            let first = bytes.next().map_or(0, |byte| 8 - byte.leading_zeros() as usize);
            first + 8 * bytes.count() >= RSA_BITS_MIN
        }
        kind => *kind != CoreJsonWebKeyType::Symmetric,
    }
}

/// Checks that one of these keys has signed a token, and that it is what it must be.
///
/// # Errors
/// Why it is not.
pub fn verify(
    token: &str,
    keys: &[CoreJsonWebKey],
    expected: Expected<'_>,
) -> Result<Verified, Bad> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Bad::Malformed);
    }
    let parsed: Token = token.parse().map_err(|_| unreadable(token))?;
    let mut tries = 0;
    for key in keys {
        // One at a time: of two that fit the crate takes neither.
        let nonce = |said: Option<&Nonce>| match expected.kind {
            Kind::Id(Some(sent)) => Nonce::new(sent.to_owned()).verify(said),
            Kind::Id(None) | Kind::Access => Ok(()),
        };
        match parsed.claims(&verifier(key, &expected)?, nonce).map_err(Bad::from) {
            Ok(claims) => return look_closer(claims, &expected),
            Err(Bad::UnknownKey) => {}
            Err(Bad::Signature) if tries + 1 < TRIES_MAX => tries += 1,
            Err(bad) => return Err(bad),
        }
    }
    Err(if tries == 0 { Bad::UnknownKey } else { Bad::Signature })
}

/// What is wrong with a token that the crate does not read, which does not say it.
pub fn unreadable(token: &str) -> Bad {
    let Ok(claims) = unverified(token) else { return Bad::Malformed };
    let is_time = |name: &str| claims.get(name).is_some_and(Value::is_number);
    match claims.get("aud") {
        Some(audience) if !audience.is_string() && !audience.is_array() => {
            Bad::Claim("the token is for somebody else")
        }
        _ if !is_time("exp") || !is_time("iat") => Bad::Claim("a time in the token is none"),
        _ if !claims.get("sub").is_some_and(Value::is_string) => {
            Bad::Claim("the token does not say whose it is")
        }
        _ => Bad::Malformed,
    }
}

fn verifier<'a>(
    key: &CoreJsonWebKey,
    expected: &Expected<'_>,
) -> Result<IdTokenVerifier<'a, CoreJsonWebKey>, Bad> {
    let issuer = IssuerUrl::new(expected.issuer.to_owned()).map_err(|_| Bad::Malformed)?;
    let audience = ClientId::new(expected.audience.to_owned());
    let early_ms = i64::try_from(expected.now_ms.saturating_sub(LEEWAY_MS)).unwrap_or(i64::MAX);
    let early = chrono::DateTime::from_timestamp_millis(early_ms)
        .unwrap_or(chrono::DateTime::<chrono::Utc>::MAX_UTC);
    // An access token may say that it is one (RFC 9068, section 2.1), which an ID token must not.
    let types: &[&str] = match expected.kind {
        Kind::Id(_) => &["JWT", "JOSE"],
        Kind::Access => &["JWT", "JOSE", "at+jwt"],
    };
    let types = types.iter().map(|name| JsonWebTokenType::new((*name).to_owned()).normalize());
    // Without the client's secret, which is of use for an HMAC only.
    let keys = JsonWebKeySet::new(vec![key.clone()]);
    Ok(IdTokenVerifier::new_public_client(audience, issuer, keys)
        .set_allowed_algs(ALGORITHMS)
        .set_allowed_jose_types(types.flatten())
        .set_other_audience_verifier_fn(|_| true) // `azp` says whose it is
        .set_time_fn(move || early))
}

/// Looks at what the crate does not.
fn look_closer(
    verified: &IdTokenClaims<Others, CoreGenderClaim>,
    expected: &Expected<'_>,
) -> Result<Verified, Bad> {
    let Ok(Value::Object(claims)) = serde_json::to_value(verified) else {
        return Err(Bad::Malformed);
    };
    let latest_s = expected.now_ms.saturating_add(LEEWAY_MS) / 1000;
    for name in ["nbf", "iat"] {
        let Some(from) = claims.get(name) else { continue };
        // Times may have fractions (RFC 7519, section 2), which are of no use here.
        let from_s =
            from.as_u64().or_else(|| from.as_f64().filter(|s| *s >= 0.0).map(|s| s as u64));
        if from_s.ok_or(Bad::Claim("a time in the token is none"))? > latest_s {
            return Err(Bad::Claim("the token is not valid yet"));
        }
    }
    if expected.kind != Kind::Access {
        match verified.authorized_party() {
            Some(party) if party.as_str() != expected.audience => {
                return Err(Bad::Claim("the ID token is another client's"));
            }
            None if verified.audiences().len() > 1 => {
                return Err(Bad::Claim("the ID token does not say which client's it is"));
            }
            _ => {}
        }
    }
    let subject = verified.subject().as_str();
    let is_long = subject.len() > limits::SUBJECT_BYTES_MAX;
    if subject.is_empty() || is_long || subject.chars().any(char::is_control) {
        return Err(Bad::Claim("the token does not say whose it is"));
    }
    let link = Link { issuer: expected.issuer.to_owned(), subject: subject.to_owned() };
    let ends_at_ms = u64::try_from(verified.expiration().timestamp_millis()).unwrap_or_default();
    Ok(Verified { link, ends_at_ms: ends_at_ms.saturating_add(LEEWAY_MS), claims })
}
