//! How often somebody may try a password: from a network as one user, from a network as anybody, and
//! as one user from anywhere.
//!
//! Each has an allowance that is used up by attempts and comes back with time; what succeeds is
//! given back. Who tries to be somebody else uses up what they have where they are. The last allowance
//! stands against many networks that try one user together (NIST SP 800-63B, 5.2.2: a hundred). It could
//! be used up to keep the user out, so it does not count where that user has signed in before.
//!
//! In memory, on each node for itself. The tables are of fixed size: a place in them is a keyed hash,
//! which nobody outside can choose; who shares a place shares the allowance.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Code, Error};
use crate::id::UserId;

/// Places in a table.
const PLACES: usize = 8192;

/// So many at once, and one more after each pause.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    pause: Duration,
}

/// As one user, from one network.
const HERE: Rate = Rate { burst: 10, pause: Duration::from_secs(6) };
/// From one network.
const NETWORK: Rate = Rate { burst: 30, pause: Duration::from_secs(1) };
/// As one user, from networks where they have not signed in.
const USER: Rate = Rate { burst: 100, pause: Duration::from_secs(6) };

/// Who has tried how often.
#[derive(Debug)]
pub struct Attempts {
    hasher: RandomState,
    begin: Instant,
    tables: Mutex<Tables>,
}

/// Of each place: until when what was used is not back yet, in milliseconds since `begin`.
#[derive(Debug)]
struct Tables {
    here: Vec<u64>,
    networks: Vec<u64>,
    users: Vec<u64>,
    /// Which user signed in from which network last, of those that share the place: their whole hash.
    known: Vec<u64>,
}

/// Where an attempt counts.
struct Places {
    here: usize,
    network: usize,
    user: usize,
    /// What is in `known` at `here` if this user has signed in from there.
    tag: u64,
}

impl Default for Attempts {
    fn default() -> Attempts {
        let table = || vec![0; PLACES];
        let tables = Tables { here: table(), networks: table(), users: table(), known: table() };
        Attempts { hasher: RandomState::new(), begin: Instant::now(), tables: Mutex::new(tables) }
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
        let now_ms = self.ms(Instant::now());
        let place = self.network(address).1;
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let until = &mut tables.networks[place];
        match NETWORK.wait_ms(*until, now_ms) {
            0 => {
                *until = NETWORK.used(*until, now_ms);
                Ok(())
            }
            wait_ms => Err(too_many(wait_ms)),
        }
    }

    /// Takes such an attempt back.
    pub fn give_back_anybody(&self, address: Option<IpAddr>) {
        let place = self.network(address).1;
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.networks[place] = tables.networks[place].saturating_sub(NETWORK.pause_ms());
    }

    fn begin_at(&self, user: &UserId, address: Option<IpAddr>, now: Instant) -> Result<(), Error> {
        let now_ms = self.ms(now);
        let places = self.places(user, address);
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let mut allowances = tables.allowances(&places);
        let waits = allowances.iter().flatten().map(|(until, rate)| rate.wait_ms(**until, now_ms));
        if let Some(wait_ms @ 1..) = waits.max() {
            return Err(too_many(wait_ms));
        }
        for (until, rate) in allowances.iter_mut().flatten() {
            **until = rate.used(**until, now_ms);
        }
        Ok(())
    }

    /// Takes an attempt back that could not be decided.
    pub fn give_back(&self, user: &UserId, address: Option<IpAddr>) {
        let places = self.places(user, address);
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        for (until, rate) in tables.allowances(&places).into_iter().flatten() {
            *until = until.saturating_sub(rate.pause_ms());
        }
    }

    /// Takes an attempt back that has succeeded: it was the user.
    pub fn succeeded(&self, user: &UserId, address: Option<IpAddr>) {
        self.give_back(user, address);
        let places = self.places(user, address);
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.known[places.here] = places.tag;
    }

    /// The network of an address, and its place.
    fn network(&self, address: Option<IpAddr>) -> (Option<u64>, usize) {
        let network = address.map(|address| match address {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            // What one customer is given.
            IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
        });
        (network, place(self.hasher.hash_one(network)))
    }

    fn places(&self, user: &UserId, address: Option<IpAddr>) -> Places {
        let (network, network_place) = self.network(address);
        let here = self.hasher.hash_one((user.as_str(), network));
        Places {
            here: place(here),
            network: network_place,
            user: place(self.hasher.hash_one(user.as_str())),
            tag: here | 1, // never what an empty place has
        }
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.duration_since(self.begin).as_millis()).unwrap_or(u64::MAX)
    }
}

fn place(hash: u64) -> usize {
    (hash % PLACES as u64) as usize
}

fn too_many(wait_ms: u64) -> Error {
    let message = "too many attempts to sign in: wait a moment";
    Error::new(Code::RateLimited, message).retry_after(wait_ms)
}

impl Tables {
    /// The allowances that an attempt takes of.
    fn allowances(&mut self, places: &Places) -> [Option<(&mut u64, Rate)>; 3] {
        let known = self.known[places.here] == places.tag;
        [
            Some((&mut self.here[places.here], HERE)),
            Some((&mut self.networks[places.network], NETWORK)),
            (!known).then_some((&mut self.users[places.user], USER)),
        ]
    }
}

impl Rate {
    fn pause_ms(self) -> u64 {
        self.pause.as_millis() as u64
    }

    /// How long to wait until there is an attempt left, in milliseconds.
    fn wait_ms(self, until: u64, now_ms: u64) -> u64 {
        let allowed = self.pause_ms() * u64::from(self.burst - 1);
        until.saturating_sub(now_ms).saturating_sub(allowed)
    }

    fn used(self, until: u64, now_ms: u64) -> u64 {
        until.max(now_ms).saturating_add(self.pause_ms())
    }
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
