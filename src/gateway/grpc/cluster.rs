//! `folkmoot.v1.Cluster`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::error::{Code, Error};
use crate::gateway::app::App;
use crate::gateway::founding::FIRST_ADMIN;
use crate::gateway::grpc::{answer, verify};
use crate::id::{NodeId, ShardId};
use crate::proto::v1 as proto;
use crate::proto::v1::cluster_server::Cluster;

/// The service.
#[derive(Debug)]
pub struct ClusterService {
    app: Arc<App>,
}

impl ClusterService {
    /// Serves this gateway's cluster.
    pub fn new(app: Arc<App>) -> ClusterService {
        ClusterService { app }
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    // Without a token: there is no user yet. Refused once there is.
    async fn init(
        &self,
        request: Request<proto::InitRequest>,
    ) -> Result<Response<proto::InitResponse>, Status> {
        let proto::InitRequest { nodes, shards, admin_token } = request.into_inner();
        let admin_token = Some(admin_token).filter(|token| !token.is_empty());
        let result = self.app.init_cluster(nodes, shards, admin_token).await;
        let (cluster_id, admin_token) = self.app.metrics.count(result)?;
        let admin_user = FIRST_ADMIN.to_owned();
        Ok(Response::new(proto::InitResponse { cluster_id, admin_token, admin_user }))
    }

    // Without a token: it must work when no token can be verified.
    async fn status(
        &self,
        _request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        Ok(Response::new(self.app.backend.status().await))
    }

    async fn compact(
        &self,
        request: Request<proto::CompactRequest>,
    ) -> Result<Response<proto::CompactResponse>, Status> {
        answer(&self.app, request, |app, caller, _| async move {
            let (bytes_before, bytes_after) = app.compact(&caller.actor).await?;
            Ok(proto::CompactResponse { bytes_before, bytes_after })
        })
        .await
    }

    type VerifyStream = verify::VerifyStream;

    async fn verify(
        &self,
        request: Request<proto::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            verify::stream(app, &caller, request)
        })
        .await
    }

    async fn repair(
        &self,
        request: Request<proto::RepairRequest>,
    ) -> Result<Response<proto::RepairResponse>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let missing = || Error::new(Code::NotFound, "there is no such shard");
            let shard = ShardId(u16::try_from(request.shard).map_err(|_| missing())?);
            app.repair(&caller.actor, shard, NodeId(request.node)).await?;
            Ok(proto::RepairResponse {})
        })
        .await
    }
}
