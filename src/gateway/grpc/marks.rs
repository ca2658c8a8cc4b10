//! `folkmoot.v1.Rooms`: what somebody has read, and what not.

use std::sync::Arc;

use crate::chat::command::Command;
use crate::error::Error;
use crate::gateway::app::{App, Caller};
use crate::gateway::convert;
use crate::gateway::grpc::rooms::execute;
use crate::id::{RoomId, Seq};
use crate::proto::v1 as proto;

pub(super) async fn own_rooms(
    app: Arc<App>,
    caller: Caller,
    request: proto::ListOwnRoomsRequest,
) -> Result<proto::ListOwnRoomsResponse, Error> {
    let limit = convert::page_limit(request.limit)?;
    let after = convert::after_room(&request.after)?;
    let (rooms, next) = app.backend.own_rooms(&caller.actor, after, limit).await?;
    let rooms = rooms.iter().map(convert::own_room).collect();
    let next = next.map_or(String::new(), |room| room.as_str().to_owned());
    Ok(proto::ListOwnRoomsResponse { rooms, next })
}

pub(super) async fn mark_read(
    app: Arc<App>,
    caller: Caller,
    request: proto::MarkReadRequest,
) -> Result<proto::Ack, Error> {
    let command = Command::MarkRead { room: RoomId::parse(&request.room)?, seq: Seq(request.seq) };
    execute(&app, &caller, &[], command).await
}
