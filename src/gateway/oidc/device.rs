//! Signing in without a browser at hand: the device flow (RFC 8628), for the command line.
//!
//! It goes through the node, which is the provider's client and has its secret: so the command line
//! needs nothing but a node's address, and the ID token comes from the provider itself. The code by
//! which the provider is asked is sealed and given to the command line: any node goes on with it.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};
use crate::gateway::accounts::{From, LoggedIn};
use crate::gateway::app::App;
use crate::gateway::oidc::endpoint::Ungranted;

/// What is sealed for it.
const PURPOSE: &str = "device";
/// For how long somebody may take, in seconds.
const EXPIRES_S_MAX: u64 = 3600;
/// How seldom it need be asked, in seconds.
const INTERVAL_S_MAX: u64 = 60;

#[derive(Serialize, Deserialize)]
struct Pending {
    device_code: String,
}

/// What a device is to show, and by what it asks.
#[derive(Debug)]
pub struct Begun {
    /// By which it asks what has become of it. A secret.
    pub handle: String,
    /// What somebody is to type.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// Where, with the code in it; empty when there is none.
    pub verification_uri_complete: String,
    /// For how long, in milliseconds.
    pub expires_in_ms: u64,
    /// How often it may ask, in milliseconds.
    pub interval_ms: u64,
}

/// What has become of a sign-in.
#[derive(Debug)]
pub enum Progress {
    /// Somebody has signed in.
    Done(LoggedIn),
    /// Nobody has, yet.
    Pending,
    /// Nor has anybody, and it is asked too often: 5 s more are to lie between.
    SlowDown,
}

impl App {
    /// Begins a sign-in of a device.
    ///
    /// # Errors
    /// [`Code::NotFound`] when there is no such provider, [`Code::InvalidArgument`] when it has no such
    /// sign-in; [`Code::RateLimited`], [`Code::Unavailable`].
    pub async fn begin_device(&self, provider: &str, from: &From) -> Result<Begun, Error> {
        let provider = self.provider(provider)?;
        self.attempts.begin_anybody(from.address)?;
        let grant = provider.begin_device().await?;
        let expires_in_ms = grant.expires_in().as_secs().clamp(1, EXPIRES_S_MAX) * 1000;
        let until_ms = self.clock.now_ms().saturating_add(expires_in_ms);
        let pending = Pending { device_code: grant.device_code().secret().clone() };
        let complete = grant.verification_uri_complete();
        Ok(Begun {
            handle: provider.seal.seal(PURPOSE, until_ms, pending)?,
            user_code: grant.user_code().secret().clone(),
            verification_uri: grant.verification_uri().to_string(),
            verification_uri_complete: complete.map_or_else(String::new, |it| it.secret().clone()),
            expires_in_ms,
            interval_ms: grant.interval().as_secs().clamp(1, INTERVAL_S_MAX) * 1000,
        })
    }

    /// Asks what has become of a sign-in.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when it was refused or is over; [`Code::AlreadyExists`] and
    /// [`Code::Forbidden`] as of `App::sign_in`; [`Code::RateLimited`], [`Code::Unavailable`], and the
    /// router's.
    pub async fn poll_device(
        &self,
        provider: &str,
        handle: &str,
        from: From,
    ) -> Result<Progress, Error> {
        let refused = |why: &str| Error::new(Code::Unauthenticated, why);
        let over = || refused("this sign-in is over, or was never begun: start again");
        let provider = self.provider(provider)?;
        let pending: Pending =
            provider.seal.open(PURPOSE, handle, self.clock.now_ms()).ok_or_else(over)?;
        self.attempts.begin_anybody(from.address)?;
        let granted = match provider.poll_device(&pending.device_code).await {
            Ok(granted) => granted,
            Err(Ungranted::Failed(error)) => return Err(error),
            Err(Ungranted::Refused(word)) => {
                return match word.as_str() {
                    "authorization_pending" => {
                        // Nobody has tried anything yet; who asks again and again is slowed by the rates.
                        self.attempts.give_back_anybody(from.address);
                        Ok(Progress::Pending)
                    }
                    "slow_down" => Ok(Progress::SlowDown),
                    "access_denied" => Err(refused("the provider did not let you in")),
                    _ => Err(over()),
                };
            }
        };
        let (link, claims) = provider.person(&granted, None, self.clock.now_ms()).await?;
        let address = from.address;
        let done = self.sign_in(&provider, link, &claims, from).await?;
        self.attempts.give_back_anybody(address);
        Ok(Progress::Done(done))
    }
}
