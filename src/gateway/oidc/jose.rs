//! Signed tokens (RFC 7515, RFC 7519) and the keys of who signs them (RFC 7517).
//!
//! Only signatures with public keys: RSA (PKCS #1 v1.5 and PSS), ECDSA on P-256 and P-384, Ed25519. So
//! there is no `none`, and no HMAC for which somebody could use a public key as the secret. Which
//! algorithm a key is for follows from the key; what a token says must agree.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Keys of one issuer.
const KEYS_MAX: usize = 64;
/// A key's id, in bytes.
const KID_BYTES_MAX: usize = 256;

/// A token's claims.
pub type Claims = Map<String, Value>;

/// Why a token is not what it says.
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
}

#[derive(Debug)]
enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    alg: Option<String>,
    public: Public,
}

/// An issuer's keys.
#[derive(Debug)]
pub struct Keys(Vec<Key>);

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    fn key(self) -> Option<Key> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let point = |size: usize| {
            let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
            (x.len() == size && y.len() == size).then(|| [&[4][..], &x, &y].concat())
        };
        let public = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Public::Rsa { n: bytes(&self.n)?, e: bytes(&self.e)? },
            ("EC", Some("P-256")) => Public::P256(point(32)?),
            ("EC", Some("P-384")) => Public::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Public::Ed25519(bytes(&self.x).filter(|x| x.len() == 32)?),
            _ => return None,
        };
        Some(Key { kid: self.kid, alg: self.alg, public })
    }
}

impl Keys {
    /// Takes a set of keys, those that are of use here.
    ///
    /// `None` when it is none, or has none.
    pub fn parse(text: &[u8]) -> Option<Keys> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(text).ok()?;
        let keys = set.keys.into_iter().take(KEYS_MAX);
        // One that is odd is no reason to refuse the others.
        let keys = keys.filter_map(|key| serde_json::from_value::<Jwk>(key).ok()?.key());
        let keys: Vec<Key> = keys.collect();
        (!keys.is_empty()).then_some(Keys(keys))
    }
}

impl Public {
    /// Whether this key has signed it by this algorithm; `None` when it is for another one.
    fn verify(&self, alg: &str, signed: &[u8], signature: &[u8]) -> Option<bool> {
        let rsa = |parameters: &'static RsaParameters| match self {
            Public::Rsa { n, e } => {
                let key = RsaPublicKeyComponents { n, e };
                Some(key.verify(parameters, signed, signature).is_ok())
            }
            _ => None,
        };
        let other = |algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(signed, signature).is_ok()
        };
        match (alg, self) {
            ("RS256", _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            ("RS384", _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            ("RS512", _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            ("PS256", _) => rsa(&signature::RSA_PSS_2048_8192_SHA256),
            ("PS384", _) => rsa(&signature::RSA_PSS_2048_8192_SHA384),
            ("PS512", _) => rsa(&signature::RSA_PSS_2048_8192_SHA512),
            ("ES256", Public::P256(key)) => Some(other(&signature::ECDSA_P256_SHA256_FIXED, key)),
            ("ES384", Public::P384(key)) => Some(other(&signature::ECDSA_P384_SHA384_FIXED, key)),
            ("EdDSA" | "Ed25519", Public::Ed25519(key)) => Some(other(&signature::ED25519, key)),
            _ => None,
        }
    }
}

const ALGORITHMS: [&str; 10] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "Ed25519"];

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
    let (_, claims, _) = parts(token)?;
    claims_of(claims)
}

fn parts(token: &str) -> Result<(&str, &str, &str), Bad> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Bad::Malformed);
    }
    let mut parts = token.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(claims), Some(signature), None) => Ok((header, claims, signature)),
        _ => Err(Bad::Malformed),
    }
}

fn claims_of(part: &str) -> Result<Claims, Bad> {
    let text = URL_SAFE_NO_PAD.decode(part).map_err(|_| Bad::Malformed)?;
    serde_json::from_slice(&text).map_err(|_| Bad::Malformed)
}

/// The claims of a token that one of these keys has signed.
///
/// # Errors
/// Why it has not.
pub fn verify(token: &str, keys: &Keys) -> Result<Claims, Bad> {
    #[derive(Deserialize)]
    struct Header {
        alg: String,
        kid: Option<String>,
        crit: Option<Value>,
    }
    let (header, claims, signature) = parts(token)?;
    let decoded = URL_SAFE_NO_PAD.decode(header).map_err(|_| Bad::Malformed)?;
    let Header { alg, kid, crit } = serde_json::from_slice(&decoded).map_err(|_| Bad::Malformed)?;
    if crit.is_some() || kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
        return Err(Bad::Malformed);
    }
    if !ALGORITHMS.contains(&alg.as_str()) {
        return Err(Bad::Algorithm);
    }
    let signed = &token.as_bytes()[..token.len() - signature.len() - 1];
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Bad::Malformed)?;
    let named = keys.0.iter().filter(|key| kid.is_none() || key.kid == kid);
    let fitting = named.filter(|key| key.alg.as_ref().is_none_or(|of_key| *of_key == alg));
    let mut verdicts = fitting.filter_map(|key| key.public.verify(&alg, signed, &signature));
    match verdicts.try_fold(false, |_, good| if good { Err(()) } else { Ok(true) }) {
        Err(()) => claims_of(claims),
        Ok(true) => Err(Bad::Signature),
        Ok(false) => Err(Bad::UnknownKey),
    }
}
