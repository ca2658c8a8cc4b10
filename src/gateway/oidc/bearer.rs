//! Access tokens of a provider (JWT), taken wherever a token of ours is.
//!
//! The signature is looked at with the keys that the node has; somebody's name is not, only the pair of
//! issuer and subject. What the token is good for ends with the token, with the user, and with the link
//! between the two (`authenticator.rs`).

use crate::error::{Code, Error};
use crate::gateway::app::App;
use crate::gateway::auth::{Credentials, Offered};
use crate::gateway::oidc::account::Linked;
use crate::gateway::oidc::claims;
use crate::gateway::oidc::jwt::{self, Expected, Kind, Verified};

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
        let said = jwt::unverified(token).map_err(|bad| refused(bad.to_string()))?;
        let issuer = said.get("iss").and_then(|issuer| issuer.as_str()).unwrap_or_default();
        let providers = self.limits().accounts.oidc.clone();
        let of_issuer = providers.by_name.iter().filter(|(_, settings)| settings.issuer == issuer);
        let taken: Vec<_> = of_issuer
            .filter_map(|(name, settings)| Some((name, settings.bearer_audience.as_deref()?)))
            .collect();
        // An issuer may be configured more than once, each time for another audience.
        let meant = taken.iter().find(|(_, audience)| claims::is_for(&said, audience));
        let (name, audience) = *meant
            .or(taken.first())
            .ok_or_else(|| refused("no tokens of this issuer are taken here"))?;
        let provider = self.oidc.provider(&providers, name)?;
        let expected =
            Expected { issuer, audience, kind: Kind::Access, now_ms: self.clock.now_ms() };
        let Verified { link, ends_at_ms, claims } = provider.verify(token, expected).await?;
        let scopes = claims::scopes(&claims)
            .ok_or_else(|| refused("this release knows none of the token's scopes"))?;
        let user = self.owner(&link).await?.ok_or_else(|| {
            refused("nobody here signs in by this account: sign in once, or have it linked")
        })?;
        Ok(Credentials::linked(user, token, Linked { link, scopes, ends_at_ms }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_for_credentials_has_no_room_for_a_request_to_a_provider() {
        fn state_bytes<'a, F>(_: impl Fn(&'a App, Offered) -> F) -> usize {
            size_of::<F>()
        }
        // Each WebSocket's task has room for it, whether it shows a token or not.
        let bytes = state_bytes(App::credentials);
        assert!(bytes <= 2048, "{bytes}");
    }
}
