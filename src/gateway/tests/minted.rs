//! Ids that the gateway mints while its node's clock is wrong.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::grpc::with_token;
use super::server::{NOW_MS, Server};
use super::websockets::Socket;
use crate::id::RequestId;
use crate::limits::DEDUP_HORIZON_MS;
use crate::proto::v1 as proto;
use crate::proto::v1::rooms_client::RoomsClient;

const HOUR_MS: u64 = 3_600_000;

#[tokio::test]
async fn what_comes_without_an_id_is_done_by_a_node_whose_clock_is_wrong() {
    let ahead = NOW_MS + HOUR_MS;
    let behind = NOW_MS - DEDUP_HORIZON_MS - HOUR_MS;
    // An id that is too old is not refused with the time: that takes another attempt.
    for (now_ms, attempts) in [(ahead, 2), (behind, 3)] {
        let server = Server::start().await;
        server.set_clock(now_ms);
        assert_eq!(server.post("by REST").await, 2);
        assert_eq!(server.fake.posts_begun.load(Ordering::SeqCst), attempts);

        let joined = server.send(&server.bob, "POST", "/v1/rooms/general/join", "").await;
        assert_eq!(joined.status, 200, "{joined:?}");
        let mut rooms = RoomsClient::new(server.channel().await);
        let post = proto::PostRequest {
            room: "general".into(),
            text: "by gRPC".into(),
            ..Default::default()
        };
        let ack = rooms.post(with_token(&server.bob, post)).await.unwrap().into_inner();
        assert_eq!(ack.seq, 4);
        let mut socket = Socket::open(&server, &server.ann).await;
        let post = json!({ "type": "post", "ref": 1, "room": "general", "text": "by WebSocket" });
        socket.say(post).await;
        let ack = socket.frame().await;
        assert_eq!((&ack["type"], &ack["seq"]), (&json!("ack"), &json!(5)), "{ack}");
        let id = RequestId::parse(ack["client_msg_id"].as_str().unwrap()).unwrap();
        assert_eq!(id.unix_ms(), NOW_MS, "the id that it has in the room");
        let begun = server.fake.posts_begun.load(Ordering::SeqCst);
        assert_eq!(begun, attempts + 2, "what time it is is known by now");
    }
}

#[tokio::test]
async fn an_id_of_the_clients_own_is_not_replaced() {
    let server = Server::start().await;
    for (at_ms, code) in
        [(NOW_MS + HOUR_MS, "clock_skew"), (NOW_MS - DEDUP_HORIZON_MS - HOUR_MS, "expired")]
    {
        let id = RequestId::mint(at_ms, [1; 10]);
        let body = json!({ "text": "x", "client_msg_id": id.to_string() }).to_string();
        let path = "/v1/rooms/general/messages";
        let refused = server.send(&server.ann, "POST", path, &body).await;
        assert_eq!(refused.code(), code);
    }
    assert_eq!(server.fake.posts_begun.load(Ordering::SeqCst), 2);
}
