//! The cluster map on this node: taken from its replica of the meta group, or asked for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use crate::chat::command::Done;
use crate::error::{Code, Error};
use crate::id::{RequestId, ShardId};
use crate::meta::{self, ClusterMap};
use crate::proto::internal as pb;
use crate::proto::internal::request::Command;
use crate::router::{Router, forward, odd_reply};
use crate::shard::runtime::Runtime;
use crate::shard::{Refused, Shard, watch};

/// How often a node without a replica of the meta group asks for the map.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How long a replica of the meta group may apply nothing until others are asked for the map.
const QUIET: Duration = Duration::from_secs(2);
/// How long a peer may take to tell the map.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

impl<R: Runtime> Router<R> {
    /// Takes a newer cluster map; an older one is ignored.
    pub fn set_map(&self, map: ClusterMap) {
        self.map.send_if_modified(|known| {
            let newer = map.version() > known.version();
            if newer {
                *known = Arc::new(map);
            }
            newer
        });
    }

    /// The cluster map, as far as this node knows.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.map.borrow().clone()
    }

    /// Follows the cluster map.
    pub fn watch_map(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.map.subscribe()
    }

    /// Proposes a command to the meta group; the answer's `seq` is the id that it is about, or 0.
    ///
    /// # Errors
    /// The rules' refusal; or why the meta group could not be reached.
    pub async fn propose_meta(&self, command: Command) -> Result<Done, Error> {
        self.propose_meta_for(command, None).await
    }

    /// The same for somebody, with whom it is recorded if it is done.
    ///
    /// # Errors
    /// See [`Router::propose_meta`]; nothing is recorded then.
    pub(crate) async fn propose_meta_for(
        &self,
        command: Command,
        audit: Option<pb::Audit>,
    ) -> Result<Done, Error> {
        let request = pb::Request {
            request_id: Bytes::copy_from_slice(self.mint_meta_id().as_bytes()),
            command: Some(command),
            audit,
            ..Default::default()
        };
        self.propose(ShardId::META, request.encode_to_vec().into()).await
    }

    /// An id that no other request to the meta group has. Its rules recognise a repeated command by
    /// what it says, and by the id whether it has been recorded.
    fn mint_meta_id(&self) -> RequestId {
        let node = self.node_id().unwrap_or_default().0.to_be_bytes();
        let turn = self.meta_requests.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut unique = [0; 10];
        // The first three bytes have bits that every UUIDv7 has.
        unique[3..6].copy_from_slice(&node[5..]);
        unique[6..].copy_from_slice(&turn);
        RequestId::mint(self.clock.now_ms(), unique)
    }

    /// The cluster map as of now: everything that was acknowledged before is in it.
    ///
    /// # Errors
    /// Why the meta group could not be reached.
    pub async fn read_map(&self) -> Result<Arc<ClusterMap>, Error> {
        let mut maybe_applied = false;
        let ask = |node| async move {
            if Some(node) == self.node_id() {
                let meta = self.host().get(ShardId::META);
                let meta = meta.ok_or_else(|| crate::shard::not_leader(None))?;
                return self.map_of(&meta).await;
            }
            let request = forward::Request::Map(pb::ReadMap { linearizable: true });
            match self.forwarder(node).ask(ShardId::META, request).await? {
                forward::Reply::Map(bytes) => {
                    let map = ClusterMap::decode(&bytes).map_err(|_| odd_reply())?;
                    Ok(Arc::new(map))
                }
                _ => Err(odd_reply()),
            }
        };
        let map = self.at_leader(ShardId::META, &mut maybe_applied, ask).await;
        let map = map.map_err(|error| Error { may_have_applied: false, ..error })?;
        self.set_map(ClusterMap::clone(&map));
        Ok(map)
    }

    /// The map as of now, from the meta group's leader.
    pub(super) async fn map_of(&self, meta: &Shard<R>) -> Result<Arc<ClusterMap>, Refused> {
        let refused = |error| Refused { error, leader: None };
        let index = meta.read_index().await?;
        meta.wait_applied(index).await.map_err(refused)?;
        let unformed = || refused(Error::new(Code::NotReady, "the cluster map is not there yet"));
        Ok(Arc::new(map_in(meta).ok_or_else(unformed)?))
    }

    /// Keeps the map up to date: from this node's replica of the meta group if it has one, which
    /// may come and go, and else by asking other nodes. Runs for as long as the router lives.
    ///
    /// A replica that applies nothing may have been moved elsewhere without having heard of it: then
    /// others are asked, too.
    pub async fn follow_map(self: Arc<Self>) {
        let mut quiet = Duration::ZERO;
        loop {
            let Some(meta) = self.host().get(ShardId::META) else {
                R::sleep(ASK_EVERY).await;
                self.ask_for_map().await;
                continue;
            };
            let mut applied = meta.replica().watch_applied();
            if let Some(map) = map_in(&meta) {
                self.set_map(map);
            }
            match R::timeout(ASK_EVERY, applied.changed()).await {
                Ok(Ok(())) => quiet = Duration::ZERO,
                Ok(Err(_)) => R::sleep(ASK_EVERY).await,
                Err(_) => quiet += ASK_EVERY,
            }
            if !meta.is_voter() || (quiet >= QUIET && !meta.is_leader()) {
                quiet = Duration::ZERO;
                drop(meta);
                self.ask_for_map().await;
            }
        }
    }

    /// Asks one node after another, until one knows a newer map.
    async fn ask_for_map(&self) {
        let known = self.map();
        for peer in known.nodes().filter(|peer| Some(peer.id) != self.node_id()) {
            let request = forward::Request::Map(pb::ReadMap { linearizable: false });
            let asked = self.forwarder(peer.id);
            let answer = R::timeout(ASK_TIMEOUT, asked.ask(ShardId::META, request)).await;
            if let Ok(Ok(forward::Reply::Map(bytes))) = answer
                && let Ok(map) = ClusterMap::decode(&bytes)
            {
                let newer = map.version() > known.version();
                self.set_map(map);
                if newer {
                    return;
                }
            }
        }
    }
}

/// The map that a replica of the meta group has.
fn map_in<R: Runtime>(meta: &Shard<R>) -> Option<ClusterMap> {
    let blob = meta.replica().read().blob(meta::MAP_BLOB)?;
    ClusterMap::decode(&blob).ok().filter(ClusterMap::is_formed)
}
