//! `folkmoot.v1.Admin`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::gateway::app::App;
use crate::gateway::grpc::answer;
use crate::id::{NodeId, ShardId};
use crate::proto::internal::AuditRecord;
use crate::proto::v1 as proto;
use crate::proto::v1::admin_server::Admin;
use crate::proto::v1::order_request::Order as Wire;
use crate::router::operator::Order;

/// The service.
#[derive(Debug)]
pub struct AdminService {
    app: Arc<App>,
}

impl AdminService {
    /// Serves this gateway's cluster.
    pub fn new(app: Arc<App>) -> AdminService {
        AdminService { app }
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn placement(
        &self,
        request: Request<proto::PlacementRequest>,
    ) -> Result<Response<proto::PlacementResponse>, Status> {
        answer(
            &self.app,
            request,
            |app, caller, _| async move { app.placement(&caller.actor).await },
        )
        .await
    }

    async fn order(
        &self,
        request: Request<proto::OrderRequest>,
    ) -> Result<Response<proto::OrderResponse>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let order = order_from(request.order)?;
            let plan = app.operate(&caller.actor, order, request.dry_run).await?;
            Ok(proto::OrderResponse { steps: plan.steps })
        })
        .await
    }

    async fn join_token(
        &self,
        request: Request<proto::JoinTokenRequest>,
    ) -> Result<Response<proto::JoinTokenResponse>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let (token, expires_at_ms) =
                app.issue_join_token(&caller.actor, request.ttl_ms).await?;
            Ok(proto::JoinTokenResponse { token, expires_at_ms })
        })
        .await
    }

    async fn audit(
        &self,
        request: Request<proto::AuditRequest>,
    ) -> Result<Response<proto::AuditResponse>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let records = app.audit(&caller.actor, request.limit).await?;
            let action = |record: AuditRecord| proto::AuditedAction {
                at_ms: record.at_ms,
                who: record.who,
                action: record.action,
                outcome: record.outcome,
            };
            Ok(proto::AuditResponse { actions: records.into_iter().map(action).collect() })
        })
        .await
    }

    async fn quorum_critical(
        &self,
        request: Request<proto::QuorumCriticalRequest>,
    ) -> Result<Response<proto::QuorumCriticalResponse>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let shards = app.quorum_critical(&caller.actor, NodeId(request.node)).await?;
            Ok(proto::QuorumCriticalResponse {
                shards: shards.into_iter().map(|shard| shard.0.into()).collect(),
            })
        })
        .await
    }
}

fn order_from(order: Option<Wire>) -> Result<Order, Error> {
    let shard = |shard: u32| {
        let number = u16::try_from(shard);
        number.map(ShardId).map_err(|_| Error::invalid(format!("there is no shard {shard}")))
    };
    Ok(match order.ok_or_else(|| Error::invalid("an order is needed"))? {
        Wire::MoveShard(order) => Order::MoveShard {
            shard: shard(order.shard)?,
            from: NodeId(order.from),
            to: NodeId(order.to),
        },
        Wire::TransferLeader(order) => {
            Order::TransferLeader { shard: shard(order.shard)?, to: NodeId(order.to) }
        }
        Wire::Rebalance(order) if !order.replicas && !order.leaders => {
            return Err(Error::invalid("say what to rebalance: replicas, leaders or both"));
        }
        Wire::Rebalance(order) => {
            Order::Rebalance { replicas: order.replicas, leaders: order.leaders }
        }
        Wire::Drain(node) => Order::Drain(NodeId(node)),
        Wire::Resume(node) => Order::Resume(NodeId(node)),
        Wire::Remove(order) => Order::Remove {
            node: NodeId(order.node),
            successor: (order.successor != 0).then_some(NodeId(order.successor)),
        },
    })
}
