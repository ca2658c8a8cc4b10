//! How often somebody may try a password: per user, and per address.
//!
//! Each has an allowance that is used up by attempts and comes back with time; what succeeds is
//! given back. In memory, on each node for itself. The tables are of fixed size: a user's or an
//! address' place in them is a keyed hash, which nobody outside can choose; who shares a place
//! shares the allowance.

use std::hash::{BuildHasher, Hash, RandomState};
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

const USER: Rate = Rate { burst: 10, pause: Duration::from_secs(6) };
const ADDRESS: Rate = Rate { burst: 30, pause: Duration::from_secs(1) };

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
    users: Vec<u64>,
    addresses: Vec<u64>,
}

impl Default for Attempts {
    fn default() -> Attempts {
        let (users, addresses) = (vec![0; PLACES], vec![0; PLACES]);
        Attempts {
            hasher: RandomState::new(),
            begin: Instant::now(),
            tables: Mutex::new(Tables { users, addresses }),
        }
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

    fn begin_at(&self, user: &UserId, address: Option<IpAddr>, now: Instant) -> Result<(), Error> {
        let now_ms = self.ms(now);
        let (user, address) = self.places(user, address);
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let used = [(tables.users[user], USER), (tables.addresses[address], ADDRESS)];
        let wait_ms = used.into_iter().map(|(until, rate)| rate.wait_ms(until, now_ms)).max();
        if let Some(wait_ms @ 1..) = wait_ms {
            let message = "too many attempts to sign in: wait a moment";
            return Err(Error::new(Code::RateLimited, message).retry_after(wait_ms));
        }
        tables.users[user] = USER.used(tables.users[user], now_ms);
        tables.addresses[address] = ADDRESS.used(tables.addresses[address], now_ms);
        Ok(())
    }

    /// Takes an attempt back, which has succeeded, or could not be decided.
    pub fn give_back(&self, user: &UserId, address: Option<IpAddr>) {
        let (user, address) = self.places(user, address);
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let less = |until: u64, rate: Rate| until.saturating_sub(rate.pause_ms());
        tables.users[user] = less(tables.users[user], USER);
        tables.addresses[address] = less(tables.addresses[address], ADDRESS);
    }

    fn places(&self, user: &UserId, address: Option<IpAddr>) -> (usize, usize) {
        let network = address.map(|address| match address {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            // What one customer is given.
            IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
        });
        (self.place(user.as_str()), self.place(network))
    }

    fn place(&self, key: impl Hash) -> usize {
        (self.hasher.hash_one(key) % PLACES as u64) as usize
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.duration_since(self.begin).as_millis()).unwrap_or(u64::MAX)
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
    fn a_user_may_be_tried_ten_times_and_then_every_six_seconds() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for n in 0..10 {
            attempts.begin_at(&user("ann"), ip(n), now).unwrap();
        }
        let refused = attempts.begin_at(&user("ann"), ip(99), now).unwrap_err();
        assert_eq!(refused.code, Code::RateLimited);
        let wait = refused.retry_after_ms.unwrap();
        assert!((1..=6000).contains(&wait), "{wait}");
        let later = now + Duration::from_millis(wait);
        attempts.begin_at(&user("ann"), ip(99), later).unwrap();
        assert!(attempts.begin_at(&user("ann"), ip(99), later).is_err());
        attempts.begin_at(&user("ann"), ip(99), later + Duration::from_secs(6)).unwrap();
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
