//! Tells peers what this node knows of its own users, and hears what they tell.

use std::collections::BTreeSet;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use prost::Message;

use crate::id::NodeId;
use crate::presence::{Presence, TICK};
use crate::proto::internal as pb;
use crate::shard::runtime::{Runtime, Select2};
use crate::shard::transport::{Lane, Stream, Transport};

/// Before a peer that cannot be reached is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Counts leases down and tells `peers`, which is asked for every tick, for as long as this is polled.
pub async fn run<R: Runtime>(
    presence: Arc<Presence>,
    transport: Arc<dyn Transport>,
    peers: impl Fn() -> BTreeSet<NodeId> + Send,
) {
    let mut told = BTreeSet::new();
    // One that never ends, so that there is always something to wait for.
    let mut telling: FuturesUnordered<BoxFuture<'static, NodeId>> = FuturesUnordered::new();
    telling.push(Box::pin(pending()));
    let mut tick = R::sleep(TICK);
    loop {
        match R::select2(tick, telling.next()).await {
            Select2::First(()) => {
                presence.tick();
                let wanted = peers();
                for peer in told.difference(&wanted) {
                    presence.end_telling(*peer); // whoever tells it notices
                }
                for peer in wanted.difference(&told) {
                    let (presence, transport) = (presence.clone(), transport.clone());
                    telling.push(Box::pin(tell::<R>(presence, transport, *peer)));
                }
                told = wanted;
            }
            Select2::Second(ended) => {
                if let Some(peer) = ended {
                    told.remove(&peer);
                }
            }
        }
        tick = R::sleep(TICK);
    }
}

/// Tells a peer, until it is none any more.
async fn tell<R: Runtime>(
    presence: Arc<Presence>,
    transport: Arc<dyn Transport>,
    peer: NodeId,
) -> NodeId {
    let open = pb::Open { group: 0, service: Some(pb::open::Service::Presence(pb::Presence {})) };
    let open: bytes::Bytes = open.encode_to_vec().into();
    presence.begin_telling(peer);
    while presence.is_telling(peer) {
        if transport.reachable(peer, Lane::Relay) {
            presence.begin_telling(peer);
            let stream = transport.open(peer, Lane::Relay, open.clone());
            tell_over::<R>(&presence, stream, peer).await;
        }
        R::sleep(PAUSE).await;
    }
    peer
}

/// Tells a peer over a stream, until that breaks.
async fn tell_over<R: Runtime>(presence: &Presence, mut stream: Stream, peer: NodeId) {
    let mut ticks = presence.ticks();
    while presence.is_telling(peer) {
        while let Some(frame) = presence.next_frame(peer) {
            if stream.tx.send(frame.encode_to_vec().into()).await.is_err() {
                return;
            }
        }
        // Nothing comes back but the end.
        let tick = pin!(ticks.changed());
        if let Select2::Second(None) = R::select2(tick, stream.rx.recv()).await {
            return;
        }
    }
}

/// Hears what a peer tells.
pub async fn serve(presence: Arc<Presence>, from: NodeId, mut stream: Stream) {
    let id = presence.begin_hearing(from);
    while let Some(frame) = stream.rx.recv().await {
        let heard = pb::PresenceFrame::decode(frame).is_ok_and(|it| presence.hear(from, id, &it));
        if !heard {
            tracing::debug!(%from, "a peer's presence makes no sense, or it has begun anew");
            return;
        }
    }
}
