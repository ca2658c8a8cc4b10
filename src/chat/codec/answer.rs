//! Answers to queries, as they come back from the node that has a replica.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::chat::codec::event::{EventReader, to_wire as event_to_wire};
use crate::chat::codec::user::{user_from_wire, user_to_wire};
use crate::chat::codec::{Malformed, array, nonzero, open, parse, seal};
use crate::chat::query::{Annotated, Answer, Events, OwnRoom, Unread};
use crate::chat::state::{Notes, Part, Participant, Retention, Room};
use crate::id::{Seq, UserId};
use crate::proto::internal::ChatAnswer;
use crate::proto::internal::chat_answer as wire;

/// Encodes an answer.
pub fn encode_answer(answer: &Answer) -> Bytes {
    let answer = match answer {
        Answer::Room { room, participants, sees_presence } => wire::Answer::Room(wire::OneRoom {
            room: Some(room_to_wire(room)),
            participants: participants.iter().map(participant_to_wire).collect(),
            sees_presence: *sees_presence,
        }),
        Answer::Rooms { rooms } => wire::Answer::Rooms(wire::Rooms {
            rooms: rooms.iter().map(|room| room_to_wire(room)).collect(),
        }),
        Answer::Events(page) => wire::Answer::Events(wire::Events {
            epoch: page.epoch.as_str().into(),
            first_seq: page.first_seq.0,
            head: page.head.0,
            recovered: page.recovered,
            events: page.events.iter().map(annotated_to_wire).collect(),
        }),
        Answer::Export { room, events } => wire::Answer::Export(wire::Export {
            room: Some(room_to_wire(room)),
            events: events.iter().map(|event| event_to_wire(event)).collect(),
        }),
        Answer::User { user } => wire::Answer::User(user_to_wire(user)),
        Answer::Users { users } => {
            let users = users.iter().map(|user| user_to_wire(user)).collect();
            wire::Answer::Users(wire::Users { users })
        }
        Answer::Mine { rooms, next } => wire::Answer::Mine(wire::Mine {
            rooms: rooms.iter().map(own_room_to_wire).collect(),
            next: next.as_ref().map_or("", |room| room.as_str()).into(),
        }),
        Answer::Revocations { count } => {
            wire::Answer::Revocations(wire::Revocations { count: *count })
        }
    };
    seal(&ChatAnswer { answer: Some(answer) })
}

/// Decodes an answer.
///
/// # Errors
/// [`Malformed`].
pub fn decode_answer(bytes: impl Buf) -> Result<Answer, Malformed> {
    let answer: ChatAnswer = open(bytes, "answer")?;
    let mut reader = EventReader::default();
    Ok(match answer.answer.ok_or(Malformed("answer"))? {
        wire::Answer::Room(a) => Answer::Room {
            room: room_from_wire(a.room)?,
            participants: all(a.participants, participant_from_wire)?,
            sees_presence: a.sees_presence,
        },
        wire::Answer::Rooms(a) => {
            Answer::Rooms { rooms: all(a.rooms, |room| room_from_wire(Some(room)))? }
        }
        wire::Answer::Events(a) => Answer::Events(Events {
            epoch: parse::epoch(&a.epoch)?,
            first_seq: Seq(a.first_seq),
            head: Seq(a.head),
            recovered: a.recovered,
            events: all(a.events, |annotated| annotated_from_wire(annotated, &mut reader))?,
        }),
        wire::Answer::Export(a) => Answer::Export {
            room: room_from_wire(a.room)?,
            events: all(a.events, |event| reader.read(&event))?,
        },
        wire::Answer::User(user) => Answer::User { user: Arc::new(user_from_wire(user)?) },
        wire::Answer::Users(a) => {
            Answer::Users { users: all(a.users, |user| user_from_wire(user).map(Arc::new))? }
        }
        wire::Answer::Mine(a) => Answer::Mine {
            rooms: all(a.rooms, own_room_from_wire)?,
            next: parse::maybe_room(&a.next)?,
        },
        wire::Answer::Revocations(a) => Answer::Revocations { count: a.count },
    })
}

fn all<W, T>(
    wire: Vec<W>,
    decode: impl FnMut(W) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    wire.into_iter().map(decode).collect()
}

fn room_to_wire(room: &Room) -> wire::Room {
    wire::Room {
        room: room.id.as_str().into(),
        kind: room.kind as u32,
        title: room.title.clone(),
        topic: room.topic.clone(),
        epoch: room.epoch.as_str().into(),
        first_seq: room.first_seq.0,
        head: room.head.0,
        chain: Bytes::copy_from_slice(&room.chain),
        chain_base: Bytes::copy_from_slice(&room.chain_base),
        participants: room.participants,
        created_at_ms: room.created_at_ms,
        creator: room.creator.as_str().into(),
        archived: room.archived,
        pins: room.pins.iter().map(|seq| seq.0).collect(),
        max_age_ms: room.retention.max_age_ms,
        max_events: room.retention.max_events,
    }
}

fn room_from_wire(room: Option<wire::Room>) -> Result<Arc<Room>, Malformed> {
    let room = room.ok_or(Malformed("room"))?;
    Ok(Arc::new(Room {
        id: parse::room(&room.room)?,
        kind: parse::room_kind(room.kind)?,
        title: room.title,
        topic: room.topic,
        epoch: parse::epoch(&room.epoch)?,
        first_seq: Seq(room.first_seq),
        head: Seq(room.head),
        chain: array(&room.chain, "chain")?,
        chain_base: array(&room.chain_base, "chain base")?,
        participants: room.participants,
        created_at_ms: room.created_at_ms,
        creator: parse::user(&room.creator)?,
        archived: room.archived,
        pins: room.pins.into_iter().map(Seq).collect(),
        retention: Retention { max_age_ms: room.max_age_ms, max_events: room.max_events },
    }))
}

fn own_room_to_wire(own: &OwnRoom) -> wire::OwnRoom {
    wire::OwnRoom {
        room: Some(room_to_wire(&own.room)),
        own: Some(participant_to_wire(&own.own)),
        messages: own.unread.messages,
        mentions: own.unread.mentions,
        more: own.unread.more,
    }
}

fn own_room_from_wire(own: wire::OwnRoom) -> Result<OwnRoom, Malformed> {
    Ok(OwnRoom {
        room: room_from_wire(own.room)?,
        own: participant_from_wire(own.own.ok_or(Malformed("participant"))?)?,
        unread: Unread { messages: own.messages, mentions: own.mentions, more: own.more },
    })
}

fn participant_to_wire((user, part): &(UserId, Participant)) -> wire::Participant {
    wire::Participant {
        user: user.as_str().into(),
        role: part.role as u32,
        since_ms: part.since_ms,
        until_ms: part.until_ms,
        part: part.part as u32,
        read: part.read.0,
    }
}

fn participant_from_wire(part: wire::Participant) -> Result<(UserId, Participant), Malformed> {
    let participant = Participant {
        role: parse::role(part.role)?,
        since_ms: part.since_ms,
        until_ms: part.until_ms,
        part: Part::from_number(part.part).ok_or(Malformed("part"))?,
        read: Seq(part.read),
    };
    Ok((parse::user(&part.user)?, participant))
}

fn annotated_to_wire(annotated: &Annotated) -> wire::Annotated {
    let notes = annotated.notes.as_ref().map(|notes| wire::Notes {
        edits: notes.edits.iter().map(|seq| seq.0).collect(),
        reactions: notes
            .reactions
            .iter()
            .map(|(symbol, users)| wire::Reaction {
                symbol: symbol.clone(),
                users: users.iter().map(|user| user.as_str().into()).collect(),
            })
            .collect(),
        redacted_by: notes.redacted_by.map_or(0, |seq| seq.0),
    });
    let edit = |(seq, at_ms, text): &(Seq, u64, String)| wire::Edit {
        seq: seq.0,
        at_ms: *at_ms,
        text: text.clone(),
    };
    wire::Annotated {
        event: event_to_wire(&annotated.event),
        notes,
        edits: annotated.edits.iter().map(edit).collect(),
        replies: annotated.replies.map_or(0, |(count, _)| count),
        last_reply: annotated.replies.map_or(0, |(_, last)| last.0),
    }
}

fn annotated_from_wire(
    annotated: wire::Annotated,
    reader: &mut EventReader,
) -> Result<Annotated, Malformed> {
    let event = reader.read(&annotated.event)?;
    let edits = annotated.edits.into_iter().map(|e| (Seq(e.seq), e.at_ms, e.text)).collect();
    let replies = nonzero(annotated.last_reply).map(|last| (annotated.replies, Seq(last)));
    let notes = annotated.notes.map(notes_from_wire).transpose()?;
    Ok(Annotated { event, notes, edits, replies })
}

fn notes_from_wire(notes: wire::Notes) -> Result<Arc<Notes>, Malformed> {
    Ok(Arc::new(Notes {
        edits: notes.edits.into_iter().map(Seq).collect(),
        reactions: all(notes.reactions, |reaction| {
            Ok((reaction.symbol, all(reaction.users, |user| parse::user(&user))?))
        })?,
        redacted_by: nonzero(notes.redacted_by).map(Seq),
        replies: Vec::new(), // `Annotated` counts them
    }))
}
