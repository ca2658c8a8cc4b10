//! Who is wrong, where replicas say different things.

use std::collections::BTreeMap;

use crate::id::NodeId;

/// Whether all are equal.
pub(super) fn same<T: PartialEq>(mut items: impl Iterator<Item = T>) -> bool {
    let Some(first) = items.next() else { return true };
    items.all(|item| item == first)
}

/// Who has something else than the others: those without a majority, all where none has one. `None`
/// when all have the same.
pub(super) fn judge<T>(
    said: &BTreeMap<NodeId, T>,
    what: impl Fn(&T) -> String,
) -> Option<(Vec<NodeId>, String)> {
    let mut groups: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
    for (node, item) in said {
        groups.entry(what(item)).or_default().push(*node);
    }
    if groups.len() < 2 {
        return None;
    }
    let groups: Vec<Vec<NodeId>> = groups.into_values().collect();
    let wins = |group: &Vec<NodeId>| group.len() > said.len() / 2;
    let right = groups.iter().find(|group| wins(group));
    let names =
        |nodes: &[NodeId]| nodes.iter().map(|node| node.to_string()).collect::<Vec<_>>().join(", ");
    let wrong: Vec<NodeId> = match right {
        Some(right) => said.keys().filter(|node| !right.contains(node)).copied().collect(),
        None => said.keys().copied().collect(),
    };
    let detail = match right {
        Some(right) => format!("node {} differs from {}", names(&wrong), names(right)),
        None => {
            let all: Vec<String> = groups.iter().map(|group| names(group)).collect();
            format!("nodes have different things, and no majority agrees: {}", all.join(" | "))
        }
    };
    Some((wrong, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(said: &[(u64, &str)]) -> Option<(Vec<u64>, String)> {
        let said = said.iter().map(|(node, what)| (NodeId(*node), *what)).collect();
        let judged = judge(&said, |what| (*what).to_owned());
        judged.map(|(nodes, detail)| (nodes.iter().map(|node| node.0).collect(), detail))
    }

    #[test]
    fn a_majority_says_who_is_wrong() {
        assert_eq!(judged(&[(1, "a"), (2, "a"), (3, "a")]), None);
        assert_eq!(judged(&[(1, "a")]), None);
        let (wrong, detail) = judged(&[(1, "a"), (2, "b"), (3, "a")]).unwrap();
        assert_eq!((wrong, &*detail), (vec![2], "node 2 differs from 1, 3"));
        let five = [(1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "a")];
        assert_eq!(judged(&five).unwrap().0, [2, 4]);
    }

    #[test]
    fn without_a_majority_everybody_may_be() {
        let (wrong, detail) = judged(&[(1, "a"), (2, "b")]).unwrap();
        assert_eq!(wrong, [1, 2]);
        assert!(detail.contains("no majority"), "{detail}");
        assert_eq!(judged(&[(1, "a"), (2, "b"), (3, "c")]).unwrap().0, [1, 2, 3]);
        assert_eq!(judged(&[(1, "a"), (2, "a"), (3, "c"), (4, "c")]).unwrap().0, [1, 2, 3, 4]);
    }
}
