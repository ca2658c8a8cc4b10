//! What a sign-in has to remember while somebody is at the provider, sealed and given to who signs in.
//!
//! So any node can go on with it, and none has to remember anything. The key is derived from the
//! client's secret, which all nodes have and nobody else but the provider; that is random and of 16
//! characters at least. ChaCha20-Poly1305 with a random nonce: whoever holds it can neither read nor
//! change it, nor use what was sealed for one provider, or one way to sign in, for another.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};

/// What is sealed, in bytes of its text.
const SEALED_BYTES_MAX: usize = 8 * 1024;

/// Seals for one provider.
pub struct Seal(LessSafeKey);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(…)")
    }
}

#[derive(Serialize, Deserialize)]
struct Dated<T> {
    /// It is good until then, milliseconds since the Unix epoch.
    until_ms: u64,
    what: T,
}

impl Seal {
    /// With the key of these words; the first ones are public, the last one is secret.
    pub fn new(public: &[&str], secret: &str) -> Seal {
        let mut hasher = blake3::Hasher::new_derive_key("folkmoot sealed state of a sign-in");
        for word in public.iter().chain([&secret]) {
            hasher.update(&(word.len() as u64).to_le_bytes());
            hasher.update(word.as_bytes());
        }
        let key = UnboundKey::new(&CHACHA20_POLY1305, hasher.finalize().as_bytes());
        Seal(LessSafeKey::new(key.expect("the key has 32 bytes")))
    }

    /// Seals something for one purpose, until a time.
    ///
    /// # Errors
    /// [`Code::Internal`], which is not to be expected.
    pub fn seal<T: Serialize>(
        &self,
        purpose: &str,
        until_ms: u64,
        what: T,
    ) -> Result<String, Error> {
        let odd = || Error::new(Code::Internal, "the state of a sign-in cannot be sealed");
        let mut text = serde_json::to_vec(&Dated { until_ms, what }).map_err(|_| odd())?;
        let nonce: [u8; NONCE_LEN] = rand::random();
        let aad = Aad::from(purpose.as_bytes());
        let sealed =
            self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text);
        sealed.map_err(|_| odd())?;
        Ok(URL_SAFE_NO_PAD.encode([&nonce[..], &text].concat()))
    }

    /// Opens what was sealed for this purpose; `None` when it was not, or its time is over.
    pub fn open<T: DeserializeOwned>(&self, purpose: &str, sealed: &str, now_ms: u64) -> Option<T> {
        if sealed.len() > SEALED_BYTES_MAX {
            return None;
        }
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, text) = bytes.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let text = self.0.open_in_place(nonce, Aad::from(purpose.as_bytes()), text).ok()?;
        let Dated { until_ms, what } = serde_json::from_slice(text).ok()?;
        (now_ms < until_ms).then_some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_by_the_same_for_the_same_until_its_end() {
        let seal = Seal::new(&["https://id.example.org", "chat"], "0123456789abcdef");
        let again = Seal::new(&["https://id.example.org", "chat"], "0123456789abcdef");
        let sealed = seal.seal("login", 100, "what").unwrap();
        let opened = |seal: &Seal, purpose: &str, sealed: &str, now_ms: u64| {
            seal.open::<String>(purpose, sealed, now_ms)
        };
        assert_eq!(opened(&again, "login", &sealed, 99).as_deref(), Some("what"));
        assert_eq!(opened(&again, "login", &sealed, 100), None, "it is over");
        assert_eq!(opened(&again, "device", &sealed, 99), None, "another purpose");
        for (public, secret) in [
            (["https://id.example.orgc", "hat"], "0123456789abcdef"),
            (["https://id.example.org", "chat"], "0123456789abcdeF"),
        ] {
            assert_eq!(opened(&Seal::new(&public, secret), "login", &sealed, 99), None);
        }
        for at in [0, 5, sealed.len() - 1] {
            let mut bad = sealed.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(opened(&seal, "login", &String::from_utf8(bad).unwrap(), 99), None);
        }
        for bad in ["", "AA", "%", &"A".repeat(SEALED_BYTES_MAX + 1)] {
            assert_eq!(opened(&seal, "login", bad, 0), None);
        }
        assert_ne!(seal.seal("login", 100, "what").unwrap(), sealed);
    }
}
