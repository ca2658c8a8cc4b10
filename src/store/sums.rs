//! What a replica has of its rooms, in a form that replicas can compare: for `cluster verify`.
//!
//! A room's row says what its chain is; its events say what it should be. Both are asked, so that
//! damage to stored events is found as well as replicas that went different ways.

use crate::chat::event::Hash;
use crate::chat::state::{Participant, Room, State};
use crate::id::{Epoch, RoomId, Seq};
use crate::store::codec;
use crate::store::state::ShardState;

/// Events read at once, in bytes of bodies.
const READ_BYTES: usize = 1024 * 1024;

/// One moment of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSum {
    /// Which.
    pub room: RoomId,
    /// Its history.
    pub epoch: Epoch,
    /// The oldest kept event.
    pub first_seq: Seq,
    /// The last event.
    pub head: Seq,
    /// The chain at `head`, as the row has it.
    pub chain: Hash,
    /// The chain at `first_seq − 1`.
    pub chain_base: Hash,
    /// blake3 of the row and the participants, but for how far they have read: the same wherever
    /// `epoch` and `head` are.
    pub digest: Hash,
}

/// How far a room's chain was made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainPart {
    /// The last event that is in it.
    pub seq: Seq,
    /// The chain at `seq`.
    pub chain: Hash,
    /// A hash over the notes up to `seq`, as they are now, at `head`.
    pub notes: Hash,
    /// The room's head now.
    pub head: Seq,
}

/// Why a chain cannot be made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The room is gone, or has another history.
    #[error("the room has another history by now")]
    OtherHistory,
    /// Events that the row has are not there.
    #[error("events are missing from {0} on")]
    Missing(Seq),
}

impl ShardState {
    /// Up to `limit` rooms above `after`, ascending.
    pub fn room_sums(&self, after: Option<&RoomId>, limit: usize) -> Vec<RoomSum> {
        self.rooms(after, limit).iter().map(|room| self.sum(room)).collect()
    }

    /// One room.
    pub fn room_sum(&self, room: &RoomId) -> Option<RoomSum> {
        self.room(room).map(|room| self.sum(&room))
    }

    fn sum(&self, room: &Room) -> RoomSum {
        let mut digest = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_be_bytes()).update(bytes);
        };
        add(&codec::room_value(room));
        for (user, participant) in self.participants(&room.id, None, usize::MAX) {
            add(user.as_str().as_bytes());
            // Marks move without an event, so replicas with the same head may have other ones.
            add(&codec::participant_value(&Participant { read: Seq(0), ..participant }));
        }
        RoomSum {
            room: room.id.clone(),
            epoch: room.epoch.clone(),
            first_seq: room.first_seq,
            head: room.head,
            chain: room.chain,
            chain_base: room.chain_base,
            digest: *digest.finalize().as_bytes(),
        }
    }

    /// Makes a room's chain anew from its stored events, from `from` up to `until` or over `limit`
    /// events, whichever is less.
    ///
    /// # Errors
    /// When the room has another history, or lacks events.
    pub fn room_chain(
        &self,
        room: &RoomId,
        epoch: &Epoch,
        from: &ChainPart,
        until: Seq,
        limit: usize,
    ) -> Result<ChainPart, ChainError> {
        let row = self.room(room).filter(|row| row.epoch == *epoch);
        let row = row.ok_or(ChainError::OtherHistory)?;
        let last = until.min(Seq(from.seq.0.saturating_add(limit as u64)));
        let mut part = ChainPart { head: row.head, ..from.clone() };
        while part.seq < last {
            let events = self.events(room, part.seq.next(), last, limit, READ_BYTES);
            let dense = events.first().is_some_and(|event| event.seq == part.seq.next());
            let Some(end) = events.last().map(|event| event.seq).filter(|_| dense) else {
                return Err(ChainError::Missing(part.seq.next()));
            };
            for event in &events {
                part.chain = event.chain(&part.chain);
            }
            for (seq, of_message) in self.notes_in(room, part.seq.next(), end) {
                let mut notes = blake3::Hasher::new();
                notes.update(&part.notes).update(&seq.0.to_be_bytes());
                part.notes = *notes.update(&codec::notes_value(&of_message)).finalize().as_bytes();
            }
            part.seq = end;
        }
        Ok(part)
    }
}
