//! The rooms that a session follows, and the order that each is held to.

use std::collections::HashMap;

use tokio::sync::mpsc;

use crate::client::session::{Delivered, Part};
use crate::error::{Code, Error};
use crate::id::{Cursor, Epoch, RoomId, Seq};
use crate::proto::v1 as pb;

/// One followed room.
struct Followed {
    /// The number of the Follow request on the present stream.
    number: u64,
    /// The server has answered it on the present stream.
    started: bool,
    position: Position,
    queue: mpsc::Sender<Part>,
}

/// How far a follow has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Position {
    /// At the head, wherever that is when the server answers.
    Head,
    /// The next event is one above this.
    At(Cursor),
    /// History was lost: the next event is any at or above this.
    From(Epoch, Seq),
}

/// The rooms that a session follows.
#[derive(Default)]
pub(super) struct Follows {
    rooms: HashMap<RoomId, Followed>,
}

impl Follows {
    /// Whether none is followed by anybody.
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.values().all(|followed| followed.queue.is_closed())
    }

    /// Takes a follow. True when an abandoned one of the same room must be ended first.
    pub(super) fn add(
        &mut self,
        number: u64,
        room: RoomId,
        after: Option<Cursor>,
        queue: mpsc::Sender<Part>,
    ) -> bool {
        if self.rooms.get(&room).is_some_and(|followed| !followed.queue.is_closed()) {
            let error = Error::invalid(format!("room {room} is followed already in this session"));
            let _ = queue.try_send(Part::Failed(error));
            return false;
        }
        let position = after.map_or(Position::Head, Position::At);
        let followed = Followed { number, started: false, position, queue };
        self.rooms.insert(room, followed).is_some()
    }

    /// Ends a follow.
    pub(super) fn remove(&mut self, room: &RoomId) -> bool {
        self.rooms.remove(room).is_some()
    }

    /// The request that starts or resumes a room under a number.
    pub(super) fn request(&mut self, room: &RoomId, number: u64) -> Option<pb::SessionRequest> {
        let followed = self.rooms.get_mut(room)?;
        followed.number = number;
        followed.started = false;
        let after = match &followed.position {
            Position::Head => None,
            Position::At(cursor) => Some(pb::Cursor {
                epoch: cursor.epoch.as_ref().map(Epoch::to_string).unwrap_or_default(),
                seq: cursor.seq.0,
            }),
            Position::From(epoch, first) => {
                Some(pb::Cursor { epoch: epoch.to_string(), seq: first.0.saturating_sub(1) })
            }
        };
        let follow = pb::Follow { room: room.to_string(), after, presence: false };
        let request = Some(pb::session_request::Request::Follow(follow));
        Some(pb::SessionRequest { id: number, request })
    }

    /// Every room, to be resumed on a new stream; abandoned ones are dropped.
    pub(super) fn resume(&mut self) -> Vec<RoomId> {
        self.rooms.retain(|_, followed| !followed.queue.is_closed());
        self.rooms.keys().cloned().collect()
    }

    /// Rooms whose reader is gone.
    pub(super) fn abandoned(&mut self) -> Vec<RoomId> {
        let gone = |(room, followed): (&RoomId, &Followed)| {
            followed.queue.is_closed().then(|| room.clone())
        };
        self.rooms.iter().filter_map(gone).collect()
    }

    /// Whose Follow request this number was.
    pub(super) fn room_of(&self, number: u64) -> Option<RoomId> {
        let mut rooms = self.rooms.iter();
        rooms.find(|(_, followed)| followed.number == number).map(|(room, _)| room.clone())
    }

    /// The server says where delivery starts.
    pub(super) async fn started(&mut self, answer: pb::Followed, number: u64) -> Result<(), Error> {
        let Some((room, followed)) = self.of(&answer.room) else { return Ok(()) };
        if followed.number != number {
            return Ok(()); // of an earlier follow of the same room
        }
        let epoch = Epoch::parse(&answer.epoch).map_err(|_| broken(&room, "a malformed epoch"))?;
        followed.started = true;
        let lost = Delivered::Lost { epoch: epoch.clone(), first_seq: Seq(answer.first_seq) };
        followed.position = match (&followed.position, answer.recovered) {
            (Position::Head, _) => {
                Position::At(Cursor { epoch: Some(epoch), seq: Seq(answer.head) })
            }
            (Position::At(cursor), true) => {
                if cursor.epoch.as_ref().is_some_and(|known| *known != epoch) {
                    let error = broken(&room, "recovered a cursor of another epoch");
                    self.fail(&room, error).await;
                    return Ok(());
                }
                Position::At(Cursor { epoch: Some(epoch), seq: cursor.seq })
            }
            (Position::From(known, _), true) if *known == epoch => followed.position.clone(),
            (Position::At(_) | Position::From(..), _) => {
                let _ = followed.queue.send(Part::Mark(Box::new(lost))).await;
                Position::From(epoch, Seq(answer.first_seq))
            }
        };
        Ok(())
    }

    /// Hands on events, after checking that each is one above the last. False when the room is
    /// not followed any more.
    pub(super) async fn deliver(&mut self, delivery: pb::Delivery) -> bool {
        let Some((room, followed)) = self.of(&delivery.room) else { return false };
        if !followed.started {
            return true; // of an earlier follow of the same room
        }
        let mut checked = Ok(());
        for event in &delivery.events {
            checked = advance(&mut followed.position, event.seq);
            if checked.is_err() {
                break;
            }
        }
        match checked {
            Err(expected) => {
                let got = delivery.events.iter().map(|event| event.seq).collect::<Vec<_>>();
                let what = format!("seq {expected} was due, but the delivery has {got:?}");
                self.fail(&room, broken(&room, &what)).await;
                false
            }
            Ok(()) => followed.queue.send(Part::Events(delivery.events)).await.is_ok(),
        }
    }

    /// Hands on the mark that history has been delivered.
    pub(super) async fn caught_up(&mut self, mark: pb::CaughtUp) {
        if let Some((_, followed)) = self.of(&mark.room)
            && followed.started
        {
            let caught_up = Delivered::CaughtUp(Seq(mark.seq));
            let _ = followed.queue.send(Part::Mark(Box::new(caught_up))).await;
        }
    }

    /// Ends a follow with an error.
    pub(super) async fn fail(&mut self, room: &RoomId, error: Error) {
        if let Some(followed) = self.rooms.remove(room) {
            let _ = followed.queue.send(Part::Failed(error)).await;
        }
    }

    /// Ends all of them with an error.
    pub(super) async fn fail_all(&mut self, error: &Error) {
        for (_, followed) in std::mem::take(&mut self.rooms) {
            let _ = followed.queue.send(Part::Failed(error.clone())).await;
        }
    }

    fn of(&mut self, room: &str) -> Option<(RoomId, &mut Followed)> {
        let room = RoomId::parse(room).ok()?;
        self.rooms.get_mut(&room).map(|followed| (room, followed))
    }
}

/// Moves a position over one event; the seq that was due instead, if it does not fit.
fn advance(position: &mut Position, seq: u64) -> Result<(), u64> {
    let (epoch, due) = match position {
        Position::Head => return Err(0), // nothing may come before the answer
        Position::At(cursor) => (cursor.epoch.clone(), cursor.seq.next()),
        Position::From(_, first) if seq < first.0 => return Err(first.0),
        Position::From(epoch, _) => (Some(epoch.clone()), Seq(seq)),
    };
    if seq != due.0 {
        return Err(due.0);
    }
    *position = Position::At(Cursor { epoch, seq: due });
    Ok(())
}

fn broken(room: &RoomId, what: &str) -> Error {
    Error::new(Code::Internal, format!("the server broke the order of room {room}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_takes_only_the_next_seq() {
        let epoch = Epoch::parse("e").unwrap();
        let at = |seq| Position::At(Cursor { epoch: Some(epoch.clone()), seq: Seq(seq) });
        let mut position = at(4);
        assert_eq!(advance(&mut position, 5), Ok(()));
        assert_eq!(position, at(5));
        for wrong in [4, 5, 7] {
            assert_eq!(advance(&mut position, wrong), Err(6));
        }
        let mut position = Position::From(epoch.clone(), Seq(10));
        assert_eq!(advance(&mut position, 9), Err(10));
        assert_eq!(advance(&mut position, 12), Ok(()));
        assert_eq!(position, at(12));
    }
}
