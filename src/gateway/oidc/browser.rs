//! Signing in with a browser: the authorization code flow (RFC 6749, section 4.1) with PKCE (RFC 7636).
//!
//! What is to be remembered meanwhile is in a cookie of the browser's, sealed, for ten minutes. So:
//!
//! - Who comes back with a code must be the browser that was sent: its `state` is in the cookie.
//! - A code is of use only with the verifier in that cookie, and only once, which the provider sees to.
//! - The ID token has the nonce that is in the cookie: it is of this very sign-in.
//! - The cookie names the provider, whose callback has an address of its own; and where the provider
//!   says who it is (RFC 9207), that must be so. A code is never shown to another provider.
//! - People come back to the page, never to an address that a request has named.

use openidconnect::core::CoreAuthenticationFlow;
use openidconnect::{CsrfToken, Nonce, PkceCodeChallenge};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::error::{Code, Error};
use crate::gateway::accounts::{From, LoggedIn};
use crate::gateway::app::App;
use crate::gateway::oidc::endpoint::Ungranted;

/// For how long somebody may be at the provider, in milliseconds.
pub const PENDING_MS: u64 = 10 * 60 * 1000;
/// What is sealed for it.
const PURPOSE: &str = "login";
/// A state and a nonce, in bytes of what is random in them; the verifier has as many.
const RANDOM_BYTES: u32 = 32;
/// A code or a state that comes back, in bytes.
const WORD_BYTES_MAX: usize = 4 * 1024;

/// What is remembered of a sign-in.
#[derive(Serialize, Deserialize)]
struct Pending {
    state: String,
    nonce: String,
    verifier: String,
}

/// How a browser is sent to a provider.
#[derive(Debug)]
pub struct Sent {
    /// Where to.
    pub location: String,
    /// What it is to remember.
    pub pending: String,
}

/// With what it comes back.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Returned {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

fn start_again(why: &str) -> Error {
    Error::new(Code::Unauthenticated, format!("{why}: start again"))
}

impl App {
    /// Begins a sign-in.
    ///
    /// # Errors
    /// [`Code::NotFound`] when there is no such provider; [`Code::Unavailable`].
    pub async fn begin_login(&self, provider: &str) -> Result<Sent, Error> {
        let provider = self.provider(provider)?;
        let known = provider.known().await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let code = CoreAuthenticationFlow::AuthorizationCode;
        let state = || CsrfToken::new_random_len(RANDOM_BYTES);
        let nonce = || Nonce::new_random_len(RANDOM_BYTES);
        let request = known.client.authorize_url(code, state, nonce);
        let request = request.add_scopes(provider.scopes()).set_pkce_challenge(challenge);
        let (location, state, nonce) = request.url();
        let until_ms = self.clock.now_ms().saturating_add(PENDING_MS);
        let pending = Pending {
            state: state.into_secret(),
            nonce: nonce.secret().clone(),
            verifier: verifier.into_secret(),
        };
        let pending = provider.seal.seal(PURPOSE, until_ms, pending)?;
        Ok(Sent { location: location.into(), pending })
    }

    /// Goes on with a sign-in when the browser is back.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when it is not the one that was sent, or the provider refuses;
    /// [`Code::AlreadyExists`] and [`Code::Forbidden`] as of `App::sign_in`; [`Code::RateLimited`],
    /// [`Code::Unavailable`], and the router's.
    pub async fn finish_login(
        &self,
        provider: &str,
        returned: Returned,
        pending: Option<&str>,
        from: From,
    ) -> Result<LoggedIn, Error> {
        let provider = self.provider(provider)?;
        let opened =
            pending.and_then(|sealed| provider.seal.open(PURPOSE, sealed, self.clock.now_ms()));
        let pending: Pending = opened
            .ok_or_else(|| start_again("this sign-in was not begun in this browser, or is over"))?;
        let state = returned.state.unwrap_or_default();
        let is_same = state.as_bytes().ct_eq(pending.state.as_bytes());
        if state.len() > WORD_BYTES_MAX || !bool::from(is_same) {
            return Err(start_again("this is another sign-in than the one begun last"));
        }
        if returned.iss.is_none() && provider.known().await?.names_issuer
            || returned.iss.is_some_and(|issuer| issuer != provider.settings.issuer)
        {
            return Err(start_again("this is the answer of another provider"));
        }
        match returned.error.as_deref() {
            Some("access_denied") => return Err(start_again("the provider did not let you in")),
            Some("temporarily_unavailable" | "server_error") => {
                let message = "the provider cannot sign anybody in right now: try again";
                return Err(Error::new(Code::Unavailable, message));
            }
            Some(_) => return Err(start_again("the provider refuses this sign-in")),
            None => {}
        }
        let code = returned.code.filter(|code| (1..=WORD_BYTES_MAX).contains(&code.len()));
        let code = code.ok_or_else(|| Error::invalid("there is no code"))?;
        self.attempts.begin_anybody(from.address)?;
        let granted = provider.grant(code, pending.verifier).await;
        let granted = granted.map_err(|ungranted| match ungranted {
            Ungranted::Failed(error) => error,
            Ungranted::Refused(_) => start_again("the provider does not take its code back"),
        })?;
        let now_ms = self.clock.now_ms();
        let (link, claims) = provider.person(&granted, Some(&pending.nonce), now_ms).await?;
        let session = self.sign_in(&provider, link, &claims, from.clone()).await?;
        self.attempts.give_back_anybody(from.address);
        Ok(session)
    }
}
