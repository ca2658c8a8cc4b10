//! Finds a smaller life that fails, too: fewer strikes, fewer clients, less time.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::plan::{Plan, Wishes};
use crate::runner::Run;

/// Lives tried at most.
const TRIES_MAX: usize = 400;

/// Shrinks what makes a run of one seed fail, in whatever way it looks for that: a run that lives each life
/// twice also shrinks what differs between the two. `tried` is told of each smaller life that fails.
pub fn shrink(seed: u64, run: &Run, tried: &mut dyn FnMut(&Wishes)) -> Wishes {
    let mut tries = 0;
    let mut fails = |candidate: &Wishes| {
        tries += 1;
        let smaller = Run { wishes: candidate.clone(), trace: false, ..run.clone() };
        tries <= TRIES_MAX && !smaller.life(seed).failures.is_empty()
    };
    smallest(seed, &run.wishes, &mut fails, tried)
}

/// The smallest wishes that still fail, as far as they were tried. All that is tried can be asked for on the
/// command line, and is the same life there.
fn smallest(
    seed: u64,
    wishes: &Wishes,
    fails: &mut dyn FnMut(&Wishes) -> bool,
    tried: &mut dyn FnMut(&Wishes),
) -> Wishes {
    let mut shrunk = wishes.clone();
    let mut accept = |shrunk: &mut Wishes, change: &dyn Fn(&mut Wishes)| {
        let mut candidate = shrunk.clone();
        change(&mut candidate);
        if fails(&candidate) {
            tried(&candidate);
            *shrunk = candidate;
            return true;
        }
        false
    };

    // Halves first, then single ones (delta debugging; Zeller and Hildebrandt, TSE 2002).
    let all = Plan::draw(seed, wishes).strikes.len();
    let mut left: Vec<usize> = match &wishes.strikes {
        Some(strikes) => strikes.iter().copied().collect(),
        None => (0..all).collect(),
    };
    let mut size = left.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        while from < left.len() {
            let rest: Vec<usize> = left[..from]
                .iter()
                .chain(&left[(from + size).min(left.len())..])
                .copied()
                .collect();
            let strikes: BTreeSet<usize> = rest.iter().copied().collect();
            if accept(&mut shrunk, &|wishes| wishes.strikes = Some(strikes.clone())) {
                left = rest;
            } else {
                from += size;
            }
        }
        size /= 2;
    }
    while let clients = Plan::draw(seed, &shrunk).clients
        && clients > 1
        && accept(&mut shrunk, &|wishes| wishes.clients_max = Some(clients - 1))
    {}
    while let time = Plan::draw(seed, &shrunk).time
        && time > Duration::from_millis(500)
        && accept(&mut shrunk, &|wishes| shorten(seed, wishes, time * 3 / 4))
    {}
    shrunk
}

/// Of that time whole milliseconds, and of the strikes those that are drawn for it.
fn shorten(seed: u64, wishes: &mut Wishes, time: Duration) {
    wishes.time = Some(Duration::from_millis(time.as_millis() as u64));
    let drawn = Plan::draw(seed, &Wishes { strikes: None, ..wishes.clone() }).strikes.len();
    if let Some(strikes) = &mut wishes.strikes {
        strikes.retain(|strike| *strike < drawn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With whole milliseconds, and no strikes but those that a life so short has.
    #[test]
    fn whatever_is_tried_can_be_asked_for() {
        let mut fewer = 0;
        for seed in 0..50 {
            let before = Plan::draw(seed, &Wishes::default());
            let mut lived = vec![];
            let mut fails = |wishes: &Wishes| {
                lived.push(wishes.clone());
                let plan = Plan::draw(seed, wishes);
                // So a strike is left that only a longer life has.
                !plan.strikes.is_empty() || plan.time < before.time
            };
            let found = smallest(seed, &Wishes::default(), &mut fails, &mut |_| {});
            for wishes in lived.iter().chain([&found]) {
                let time = Plan::draw(seed, wishes).time;
                assert_eq!(time.subsec_nanos() % 1_000_000, 0, "seed {seed}: {wishes:?}");
                let all = Plan::draw(seed, &Wishes { strikes: None, ..wishes.clone() }).strikes;
                let mut asked = wishes.strikes.iter().flatten();
                assert!(asked.all(|strike| *strike < all.len()), "seed {seed}: {wishes:?}");
                fewer += u64::from(wishes.time.is_some() && all.len() < before.strikes.len());
            }
        }
        assert!(fewer > 0, "no life was so short that it lost strikes");
    }
}
