//! What opening a shard's state finds in the base, and what it removes there.
//!
//! Used by `state.rs`, `snapshot.rs` and `compact.rs`. A crash can leave event blocks that no head
//! covers, and rows of a snapshot in the bank that does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;

use crate::id::{RoomId, Seq, ShardId};
use crate::proto::internal::AppliedRow;
use crate::store::base::{Base, Batch, Order};
use crate::store::codec::{self, damaged};
use crate::store::key::{self, Bank, Key, Space, tag};

/// What the base has of a shard besides rows that are read when they are needed.
pub(crate) struct Recovered {
    pub(crate) space: Space,
    pub(crate) row: AppliedRow,
    pub(crate) lineages: BTreeMap<RoomId, u32>,
    pub(crate) erasing: BTreeMap<RoomId, BTreeSet<Seq>>,
}

/// Reads what must be known from the start, and removes what a crash left unfinished.
pub(crate) fn recover(base: &dyn Base, shard: ShardId) -> io::Result<Recovered> {
    let recovered = look(base, shard)?;
    let space = recovered.space;
    let unfinished = space.key(&Key::Unfinished);
    if base.get(&unfinished)?.is_some() {
        clean(base, space, &recovered.lineages)?;
        let mut batch = Batch::new();
        batch.delete(unfinished);
        base.write(batch)?;
        base.flush()?;
    }
    Ok(recovered)
}

/// Removes what no head covers: blocks, and rows of the bank that does not count.
pub(crate) fn clean(
    base: &dyn Base,
    space: Space,
    lineages: &BTreeMap<RoomId, u32>,
) -> io::Result<()> {
    base.delete_range(&Space { bank: space.bank.other(), ..space }.bank_range())?;
    sweep(base, space, lineages)
}

/// The same, without removing anything.
pub(crate) fn look(base: &dyn Base, shard: ShardId) -> io::Result<Recovered> {
    let mut space = Space { shard, bank: Bank(0) };
    if let Some(bank) = base.get(&space.key(&Key::Bank))? {
        space.bank = Bank((codec::number_from(&bank)? & 1) as u8);
    }
    let row = match codec::get_row(base, space, &Key::Applied)? {
        Some(value) => codec::applied_from(&value)?,
        None => AppliedRow::default(),
    };
    let mut lineages = BTreeMap::new();
    let mut erasing: BTreeMap<RoomId, BTreeSet<Seq>> = BTreeMap::new();
    each(base, space, tag::LINEAGE, |key, value| {
        let Key::Lineage(room) = key else { return Err(damaged("a key")) };
        lineages.insert(room, codec::number_from(value)? as u32);
        Ok(())
    })?;
    each(base, space, tag::ERASING, |key, _| {
        let Key::Erasing(room, seq) = key else { return Err(damaged("a key")) };
        erasing.entry(room).or_default().insert(seq);
        Ok(())
    })?;
    Ok(Recovered { space, row, lineages, erasing })
}

/// Visits all rows with a tag. `visit` must not call the base.
pub(crate) fn each(
    base: &dyn Base,
    space: Space,
    tag: u8,
    mut visit: impl FnMut(Key, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut result = Ok(());
    base.scan(&space.all(tag), Order::Forward, &mut |key, value| {
        result = match key::decode(key) {
            Some((_, key)) => visit(key, value),
            None => Err(damaged("a key")),
        };
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result
}

/// Removes blocks above their room's head, and those of rooms and lineages that are no more.
fn sweep(base: &dyn Base, space: Space, lineages: &BTreeMap<RoomId, u32>) -> io::Result<()> {
    for tag in [tag::BLOCK, tag::BLOCK_PART] {
        let mut rest = space.all(tag);
        while let Some((key, _)) = base.first(&rest, Order::Forward)? {
            let (room, lineage) = match key::decode(&key) {
                Some((_, Key::Block(room, lineage, _) | Key::BlockPart(room, lineage, ..))) => {
                    (room, lineage)
                }
                _ => return Err(damaged("a block's key")),
            };
            let row = match base.get(&space.key(&Key::Room(room.clone())))? {
                Some(value) => Some(codec::room_from(&room, &value)?),
                None => None,
            };
            let current = lineages.get(&room).copied().unwrap_or(0) == lineage;
            let keep = row.filter(|_| current).map_or(Seq(0), |row| row.head);
            let all = space.blocks(tag, &room, lineage, Seq(0), Seq(u64::MAX));
            let stale = space.blocks(tag, &room, lineage, keep.next(), Seq(u64::MAX));
            base.delete_range(&stale)?;
            rest.start = all.end;
        }
    }
    Ok(())
}
