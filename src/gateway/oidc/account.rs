//! From an account of a provider to a user: found, made, signed in.
//!
//! Two rows in two shards say that they belong together (`chat/linked.rs`). The user's decides; it is
//! written first, so that what is interrupted in between is gone on with at the next sign-in.

use std::sync::Arc;

use crate::chat::account::{Change, Link, Scopes, User};
use crate::chat::command::{Actor, Command};
use crate::chat::query::{Answer, Query};
use crate::error::{Code, Error};
use crate::gateway::accounts::{From, LoggedIn};
use crate::gateway::app::{App, Caller, require_admin};
use crate::gateway::auth::mint_token;
use crate::gateway::founding::FIRST_ADMIN;
use crate::gateway::oidc::claims;
use crate::gateway::oidc::endpoint::Provider;
use crate::gateway::oidc::jwt::Claims;
use crate::id::UserId;
use crate::limits;
use crate::router::Consistency;

/// By what somebody is signed in who shows a provider's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linked {
    /// The account there.
    pub link: Link,
    /// What the token is good for.
    pub scopes: Scopes,
    /// Until when, milliseconds since the Unix epoch.
    pub ends_at_ms: u64,
}

fn forbidden(message: &str) -> Error {
    Error::new(Code::Forbidden, message)
}

fn locked_out() -> Error {
    forbidden("you cannot sign in here: your account is disabled, or is not this one any more")
}

impl App {
    /// A provider.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub(super) fn provider(&self, name: &str) -> Result<Arc<Provider>, Error> {
        self.oidc.provider(&self.limits().accounts.oidc, name)
    }

    /// Begins a session of whoever has this account of a provider.
    ///
    /// # Errors
    /// [`Code::AlreadyExists`] when the name of a new account is somebody else's; [`Code::Forbidden`]
    /// when none is made, or the user is disabled; the router's.
    pub(super) async fn sign_in(
        &self,
        provider: &Provider,
        link: Link,
        said: &Claims,
        from: From,
    ) -> Result<LoggedIn, Error> {
        let user = match self.owner(&link).await? {
            Some(user) => user,
            None => self.enrol(provider, &link, said).await?,
        };
        let settings = self.limits().accounts.clone();
        let (token, hash) = mint_token(&user);
        let admin = claims::is_admin(said, &provider.settings);
        let change = Change::OpenLinkedSession {
            hash,
            link: link.clone(),
            admin,
            user_agent: from.shown_agent(),
            address: from.shown_address(),
            ttl_ms: settings.session_max_ms(),
            idle_ms: settings.session_idle_ms(),
        };
        let actor = Actor { user: user.clone(), admin: false };
        let done = match self.change(&actor, &user, None, change).await {
            Err(error) if matches!(error.code, Code::Forbidden | Code::UserNotFound) => {
                return Err(locked_out());
            }
            done => done?,
        };
        let row = self.account(&user).await?.ok_or_else(locked_out)?;
        let expires_at_ms = done.at_ms.saturating_add(settings.session_max_ms());
        tracing::info!(%user, provider = %provider.name, "signed in by a provider");
        Ok(LoggedIn { user: row, token, expires_at_ms, max_age: settings.session_max })
    }

    /// Whose an account of a provider is, by that account's row.
    pub(super) async fn owner(&self, link: &Link) -> Result<Option<UserId>, Error> {
        let row = link.row();
        if let Some(owner) = self.oidc.owner(&row) {
            return Ok(Some(owner));
        }
        let nobody = Actor { user: row.clone(), admin: false };
        let query = Query::User { user: row.clone() };
        let found = match self.backend.query(&nobody, query, Consistency::Linearizable).await {
            Ok(Answer::User { user }) => user.stands_for.clone(),
            Ok(_) => return Err(Error::new(Code::Internal, "a user query had another answer")),
            Err(error) if error.code == Code::UserNotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(owner) = &found {
            self.oidc.note_owner(row, owner.clone());
        }
        Ok(found)
    }

    /// Makes the user that a new account of a provider is.
    async fn enrol(
        &self,
        provider: &Provider,
        link: &Link,
        said: &Claims,
    ) -> Result<UserId, Error> {
        if !provider.settings.create_accounts {
            return Err(forbidden("you have no account here: ask an administrator for one"));
        }
        let user = claims::wished_id(said, &provider.settings).ok_or_else(|| {
            forbidden("the provider does not say what you are called: ask an administrator")
        })?;
        let taken = || {
            let message = format!(
                "the name {user} is another account's here, which is not of this sign-in: ask an \
                 administrator"
            );
            Error::new(Code::AlreadyExists, message)
        };
        // The first administrator is `cluster init`'s to create.
        if user.as_str() == FIRST_ADMIN {
            return Err(taken());
        }
        let actor = Actor { user: user.clone(), admin: false };
        let display_name = claims::display_name(said);
        let change = Change::RegisterLinked { display_name, link: link.clone() };
        match self.change(&actor, &user, None, change).await {
            Err(error) if error.code == Code::AlreadyExists => return Err(taken()),
            Err(error) if error.code == Code::InvalidArgument => return Err(taken()),
            done => done?,
        };
        self.claim(&actor, link, &user).await
    }

    /// Says whose an account is; whose it is already, if it is.
    async fn claim(&self, actor: &Actor, link: &Link, user: &UserId) -> Result<UserId, Error> {
        let (row, user) = (link.row(), user.clone());
        let change = Change::ClaimSubject { link: link.clone(), user: user.clone() };
        match self.execute(actor, None, Command::ChangeUser { user: row, change }).await {
            Ok(_) => Ok(user),
            Err(error) if error.code == Code::AlreadyExists => self.owner(link).await?.ok_or(error),
            Err(error) => Err(error),
        }
    }

    /// Lets a user sign in by an account of a provider.
    ///
    /// # Errors
    /// [`Code::Forbidden`] unless the caller is an administrator; [`Code::AlreadyExists`] when the
    /// account is another user's; [`Code::NotFound`] when there is no such provider; the router's.
    pub async fn link_user(
        &self,
        caller: &Caller,
        user: UserId,
        provider: &str,
        subject: &str,
    ) -> Result<Arc<User>, Error> {
        require_admin(&caller.actor)?;
        let settings = self.provider(provider)?.settings.clone();
        if subject.is_empty() || subject.len() > limits::SUBJECT_BYTES_MAX {
            return Err(Error::invalid("say what the provider calls the user: its claim `sub`"));
        }
        self.user(&caller.actor, user.clone()).await?;
        let link = Link { issuer: settings.issuer.clone(), subject: subject.to_owned() };
        let owner = self.claim(&caller.actor, &link, &user).await?;
        if owner != user {
            let message = format!("this account of the provider is {owner}'s");
            return Err(Error::new(Code::AlreadyExists, message));
        }
        let action = format!("link {user} with an account of {provider}");
        let change = self.change(&caller.actor, &user, None, Change::SetLink { link });
        self.audited(&caller.actor, &action, change).await?;
        self.user(&caller.actor, user).await
    }
}
