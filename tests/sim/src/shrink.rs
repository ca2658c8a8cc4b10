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
    let wishes = &run.wishes;
    let mut shrunk = wishes.clone();
    let mut tries = 0;
    let mut fails = |candidate: &Wishes| {
        tries += 1;
        let smaller = Run { wishes: candidate.clone(), trace: false, ..run.clone() };
        tries <= TRIES_MAX && !smaller.life(seed).failures.is_empty()
    };
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
        && accept(&mut shrunk, &|wishes| wishes.time = Some(time * 3 / 4))
    {}
    shrunk
}
