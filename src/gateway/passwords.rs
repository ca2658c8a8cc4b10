//! Passwords: hashed with argon2id, verified without saying by its time who exists.
//!
//! Hashing takes memory and a core for a while, on purpose. So it is done on threads of its own, a
//! few at once; some more wait, and the rest is told to come back. Parameters are the least that
//! OWASP advises (19 MiB, 2 passes, 1 lane); those of an old hash are read from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::Semaphore;

use crate::chat::account::Password;
use crate::error::{Code, Error};
use crate::gateway::limits::{PASSWORDS_AT_ONCE, PASSWORDS_WAITING_MAX};
use crate::limits::{PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN};

/// In KiB.
const MEMORY: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// A password's letters when the node chooses it: none that look like others.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const CHOSEN_LETTERS: usize = 20;
/// What the password of somebody who has none is compared with, of the same parameters as all
/// others; nothing fits it.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA\
                      $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes and verifies passwords.
#[derive(Debug)]
pub struct Passwords {
    at_once: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for Passwords {
    fn default() -> Passwords {
        Passwords {
            at_once: Arc::new(Semaphore::new(PASSWORDS_AT_ONCE)),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl Passwords {
    /// Hashes a new password.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when it is too short or too long; [`Code::Overloaded`].
    pub async fn hash(&self, password: &str) -> Result<Password, Error> {
        check(password)?;
        let password = password.to_owned();
        self.work(move || hash(password.as_bytes(), &rand::random())).await?
    }

    /// Whether this is the password; takes as long when there is none.
    ///
    /// # Errors
    /// [`Code::Overloaded`].
    pub async fn verify(&self, password: &str, kept: Option<&Password>) -> Result<bool, Error> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let (phc, is_kept) = (kept.map_or(NOBODY, Password::phc).to_owned(), kept.is_some());
        let password = password.to_owned();
        self.work(move || verify(password.as_bytes(), &phc) && is_kept).await
    }

    /// Works on a thread of its own, when it is its turn.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let waiting = Waiting::begin(&self.waiting)?;
        let closed = || Error::new(Code::Internal, "no passwords are hashed any more");
        let turn = self.at_once.clone().acquire_owned().await.map_err(|_| closed())?;
        drop(waiting);
        let work = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn); // and not when somebody has stopped to wait for it
            done
        });
        work.await.map_err(|error| Error::new(Code::Internal, error.to_string()))
    }
}

/// One of those that wait, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn begin(waiting: &AtomicUsize) -> Result<Waiting<'_>, Error> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let begun = Waiting(waiting);
        if before >= PASSWORDS_WAITING_MAX {
            let message = "too many sign in at once";
            return Err(Error::new(Code::Overloaded, message).retry_after(2000));
        }
        Ok(begun)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Checks a new password.
///
/// # Errors
/// [`Code::InvalidArgument`].
pub fn check(password: &str) -> Result<(), Error> {
    if password.chars().count() < PASSWORD_CHARS_MIN {
        let message = format!("a password has {PASSWORD_CHARS_MIN} characters or more");
        return Err(Error::invalid(message));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(Error::invalid(format!("a password has at most {PASSWORD_BYTES_MAX} bytes")));
    }
    Ok(())
}

/// A password that nobody has thought of: 100 random bits.
pub fn choose() -> String {
    let random: [u8; CHOSEN_LETTERS] = rand::random();
    random.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}

fn argon2() -> Option<Argon2<'static>> {
    let params = Params::new(MEMORY, PASSES, LANES, None).ok()?;
    Some(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &[u8], salt: &[u8; 16]) -> Result<Password, Error> {
    let hash = argon2().and_then(|argon2| argon2.hash_password_with_salt(password, salt).ok());
    let password = hash.and_then(|hash| Password::parse(&hash.to_string()));
    password.ok_or_else(|| Error::new(Code::Internal, "the password could not be hashed"))
}

fn verify(password: &[u8], phc: &str) -> bool {
    let Ok(kept) = PasswordHash::new(phc) else { return false };
    argon2().is_some_and(|argon2| argon2.verify_password(password, &kept).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn the_password_fits_and_no_other() {
        let passwords = Passwords::default();
        let kept = passwords.hash("correct horse").await.unwrap();
        assert!(kept.phc().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(passwords.verify("correct horse", Some(&kept)).await.unwrap());
        for wrong in ["", "correct horses", "Correct horse", &"x".repeat(100_000)] {
            assert!(!passwords.verify(wrong, Some(&kept)).await.unwrap());
            assert!(!passwords.verify(wrong, None).await.unwrap());
        }
        let again = passwords.hash("correct horse").await.unwrap();
        assert_ne!(kept, again, "salted");
    }

    #[test]
    fn nobody_is_compared_with_as_everybody_else() {
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let kept = hash(b"correct horse", &[1; 16]).unwrap();
        let kept = PasswordHash::new(kept.phc()).unwrap();
        assert_eq!(nobody.params, kept.params);
        assert_eq!(nobody.hash.unwrap().as_bytes().len(), kept.hash.unwrap().as_bytes().len());
        let kept = kept.to_string();
        let time = |phc: &str| {
            let begin = Instant::now();
            assert!(!verify(b"wrong password", phc));
            begin.elapsed()
        };
        // In turn, as others use the machine as well; the quickest of each.
        let (mut a, mut b) = (Duration::MAX, Duration::MAX);
        for round in 0..20 {
            (a, b) = (a.min(time(NOBODY)), b.min(time(&kept)));
            if round >= 5 && a < b * 2 && b < a * 2 {
                return;
            }
        }
        panic!("{a:?} against {b:?}");
    }

    #[test]
    fn lengths_are_checked() {
        assert!(check("1234567").is_err() && check("12345678").is_ok());
        assert!(check("ääääääää").is_ok(), "characters, not bytes");
        assert!(check(&"x".repeat(256)).is_ok() && check(&"x".repeat(257)).is_err());
    }

    #[test]
    fn chosen_passwords_differ_and_pass() {
        let (a, b) = (choose(), choose());
        assert_ne!(a, b);
        assert!(check(&a).is_ok() && a.len() == CHOSEN_LETTERS);
    }

    #[tokio::test]
    async fn a_flood_is_told_to_come_back() {
        let passwords = Arc::new(Passwords::default());
        let hold = passwords.at_once.clone().acquire_many_owned(PASSWORDS_AT_ONCE as u32);
        let hold = hold.await.unwrap();
        let flood: Vec<_> = (0..PASSWORDS_WAITING_MAX)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.verify("wrong password", None).await })
            })
            .collect();
        while passwords.waiting.load(Ordering::Relaxed) < PASSWORDS_WAITING_MAX {
            tokio::task::yield_now().await;
        }
        let refused = passwords.verify("wrong password", None).await.unwrap_err();
        assert_eq!(refused.code, Code::Overloaded);
        assert!(refused.retry_after_ms.is_some());
        flood.iter().for_each(tokio::task::JoinHandle::abort);
        for waiter in flood {
            let _ = waiter.await;
        }
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), 0, "who left waits no more");
        drop(hold);
        assert!(!passwords.verify("wrong password", None).await.unwrap());
    }
}
