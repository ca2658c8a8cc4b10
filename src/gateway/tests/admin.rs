//! gRPC's `Admin` service: for administrators only, and what they do is recorded.

use tonic::Code;

use super::grpc::{code, with_token};
use super::server::Server;
use crate::id::JOIN_TOKEN_PREFIX;
use crate::proto::v1 as proto;
use crate::proto::v1::admin_client::AdminClient;
use crate::proto::v1::cluster_client::ClusterClient;
use crate::proto::v1::order_request::Order;
use crate::proto::v1::users_client::UsersClient;

/// Initialises the cluster; the first admin's token.
async fn admin(server: &Server) -> String {
    let mut cluster = ClusterClient::new(server.channel().await);
    let init = proto::InitRequest { nodes: 3, ..Default::default() };
    cluster.init(init).await.unwrap().into_inner().admin_token
}

#[tokio::test]
async fn others_are_refused_and_nothing_is_recorded() {
    let server = Server::start().await;
    let mut service = AdminClient::new(server.channel().await);
    let order = proto::OrderRequest { dry_run: false, order: Some(Order::Drain(2)) };
    let refused = service.order(with_token(&server.ann, order)).await.unwrap_err();
    assert_eq!(code(&refused), "forbidden");
    let token = proto::JoinTokenRequest { ttl_ms: 60_000 };
    let refused = service.join_token(with_token(&server.ann, token)).await.unwrap_err();
    assert_eq!(code(&refused), "forbidden");
    let audit = proto::AuditRequest { limit: 10 };
    let refused = service.audit(with_token(&server.ann, audit)).await.unwrap_err();
    assert_eq!(code(&refused), "forbidden");
    assert_eq!(service.audit(audit).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(server.fake.audit.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_an_administrator_does_to_somebody_s_tokens_is_recorded() {
    let server = Server::start().await;
    let bot = r#"{"label":"bot","scopes":["read"]}"#;
    for token in [&server.ann, &server.root] {
        assert_eq!(server.send(token, "POST", "/v1/users/ann/tokens", bot).await.status, 201);
    }
    let list = server.get(&server.ann, "/v1/users/ann/tokens").await.json();
    for (token, which) in [(&server.ann, 1), (&server.root, 2)] {
        let id = list["tokens"][which]["id"].as_str().unwrap();
        let path = format!("/v1/users/ann/tokens/{id}");
        assert_eq!(server.send(token, "DELETE", &path, "").await.status, 204);
    }
    let records = server.fake.audit.lock().unwrap().clone();
    assert!(records.iter().all(|r| r.who == "root"), "nobody's own is recorded: {records:?}");
    let said: Vec<_> = records.iter().map(|r| (r.action.as_str(), r.outcome.as_str())).collect();
    assert_eq!(
        said,
        [
            ("issue a token for ann", "begun"),
            ("issue a token for ann", "done"),
            ("revoke a token of ann", "begun"),
            ("revoke a token of ann", "done"),
        ]
    );
}

#[tokio::test]
async fn what_an_administrator_does_is_recorded() {
    let server = Server::start().await;
    let token = admin(&server).await;
    let channel = server.channel().await;
    let mut service = AdminClient::new(channel.clone());
    let mut cluster = ClusterClient::new(channel.clone());
    let order = proto::OrderRequest { dry_run: false, order: Some(Order::Drain(2)) };
    let plan = service.order(with_token(&token, order)).await.unwrap().into_inner();
    assert_eq!(plan.steps, ["admin: drain node 2 false"], "the order says who gives it");
    let ttl = proto::JoinTokenRequest { ttl_ms: 60_000 };
    let made = service.join_token(with_token(&token, ttl)).await.unwrap().into_inner();
    assert!(made.token.starts_with(JOIN_TOKEN_PREFIX), "{made:?}");
    assert_eq!((made.token.len(), made.expires_at_ms), (JOIN_TOKEN_PREFIX.len() + 64, 60_001));
    cluster.compact(with_token(&token, proto::CompactRequest {})).await.unwrap();
    let repair = proto::RepairRequest { shard: 1, node: 2 };
    assert!(cluster.repair(with_token(&token, repair)).await.is_err());
    let mut users = UsersClient::new(channel);
    for (user, admin) in [("bo", false), ("carol", true)] {
        let request = proto::CreateUserRequest { user: user.into(), admin, ..Default::default() };
        users.create_user(with_token(&token, request)).await.unwrap();
    }
    let asked = proto::AuditRequest { limit: 1000 };
    let actions = service.audit(with_token(&token, asked)).await.unwrap().into_inner().actions;
    assert!(actions.iter().all(|action| action.who == "admin"), "{actions:?}");
    let said: Vec<_> = actions.iter().map(|a| (a.action.as_str(), a.outcome.as_str())).collect();
    let repair = "set the state of shard 1 on node 2 aside at its next start";
    assert_eq!(
        said,
        [
            ("form the cluster, with administrator admin", "done"),
            ("make a join token", "done"),
            ("compact node 1", "begun"),
            ("compact node 1", "done"),
            (repair, "begun"),
            (repair, "failed: it differs from nobody"),
            ("create administrator carol", "begun"),
            ("create administrator carol", "done"),
        ]
    );
    for limit in [0, 1001] {
        let asked = proto::AuditRequest { limit };
        let refused = service.audit(with_token(&token, asked)).await.unwrap_err();
        assert_eq!(code(&refused), "invalid_argument");
    }
}
