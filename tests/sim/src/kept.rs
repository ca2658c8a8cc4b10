//! Seeds that found something once, in the code or in the simulator. They are lived in every run of
//! the tests; `kept.txt` says what each found.

/// The kept seeds.
pub fn seeds() -> Vec<u64> {
    let lines = include_str!("kept.txt").lines();
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Plan, Wishes};

    /// Seeds that were kept before there were changes.
    const FIRST: usize = 16;

    #[test]
    fn every_line_is_a_seed_or_a_comment() {
        let lines = include_str!("kept.txt").lines().filter(|line| !line.starts_with('#'));
        assert_eq!(seeds().len(), lines.count());
        assert!(!seeds().is_empty());
    }

    /// What they found, they found in lives without changes of the cluster.
    #[test]
    fn the_first_seeds_are_lives_without_changes() {
        for seed in seeds().into_iter().take(FIRST) {
            assert!(!Plan::draw(seed, &Wishes::default()).changes(), "seed {seed}");
        }
    }
}
