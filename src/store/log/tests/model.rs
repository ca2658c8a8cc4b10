//! The log against a map, over random histories.

use proptest::prelude::*;

use super::*;

/// What the log should be, the simple way.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    vote: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    entries: std::collections::BTreeMap<u64, Bytes>,
    forgotten: bool,
}

#[derive(Debug, Clone)]
enum Step {
    /// Several writes in one batch: what, where (scaled), how many.
    Batch(Vec<(u8, u8, u8)>),
    Reopen,
    Crash,
    Maintain,
    Compact,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let batch = proptest::collection::vec((0..5u8, any::<u8>(), 1..30u8), 1..4);
    let step = prop_oneof![
        30 => batch.prop_map(Step::Batch),
        2 => Just(Step::Reopen),
        2 => Just(Step::Crash),
        5 => Just(Step::Maintain),
        1 => Just(Step::Compact),
    ];
    proptest::collection::vec(step, 1..80)
}

impl Model {
    /// A write that is possible in this state, and its effect.
    fn step(&mut self, (what, place, count): (u8, u8, u8), tag: u8) -> Write {
        let first = self.entries.keys().next().copied();
        let base = self.purged.as_ref().map_or(0, |(purged, _)| purged + 1);
        let next = self.entries.keys().next_back().map_or(base, |last| last + 1);
        let within = |low: u64, high: u64| low + (high - low) * u64::from(place) / 255;
        match what {
            0 | 1 => {
                // Mostly at the end, as Raft does.
                let from = if place < 200 { next } else { within(first.unwrap_or(next), next) };
                self.entries.retain(|index, _| *index < from);
                let to = from + u64::from(count);
                self.entries.extend((from..to).map(|i| (i, payload(i, tag))));
                append(G, from..to, tag)
            }
            2 if place % 2 == 0 => {
                let kept = within(base, next).checked_sub(1);
                self.entries.retain(|index, _| Some(*index) <= kept);
                truncate(kept)
            }
            2 => {
                self.vote = Some(Bytes::from(vec![tag, place]));
                Write::Vote { group: G, vote: Bytes::from(vec![tag, place]) }
            }
            4 if self.forgotten => {
                self.forgotten = false;
                Write::Recall { group: G }
            }
            4 => {
                // What was applied is in the log, or purged.
                let applied = within(base, next).checked_sub(1);
                let applied = applied.map(|index| (index, Bytes::from(format!("id{index}"))));
                self.entries.clear();
                self.purged = applied.clone().or(self.purged.take());
                self.forgotten = true;
                Write::Forget { group: G, applied }
            }
            _ => {
                let upto = within(base.saturating_sub(1), next + if place > 230 { 50 } else { 0 });
                self.entries.retain(|index, _| *index > upto);
                self.purged = Some((upto, Bytes::from(format!("id{upto}"))));
                purge(upto)
            }
        }
    }

    fn check(&self, log: &Log) {
        let state = log.group(G);
        assert_eq!(state.vote, self.vote);
        assert_eq!(state.purged, self.purged);
        assert_eq!(state.forgotten, self.forgotten);
        assert_eq!(state.first, self.entries.keys().next().copied());
        assert_eq!(state.last, self.entries.keys().next_back().copied());
        let entries: Vec<_> = self.entries.clone().into_iter().collect();
        assert_eq!(log.entries(G, 0..u64::MAX, usize::MAX).unwrap(), entries);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn the_log_is_its_model(steps in steps()) {
        let mut dir = tempfile::tempdir().unwrap();
        let mut log = Some(open(dir.path()));
        let mut model = Model::default();
        for (tag, step) in steps.into_iter().enumerate() {
            let tag = tag as u8;
            let open_log = log.as_ref().unwrap();
            match step {
                Step::Batch(batch) => {
                    let writes: Vec<_> = batch.into_iter().map(|b| model.step(b, tag)).collect();
                    open_log.write(&writes).unwrap();
                }
                Step::Maintain => drop(open_log.maintain().unwrap()),
                Step::Compact => open_log.compact_fully().unwrap(),
                Step::Reopen => {
                    log = None;
                    log.replace(open(dir.path()));
                }
                Step::Crash => {
                    let copy = crash_copy(dir.path());
                    log = None;
                    dir = copy;
                    log.replace(open(dir.path()));
                }
            }
            model.check(log.as_ref().unwrap());
        }
    }
}
