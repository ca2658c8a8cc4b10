//! Pages of a room's log: which events, and what later events have made of them. Called by
//! `query`.
//!
//! **Invariant:** a page has no hole inside, and says when there is one between the cursor and its
//! first event. Its bodies, edits' texts and reactions included, stay within `PAGE_BYTES_MAX`, or it holds one
//! event. So does the number of edits that have to be looked up for it.

use std::sync::Arc;

use crate::chat::access;
use crate::chat::event::{Body, Event};
use crate::chat::query::{Annotated, Events, Page};
use crate::chat::state::{Notes, Room, State};
use crate::error::{Code, Error};
use crate::id::{Cursor, Seq, UserId};
use crate::limits;

/// Backward pages are read in runs of this many events, so that what exceeds the page's bytes is
/// not read in vain.
const RUN: u64 = 64;

/// Edits on one page together: each is a read of its own.
const EDITS_MAX: usize = 2 * limits::PAGE_ITEMS_MAX;

const _: () = assert!(limits::EDITS_PER_MESSAGE_MAX <= EDITS_MAX);

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
            let (recovered, first) = resume(room, cursor)?;
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

/// A page of at most `limit` of a message's replies. Cursors are places in the room, as for
/// [`events`].
///
/// # Errors
/// [`Code::EventNotFound`] when there is no such message, and as [`events`].
pub(super) fn thread(
    state: &impl State,
    room: &Room,
    root: Seq,
    page: &Page,
    limit: usize,
) -> Result<Events, Error> {
    access::message(state, room, root)?;
    let notes = state.notes(&room.id, root);
    let replies = notes.as_ref().map_or(&[][..], |notes| &notes.replies);
    let kept = &replies[replies.partition_point(|seq| *seq < room.first_seq)..];
    let (recovered, run, ascending) = match page {
        Page::After(cursor) => {
            let (recovered, first) = resume(room, cursor)?;
            (recovered, &kept[kept.partition_point(|seq| *seq < first)..], true)
        }
        Page::Before(cursor) => {
            let recovered = starts_here(room, cursor, room.head.next())?;
            let end = if cursor_is_of(room, cursor) { cursor.seq } else { room.head.next() };
            (recovered, &kept[..kept.partition_point(|seq| *seq < end)], false)
        }
        Page::Newest => (true, kept, false),
    };
    let mut events = Vec::new();
    let mut budget = Budget::WHOLE;
    let mut take = |seq: Seq| {
        let Some(event) = access::event(state, room, seq) else { return true };
        let notes = state.notes(&room.id, seq);
        let Some(reply) = annotate(state, room, event, notes, &mut budget, events.is_empty())
        else {
            return false;
        };
        events.push(reply);
        true
    };
    if ascending {
        let _ = run.iter().take(limit).all(|seq| take(*seq));
    } else {
        let _ = run.iter().rev().take(limit).all(|seq| take(*seq));
        events.reverse();
    }
    let Room { epoch, first_seq, head, .. } = room;
    Ok(Events { epoch: epoch.clone(), first_seq: *first_seq, head: *head, recovered, events })
}

/// Where reading on after a cursor starts: whether that is right behind it, and the first seq.
///
/// # Errors
/// As [`events`].
pub(super) fn resume(room: &Room, after: &Cursor) -> Result<(bool, Seq), Error> {
    let recovered = starts_here(room, after, room.head)?;
    Ok((recovered, if recovered { after.seq.next() } else { room.first_seq }))
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

/// What a page may still take.
struct Budget {
    bytes: usize,
    edits: usize,
}

impl Budget {
    const WHOLE: Budget = Budget { bytes: limits::PAGE_BYTES_MAX, edits: EDITS_MAX };

    /// Whether `bytes` more fit.
    fn fits(&self, bytes: usize) -> bool {
        bytes <= self.bytes
    }
}

fn forward(state: &impl State, room: &Room, first: Seq, limit: usize) -> Vec<Annotated> {
    let events = state.events(&room.id, first, room.head, limit, limits::PAGE_BYTES_MAX);
    let notes = notes_of(state, room, &events);
    let mut page = Vec::with_capacity(events.len());
    let mut budget = Budget::WHOLE;
    for (event, notes) in events.into_iter().zip(notes) {
        let Some(annotated) = annotate(state, room, event, notes, &mut budget, page.is_empty())
        else {
            break;
        };
        page.push(annotated);
    }
    page
}

/// The newest events below `end`, ascending.
fn backward(state: &impl State, room: &Room, mut end: Seq, limit: usize) -> Vec<Annotated> {
    let mut page = Vec::new();
    let mut budget = Budget::WHOLE;
    'runs: while page.len() < limit && end > room.first_seq {
        let length = RUN.min((limit - page.len()) as u64);
        let first = Seq(end.0.saturating_sub(length)).max(room.first_seq);
        let run = state.events(&room.id, first, Seq(end.0 - 1), length as usize, usize::MAX);
        let notes = notes_of(state, room, &run);
        for (event, notes) in run.into_iter().zip(notes).rev() {
            let Some(annotated) = annotate(state, room, event, notes, &mut budget, page.is_empty())
            else {
                break 'runs;
            };
            page.push(annotated);
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

/// The bytes of a message's reactions, which go with it whole.
fn reactions_bytes(notes: Option<&Notes>) -> usize {
    let shown = notes.filter(|notes| notes.redacted_by.is_none());
    let reactions = shown.map_or(&[][..], |notes| &notes.reactions);
    let bytes = |(symbol, users): &(String, Vec<UserId>)| {
        symbol.len() + users.iter().map(|user| user.as_str().len()).sum::<usize>()
    };
    reactions.iter().map(bytes).sum()
}

/// An event with what became of it, taken from the budget; `None` when that does not allow it.
/// Alone on its page it always goes, with its newest edit, and as many older ones as fit.
fn annotate(
    state: &impl State,
    room: &Room,
    event: Arc<Event>,
    notes: Option<Arc<Notes>>,
    budget: &mut Budget,
    alone: bool,
) -> Option<Annotated> {
    let seqs = notes.as_ref().map_or(&[][..], |notes| &notes.edits);
    let mut bytes = event.body.text().len() + reactions_bytes(notes.as_deref());
    if !alone && (seqs.len() > budget.edits || !budget.fits(bytes)) {
        return None;
    }
    let mut edits = Vec::with_capacity(seqs.len());
    for seq in seqs.iter().rev() {
        // Edits come after their message, so they are kept as long as it is.
        let Some(edit) = access::event(state, room, *seq) else { continue };
        let Body::Present { text, .. } = &edit.body else { continue };
        if !budget.fits(bytes + text.len()) {
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
    budget.bytes = budget.bytes.saturating_sub(bytes);
    budget.edits = budget.edits.saturating_sub(seqs.len());
    let replies = notes.as_ref().and_then(|notes| {
        let kept = notes.replies.partition_point(|seq| *seq < room.first_seq);
        Some(((notes.replies.len() - kept) as u64, *notes.replies.last()?))
    });
    // A thread has a page of its own; here it would be without bounds. With a message goes what was made of it.
    let notes = match notes {
        Some(notes) if !notes.replies.is_empty() || notes.redacted_by.is_some() => {
            let redacted_by = notes.redacted_by;
            let edits = notes.edits.clone();
            let reactions =
                if redacted_by.is_some() { Vec::new() } else { notes.reactions.clone() };
            let rest = Notes { edits, reactions, redacted_by, replies: Vec::new() };
            Some(Arc::new(rest)).filter(|rest| **rest != Notes::default())
        }
        notes => notes,
    };
    Some(Annotated { event, notes, edits, replies })
}
