//! Pages of a room's log: which events, and what later events have made of them. Called by
//! `query`.
//!
//! **Invariant:** a page has no hole inside, and says when there is one between the cursor and its
//! first event. Its bodies, edits' texts included, stay within `PAGE_BYTES_MAX`, or it holds one
//! event.

use std::sync::Arc;

use crate::chat::access;
use crate::chat::event::{Body, Event};
use crate::chat::query::{Annotated, Events, Page};
use crate::chat::state::{Notes, Room, State};
use crate::error::{Code, Error};
use crate::id::{Cursor, Seq};
use crate::limits;

/// Backward pages are read in runs of this many events, so that what exceeds the page's bytes is
/// not read in vain.
const RUN: u64 = 64;

/// A page of at most `limit` events.
///
/// # Errors
/// [`Code::InvalidCursor`] for a cursor of this epoch that is beyond the head.
pub(super) fn events(
    state: &impl State,
    room: &Room,
    page: &Page,
    limit: usize,
) -> Result<Events, Error> {
    let (recovered, events) = match page {
        Page::After(cursor) => {
            let recovered = starts_here(room, cursor, room.head)?;
            let first = if recovered { cursor.seq.next() } else { room.first_seq };
            (recovered, forward(state, room, first, limit))
        }
        Page::Before(cursor) => {
            let recovered = starts_here(room, cursor, room.head.next())?;
            // Another history's place means nothing here: start at this one's end.
            let end = if cursor_is_of(room, cursor) { cursor.seq } else { room.head.next() };
            (recovered, backward(state, room, end, limit))
        }
        Page::Newest => (true, backward(state, room, room.head.next(), limit)),
    };
    let Room { epoch, first_seq, head, .. } = room;
    Ok(Events { epoch: epoch.clone(), first_seq: *first_seq, head: *head, recovered, events })
}

/// The error of a cursor that no event has reached.
pub(super) fn beyond_head(seq: Seq, room: &Room) -> Error {
    let message = format!("seq {seq} is beyond the head of room {}, {}", room.id, room.head);
    Error::new(Code::InvalidCursor, message)
}

fn cursor_is_of(room: &Room, cursor: &Cursor) -> bool {
    cursor.epoch.as_ref().is_none_or(|epoch| *epoch == room.epoch)
}

/// Whether a page can start right at the cursor: it is of this epoch, and not in what was trimmed.
fn starts_here(room: &Room, cursor: &Cursor, max: Seq) -> Result<bool, Error> {
    if !cursor_is_of(room, cursor) {
        return Ok(false);
    }
    if cursor.seq > max {
        return Err(beyond_head(cursor.seq, room));
    }
    Ok(cursor.seq.next() >= room.first_seq)
}

fn forward(state: &impl State, room: &Room, first: Seq, limit: usize) -> Vec<Annotated> {
    let events = state.events(&room.id, first, room.head, limit, limits::PAGE_BYTES_MAX);
    let mut page = Vec::with_capacity(events.len());
    let mut bytes_left = limits::PAGE_BYTES_MAX;
    let notes = notes_of(state, room, &events);
    for (event, notes) in events.into_iter().zip(notes) {
        match annotate(state, room, event, notes, bytes_left, page.is_empty()) {
            Some((annotated, bytes)) => {
                bytes_left = bytes_left.saturating_sub(bytes);
                page.push(annotated);
            }
            None => break,
        }
    }
    page
}

/// The newest events below `end`, ascending.
fn backward(state: &impl State, room: &Room, end: Seq, limit: usize) -> Vec<Annotated> {
    let mut page = Vec::new();
    let mut bytes_left = limits::PAGE_BYTES_MAX;
    let mut end = end;
    'runs: while page.len() < limit && end > room.first_seq {
        let length = RUN.min((limit - page.len()) as u64);
        let first = Seq(end.0.saturating_sub(length)).max(room.first_seq);
        let run = state.events(&room.id, first, Seq(end.0 - 1), length as usize, usize::MAX);
        let notes = notes_of(state, room, &run);
        for (event, notes) in run.into_iter().zip(notes).rev() {
            match annotate(state, room, event, notes, bytes_left, page.is_empty()) {
                Some((annotated, bytes)) => {
                    bytes_left = bytes_left.saturating_sub(bytes);
                    page.push(annotated);
                }
                None => break 'runs,
            }
        }
        end = first;
    }
    page.reverse();
    page
}

/// The notes of each of a run of events.
fn notes_of(state: &impl State, room: &Room, run: &[Arc<Event>]) -> Vec<Option<Arc<Notes>>> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Vec::new() };
    let mut notes = state.notes_in(&room.id, first.seq, last.seq).into_iter().peekable();
    run.iter()
        .map(|event| notes.next_if(|(seq, _)| *seq == event.seq).map(|(_, notes)| notes))
        .collect()
}

/// An event with what became of it, and how many bytes of text that is; `None` when it exceeds
/// `bytes_left`, unless the page would stay empty: then only its oldest edits are left out.
fn annotate(
    state: &impl State,
    room: &Room,
    event: Arc<Event>,
    notes: Option<Arc<Notes>>,
    bytes_left: usize,
    alone: bool,
) -> Option<(Annotated, usize)> {
    let mut bytes = event.body.text().len();
    if bytes > bytes_left && !alone {
        return None;
    }
    let mut edits = Vec::new();
    for seq in notes.iter().flat_map(|notes| notes.edits.iter().rev()) {
        // Edits follow their message, so what is kept of it keeps them.
        let Some(edit) = access::event(state, room, *seq) else { continue };
        let Body::Present { text, .. } = &edit.body else { continue };
        if bytes + text.len() > bytes_left {
            if !alone {
                return None;
            }
            if !edits.is_empty() {
                break;
            }
        }
        bytes += text.len();
        edits.push((*seq, edit.at_ms, text.clone()));
    }
    edits.reverse();
    Some((Annotated { event, notes, edits }, bytes))
}
