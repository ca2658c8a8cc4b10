//! gRPC: the unary services, bad input, health, reflection and export.

use std::time::Duration;

use axum::http::uri::PathAndQuery;
use prost::Message;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::server::{NOW_MS, Server, soon};
use crate::gateway::limits::GatewayLimits;
use crate::id::RequestId;
use crate::limits::TEXT_BYTES_MAX;
use crate::proto::v1 as proto;
use crate::proto::v1::cluster_client::ClusterClient;
use crate::proto::v1::rooms_client::RoomsClient;
use crate::proto::v1::users_client::UsersClient;

/// The message, sent with a token.
pub fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// The code in a status's details, after checking that it agrees with the rest.
pub fn code(status: &Status) -> String {
    let error = proto::Error::decode(status.details()).unwrap();
    let code = crate::error::Code::parse(&error.code)
        .unwrap_or_else(|| panic!("{status:?} carries no code"));
    assert_eq!(status.code(), crate::gateway::status::row(code).1);
    assert_eq!(error.temporary, code.temporary());
    error.code
}

fn post(text: &str) -> proto::PostRequest {
    proto::PostRequest { room: "general".into(), text: text.into(), ..Default::default() }
}

#[tokio::test]
async fn rooms_and_messages_round_trip() {
    let server = Server::start().await;
    let mut rooms = RoomsClient::new(server.channel().await);
    let create = proto::CreateRoomRequest { room: "tea".into(), kind: 1, ..Default::default() };
    let created = rooms.create_room(with_token(&server.ann, create.clone())).await.unwrap();
    assert!(created.into_inner().created);
    let again = rooms.create_room(with_token(&server.ann, create)).await.unwrap().into_inner();
    assert!(!again.created);

    let id = RequestId::mint(NOW_MS, [5; 10]);
    let request = proto::PostRequest {
        client_msg_id: bytes::Bytes::copy_from_slice(id.as_bytes()),
        kind: proto::EventKind::Action.into(),
        ..post("hi")
    };
    let ack = rooms.post(with_token(&server.ann, request.clone())).await.unwrap().into_inner();
    assert_eq!((ack.seq, ack.duplicate), (2, false));
    let repeat = rooms.post(with_token(&server.ann, request)).await.unwrap().into_inner();
    assert_eq!((repeat.seq, repeat.duplicate), (2, true));
    let edit = proto::EditRequest {
        room: "general".into(),
        target: 2,
        text: "ho".into(),
        ..Default::default()
    };
    rooms.edit(with_token(&server.ann, edit)).await.unwrap();

    let after = Some(proto::Cursor { epoch: ack.epoch, seq: 1 });
    let events =
        proto::EventsRequest { room: "general".into(), after, limit: 1, ..Default::default() };
    let page = rooms.events(with_token(&server.bob, events)).await.unwrap().into_inner();
    assert_eq!((page.head, page.recovered, page.events.len()), (3, true, 1));
    let event = &page.events[0];
    assert_eq!((event.text.as_str(), event.kind()), ("ho", proto::EventKind::Action));
    assert_eq!(event.client_msg_id, id.as_bytes().as_slice());
    assert_eq!(event.edits.len(), 1);

    let mut users = UsersClient::new(server.channel().await);
    let list = proto::ListUsersRequest { limit: 2, after: String::new() };
    let list = users.list_users(with_token(&server.ann, list)).await.unwrap().into_inner();
    assert_eq!((list.users.len(), list.next.as_str()), (2, "bob"));
}

#[tokio::test]
async fn bad_input_gets_the_same_codes_as_over_rest() {
    let server = Server::start().await;
    let mut rooms = RoomsClient::new(server.channel().await);
    let future = RequestId::mint(NOW_MS + 3_600_000, [0; 10]);
    let posts = [
        (proto::PostRequest { room: "A".into(), ..post("x") }, "invalid_argument"),
        (proto::PostRequest { room: "nowhere".into(), ..post("x") }, "room_not_found"),
        (proto::PostRequest { client_msg_id: vec![1; 15].into(), ..post("x") }, "invalid_argument"),
        (proto::PostRequest { client_msg_id: vec![1; 16].into(), ..post("x") }, "invalid_argument"),
        (
            proto::PostRequest { client_msg_id: future.as_bytes().to_vec().into(), ..post("x") },
            "clock_skew",
        ),
        (proto::PostRequest { kind: 3, ..post("x") }, "invalid_argument"),
        (proto::PostRequest { kind: -7, ..post("x") }, "invalid_argument"),
        (post(""), "invalid_argument"),
        (post(&"x".repeat(TEXT_BYTES_MAX + 1)), "too_large"),
        (post(&"x".repeat(2_000_000)), "too_large"),
        (proto::PostRequest { room: "x".repeat(1_000_000), ..post("x") }, "invalid_argument"),
    ];
    for (request, expected) in posts {
        let refused = rooms.post(with_token(&server.ann, request)).await.unwrap_err();
        assert_eq!(code(&refused), expected);
        assert!(refused.message().len() <= 300);
    }
    let not_in = rooms.post(with_token(&server.bob, post("x"))).await.unwrap_err();
    assert_eq!(code(&not_in), "not_participant");

    let cursor = |epoch: &str, seq| Some(proto::Cursor { epoch: epoch.into(), seq });
    let page = |after, before, limit, wait_ms, consistency| proto::EventsRequest {
        room: "general".into(),
        after,
        before,
        limit,
        wait_ms,
        consistency,
    };
    let pages = [
        (page(cursor("", 9), None, 0, 0, 0), "invalid_cursor"),
        (page(cursor("not an epoch", 0), None, 0, 0, 0), "invalid_cursor"),
        (page(cursor("", 0), cursor("", 1), 0, 0, 0), "invalid_argument"),
        (page(None, None, 1001, 0, 0), "invalid_argument"),
        (page(cursor("", 1), None, 0, 60_001, 0), "invalid_argument"),
        (page(None, None, 0, 1, 0), "invalid_argument"),
        (page(None, None, 0, 0, 7), "invalid_argument"),
    ];
    for (request, expected) in pages {
        let refused = rooms.events(with_token(&server.ann, request.clone())).await.unwrap_err();
        assert_eq!(code(&refused), expected, "{request:?}");
    }
    let room = server.get(&server.ann, "/v1/rooms/general").await;
    assert_eq!(room.json()["head"], 1);
}

#[tokio::test]
async fn bad_tokens_and_missing_rights_are_refused() {
    let server = Server::start().await;
    let mut rooms = RoomsClient::new(server.channel().await);
    let refused = rooms.post(post("x")).await.unwrap_err();
    assert_eq!(
        (code(&refused).as_str(), refused.code()),
        ("unauthenticated", Code::Unauthenticated)
    );
    let refused = rooms.post(with_token("fm_ann_00", post("x"))).await.unwrap_err();
    assert_eq!(code(&refused), "unauthenticated");
    let export = proto::ExportRequest { room: "general".into() };
    let refused = rooms.export(with_token(&server.ann, export)).await.unwrap_err();
    assert_eq!(code(&refused), "forbidden");
    let mut cluster = ClusterClient::new(server.channel().await);
    let refused = cluster.compact(proto::CompactRequest {}).await.unwrap_err();
    assert_eq!(code(&refused), "unauthenticated");
    let status = cluster.status(proto::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.cluster_id, "c1");
    let init = proto::InitRequest { nodes: 3, ..Default::default() };
    let formed = cluster.init(init.clone()).await.unwrap().into_inner();
    assert_eq!(formed.admin_user, "admin");
    cluster.compact(with_token(&formed.admin_token, proto::CompactRequest {})).await.unwrap();
    assert_eq!(code(&cluster.init(init).await.unwrap_err()), "already_initialized");
}

/// Calls a method with bytes that are no message of its.
async fn call_raw(channel: Channel, token: &str, path: &'static str, bytes: Vec<u8>) -> Status {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Raw {
        #[prost(bytes = "vec", tag = "1")]
        room: Vec<u8>,
    }
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<Raw, proto::Ack>::new();
    let path = PathAndQuery::from_static(path);
    let response = grpc.unary(with_token(token, Raw { room: bytes }), path, codec).await;
    response.unwrap_err()
}

#[tokio::test]
async fn undecodable_messages_and_unknown_methods_get_their_codes() {
    let server = Server::start().await;
    let channel = server.channel().await;
    let not_utf8 = vec![0xff, 0xfe];
    let refused =
        call_raw(channel.clone(), &server.ann, "/folkmoot.v1.Rooms/Post", not_utf8.clone()).await;
    assert_eq!(code(&refused), "invalid_argument");
    // Field 1 of CreateUser's answer is a message, of Init's request a number.
    let refused =
        call_raw(channel.clone(), &server.ann, "/folkmoot.v1.Cluster/Init", not_utf8).await;
    assert_eq!(code(&refused), "invalid_argument");
    for path in ["/folkmoot.v1.Rooms/Nothing", "/folkmoot.v9.Nobody/Nothing"] {
        let refused = call_raw(channel.clone(), &server.ann, path, Vec::new()).await;
        assert_eq!((code(&refused).as_str(), refused.code()), ("not_found", Code::Unimplemented));
    }
}

#[tokio::test]
async fn half_sent_messages_time_out() {
    let body_read_timeout = Duration::from_millis(200);
    let limits = GatewayLimits { body_read_timeout, ..Default::default() };
    let server = Server::with_limits(limits).await;
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<proto::PostRequest, proto::Ack>::new();
    let path = PathAndQuery::from_static("/folkmoot.v1.Rooms/Post");
    let nothing = with_token(&server.ann, tokio_stream::pending());
    let late = soon(grpc.client_streaming(nothing, path, codec)).await.unwrap_err();
    assert_eq!((code(&late).as_str(), late.code()), ("timeout", Code::DeadlineExceeded));
}

#[tokio::test]
async fn an_export_verifies_from_its_base_to_its_end() {
    let server = Server::start().await;
    for i in 0..10 {
        server.post(&format!("message {i}")).await;
    }
    let mut rooms = RoomsClient::new(server.channel().await);
    let export = proto::ExportRequest { room: "general".into() };
    let mut stream = rooms.export(with_token(&server.root, export)).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    let room = first.room.unwrap();
    assert_eq!((room.head, first.chain_base.len()), (11, 32));
    let mut last = None;
    let mut seq = 0;
    while let Some(page) = soon(stream.message()).await.unwrap() {
        for event in page.events {
            seq += 1;
            assert_eq!((event.seq, event.salt.len(), event.body_hash.len()), (seq, 16, 32));
            last = Some(event.chain);
        }
    }
    assert_eq!((seq, last), (11, Some(room.chain)));
}

#[tokio::test]
async fn health_follows_readiness() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel().await);
    let check = |service: &str| HealthCheckRequest { service: service.into() };
    let mut watch = health.watch(check("")).await.unwrap().into_inner();
    let serving = 1;
    assert_eq!(watch.message().await.unwrap().unwrap().status, serving);
    let rooms = health.check(check("folkmoot.v1.Rooms")).await.unwrap().into_inner();
    assert_eq!(rooms.status, serving);
    assert_eq!(health.check(check("x")).await.unwrap_err().code(), Code::NotFound);
    server.fake.ready.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(soon(watch.message()).await.unwrap().unwrap().status, 2);
}

#[tokio::test]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let server = Server::start().await;
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let symbol = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol("folkmoot.v1.Rooms".into())),
    };
    let requests = tokio_stream::iter([list, symbol]);
    let mut replies = reflection.server_reflection_info(requests).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(services)) =
        replies.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list");
    };
    let names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    for name in ["folkmoot.v1.Rooms", "folkmoot.v1.Users", "folkmoot.v1.Cluster"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("internal")), "{names:?}");
    let file = replies.message().await.unwrap().unwrap().message_response;
    assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))));
}

#[tokio::test]
async fn replicas_are_verified_and_repaired_for_admins() {
    use proto::verify_response::Said;
    let server = Server::start().await;
    let mut cluster = ClusterClient::new(server.channel().await);
    let ask = |shards: &[u32]| proto::VerifyRequest { shards: shards.to_vec() };
    let refused = cluster.verify(with_token(&server.ann, ask(&[]))).await.unwrap_err();
    assert_eq!(code(&refused), "forbidden");
    let refused = cluster.verify(with_token(&server.root, ask(&[1, 70_000]))).await.unwrap_err();
    assert_eq!(code(&refused), "not_found");
    let said = cluster.verify(with_token(&server.root, ask(&[]))).await.unwrap();
    let mut said = said.into_inner();
    let (mut findings, mut last) = (vec![], proto::VerifyProgress::default());
    while let Some(response) = soon(said.message()).await.unwrap() {
        match response.said.unwrap() {
            Said::Finding(finding) => findings.push(finding),
            Said::Progress(progress) => last = progress,
        }
    }
    assert_eq!((last.shards, last.shards_verified, last.done), (2, 2, true));
    assert_eq!((last.rooms, last.events), (6, 80));
    assert_eq!((findings.len(), findings[0].shard, &*findings[0].kind), (1, 2, "differs"));

    let repair = |node| proto::RepairRequest { node, shard: 2 };
    let refused = cluster.repair(with_token(&server.ann, repair(1))).await.unwrap_err();
    assert_eq!(code(&refused), "forbidden");
    let refused = cluster.repair(with_token(&server.root, repair(9))).await.unwrap_err();
    assert_eq!(code(&refused), "invalid_argument");
    cluster.repair(with_token(&server.root, repair(1))).await.unwrap();
}
