//! Every operation on accounts, once for REST and gRPC: signing in and out, passwords, sessions,
//! tokens, profiles. `registration.rs` has how there comes to be one.
//!
//! Passwords end here: below, only their hashes are known. Tokens, sessions and invites have an id
//! for people, the first bytes of their hash.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::chat::account::{Change, Password, Scopes, Session, Token, User};
use crate::chat::command::{Actor, Command, Done};
use crate::chat::event::Hash;
use crate::error::{Code, Error};
use crate::gateway::app::{App, Caller, require_admin};
use crate::gateway::auth::mint_token;
use crate::gateway::{convert, passwords};
use crate::id::{RequestId, UserId};
use crate::limits;

/// How long it may take to issue a token, in milliseconds: the difference of clocks included.
const ISSUED_WITHIN_MS: u64 = 1000;

/// Bytes of a hash that are its id.
const ID_BYTES: usize = 8;

/// Where somebody signs in from.
#[derive(Debug, Clone, Default)]
pub struct From {
    /// The address, if it is known.
    pub address: Option<IpAddr>,
    /// What the client says it is.
    pub user_agent: String,
}

impl From {
    /// The address, as it is kept.
    pub(super) fn shown_address(&self) -> String {
        self.address.map(|address| address.to_string()).unwrap_or_default()
    }

    /// What is kept of the client's word about itself.
    pub(super) fn shown_agent(&self) -> String {
        let mut shown = String::new();
        for c in self.user_agent.chars().filter(|c| !c.is_control()) {
            if shown.len() + c.len_utf8() > limits::USER_AGENT_BYTES_MAX {
                break;
            }
            shown.push(c);
        }
        shown
    }
}

/// A session that has begun.
#[derive(Debug)]
pub struct LoggedIn {
    /// Who signed in.
    pub user: Arc<User>,
    /// The session's token, shown once.
    pub token: String,
    /// When it ends at the latest, milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
    /// For how long it can last.
    pub max_age: Duration,
}

/// What is to change about a user.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "as in folkmoot.v1.UpdateUserRequest")]
pub struct Update {
    pub display_name: Option<String>,
    pub status: Option<String>,
    pub disabled: Option<bool>,
}

/// What a token is to be good for.
#[derive(Debug, Clone)]
pub struct TokenWish {
    /// What it is for.
    pub label: String,
    /// What it is good for.
    pub scopes: Scopes,
    /// For how long, in milliseconds; 0: until it is revoked.
    pub ttl_ms: u64,
}

/// The id of a token, a session or an invite.
pub fn id_of(hash: &Hash) -> String {
    use std::fmt::Write as _;
    hash[..ID_BYTES].iter().fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// The scopes of these names.
///
/// # Errors
/// [`Code::InvalidArgument`].
pub fn scopes<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Scopes, Error> {
    Scopes::from_names(names).map_err(|_| {
        Error::invalid("a token's scopes are among read, post, rooms, account and admin")
    })
}

pub(super) fn one_line(what: &str, line: &str, max: usize) -> Result<(), Error> {
    convert::at_most(what, line, max)?;
    if line.chars().any(char::is_control) {
        return Err(Error::invalid(format!("{what} has control characters")));
    }
    Ok(())
}

pub(super) fn wrong() -> Error {
    Error::new(Code::Unauthenticated, "the user or the password is wrong")
}

pub(super) fn not_found(what: &str) -> Error {
    Error::new(Code::NotFound, format!("there is no such {what}"))
}

impl App {
    pub(super) async fn change(
        &self,
        actor: &Actor,
        user: &UserId,
        id: Option<RequestId>,
        change: Change,
    ) -> Result<Done, Error> {
        self.execute(actor, id, Command::ChangeUser { user: user.clone(), change }).await
    }

    /// The user's row; `None` when there is no such user.
    pub(super) async fn account(&self, user: &UserId) -> Result<Option<Arc<User>>, Error> {
        let asking = Actor { user: user.clone(), admin: false };
        match self.user(&asking, user.clone()).await {
            Ok(user) => Ok(Some(user)),
            Err(error) if error.code == Code::UserNotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The user's row, if the caller may see the secrets' names in it.
    async fn own_account(&self, caller: &Caller, user: &UserId) -> Result<Arc<User>, Error> {
        if caller.actor.user != *user && !caller.actor.admin {
            return Err(Error::new(Code::Forbidden, "this is another user's"));
        }
        self.user(&caller.actor, user.clone()).await
    }

    /// Begins a session with a password.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when user or password is wrong, or the user is disabled: which of
    /// these is not said, nor does its time tell; [`Code::RateLimited`], [`Code::Overloaded`], and
    /// the router's.
    pub async fn login(&self, user: UserId, password: &str, from: From) -> Result<LoggedIn, Error> {
        self.attempts.begin(&user, from.address)?;
        let row = match self.check_password(&user, password).await {
            Ok(Some(row)) => row,
            Ok(None) => return Err(wrong()),
            Err(error) => {
                self.attempts.give_back(&user, from.address);
                return Err(error);
            }
        };
        self.attempts.succeeded(&user, from.address);
        self.open_session(row, from).await
    }

    /// The user's row, if this is their password.
    async fn check_password(
        &self,
        user: &UserId,
        password: &str,
    ) -> Result<Option<Arc<User>>, Error> {
        let row = self.account(user).await?;
        let kept = row.as_ref().and_then(|row| row.password.as_ref());
        let fits = self.passwords.verify(password, kept).await?;
        Ok(row.filter(|row| fits && !row.disabled))
    }

    pub(super) async fn open_session(
        &self,
        user: Arc<User>,
        from: From,
    ) -> Result<LoggedIn, Error> {
        let tag = user.password.as_ref().map(Password::tag).ok_or_else(wrong)?;
        let settings = self.limits().accounts.clone();
        let (token, hash) = mint_token(&user.id);
        let actor = Actor { user: user.id.clone(), admin: false };
        let change = Change::OpenSession {
            hash,
            password: tag,
            user_agent: from.shown_agent(),
            address: from.shown_address(),
            ttl_ms: settings.session_max_ms(),
            idle_ms: settings.session_idle_ms(),
        };
        let done = match self.change(&actor, &user.id, None, change).await {
            // Disabled, or the password was changed, a moment ago.
            Err(error) if error.code == Code::Forbidden => return Err(wrong()),
            done => done?,
        };
        let expires_at_ms = done.at_ms.saturating_add(settings.session_max_ms());
        Ok(LoggedIn { user, token, expires_at_ms, max_age: settings.session_max })
    }

    /// Ends the session that the caller is in.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when it is none, but a token; and the router's.
    pub async fn logout(&self, caller: &Caller) -> Result<(), Error> {
        if !caller.is_session() {
            return Err(Error::invalid("this is a token, not a session: revoke it instead"));
        }
        self.revoke(&caller.actor, &caller.actor.user, caller.credentials().hash()).await
    }

    async fn revoke(&self, actor: &Actor, user: &UserId, hash: &Hash) -> Result<(), Error> {
        let command = Command::RevokeToken { user: user.clone(), token_hash: *hash };
        self.execute(actor, None, command).await.map(|_| ())
    }

    /// The caller's sessions that have not ended, the first to begin first, and which of them they
    /// are in.
    ///
    /// # Errors
    /// The router's.
    pub async fn sessions(&self, caller: &Caller) -> Result<Vec<(Session, bool)>, Error> {
        let row = self.user(&caller.actor, caller.actor.user.clone()).await?;
        let now_ms = self.clock.now_ms();
        let live = row.sessions.iter().filter(|session| session.ends_at_ms() > now_ms);
        let current = caller.credentials().hash();
        Ok(live.map(|session| (session.clone(), session.hash == *current)).collect())
    }

    /// Ends one of the caller's sessions; all others than the one they are in when `id` is `None`.
    ///
    /// # Errors
    /// [`Code::NotFound`], and the router's.
    pub async fn end_session(&self, caller: &Caller, id: Option<&str>) -> Result<(), Error> {
        let user = &caller.actor.user;
        let Some(id) = id else {
            let keep = Some(*caller.credentials().hash());
            let change = Change::EndSessions { keep };
            return self.change(&caller.actor, user, None, change).await.map(|_| ());
        };
        let row = self.user(&caller.actor, user.clone()).await?;
        let session = row.sessions.iter().find(|session| id_of(&session.hash) == id);
        let session = session.ok_or_else(|| not_found("session"))?;
        self.revoke(&caller.actor, user, &session.hash).await
    }

    /// Sets a password. The caller's own needs the old one, and ends their other sessions; for
    /// another user, administrators may let the node choose it: then it is returned.
    ///
    /// # Errors
    /// [`Code::Forbidden`] when the old password is wrong, or for other users unless the caller is
    /// an administrator; [`Code::RateLimited`], and the router's.
    pub async fn set_password(
        &self,
        caller: &Caller,
        user: UserId,
        new: Option<String>,
        old: Option<&str>,
        from: &From,
    ) -> Result<Option<String>, Error> {
        let own = caller.actor.user == user;
        if !own {
            require_admin(&caller.actor)?;
        }
        if let Some(new) = &new {
            passwords::check(new)?;
        } else if own {
            return Err(Error::invalid("say which password it is to be"));
        }
        let previous = match own {
            true => self.old_password(caller, &user, old, from).await?,
            false => None,
        };
        let chosen = new.is_none().then(passwords::choose);
        let password = new.or_else(|| chosen.clone()).unwrap_or_default();
        let password = self.passwords.hash(&password).await?;
        let keep = own.then(|| *caller.credentials().hash());
        let change = Change::SetPassword { password, previous, keep };
        let change = self.change(&caller.actor, &user, None, change);
        self.audited_for_another(caller, &user, "set the password of", change).await?;
        Ok(chosen)
    }

    /// Names the caller's password, of which they have shown that they know it.
    async fn old_password(
        &self,
        caller: &Caller,
        user: &UserId,
        old: Option<&str>,
        from: &From,
    ) -> Result<Option<[u8; 16]>, Error> {
        let asking = Actor { user: user.clone(), admin: false };
        let row = self.user(&asking, user.clone()).await?;
        let Some(kept) = &row.password else {
            // Whoever may choose it may do all that the user may.
            return match caller.scopes == Scopes::ALL && caller.ends_at_ms().is_none() {
                true => Ok(None),
                false => Err(Error::new(
                    Code::Forbidden,
                    "a first password is set with a token that is good for everything, for good",
                )),
            };
        };
        let old = old.ok_or_else(|| Error::invalid("say what the old password is"))?;
        self.attempts.begin(user, from.address)?;
        let fits = self.passwords.verify(old, Some(kept)).await;
        match fits {
            Ok(true) => self.attempts.succeeded(user, from.address),
            Ok(false) => {}
            Err(_) => self.attempts.give_back(user, from.address),
        }
        match fits? {
            true => Ok(Some(kept.tag())),
            false => Err(Error::new(Code::Forbidden, "the old password is wrong")),
        }
    }

    /// Changes what people see of a user, and locks them out or lets them in.
    ///
    /// # Errors
    /// [`Code::Forbidden`], and the router's.
    pub async fn update_user(
        &self,
        caller: &Caller,
        user: UserId,
        update: Update,
        id: Option<RequestId>,
    ) -> Result<Arc<User>, Error> {
        let actor = &caller.actor;
        let Update { display_name, status, disabled } = update;
        for (what, line, max) in [
            ("display_name", &display_name, limits::DISPLAY_NAME_BYTES_MAX),
            ("status", &status, limits::STATUS_BYTES_MAX),
        ] {
            one_line(what, line.as_deref().unwrap_or_default(), max)?;
        }
        let profile = display_name.is_some() || status.is_some();
        if profile && disabled.is_some() {
            return Err(Error::invalid("change either what is seen of a user, or `disabled`"));
        }
        if let Some(disabled) = disabled {
            require_admin(actor)?;
            let what = if disabled { "disable" } else { "enable" };
            let action = format!("{what} {user}");
            let change = self.change(actor, &user, id, Change::SetDisabled { disabled });
            self.audited(actor, &action, change).await?;
        } else if profile {
            let change = Change::SetProfile { display_name, status };
            self.change(actor, &user, id, change).await?;
        } else {
            return Err(Error::invalid("say what is to change"));
        }
        self.user(actor, user).await
    }

    /// Issues a token that is not good for everything, or not for ever; one that is, too.
    ///
    /// # Errors
    /// [`Code::Forbidden`] when it would be good for more than the caller's own; and the router's.
    pub async fn issue_token_as_wished(
        &self,
        caller: &Caller,
        user: UserId,
        wish: TokenWish,
        id: Option<RequestId>,
    ) -> Result<String, Error> {
        let TokenWish { label, scopes, ttl_ms } = wish;
        let more = scopes.iter().any(|scope| !caller.scopes.has(scope))
            || scopes == Scopes::ALL && caller.scopes != Scopes::ALL;
        if more {
            let message = "a token cannot be good for more than the one it is issued with";
            return Err(Error::new(Code::Forbidden, message));
        }
        // Nor for longer, by the time that it takes to be issued, too. A session's end says nothing of
        // what its user may do.
        let left_ms = caller.ends_at_ms().filter(|_| !caller.is_session());
        let now_ms = self.clock.now_ms() + ISSUED_WITHIN_MS;
        let left_ms = left_ms.map(|end| end.saturating_sub(now_ms).max(1));
        let ttl_ms = match (left_ms, ttl_ms) {
            (Some(left), 0) => left,
            (Some(left), ttl) => ttl.min(left),
            (None, ttl) => ttl,
        };
        one_line("label", &label, limits::LABEL_BYTES_MAX)?;
        let wish = TokenWish { label, scopes, ttl_ms };
        let issue = self.issue_any_token(caller, &user, wish, id);
        self.audited_for_another(caller, &user, "issue a token for", issue).await
    }

    async fn issue_any_token(
        &self,
        caller: &Caller,
        user: &UserId,
        wish: TokenWish,
        id: Option<RequestId>,
    ) -> Result<String, Error> {
        let TokenWish { label, scopes, ttl_ms } = wish;
        if scopes == Scopes::ALL && ttl_ms == 0 {
            return self.issue_token(&caller.actor, user.clone(), label, id).await;
        }
        let issue = |hash, label: &str| {
            let ttl_ms = Some(ttl_ms).filter(|ttl_ms| *ttl_ms > 0);
            Change::IssueToken { hash, label: label.to_owned(), scopes, ttl_ms }
        };
        let (token, hash) = mint_token(user);
        if !self.change(&caller.actor, user, id, issue(hash, &label)).await?.duplicate {
            return Ok(token);
        }
        // The token of the first attempt got lost with its answer: only its hash is known.
        let (token, hash) = mint_token(user);
        self.change(&caller.actor, user, None, issue(hash, &label)).await?;
        Ok(token)
    }

    /// A user's tokens that are still good, oldest first.
    ///
    /// # Errors
    /// [`Code::Forbidden`] for another user's, unless the caller is an administrator; the router's.
    pub async fn tokens(&self, caller: &Caller, user: &UserId) -> Result<Vec<Token>, Error> {
        let row = self.own_account(caller, user).await?;
        let now_ms = self.clock.now_ms();
        let good = |token: &&Token| token.expires_at_ms.is_none_or(|end| end > now_ms);
        Ok(row.tokens.iter().filter(good).cloned().collect())
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// [`Code::NotFound`], [`Code::Forbidden`], and the router's.
    pub async fn revoke_token(
        &self,
        caller: &Caller,
        user: &UserId,
        id: &str,
    ) -> Result<(), Error> {
        let row = self.own_account(caller, user).await?;
        let token = row.tokens.iter().find(|token| id_of(&token.hash) == id);
        let token = token.ok_or_else(|| not_found("token"))?;
        let revoke = self.revoke(&caller.actor, user, &token.hash);
        self.audited_for_another(caller, user, "revoke a token of", revoke).await
    }
}
