//! The log checker agrees with an exhaustive search for a linearization.
//!
//! Small histories are made by running a correct room with random delays, and then by breaking
//! about two thirds of them. The search (`brute_force/search.rs`) knows nothing of keys, holes or
//! grouped tries: it takes every order that real time allows through a model of a room.

mod generate;
mod search;

use folkmoot_jepsen::check::{self, Options, Verdict};
use folkmoot_jepsen::history::{F, History, Kind};

use self::generate::Rng;

const HISTORIES: u64 = 200_000;

fn json(history: &History) -> String {
    let mut text = Vec::new();
    history.write(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// What a set of histories was made of, so that a generator that tests nothing is noticed.
#[derive(Default)]
struct Made {
    valid: u64,
    unresolved_sends: u64,
    failed_sends: u64,
    repeated_ids: u64,
    deliveries: u64,
    local_reads: u64,
    subscribes: u64,
    short_pages: u64,
}

impl Made {
    fn add(&mut self, history: &History, valid: bool) {
        self.valid += u64::from(valid);
        let has = |test: &dyn Fn(usize) -> bool| u64::from((0..history.len()).any(test));
        let ops = history.ops();
        let sends = |i: usize| ops[i].f == F::Send && ops[i].kind == Kind::Invoke;
        let ends = |i: usize, kind| sends(i) && history.partner(i).map(|p| ops[p].kind) == kind;
        self.unresolved_sends += has(&|i| ends(i, None) || ends(i, Some(Kind::Info)));
        self.failed_sends += has(&|i| ends(i, Some(Kind::Fail)));
        self.repeated_ids += has(&|i| ops[i].f == F::Resend);
        self.deliveries += has(&|i| ops[i].f == F::Deliver);
        self.local_reads += has(&|i| ops[i].f == F::ReadLocal);
        self.subscribes += has(&|i| ops[i].f == F::Subscribe && ops[i].kind == Kind::Ok);
        self.short_pages += has(&|i| {
            let events = ops[i].events();
            matches!(&ops[i].value, folkmoot_jepsen::history::Value::Page { head, .. }
                if events.last().is_some_and(|last| last.seq < *head))
        });
    }
}

#[test]
fn the_checker_agrees_with_an_exhaustive_search() {
    let mut made = Made::default();
    for seed in 0..HISTORIES {
        let history = generate::history(&mut Rng::new(seed));
        let linearizable = search::linearizable(&history);
        let report = check::check(&history, &Options { min_ok: 0, ..Options::default() });
        let agrees = (report.verdict == Verdict::Invalid) != linearizable;
        let says = if linearizable { "there is" } else { "there is no" };
        assert!(agrees, "seed {seed}: {says} linearization\n{report}\n{}", json(&history));
        made.add(&history, linearizable);
    }
    let share = |n: u64| n * 100 / HISTORIES;
    println!("{} % valid", share(made.valid));
    assert!((20..=80).contains(&share(made.valid)), "{} % are valid", share(made.valid));
    for (what, n) in [
        ("an unresolved send", made.unresolved_sends),
        ("a failed send", made.failed_sends),
        ("an id sent twice", made.repeated_ids),
        ("a delivery", made.deliveries),
        ("a local read", made.local_reads),
        ("a new subscription", made.subscribes),
        ("a page that ends before its head", made.short_pages),
    ] {
        assert!(share(n) >= 5, "{} % have {what}", share(n));
    }
}
