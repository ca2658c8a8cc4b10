//! How far the log had been seen to go, line by line: by clients, and by each node's final reads.

use std::collections::BTreeMap;

use crate::check::room::{Hold, Reading, Room};
use crate::history::Name;

/// Readings in the order of their lines, each of which saw more than all before it.
#[derive(Debug, Default)]
pub(super) struct Highest(Vec<Reading>);

impl Highest {
    fn note(&mut self, reading: &Reading) {
        if self.0.last().is_none_or(|highest| highest.head < reading.head) {
            self.0.push(*reading);
        }
    }

    /// What had seen the most before a line; of those that had, the first.
    pub(super) fn before(&self, line: u32) -> Option<&Reading> {
        let before = self.0.partition_point(|reading| reading.line < line);
        self.0[..before].last()
    }
}

/// What each sort of reading of a room had seen of its log.
#[derive(Debug, Default)]
pub(super) struct Heads<'h> {
    /// Whatever is no final read.
    pub(super) clients: Highest,
    /// Final reads, by node.
    pub(super) nodes: BTreeMap<&'h Name, Highest>,
}

impl<'h> Heads<'h> {
    pub(super) fn of(room: &Room<'h>) -> Heads<'h> {
        let mut heads = Heads::default();
        let clients = room.readings.iter().filter(|reading| reading.hold != Hold::Final);
        clients.for_each(|reading| heads.clients.note(reading));
        for (node, page) in final_pages(room) {
            heads.nodes.entry(node).or_default().note(page);
        }
        heads
    }
}

/// The pages of final reads with their nodes, in the order of their lines.
pub(super) fn final_pages<'r, 'h>(
    room: &'r Room<'h>,
) -> impl Iterator<Item = (&'h Name, &'r Reading)> {
    let pages = room.readings.iter().filter(|reading| reading.hold == Hold::Final);
    pages.filter_map(move |page| Some((room.op(page.call).node.as_ref()?, page)))
}
