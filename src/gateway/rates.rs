//! How often requests may be made: by one user, with one token, and from one address.
//!
//! Each node counts for itself, so a client that goes round three nodes has three times as much. What is
//! refused has changed nothing, costs a few microseconds, and says when to come back.
//! Administrators are not held to any of it (they import, and measure), nor is this machine to the limit of
//! addresses, unless a proxy says for whom it asks.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::error::{Code, Error};
use crate::gateway::allowance::{Allowances, Rate};
use crate::gateway::app::App;
use crate::gateway::caller::Caller;

/// Places of each kind.
const PLACES: usize = 65_536;
/// So much may be used at once as comes back in this time, in seconds.
const BURST_S: u32 = 5;

/// Requests a second, on one node; 0 = as many as they like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// By one user, with whatever tokens.
    pub user: u32,
    /// With one token, or in one session of a user's.
    pub token: u32,
    /// From one address, whoever asks.
    pub address: u32,
}

/// What is left of what they may.
#[derive(Debug)]
pub struct Rates {
    users: Allowances,
    tokens: Allowances,
    addresses: Allowances,
}

impl Default for Rates {
    fn default() -> Rates {
        let table = || Allowances::new(PLACES);
        Rates { users: table(), tokens: table(), addresses: table() }
    }
}

fn rate(per_second: u32) -> Option<Rate> {
    let pause = Duration::from_secs(1).checked_div(per_second)?;
    Some(Rate { burst: per_second.saturating_mul(BURST_S), pause })
}

fn too_many(by: &str, wait: Duration) -> Error {
    let message = format!("too many requests {by}: wait a moment");
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    Error::new(Code::RateLimited, message).retry_after(wait_ms.saturating_add(1))
}

/// The network of an address: one customer is given a whole one of IPv6.
pub fn network(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
    }
}

impl App {
    /// Counts a request of a caller's.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with when to come back.
    pub fn count_request(&self, caller: &Caller) -> Result<(), Error> {
        if caller.actor.admin {
            return Ok(());
        }
        let (limits, now) = (self.limits().rates, Instant::now());
        if let Some(rate) = rate(limits.token) {
            let token = caller.credentials().hash();
            let taken = self.rates.tokens.take(token, rate, now);
            taken.map_err(|wait| too_many("with this token", wait))?;
        }
        if let Some(rate) = rate(limits.user) {
            let taken = self.rates.users.take(&caller.actor.user, rate, now);
            taken.map_err(|wait| too_many("by this user", wait))?;
        }
        Ok(())
    }

    /// Counts a request from an address, whoever makes it.
    ///
    /// # Errors
    /// As [`App::count_request`].
    pub fn count_address(&self, address: Option<IpAddr>) -> Result<(), Error> {
        let limits = self.limits();
        let Some((rate, address)) = rate(limits.rates.address).zip(address) else { return Ok(()) };
        if address.is_loopback() && !limits.accounts.behind_proxy {
            return Ok(());
        }
        let taken = self.rates.addresses.take(network(address), rate, Instant::now());
        taken.map_err(|wait| too_many("from this address", wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_as_an_operator_says() {
        assert_eq!(rate(0), None);
        assert_eq!(rate(1), Some(Rate { burst: 5, pause: Duration::from_secs(1) }));
        assert_eq!(rate(1000), Some(Rate { burst: 5000, pause: Duration::from_millis(1) }));
        assert!(rate(u32::MAX).is_some());
    }

    #[test]
    fn a_customer_is_an_address_of_ipv4_or_a_network_of_ipv6() {
        let of = |address: &str| network(address.parse().unwrap());
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }
}
