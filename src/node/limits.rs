//! What the configuration says of clients and accounts, as the gateway has it.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Config};
use crate::gateway::limits::{AccountLimits, GatewayLimits, Registration};
use crate::gateway::oidc::Providers;
use crate::gateway::rates::RateLimits;

/// The limits of a gateway.
pub(super) fn of_gateway(config: &Config) -> GatewayLimits {
    let accounts = &config.accounts;
    GatewayLimits {
        accounts: AccountLimits {
            registration: match accounts.registration {
                config::Registration::Closed => Registration::Closed,
                config::Registration::Invite => Registration::Invite,
                config::Registration::Open => Registration::Open,
            },
            session_idle: accounts.session_idle,
            session_max: accounts.session_max,
            behind_proxy: accounts.behind_proxy,
            oidc: Arc::new(providers(config)),
        },
        connections_max: config.limits.connections_max,
        sessions_max: config.limits.sessions_max,
        follows_per_session_max: config.limits.follows_per_session_max,
        posts_in_flight_per_session_max: config.limits.posts_in_flight_per_session_max,
        rates: RateLimits {
            user: saturated(config.limits.user_requests_per_second),
            token: saturated(config.limits.token_requests_per_second),
            address: saturated(config.limits.address_requests_per_second),
        },
        text_bytes_max: config.limits.text_bytes_max.as_usize(),
        keep_alive: config.limits.keep_alive,
        drain_timeout: config.node.shutdown_timeout.min(Duration::from_secs(5)),
        ..GatewayLimits::default()
    }
}

fn saturated(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn providers(config: &Config) -> Providers {
    let providers = config.oidc.iter();
    let by_name = providers.map(|(name, settings)| (name.clone(), Arc::new(settings.clone())));
    let public_url = config.accounts.public_url.clone().unwrap_or_default();
    Providers { public_url, by_name: by_name.collect() }
}
