//! How often somebody may try a password: from a network as one user, from a network as anybody, and
//! as one user from anywhere.
//!
//! Each has an allowance that is used up by attempts and comes back with time; what succeeds is
//! given back. Who tries to be somebody else uses up what they have where they are. The last allowance
//! stands against many networks that try one user together (NIST SP 800-63B, 5.2.2: a hundred). It could
//! be used up to keep the user out, so it does not count where that user has signed in before.
//!
//! In memory, on each node for itself, in tables of fixed size (`allowance.rs`).

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Code, Error};
use crate::gateway::allowance::{Allowances, Rate};
use crate::gateway::rates;
use crate::id::UserId;

/// Places in a table.
const PLACES: usize = 8192;

/// As one user, from one network.
const HERE: Rate = Rate { burst: 10, pause: Duration::from_secs(6) };
/// From one network.
const NETWORK: Rate = Rate { burst: 30, pause: Duration::from_secs(1) };
/// As one user, from networks where they have not signed in.
const USER: Rate = Rate { burst: 100, pause: Duration::from_secs(6) };

/// Who has tried how often.
#[derive(Debug)]
pub struct Attempts {
    here: Allowances,
    networks: Allowances,
    users: Allowances,
    hasher: RandomState,
    /// Which user signed in from which network last, of those that share the place: their whole hash.
    known: Vec<AtomicU64>,
}

impl Default for Attempts {
    fn default() -> Attempts {
        let table = || Allowances::new(PLACES);
        let known = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        let hasher = RandomState::new();
        Attempts { here: table(), networks: table(), users: table(), hasher, known }
    }
}

impl Attempts {
    /// Counts an attempt.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with when to come back; nothing is counted then.
    pub fn begin(&self, user: &UserId, address: Option<IpAddr>) -> Result<(), Error> {
        self.begin_at(user, address, Instant::now())
    }

    /// Counts an attempt of whoever it may be, who signs in by a provider.
    ///
    /// # Errors
    /// As [`Attempts::begin`].
    pub fn begin_anybody(&self, address: Option<IpAddr>) -> Result<(), Error> {
        self.networks.take(network(address), NETWORK, Instant::now()).map_err(too_many)
    }

    /// Takes such an attempt back.
    pub fn give_back_anybody(&self, address: Option<IpAddr>) {
        self.networks.give_back(network(address), NETWORK);
    }

    fn begin_at(&self, user: &UserId, address: Option<IpAddr>, now: Instant) -> Result<(), Error> {
        let network = network(address);
        let here = (user.as_str(), network);
        let known = self.is_known(user, network);
        let wait = self.here.wait(here, HERE, now).max(self.networks.wait(network, NETWORK, now));
        let wait = match known {
            true => wait,
            false => wait.max(self.users.wait(user, USER, now)),
        };
        if !wait.is_zero() {
            return Err(too_many(wait));
        }
        self.here.take(here, HERE, now).map_err(too_many)?;
        if let Err(wait) = self.networks.take(network, NETWORK, now) {
            self.here.give_back(here, HERE); // somebody was quicker
            return Err(too_many(wait));
        }
        if !known && let Err(wait) = self.users.take(user, USER, now) {
            self.here.give_back(here, HERE);
            self.networks.give_back(network, NETWORK);
            return Err(too_many(wait));
        }
        Ok(())
    }

    /// Takes an attempt back that could not be decided.
    pub fn give_back(&self, user: &UserId, address: Option<IpAddr>) {
        let network = network(address);
        self.here.give_back((user.as_str(), network), HERE);
        self.networks.give_back(network, NETWORK);
        if !self.is_known(user, network) {
            self.users.give_back(user, USER);
        }
    }

    /// Takes an attempt back that has succeeded: it was the user.
    pub fn succeeded(&self, user: &UserId, address: Option<IpAddr>) {
        self.give_back(user, address);
        let tag = self.tag(user, network(address));
        self.known(tag).store(tag, Ordering::Relaxed);
    }

    /// Stands for a user at a network; never what an empty place has.
    fn tag(&self, user: &UserId, network: Option<u64>) -> u64 {
        self.hasher.hash_one((user.as_str(), network)) | 1
    }

    fn known(&self, tag: u64) -> &AtomicU64 {
        &self.known[((tag >> 1) % PLACES as u64) as usize]
    }

    fn is_known(&self, user: &UserId, network: Option<u64>) -> bool {
        let tag = self.tag(user, network);
        self.known(tag).load(Ordering::Relaxed) == tag
    }
}

fn network(address: Option<IpAddr>) -> Option<u64> {
    address.map(rates::network)
}

fn too_many(wait: Duration) -> Error {
    let message = "too many attempts to sign in: wait a moment";
    let wait_ms = u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
    Error::new(Code::RateLimited, message).retry_after(wait_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn ip(n: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, n]))
    }

    #[test]
    fn a_user_may_be_tried_ten_times_from_one_place_and_then_every_six_seconds() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for _ in 0..10 {
            attempts.begin_at(&user("ann"), ip(1), now).unwrap();
        }
        let refused = attempts.begin_at(&user("ann"), ip(1), now).unwrap_err();
        assert_eq!(refused.code, Code::RateLimited);
        let wait = refused.retry_after_ms.unwrap();
        assert!((1..=6000).contains(&wait), "{wait}");
        let later = now + Duration::from_millis(wait);
        attempts.begin_at(&user("ann"), ip(1), later).unwrap();
        assert!(attempts.begin_at(&user("ann"), ip(1), later).is_err());
        attempts.begin_at(&user("ann"), ip(1), later + Duration::from_secs(6)).unwrap();
    }

    /// Or whoever knows a name could keep its owner out.
    #[test]
    fn what_is_tried_elsewhere_keeps_nobody_out() {
        let attempts = Attempts::default();
        let now = Instant::now();
        while attempts.begin_at(&user("ann"), ip(66), now).is_ok() {}
        attempts.begin_at(&user("ann"), ip(1), now).unwrap();
    }

    #[test]
    fn many_places_together_may_try_a_user_a_hundred_times() {
        let attempts = Attempts::default();
        let now = Instant::now();
        attempts.begin_at(&user("ann"), ip(1), now).unwrap();
        attempts.succeeded(&user("ann"), ip(1));
        let good = (2..=u8::MAX).filter(|n| attempts.begin_at(&user("ann"), ip(*n), now).is_ok());
        assert_eq!(good.count(), 100);
        // Where ann has signed in before, it is taken for ann who does it again.
        attempts.begin_at(&user("ann"), ip(1), now).unwrap();
        attempts.begin_at(&user("bob"), ip(7), now).unwrap();
    }

    #[test]
    fn an_address_may_try_thirty_times_whoever_it_says_to_be() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let begin = |n: u32| attempts.begin_at(&user(&format!("user{n}")), ip(1), now);
        let good = (0..200).filter(|n| begin(*n).is_ok()).count();
        assert_eq!(good, 30);
    }

    #[test]
    fn what_succeeds_costs_nothing_and_what_is_refused_neither() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for _ in 0..1000 {
            attempts.begin_at(&user("ann"), ip(1), now).unwrap();
            attempts.give_back(&user("ann"), ip(1));
        }
        for _ in 0..10 {
            attempts.begin_at(&user("ann"), ip(1), now).unwrap();
        }
        for _ in 0..1000 {
            assert!(attempts.begin_at(&user("ann"), ip(1), now).is_err());
        }
        let later = now + Duration::from_secs(61);
        attempts.begin_at(&user("ann"), ip(1), later).unwrap();
    }
}
