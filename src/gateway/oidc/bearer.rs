//! Access tokens of a provider (JWT), taken wherever a token of ours is.
//!
//! The signature is looked at with the keys that the node has; somebody's name is not, only the pair of
//! issuer and subject. What the token is good for ends with the token, with the user, and with the link
//! between the two (`authenticator.rs`).

use crate::error::{Code, Error};
use crate::gateway::app::App;
use crate::gateway::auth::{Credentials, Offered};
use crate::gateway::oidc::account::Linked;
use crate::gateway::oidc::claims::{self, Expected};
use crate::gateway::oidc::jose;

fn refused(why: impl Into<String>) -> Error {
    Error::new(Code::Unauthenticated, why)
}

impl App {
    /// Who says to send a request: by a token of ours, or one of a provider that is taken.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`]; [`Code::Unavailable`] when the provider's keys are not to be had.
    pub(in crate::gateway) async fn credentials(
        &self,
        offered: Offered,
    ) -> Result<Credentials, Error> {
        match offered {
            Offered::Own(credentials) => Ok(credentials),
            Offered::Jwt(token) => self.bearer(&token).await,
        }
    }

    async fn bearer(&self, token: &str) -> Result<Credentials, Error> {
        let said = jose::unverified(token).map_err(|bad| refused(bad.to_string()))?;
        let issuer = said.get("iss").and_then(|issuer| issuer.as_str()).unwrap_or_default();
        let providers = self.limits().accounts.oidc.clone();
        let mut named = providers.by_name.iter().filter(|(_, settings)| settings.issuer == issuer);
        let taken =
            named.find_map(|(name, settings)| Some((name, settings.bearer_audience.as_deref()?)));
        let (name, audience) =
            taken.ok_or_else(|| refused("no tokens of this issuer are taken here"))?;
        let provider = self.oidc.provider(&providers, name)?;
        let claims = provider.verify(token).await?;
        let expected = Expected { issuer, audience, now_ms: self.clock.now_ms() };
        let (link, ends_at_ms) = claims::check(&claims, expected).map_err(refused)?;
        let scopes = claims::scopes(&claims)
            .ok_or_else(|| refused("this release knows none of the token's scopes"))?;
        let user = self.owner(&link).await?.ok_or_else(|| {
            refused("nobody here signs in by this account: sign in once, or have it linked")
        })?;
        Ok(Credentials::linked(user, token, Linked { link, scopes, ends_at_ms }))
    }
}
