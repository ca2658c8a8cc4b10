//! Verifies credentials, and remembers those that were good for as long as nothing was revoked.
//!
//! Called for every request, and again during long ones; see `trust.rs` for how a node learns of
//! revocations.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq as _;
use tokio::sync::watch;

use crate::chat::account::{Scope, Scopes, User};
use crate::chat::command::Actor;
use crate::chat::event::Hash;
use crate::chat::query::{Answer, Query};
use crate::error::{Code, Error};
use crate::gateway::auth::Credentials;
use crate::gateway::backend::Backend;
use crate::gateway::limits::{TOKEN_CACHE_MAX, TOKEN_UNUSED_MAX};
use crate::gateway::oidc::account::Linked;
use crate::gateway::trust::{GIVE_UP, Trust};
use crate::id::UserId;
use crate::router::Consistency;

/// How long a read that may be stale waits for it to be made sure who asks.
const STALE_PATIENCE: Duration = Duration::from_secs(1);

/// What credentials are good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who it is; an administrator only where the token is good for that.
    pub actor: Actor,
    /// What they may do by these.
    pub scopes: Scopes,
    /// From when on they are not valid, milliseconds since the Unix epoch.
    pub ends_at_ms: Option<u64>,
    /// Of a session: when it was last said to be used, and its idle time, in milliseconds.
    pub session: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Remembered {
    verified: Verified,
    /// The shard's revocations then.
    count: u64,
    used: Instant,
}

/// Verifies credentials.
#[derive(Debug, Default)]
pub struct Authenticator {
    // Keyed by the hash of the secret: whoever can choose it does not know which hash it has.
    remembered: Mutex<HashMap<Hash, Remembered>>,
    trust: Trust,
}

impl Authenticator {
    /// Finds out what credentials are good for. `now_ms` is the time, milliseconds since the Unix
    /// epoch.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when they are not the user's, or not any more; any other when that
    /// could not be found out.
    pub async fn verify(
        &self,
        backend: &Arc<dyn Backend>,
        credentials: &Credentials,
        now_ms: u64,
    ) -> Result<Verified, Error> {
        self.verify_within(backend, credentials, now_ms, GIVE_UP).await
    }

    /// The same, for a read that may be stale: while it cannot be made sure, what this node's own
    /// replica has decides, and the error says why it is not sure.
    ///
    /// # Errors
    /// As [`Authenticator::verify`].
    pub async fn verify_stale(
        &self,
        backend: &Arc<dyn Backend>,
        credentials: &Credentials,
        now_ms: u64,
    ) -> Result<(Verified, Option<Error>), Error> {
        let doubt = match self.verify_within(backend, credentials, now_ms, STALE_PATIENCE).await {
            Ok(verified) => return Ok((verified, None)),
            Err(error) if error.temporary() => error,
            Err(error) => return Err(error),
        };
        match look_up(backend, credentials, Consistency::Local, now_ms).await? {
            Some(verified) => Ok((verified, Some(doubt))),
            None => Err(doubt),
        }
    }

    async fn verify_within(
        &self,
        backend: &Arc<dyn Backend>,
        credentials: &Credentials,
        now_ms: u64,
        patience: Duration,
    ) -> Result<Verified, Error> {
        let shard = backend.shard_of_user(credentials.user())?;
        let count = self.trust.count(backend, shard, patience).await?;
        if let Some(verified) = self.remembered(credentials, count, now_ms) {
            return Ok(verified);
        }
        // After the count: what is revoked in between is looked up again at the next one.
        let found = look_up(backend, credentials, Consistency::Linearizable, now_ms).await?;
        let verified = found.ok_or_else(unknown)?;
        self.remember(credentials, count, &verified);
        Ok(verified)
    }

    /// Changes when these credentials had better be verified again.
    ///
    /// # Errors
    /// While there is no cluster.
    pub fn stirred(
        &self,
        backend: &Arc<dyn Backend>,
        credentials: &Credentials,
    ) -> Result<watch::Receiver<u64>, Error> {
        Ok(self.trust.stirred(backend, backend.shard_of_user(credentials.user())?))
    }

    /// Takes note that something of this user's may have been revoked by this node.
    pub fn doubt(&self, backend: &Arc<dyn Backend>, user: &UserId) {
        if let Ok(shard) = backend.shard_of_user(user) {
            self.trust.doubt(shard);
        }
    }

    /// Whether it is to be said that this session is used; true once until it is looked up again.
    pub fn is_touch_due(&self, credentials: &Credentials, now_ms: u64) -> bool {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = remembered.get_mut(credentials.hash()) else { return false };
        let Some((used_at_ms, idle_ms)) = found.verified.session else { return false };
        let due = now_ms.saturating_sub(used_at_ms) >= TOUCH_AFTER_MS.min(idle_ms / 4).max(1);
        if due {
            found.verified.session = Some((now_ms, idle_ms));
        }
        due
    }

    fn remembered(&self, credentials: &Credentials, count: u64, now_ms: u64) -> Option<Verified> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let found = remembered.get_mut(credentials.hash())?;
        let valid = found.count == count
            && found.verified.actor.user == *credentials.user()
            && found.verified.ends_at_ms.is_none_or(|end| now_ms < end);
        if valid {
            found.used = Instant::now();
        }
        valid.then(|| found.verified.clone())
    }

    fn remember(&self, credentials: &Credentials, count: u64, verified: &Verified) {
        let used = Instant::now();
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let known = remembered.contains_key(credentials.hash());
        if !known && remembered.len() >= TOKEN_CACHE_MAX {
            remembered.retain(|_, entry| used.duration_since(entry.used) < TOKEN_UNUSED_MAX);
        }
        if !known && remembered.len() >= TOKEN_CACHE_MAX {
            return; // those beyond are looked up each time
        }
        let entry = Remembered { verified: verified.clone(), count, used };
        remembered.insert(*credentials.hash(), entry);
    }
}

/// A session's use is said again after this, or a quarter of its idle time, in milliseconds.
const TOUCH_AFTER_MS: u64 = 10 * 60 * 1000;

fn unknown() -> Error {
    Error::new(Code::Unauthenticated, "this token is not valid, or not any more")
}

/// What the credentials are good for by the user's row; `None` when for nothing.
async fn look_up(
    backend: &Arc<dyn Backend>,
    credentials: &Credentials,
    consistency: Consistency,
    now_ms: u64,
) -> Result<Option<Verified>, Error> {
    let claimed = Actor { user: credentials.user().clone(), admin: false };
    let query = Query::User { user: credentials.user().clone() };
    match backend.query(&claimed, query, consistency).await {
        Ok(Answer::User { user }) => Ok(match credentials.by_provider() {
            Some(linked) => judge_linked(&user, linked, now_ms),
            None => judge(&user, credentials.hash(), now_ms),
        }),
        Ok(_) => Err(Error::new(Code::Internal, "a user query had another answer")),
        Err(error) if error.code == Code::UserNotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a secret of this hash is good for. Looks at the whole of each, however early
/// one fits or differs.
fn judge(user: &User, hash: &Hash, now_ms: u64) -> Option<Verified> {
    let mut found = None;
    for token in &user.tokens {
        if token.hash.ct_eq(hash).into() {
            found = Some((token.scopes, token.expires_at_ms, None));
        }
    }
    for session in &user.sessions {
        if session.hash.ct_eq(hash).into() {
            let used = Some((session.used_at_ms, session.idle_ms));
            found = Some((Scopes::ALL, Some(session.ends_at_ms()), used));
        }
    }
    let (scopes, ends_at_ms, session) = found?;
    if user.disabled || ends_at_ms.is_some_and(|end| end <= now_ms) {
        return None;
    }
    let admin = user.admin && scopes.has(Scope::Admin);
    Some(Verified { actor: Actor { user: user.id.clone(), admin }, scopes, ends_at_ms, session })
}

/// What a provider's token is good for, whose signature is.
fn judge_linked(user: &User, linked: &Linked, now_ms: u64) -> Option<Verified> {
    let Linked { link, scopes, ends_at_ms } = linked;
    if user.disabled || user.link.as_ref() != Some(link) || *ends_at_ms <= now_ms {
        return None;
    }
    let admin = user.admin && scopes.has(Scope::Admin);
    let actor = Actor { user: user.id.clone(), admin };
    Some(Verified { actor, scopes: *scopes, ends_at_ms: Some(*ends_at_ms), session: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::account::{Link, Session, Token};

    fn user(admin: bool) -> User {
        let scoped = Scopes::of([Scope::Read]);
        let session = Session {
            hash: [3; 32],
            created_at_ms: 0,
            used_at_ms: 100,
            expires_at_ms: 1000,
            idle_ms: 300,
            user_agent: String::new(),
            address: String::new(),
        };
        User {
            tokens: vec![
                Token::new([1; 32], String::new(), 0),
                Token {
                    scopes: scoped,
                    expires_at_ms: Some(50),
                    ..Token::new([2; 32], String::new(), 0)
                },
            ],
            sessions: vec![session],
            ..User::new(UserId::parse("ann").unwrap(), "Ann".into(), admin, 0)
        }
    }

    #[test]
    fn hashes_are_compared_whole() {
        for good in [1, 3] {
            assert!(judge(&user(true), &[good; 32], 0).is_some());
            for i in 0..32 {
                let mut bad = [good; 32];
                bad[i] ^= 4;
                assert!(judge(&user(true), &bad, 0).is_none());
            }
        }
    }

    #[test]
    fn tokens_and_sessions_are_good_until_they_end_and_for_their_scopes() {
        let root = user(true);
        let good = |n: u8, at| judge(&root, &[n; 32], at);
        assert!(good(1, u64::MAX).unwrap().actor.admin, "an old token is good for all, for ever");
        let scoped = good(2, 49).unwrap();
        assert!(!scoped.actor.admin && !scoped.scopes.has(Scope::Post));
        assert_eq!(good(2, 50), None, "expired");
        assert_eq!(good(3, 399).unwrap().ends_at_ms, Some(400));
        assert_eq!(good(3, 400), None, "not used for too long");
        assert_eq!(good(4, 0), None);
        assert!(!judge(&user(false), &[1; 32], 0).unwrap().actor.admin);
        let disabled = User { disabled: true, ..user(true) };
        assert_eq!(judge(&disabled, &[1; 32], 0), None);
    }

    #[test]
    fn a_providers_token_is_good_for_who_has_its_account_until_either_ends() {
        let link = |subject: &str| Link { issuer: "https://id".into(), subject: subject.into() };
        let linked = Linked { link: link("1"), scopes: Scopes::ALL, ends_at_ms: 100 };
        let root = User { link: Some(link("1")), ..user(true) };
        let verified = judge_linked(&root, &linked, 99).unwrap();
        assert!(verified.actor.admin && verified.session.is_none());
        assert_eq!(verified.ends_at_ms, Some(100));
        assert_eq!(judge_linked(&root, &linked, 100), None, "expired");
        let read = Linked { scopes: Scopes::of([Scope::Read]), ..linked.clone() };
        assert!(!judge_linked(&root, &read, 99).unwrap().actor.admin);
        let other = User { link: Some(link("2")), ..user(true) };
        for user in [user(true), other, User { disabled: true, ..root }] {
            assert_eq!(judge_linked(&user, &linked, 99), None);
        }
    }

    #[test]
    fn what_is_remembered_is_good_for_one_count_and_until_its_end() {
        let token = format!("fm_ann_{}", "0".repeat(64));
        let credentials = Credentials::parse(&token).unwrap();
        let authenticator = Authenticator::default();
        let mut verified = judge(&user(false), &[3; 32], 100).unwrap();
        authenticator.remember(&credentials, 7, &verified);
        assert_eq!(authenticator.remembered(&credentials, 7, 399), Some(verified.clone()));
        assert_eq!(authenticator.remembered(&credentials, 8, 399), None, "something was revoked");
        assert_eq!(authenticator.remembered(&credentials, 7, 400), None, "it has ended");
        // Said to be used after a quarter of its idle time, and then not again for as long.
        assert!(!authenticator.is_touch_due(&credentials, 174));
        assert!(authenticator.is_touch_due(&credentials, 175));
        assert!(!authenticator.is_touch_due(&credentials, 176));
        verified.session = None;
        authenticator.remember(&credentials, 8, &verified);
        assert!(!authenticator.is_touch_due(&credentials, 9999), "a token");
    }
}
