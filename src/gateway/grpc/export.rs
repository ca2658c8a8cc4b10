//! `folkmoot.v1.Rooms.Export`: a room's log with what verifies it offline.
//!
//! Reads a page when the client has taken the one before, so memory stays bounded. The export is
//! of the room up to its head when it began, and ends with an error if that history is replaced
//! or trimmed meanwhile.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream;
use tonic::Status;

use crate::chat::event::{Event, Hash};
use crate::chat::query::{Answer, Query};
use crate::chat::state::Room;
use crate::error::{Code, Error};
use crate::gateway::app::{App, Caller, require_admin, shutting_down};
use crate::gateway::convert;
use crate::gateway::limits::EXPORT_EVENTS_MAX;
use crate::gateway::operations::wrong_answer;
use crate::id::{RoomId, Seq};
use crate::proto::v1 as proto;
use crate::router::Consistency;

/// The room, then its events.
pub type ExportStream = Pin<Box<dyn Stream<Item = Result<proto::ExportResponse, Status>> + Send>>;

struct Export {
    app: Arc<App>,
    caller: Caller,
    room: Arc<Room>,
    /// The last event that was sent.
    last: Seq,
    /// The chain at `last`.
    chain: Hash,
    /// The first page, read before the stream began.
    page: Option<Vec<Arc<Event>>>,
}

/// Exports a room.
///
/// # Errors
/// [`Code::Forbidden`] unless the caller is an administrator, and the router's.
pub async fn stream(app: Arc<App>, caller: Caller, room: RoomId) -> Result<ExportStream, Error> {
    require_admin(&caller.actor)?;
    let (room, page) = read(&app, &caller, room, Seq(0)).await?;
    let first = proto::ExportResponse {
        room: Some(convert::room(&room, &[])),
        chain_base: Bytes::copy_from_slice(&room.chain_base),
        events: Vec::new(),
    };
    let export = Export {
        last: Seq(room.first_seq.0.saturating_sub(1)),
        chain: room.chain_base,
        app,
        caller,
        room,
        page: Some(page),
    };
    let rest = stream::try_unfold(export, |mut export| async {
        match export.next().await {
            Ok(Some(response)) => Ok(Some((response, export))),
            Ok(None) => Ok(None),
            Err(error) => Err(Status::from(error)),
        }
    });
    Ok(Box::pin(futures_util::StreamExt::chain(stream::iter([Ok(first)]), rest)))
}

async fn read(
    app: &App,
    caller: &Caller,
    room: RoomId,
    after: Seq,
) -> Result<(Arc<Room>, Vec<Arc<Event>>), Error> {
    let query = Query::Export { room, after, limit: EXPORT_EVENTS_MAX };
    match app.backend.query(&caller.actor, query, Consistency::Linearizable).await? {
        Answer::Export { room, events } => Ok((room, events)),
        _ => Err(wrong_answer()),
    }
}

impl Export {
    async fn next(&mut self) -> Result<Option<proto::ExportResponse>, Error> {
        if self.last >= self.room.head {
            return Ok(None);
        }
        if self.app.drain.shutdown().is_cancelled() {
            return Err(shutting_down());
        }
        let page = match self.page.take() {
            Some(page) => page,
            None => {
                self.app.trust_again(&mut self.caller).await?;
                let id = self.room.id.clone();
                let (room, page) = read(&self.app, &self.caller, id, self.last).await?;
                if room.epoch != self.room.epoch {
                    return Err(changed());
                }
                page
            }
        };
        let mut events = Vec::with_capacity(page.len());
        for event in page {
            if self.last >= self.room.head {
                break;
            }
            if event.seq != self.last.next() {
                return Err(changed());
            }
            self.chain = event.chain(&self.chain);
            self.last = event.seq;
            events.push(convert::exported(&event, &self.chain));
        }
        if events.is_empty() {
            return Err(changed());
        }
        Ok(Some(proto::ExportResponse { room: None, chain_base: Bytes::new(), events }))
    }
}

fn changed() -> Error {
    Error::new(Code::Unavailable, "the room's history changed during the export; begin again")
}
