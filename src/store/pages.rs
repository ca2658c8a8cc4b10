//! Pages of a room's events, from the base's blocks and from memory.
//!
//! Called by `reads.rs`. Only the blocks that a page needs are read. A checkpoint may merge and
//! rewrite blocks meanwhile, so a page is built by seq and looks again where it finds a hole.

use std::io;
use std::sync::Arc;

use crate::chat::codec::EventReader;
use crate::chat::event::Event;
use crate::id::{RoomId, Seq};
use crate::store::block::RoomBlocks;
use crate::store::codec::damaged;
use crate::store::state::ShardState;

/// A page of events being filled.
pub(super) struct Page {
    pub(super) events: Vec<Arc<Event>>,
    pub(super) next: Seq,
    pub(super) limit: usize,
    /// Of bodies, left to fill.
    pub(super) bytes: usize,
    pub(super) full: bool,
}

impl Page {
    fn wanted(&self) -> usize {
        self.limit - self.events.len()
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        let bytes = event.body.text().len();
        if bytes > self.bytes && !self.events.is_empty() {
            self.full = true;
            return;
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        self.next = event.seq.next();
        self.events.push(event);
        self.full = self.events.len() >= self.limit;
    }
}

impl ShardState {
    /// Reads events of the base from `page.next` up to `last`, all of which are durable.
    pub(super) fn base_events(&self, room: &RoomId, last: Seq, page: &mut Page) {
        let lineage = self.lineages.get(room).copied().unwrap_or(0);
        let blocks = RoomBlocks { space: self.space, room, lineage };
        let mut reader = EventReader::default();
        let mut failures = 0;
        while page.next <= last && !page.full {
            let from = page.next;
            let read = self.base_events_once(&blocks, last, page, &mut reader);
            if page.next > from {
                failures = 0;
                continue;
            }
            // A checkpoint may have merged or rewritten blocks between two reads: look again.
            failures += 1;
            if failures >= 16 {
                let missing = || Err(damaged(&format!("event {} of room {room}", page.next)));
                self.or_fatal(read.and_then(|()| missing()))
            }
        }
    }

    fn base_events_once(
        &self,
        blocks: &RoomBlocks<'_>,
        last: Seq,
        page: &mut Page,
        reader: &mut EventReader,
    ) -> io::Result<()> {
        let base = self.base.as_ref();
        let raw_bytes = page.bytes.max(1) as u64;
        let rows = blocks.rows(base, page.next, last, page.wanted() as u64, raw_bytes)?;
        let erasing = self.erasing.get(blocks.room);
        for row in rows {
            let run = blocks.decode(base, row)?;
            if run.first() > page.next {
                return Ok(());
            }
            for (seq, bytes) in run.events(page.next) {
                if seq > last || page.full {
                    return Ok(());
                }
                let mut event = reader.read(bytes).map_err(|_| damaged("an event"))?;
                if event.seq != seq {
                    return Err(damaged("the order of events"));
                }
                if erasing.is_some_and(|seqs| seqs.contains(&seq)) {
                    event = Arc::new(event.erased());
                }
                page.push(event);
            }
        }
        Ok(())
    }
}
