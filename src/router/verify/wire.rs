//! Sums and chains on the wire between nodes.

use crate::id::{Epoch, RoomId, Seq};
use crate::proto::internal as pb;
use crate::store::sums::{ChainPart, RoomSum};

pub(super) fn sum_to(sum: RoomSum) -> pb::RoomSum {
    pb::RoomSum {
        room: sum.room.as_str().into(),
        epoch: sum.epoch.as_str().into(),
        first_seq: sum.first_seq.0,
        head: sum.head.0,
        chain: sum.chain.to_vec().into(),
        chain_base: sum.chain_base.to_vec().into(),
        digest: sum.digest.to_vec().into(),
    }
}

pub(super) fn sum_from(sum: pb::RoomSum) -> Option<RoomSum> {
    let hash = |bytes: &bytes::Bytes| bytes.as_ref().try_into().ok();
    Some(RoomSum {
        room: RoomId::parse(&sum.room).ok()?,
        epoch: Epoch::parse(&sum.epoch).ok()?,
        first_seq: Seq(sum.first_seq),
        head: Seq(sum.head),
        chain: hash(&sum.chain)?,
        chain_base: hash(&sum.chain_base)?,
        digest: hash(&sum.digest)?,
    })
}

pub(super) fn part_to(part: &ChainPart) -> pb::RoomChain {
    let (chain, notes) = (part.chain.to_vec().into(), part.notes.to_vec().into());
    pb::RoomChain { seq: part.seq.0, chain, notes, head: part.head.0 }
}

pub(super) fn part_from(part: pb::RoomChain) -> Option<ChainPart> {
    let hash = |bytes: &bytes::Bytes| bytes.as_ref().try_into().ok();
    let (chain, notes) = (hash(&part.chain)?, hash(&part.notes)?);
    Some(ChainPart { seq: Seq(part.seq), chain, notes, head: Seq(part.head) })
}
