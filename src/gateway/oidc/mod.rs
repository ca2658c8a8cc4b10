//! Sign-in by providers of OpenID Connect, and their tokens.
//!
//! ```text
//!  browser ──► login ──► provider ──► callback ┐                      ┌► index row ─► user's row
//!  CLI ──► device ──► (somebody's browser) ────┼─► ID token ─► claims ┤
//!  any API ──► bearer JWT ─────────────────────┘   jwt.rs   claims.rs └► session, as of a password
//! ```
//!
//! - `browser.rs` and `device.rs` are the two ways to show who one is: RFC 6749 with RFC 7636
//!   (PKCE), and RFC 8628. Both end in an ID token from the provider itself. What a flow has to
//!   remember is sealed (`seal.rs`) and given to the client, so that any node goes on with it.
//! - `account.rs` finds or makes the user that an account of a provider is, and begins a session.
//! - `bearer.rs` takes access tokens on every interface.
//! - `endpoint.rs` speaks to a provider, by the crate `openidconnect`; so does `jwt.rs` verify tokens.
//!   `fetch.rs` speaks HTTP for it, and `cached.rs` keeps what the provider says.
//!
//! **Invariants**
//! - Who somebody is, is the pair of issuer and subject; a name or an address of mail never is.
//! - Nothing that a client sends makes this node fetch more than what a step of a sign-in needs, or, twice
//!   a minute at most, a provider's document and keys; nor anything from where the configuration, or a
//!   document that a configured issuer serves, does not say.
//! - What a provider does not answer delays who signs in by it, for 5 s at most, and nobody else.
//! - Codes, tokens and secrets are not logged.
//!
//! Left out: signing out at the provider, and its telling us (back-channel logout); registration of
//! clients; encrypted tokens; request objects; proxies for what is fetched.

pub mod account;
pub mod bearer;
pub mod browser;
pub mod cached;
pub mod claims;
pub mod device;
pub mod endpoint;
pub mod fetch;
pub mod jwt;
pub mod seal;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::oidc::Provider as Settings;
use crate::error::{Code, Error};
use crate::gateway::oidc::endpoint::Provider;
use crate::gateway::oidc::fetch::Fetcher;
use crate::id::UserId;

/// Accounts of providers of which a node remembers whose they are.
const SUBJECTS_MAX: usize = 65_536;

/// The providers that an operator has set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Providers {
    /// Where browsers find the cluster, without a `/` at its end.
    pub public_url: String,
    /// By name.
    pub by_name: BTreeMap<String, Arc<Settings>>,
}

/// A provider as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its name, in addresses.
    pub name: String,
    /// Its name, for people.
    pub title: String,
}

impl Providers {
    /// All of them, in order of their names.
    pub fn shown(&self) -> Vec<Shown> {
        let shown = |(name, settings): (&String, &Arc<Settings>)| Shown {
            name: name.clone(),
            title: settings.title.clone().unwrap_or_else(|| name.clone()),
        };
        self.by_name.iter().map(shown).collect()
    }
}

/// What a node knows of its providers.
#[derive(Debug, Default)]
pub struct Oidc {
    fetcher: Arc<Fetcher>,
    providers: Mutex<HashMap<String, Arc<Provider>>>,
    /// Whose an account of a provider is, by that account's row; it stays so for good.
    subjects: Mutex<HashMap<UserId, UserId>>,
}

impl Oidc {
    /// A provider with the settings that are in force.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub fn provider(&self, providers: &Providers, name: &str) -> Result<Arc<Provider>, Error> {
        let settings = providers
            .by_name
            .get(name)
            .ok_or_else(|| Error::new(Code::NotFound, "there is no such provider; see /v1/oidc"))?;
        let mut known = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name, _| providers.by_name.contains_key(name));
        if let Some(provider) = known.get(name)
            && provider.is_of(settings, &providers.public_url)
        {
            return Ok(provider.clone());
        }
        let fetcher = self.fetcher.clone();
        let provider =
            Arc::new(Provider::new(name, settings.clone(), &providers.public_url, fetcher));
        known.insert(name.to_owned(), provider.clone());
        Ok(provider)
    }

    fn owner(&self, row: &UserId) -> Option<UserId> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner).get(row).cloned()
    }

    fn note_owner(&self, row: UserId, owner: UserId) {
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        if subjects.len() >= SUBJECTS_MAX {
            subjects.clear(); // they are looked up again
        }
        subjects.insert(row, owner);
    }
}
