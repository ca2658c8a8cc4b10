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

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};
use crate::gateway::accounts::{From, LoggedIn};
use crate::gateway::app::App;
use crate::gateway::oidc::endpoint::Ungranted;
use crate::gateway::oidc::fetch::form;
use crate::gateway::oidc::seal::{random_word, same};

/// For how long somebody may be at the provider, in milliseconds.
pub const PENDING_MS: u64 = 10 * 60 * 1000;
/// What is sealed for it.
const PURPOSE: &str = "login";
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
        let metadata = provider.metadata().await?;
        let (state, nonce, verifier) = (random_word(), random_word(), random_word());
        let challenge = digest::digest(&digest::SHA256, verifier.as_bytes());
        let query = form([
            ("response_type", "code"),
            ("client_id", &provider.settings.client_id),
            ("redirect_uri", &provider.redirect_uri()),
            ("scope", &provider.scope()),
            ("state", &state),
            ("nonce", &nonce),
            ("code_challenge", &URL_SAFE_NO_PAD.encode(challenge)),
            ("code_challenge_method", "S256"),
        ]);
        let endpoint = &metadata.authorization_endpoint;
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        let location = format!("{endpoint}{separator}{query}");
        let until_ms = self.clock.now_ms().saturating_add(PENDING_MS);
        let pending = Pending { state, nonce, verifier };
        Ok(Sent { location, pending: provider.seal.seal(PURPOSE, until_ms, pending)? })
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
        if state.len() > WORD_BYTES_MAX || !same(&state, &pending.state) {
            return Err(start_again("this is another sign-in than the one begun last"));
        }
        let metadata = provider.metadata().await?;
        let names_issuer = metadata.authorization_response_iss_parameter_supported;
        if returned.iss.is_none() && names_issuer
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
        let redirect_uri = provider.redirect_uri();
        let grant = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", &redirect_uri),
            ("code_verifier", &pending.verifier),
        ];
        let granted = provider.grant(&grant).await.map_err(|ungranted| match ungranted {
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
