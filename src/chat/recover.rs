//! A cluster was recovered from one survivor: every room gets a new epoch.
//!
//! `folkmoot cluster recover` puts this command into the log of each shard; no user can ask for it.
//! What was acknowledged and is not in the survivor's log is lost, and its seqs are given again. So a
//! cursor from before must not be taken for one into this history: clients are told
//! `recovered: false`.

use crate::chat::command::Done;
use crate::chat::state::{Room, StateMut};
use crate::id::{Epoch, RoomId, Seq};

/// Names a recovery; random.
pub type Recovery = [u8; 16];

/// Rooms looked at together.
const RUN: usize = 512;

/// Gives every room of the shard the epoch that it has after this recovery. A repeat changes
/// nothing.
///
/// Takes memory for every room of the shard at once, until the next checkpoint.
pub(super) fn apply(state: &mut impl StateMut, recovery: &Recovery) -> Done {
    let mut after: Option<RoomId> = None;
    loop {
        let run = state.rooms(after.as_ref(), RUN);
        let Some(last) = run.last() else { break };
        after = Some(last.id.clone());
        for room in run {
            let epoch = epoch_of(recovery, &room.id);
            if room.epoch != epoch {
                state.put_room(Room { epoch, ..Room::clone(&room) });
            }
        }
    }
    let at_ms = state.log_time_ms();
    Done { seq: Seq(0), epoch: None, at_ms, duplicate: false, imported: None }
}

/// The epoch of a room after a recovery: as good as random, and the same on every replica.
pub fn epoch_of(recovery: &Recovery, room: &RoomId) -> Epoch {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"recovery\0").update(recovery).update(room.as_str().as_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    Epoch::mint(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::apply::apply_batch;
    use crate::chat::codec;
    use crate::chat::command::{Actor, Command, Request};
    use crate::chat::memory::Memory;
    use crate::chat::query;
    use crate::chat::state::{RoomKind, State};
    use crate::id::{Cursor, RequestId, UserId};

    fn create(n: usize) -> bytes::Bytes {
        let mut id = [0; 10];
        id[..8].copy_from_slice(&(n as u64).to_le_bytes());
        codec::encode_request(&Request {
            actor: Actor { user: UserId::parse("ann").unwrap(), admin: true },
            id: RequestId::mint(1000, id),
            command: Command::CreateRoom {
                room: RoomId::parse(&format!("room-{n}")).unwrap(),
                title: "Room".into(),
                kind: RoomKind::Public,
                epoch: Epoch::mint([n as u8; 8]),
                salt: [1; 16],
            },
        })
    }

    fn recover(state: &mut Memory, recovery: Recovery) {
        let request = codec::encode_recovery(&recovery);
        apply_batch(state, 0, &[request], |_, r| drop(r.unwrap()), &mut Vec::new());
    }

    #[test]
    fn every_room_gets_an_epoch_of_its_own_and_keeps_the_rest() {
        let mut state = Memory::default();
        let rooms = 2 * RUN + 3;
        let requests: Vec<_> = (0..rooms).map(create).collect();
        apply_batch(&mut state, 1000, &requests, |_, r| drop(r.unwrap()), &mut Vec::new());
        let before = state.rooms(None, usize::MAX);
        recover(&mut state, [7; 16]);
        let after = state.rooms(None, usize::MAX);
        assert_eq!(after.len(), rooms);
        let mut epochs = std::collections::BTreeSet::new();
        for (old, new) in before.iter().zip(&after) {
            assert_ne!(old.epoch, new.epoch);
            epochs.insert(new.epoch.to_string());
            let kept = Room { epoch: old.epoch.clone(), ..Room::clone(new) };
            assert_eq!(kept, **old, "nothing but the epoch changes");
            let cursor = |epoch: &Epoch| Cursor { epoch: Some(epoch.clone()), seq: Seq(1) };
            assert!(!query::resume(new, &cursor(&old.epoch)).unwrap().0, "recovered: false");
            assert!(query::resume(new, &cursor(&new.epoch)).unwrap().0);
        }
        assert_eq!(epochs.len(), rooms);
    }

    #[test]
    fn a_repeat_changes_nothing_and_another_recovery_does() {
        let mut state = Memory::default();
        apply_batch(&mut state, 1000, &[create(1)], |_, r| drop(r.unwrap()), &mut Vec::new());
        recover(&mut state, [7; 16]);
        let once = state.clone();
        recover(&mut state, [7; 16]);
        assert_eq!(state, once);
        recover(&mut state, [8; 16]);
        assert_ne!(state, once);
        assert_eq!(state.log_time_ms(), 1000, "no time passes");
    }
}
