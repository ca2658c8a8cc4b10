//! Log matching: two logs that have an entry of one index and term carry the same there, and have an entry of
//! the same term before it; so, step by step, they are the same up to there (Raft dissertation §3.5). It holds
//! above the commit as well, from the first time that an entry is in any log.

use std::collections::BTreeMap;

use folkmoot::id::{NodeId, ShardId};

/// A shard, an index and a term.
type At = (ShardId, u64, u64);

/// An entry, as it was first seen.
struct Entry {
    /// A hash of what it carries.
    carried: [u8; 32],
    /// The term of the one before it, once that was known.
    before: Option<u64>,
    /// Whose log had it first.
    node: NodeId,
}

/// Every entry that was seen in any log.
#[derive(Default)]
pub struct Entries(BTreeMap<At, Entry>);

impl Entries {
    /// An entry is in a node's log; `before` is the term of the one before it there, if that is known. What
    /// contradicts an earlier look.
    pub fn note(
        &mut self,
        node: NodeId,
        at: At,
        carried: [u8; 32],
        before: Option<u64>,
    ) -> Option<String> {
        let first = self.0.entry(at).or_insert(Entry { carried, before, node });
        first.before = first.before.or(before);
        let differs = if first.carried != carried {
            "carries something else"
        } else if before.is_some() && first.before != before {
            "comes after one of another term"
        } else {
            return None;
        };
        let (shard, index, term) = at;
        Some(format!(
            "log matching: entry {index} of term {term} of shard {shard} {differs} on node {node} than \
             on node {}",
            first.node
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: At = (ShardId(1), 7, 3);

    fn noted(seen: &[(u64, At, u8, Option<u64>)]) -> Vec<String> {
        let mut entries = Entries::default();
        let note = |(node, at, carried, before): &(u64, At, u8, Option<u64>)| {
            entries.note(NodeId(*node), *at, [*carried; 32], *before)
        };
        seen.iter().filter_map(note).collect()
    }

    #[test]
    fn equal_logs_match_also_where_one_does_not_know_what_is_before() {
        let other_term = (ShardId(1), 7, 4);
        let other_shard = (ShardId(2), 7, 3);
        let seen = [
            (1, ENTRY, 5, None),
            (2, ENTRY, 5, Some(2)),
            (1, ENTRY, 5, Some(2)),
            (3, ENTRY, 5, None),
            (3, other_term, 6, Some(3)),
            (3, other_shard, 6, Some(3)),
        ];
        assert_eq!(noted(&seen), Vec::<String>::new());
    }

    #[test]
    fn logs_of_one_index_and_term_that_differ_there_or_before_do_not_match() {
        let said = noted(&[(1, ENTRY, 5, Some(2)), (2, ENTRY, 6, Some(2))]);
        assert_eq!(said.len(), 1);
        assert!(
            said[0].starts_with("log matching: ") && said[0].contains("something else"),
            "{said:?}"
        );
        let said = noted(&[(1, ENTRY, 5, None), (2, ENTRY, 5, Some(2)), (3, ENTRY, 5, Some(1))]);
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("after one of another term"), "{said:?}");
    }
}
