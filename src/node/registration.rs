//! What a node tells the meta group: the founders' map, and its own addresses and version.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::chat::command::Done;
use crate::error::{Code, Error};
use crate::meta::{audit, join_token};
use crate::proto::internal as pb;
use crate::proto::internal::request::Command;
use crate::router::Router;
use crate::shard::runtime::Runtime;

/// How long until the founders' map is proposed again.
const MAP_AGAIN: Duration = Duration::from_millis(500);
/// How long until this node is registered again.
const REGISTER_AGAIN: Duration = Duration::from_secs(2);
/// How long until a refused node asks again.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);

/// Writes the founders' map into the meta group's state, until it is there.
pub(super) async fn enter_map<R: Runtime>(router: Arc<Router<R>>, seed: pb::Seed) {
    let node = |node: pb::SeedNode| pb::ClusterNode {
        id: node.id,
        client_address: node.client_address,
        peer_address: node.peer_address,
        version: node.version,
        instance: node.instance,
        state: 0,
        successor: 0,
        gateway: false,
    };
    let command = Command::FormCluster(pb::FormCluster {
        cluster_id: seed.cluster_id,
        shards: seed.shards,
        nodes: seed.nodes.into_iter().map(node).collect(),
    });
    while let Err(error) = router.propose_meta(command.clone()).await {
        tracing::debug!(%error, "the meta group is not there yet");
        R::sleep(MAP_AGAIN).await;
    }
}

/// Tells the meta group of this node's addresses and version, until it knows, in case they changed. A
/// node that is refused is not ready for clients.
pub(super) async fn enter_self<R: Runtime>(router: Arc<Router<R>>, hello: pb::Hello) {
    // Only when the founders' map was there before it was asked it means anything to be refused.
    let mut is_formed = false;
    while let Err(error) = register(&router, hello.clone(), None).await {
        match error.code {
            _ if !is_formed => {
                is_formed = router.read_map().await.is_ok();
                R::sleep(MAP_AGAIN).await;
            }
            // An operator has to do something about it.
            Code::Forbidden | Code::InvalidArgument | Code::AlreadyExists => {
                tracing::error!(%error, "the cluster refuses this node");
                // One that cannot become a gateway yet goes on as what it was.
                let as_before = pb::Hello { gateway: false, ..hello.clone() };
                let goes_on = hello.gateway && register(&router, as_before, None).await.is_ok();
                router.set_refused(Some(error.message).filter(|_| !goes_on));
                R::sleep(REFUSED_AGAIN).await;
            }
            _ => {
                tracing::debug!(%error, "this node is not registered yet");
                R::sleep(REGISTER_AGAIN).await;
            }
        }
    }
    router.set_refused(None);
}

/// Admits a node that asks for it and shows its join token: with its id, and the map.
///
/// # Errors
/// See [`register`].
pub(super) async fn admit<R: Runtime>(
    router: &Router<R>,
    hello: pb::Hello,
) -> Result<pb::AdmitReply, Error> {
    let token = match hello.join_token.as_str() {
        "" => Bytes::new(),
        token => join_token::hash(token),
    };
    let done = register(router, hello, Some(token)).await?;
    // What this node has applied may not have the new one yet.
    let map = router.read_map().await.map_err(Error::maybe_applied)?.encode();
    Ok(pb::AdmitReply { node_id: done.seq.0, map, ..Default::default() })
}

/// Registers a node with the meta group; the answer's `seq` is the node's id. A node that asks to be
/// admitted comes with the hash of its join token, empty if it has none; if it is new, it gets its
/// part of the replicas and leaders, unless it is to be a gateway.
///
/// # Errors
/// The rules' refusal; or why the meta group could not be reached.
pub(super) async fn register<R: Runtime>(
    router: &Router<R>,
    hello: pb::Hello,
    join_token: Option<Bytes>,
) -> Result<Done, Error> {
    // Of who comes again nothing is said.
    let action = format!("let the node at {} join with its token", hello.peer_address);
    let audit = join_token.is_some().then(|| pb::Audit { who: audit::CLUSTER.into(), action });
    let node = pb::RegisterNode {
        node_id: hello.node_id,
        client_address: hello.client_address,
        peer_address: hello.peer_address,
        version: hello.version,
        instance: hello.instance,
        spread: join_token.is_some(),
        gateway: hello.gateway,
        join_token,
    };
    router.propose_meta_for(Command::RegisterNode(node), audit).await
}
