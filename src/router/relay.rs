//! Rooms followed here whose replicas are elsewhere.
//!
//! A relayed room is a subscription at a peer, carried by a stream of the relay lane. The follower
//! grants credit, in events and bytes, and the peer sends no more than that, so a slow reader holds
//! up nobody else on the lane; the peer's subscription then waits like any slow reader's.
//!
//! **Invariant:** what was granted fits in the stream, an event a frame, and what else is said with it.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message;
use tokio::sync::mpsc;

use crate::chat::codec;
use crate::chat::command::Actor;
use crate::delivery::encoded::Encoded;
use crate::delivery::subscription::{Next, Start, Subscription};
use crate::error::{Code, Error};
use crate::id::{Cursor, Epoch, NodeId, RoomId, Seq, ShardId};
use crate::proto::internal as pb;
use crate::proto::internal::relay_frame::Frame;
use crate::router::{Router, odd_reply};
use crate::shard::Refused;
use crate::shard::runtime::{Runtime, Select2};
use crate::shard::transport::{Closed, Lane, STREAM_FRAMES, Stream};

/// Events that may be on their way, for one follower.
const CREDIT: u32 = 240;
/// Their bytes; the last one may go beyond.
const CREDIT_BYTES: i64 = 256 * 1024;

/// Frames without events: where it starts, that it has caught up, how it ends.
const OTHER_FRAMES: usize = 3;
const _: () = assert!(CREDIT as usize + OTHER_FRAMES <= STREAM_FRAMES);

fn refused(error: Error) -> Refused {
    Refused { error, leader: None }
}

fn lost(_: Closed) -> Refused {
    refused(Error::new(Code::Unavailable, "the node that has the room cannot be reached"))
}

/// Follows a room at whichever node leads its shard.
pub(super) async fn subscribe<R: Runtime>(
    router: &Router<R>,
    shard: ShardId,
    actor: &Actor,
    room: &RoomId,
    after: Option<Cursor>,
) -> Result<Subscription, Error> {
    let request = pb::RelayRequest {
        actor: codec::encode_actor(actor),
        room: room.as_str().into(),
        after: after.map(|cursor| cursor.to_string()),
        credit: CREDIT,
        credit_bytes: CREDIT_BYTES as u64,
    };
    let mut maybe_applied = false;
    let ask = |node| begin(router, shard, node, room, request.clone());
    let subscription = router.at_leader(shard, &mut maybe_applied, ask).await;
    subscription.map_err(|error| Error { may_have_applied: false, ..error })
}

async fn begin<R: Runtime>(
    router: &Router<R>,
    shard: ShardId,
    node: NodeId,
    room: &RoomId,
    request: pb::RelayRequest,
) -> Result<Subscription, Refused> {
    let service = pb::open::Service::Relay(pb::Relay {});
    let open = pb::Open { group: u32::from(shard.0), service: Some(service) };
    let mut stream = router.transport.open(node, Lane::Relay, open.encode_to_vec().into());
    stream.tx.send(request.encode_to_vec().into()).await.map_err(lost)?;
    let first = pb::RelayFrame::decode(stream.recv().await.map_err(lost)?);
    let start = match first.ok().and_then(|frame| frame.frame) {
        Some(Frame::Start(start)) => start,
        Some(Frame::Ended(error)) => {
            return Err(refused(codec::decode_error(error).map_err(|_| odd_reply())?));
        }
        _ => return Err(odd_reply()),
    };
    // What is in it was granted again, though nobody has it yet: no more than one frame.
    let (tx, rx) = mpsc::channel(1);
    let _task = R::spawn(follow::<R>(stream, tx));
    let head = Seq(start.head);
    let start = Start {
        epoch: Epoch::parse(&start.epoch).map_err(|_| odd_reply())?,
        first_seq: Seq(start.first_seq),
        after: Seq(start.after),
        recovered: start.recovered,
    };
    Ok(Subscription::relayed(room.clone(), head, start, rx))
}

/// Hands frames to the subscription, and grants what it has taken.
async fn follow<R: Runtime>(mut stream: Stream, subscription: mpsc::Sender<Next>) {
    loop {
        let frame = match R::select2(subscription.closed(), stream.rx.recv()).await {
            Select2::First(()) | Select2::Second(None) => return,
            Select2::Second(Some(frame)) => frame,
        };
        let Some((next, taken)) = next_of(frame) else { return };
        if subscription.send(next).await.is_err() {
            return;
        }
        if taken.events > 0 {
            let (credit, credit_bytes) = (taken.events, taken.bytes as u64);
            let grant = pb::RelayRequest { credit, credit_bytes, ..Default::default() };
            if stream.tx.send(grant.encode_to_vec().into()).await.is_err() {
                return;
            }
        }
    }
}

/// Events, and their bytes as they are sent; fewer than none where the last one went beyond.
#[derive(Debug, Clone, Copy, Default)]
struct Credit {
    events: u32,
    bytes: i64,
}

/// What a frame says, and what it took of the credit; `None` for one that makes no sense.
fn next_of(frame: bytes::Bytes) -> Option<(Next, Credit)> {
    let nothing = Credit::default();
    match pb::RelayFrame::decode(frame).ok()?.frame? {
        Frame::Events(events) => {
            let bytes = events.events.iter().map(|event| event.len() as i64).sum();
            let taken = Credit { events: events.events.len() as u32, bytes };
            let decode =
                |bytes: bytes::Bytes| Some(Encoded::new(codec::decode_event(&bytes).ok()?));
            let events = events.events.into_iter().map(decode).collect::<Option<Vec<_>>>()?;
            Some((Next::Events(events), taken))
        }
        Frame::CaughtUp(seq) => Some((Next::CaughtUp(Seq(seq)), nothing)),
        Frame::Ended(error) => Some((Next::Ended(codec::decode_error(error).ok()?), nothing)),
        Frame::Start(_) => None,
    }
}

/// Serves a follower at another node.
pub(super) async fn serve<R: Runtime>(router: Arc<Router<R>>, mut stream: Stream) {
    let Ok(request) = stream.recv().await else { return };
    let Ok(request) = pb::RelayRequest::decode(request) else { return };
    let mut credit = Credit::default();
    credit.add(Credit::granted(&request));
    let subscription = match begin_here(&router, request).await {
        Ok(subscription) => subscription,
        Err(error) => {
            // A follower that is gone needs no answer.
            let _: Result<(), Closed> = send(&stream, ended(&error)).await;
            return;
        }
    };
    let start = Frame::Start(pb::RelayStart {
        epoch: subscription.epoch.as_str().into(),
        first_seq: subscription.first_seq.0,
        head: subscription.head.0,
        after: subscription.delivered().0,
        recovered: subscription.recovered,
    });
    if send(&stream, start).await.is_ok() {
        pump::<R>(subscription, stream, credit).await;
    }
}

async fn begin_here<R: Runtime>(
    router: &Arc<Router<R>>,
    request: pb::RelayRequest,
) -> Result<Subscription, Error> {
    let actor = codec::decode_actor(request.actor).map_err(|_| odd_reply().error)?;
    let room = RoomId::parse(&request.room)?;
    let after = request.after.as_deref().map(Cursor::parse).transpose()?;
    let shard = router.shard_of_room(&room)?;
    let absent = || Error::new(Code::NotLeader, "this node has no replica of the shard");
    let here = router.host().get(shard).ok_or_else(absent)?;
    router.subscribe_here(&here, actor, room, after).await
}

impl Credit {
    fn granted(request: &pb::RelayRequest) -> Credit {
        // Some nodes count events only.
        let bytes = match i64::try_from(request.credit_bytes) {
            Ok(bytes @ 1..) => bytes,
            Ok(_) | Err(_) => CREDIT_BYTES,
        };
        Credit { events: request.credit, bytes }
    }

    /// Adds what was granted; never more than a follower begins with.
    fn add(&mut self, more: Credit) {
        self.events = self.events.saturating_add(more.events).min(CREDIT);
        self.bytes = self.bytes.saturating_add(more.bytes).min(CREDIT_BYTES);
    }

    /// Takes the events off the queue that may go, encoded.
    fn take(&mut self, waiting: &mut VecDeque<Arc<Encoded>>) -> Vec<bytes::Bytes> {
        let mut events = Vec::new();
        while self.events > 0
            && self.bytes > 0
            && let Some(encoded) = waiting.pop_front()
        {
            let event = codec::encode_event(&encoded.event);
            self.events -= 1;
            self.bytes -= event.len() as i64;
            events.push(event);
        }
        events
    }
}

async fn pump<R: Runtime>(mut subscription: Subscription, mut stream: Stream, mut credit: Credit) {
    let mut waiting: VecDeque<Arc<Encoded>> = VecDeque::new();
    loop {
        let events = credit.take(&mut waiting);
        if !events.is_empty() {
            if send(&stream, Frame::Events(pb::RelayEvents { events })).await.is_err() {
                return;
            }
            continue;
        }
        let next = if waiting.is_empty() {
            match R::select2(stream.rx.recv(), subscription.next()).await {
                Select2::First(frame) => Err(frame),
                Select2::Second(next) => Ok(next),
            }
        } else {
            Err(stream.rx.recv().await)
        };
        let sent = match next {
            Ok(Next::Events(events)) => {
                waiting = events.into();
                continue;
            }
            Ok(Next::CaughtUp(seq)) => send(&stream, Frame::CaughtUp(seq.0)).await,
            Ok(Next::Ended(error)) => {
                let _: Result<(), Closed> = send(&stream, ended(&error)).await;
                return;
            }
            Err(Some(frame)) => match pb::RelayRequest::decode(frame) {
                Ok(grant) => {
                    credit.add(Credit::granted(&grant));
                    Ok(())
                }
                Err(_) => return,
            },
            Err(None) => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

fn ended(error: &Error) -> Frame {
    Frame::Ended(codec::encode_error(error))
}

async fn send(stream: &Stream, frame: Frame) -> Result<(), Closed> {
    let frame = pb::RelayFrame { frame: Some(frame) };
    stream.tx.send(frame.encode_to_vec().into()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::event::EventKind;
    use crate::delivery::model;

    #[test]
    fn what_went_beyond_the_credit_is_owed() {
        let text = |seq: u64| if seq.is_multiple_of(2) { "x".repeat(60_000) } else { "x".into() };
        let event = |seq| model::event(seq, EventKind::Message, None, &text(seq));
        let mut waiting: VecDeque<_> = (1..=1000).map(|seq| Encoded::new(event(seq))).collect();
        let mut credit = Credit::default();
        credit.add(Credit { events: u32::MAX, bytes: i64::MAX });
        let (mut under_way, mut sent) = (VecDeque::from(credit.take(&mut waiting)), 0);
        // Each that was read is granted, and what then goes is sent.
        while let Some(read) = under_way.pop_front() {
            let bytes: usize = under_way.iter().map(bytes::Bytes::len).sum();
            assert!(bytes + read.len() <= CREDIT_BYTES as usize + 61_000, "{bytes} after {sent}");
            credit.add(Credit { events: 1, bytes: read.len() as i64 });
            under_way.extend(credit.take(&mut waiting));
            sent += 1;
        }
        assert_eq!((sent, waiting.len()), (1000, 0));
    }

    #[test]
    fn a_node_that_counts_events_only_is_served() {
        let request = pb::RelayRequest { credit: 512, ..Default::default() };
        let mut credit = Credit::default();
        credit.add(Credit::granted(&request));
        assert_eq!((credit.events, credit.bytes), (CREDIT, CREDIT_BYTES));
    }
}
