//! Everything malformed that can be sent over HTTP, each with its code; nothing may change.

use super::server::{NOW_MS, Server};
use crate::id::RequestId;
use crate::limits::{BODY_BYTES_MAX, TEXT_BYTES_MAX};

const MESSAGES: &str = "/v1/rooms/general/messages";

#[tokio::test]
async fn bad_bodies_get_their_codes() {
    let server = Server::start().await;
    let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(TEXT_BYTES_MAX + 1));
    let deep = format!(r#"{{"text":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    let uuid4 = r#"{"text":"x","client_msg_id":"00000000-0000-4000-8000-000000000000"}"#;
    let future = RequestId::mint(NOW_MS + 3_600_000, [0; 10]);
    let skewed = format!(r#"{{"text":"x","client_msg_id":"{future}"}}"#);
    let cases: &[(&str, u16, &str)] = &[
        ("{", 400, "invalid_argument"),
        ("[]", 400, "invalid_argument"),
        ("null", 400, "invalid_argument"),
        ("{}", 400, "invalid_argument"),
        (r#"{"text":1}"#, 400, "invalid_argument"),
        (r#"{"text":"x"} {}"#, 400, "invalid_argument"),
        (r#"{"text":"x","txet":"y"}"#, 400, "invalid_argument"),
        (r#"{"text":"\ud800"}"#, 400, "invalid_argument"),
        (r#"{"text":""}"#, 400, "invalid_argument"),
        (r#"{"text":"x","kind":"notice"}"#, 400, "invalid_argument"),
        (r#"{"text":"x","reply_to":0}"#, 400, "invalid_argument"),
        (r#"{"text":"x","reply_to":-1}"#, 400, "invalid_argument"),
        (r#"{"text":"x","client_msg_id":"not-a-uuid"}"#, 400, "invalid_argument"),
        (uuid4, 400, "invalid_argument"),
        (&skewed, 409, "clock_skew"),
        (&deep, 400, "invalid_argument"),
        (&long, 413, "too_large"),
    ];
    for (body, status, code) in cases {
        let reply = server.send(&server.ann, "POST", MESSAGES, body).await;
        let start = &body[..body.len().min(60)];
        assert_eq!((reply.status, reply.code().as_str()), (*status, *code), "{start}");
        assert!(reply.body.len() < 1000, "{start}");
        if *code == "clock_skew" {
            assert_eq!(reply.json()["error"]["server_time_ms"], NOW_MS);
        }
    }
    let empty = server.send(&server.ann, "POST", MESSAGES, "").await;
    assert_eq!(empty.code(), "unsupported_media_type");
    let room = server.get(&server.ann, "/v1/rooms/general").await;
    assert_eq!(room.json()["head"], 1);
}

#[tokio::test]
async fn bad_bytes_types_and_sizes_get_their_codes() {
    let server = Server::start().await;
    let auth = format!("authorization: Bearer {}\r\n", server.ann);
    let json = format!("{auth}content-type: application/json; charset=utf-8\r\n");
    let post = |headers: String, body: Vec<u8>| {
        let server = &server;
        async move { server.send_raw("POST", MESSAGES, &headers, &body).await }
    };
    let utf8 = post(json.clone(), b"{\"text\":\"\xff\xfe\"}".to_vec()).await;
    assert_eq!((utf8.status, utf8.code().as_str()), (400, "invalid_argument"));
    let text = post(format!("{auth}content-type: text/plain\r\n"), b"hi".to_vec()).await;
    assert_eq!((text.status, text.code().as_str()), (415, "unsupported_media_type"));
    let none = post(auth.clone(), b"{}".to_vec()).await;
    assert_eq!(none.status, 415);
    let huge = post(json.clone(), vec![b' '; BODY_BYTES_MAX + 1]).await;
    assert_eq!((huge.status, huge.code().as_str()), (413, "too_large"));
    let good = post(json, b"{\"text\":\"ok\"}".to_vec()).await;
    assert_eq!(good.status, 200);
}

#[tokio::test]
async fn a_chunked_body_is_bounded_too() {
    use tokio::io::AsyncWriteExt;
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let head = format!(
        "POST {MESSAGES} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        server.ann
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    for _ in 0..20 {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let reply = super::server::read_reply(&mut stream).await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "too_large"));
}

#[tokio::test]
async fn bad_paths_and_queries_get_their_codes() {
    let server = Server::start().await;
    let events = "/v1/rooms/general/events";
    let cases = [
        ("/nowhere".to_owned(), 404, "not_found"),
        ("/v1/rooms/general/".to_owned(), 404, "not_found"),
        ("/v1/rooms/nowhere".to_owned(), 404, "room_not_found"),
        ("/v1/users/nobody".to_owned(), 404, "user_not_found"),
        ("/v1/rooms/General".to_owned(), 400, "invalid_argument"),
        ("/v1/rooms/%00".to_owned(), 400, "invalid_argument"),
        ("/v1/rooms/%ff".to_owned(), 400, "invalid_argument"),
        ("/v1/rooms/dm:b:a".to_owned(), 400, "invalid_argument"),
        (format!("/v1/rooms/{}", "a".repeat(65)), 400, "invalid_argument"),
        ("/v1/rooms?limit=0".to_owned(), 400, "invalid_argument"),
        ("/v1/rooms?limit=1001".to_owned(), 400, "invalid_argument"),
        ("/v1/rooms?limit=-1".to_owned(), 400, "invalid_argument"),
        ("/v1/rooms?after=A".to_owned(), 400, "invalid_argument"),
        ("/v1/rooms?order=up".to_owned(), 400, "invalid_argument"),
        (format!("{events}?limit=x"), 400, "invalid_argument"),
        (format!("{events}?after=x"), 400, "invalid_cursor"),
        (format!("{events}?after=-1"), 400, "invalid_cursor"),
        (format!("{events}?after=a:b:1"), 400, "invalid_cursor"),
        (format!("{events}?after=99"), 400, "invalid_cursor"),
        (format!("{events}?after=99999999999999999999"), 400, "invalid_cursor"),
        (format!("{events}?after=1&before=1"), 400, "invalid_argument"),
        (format!("{events}?after=1&wait=61s"), 400, "invalid_argument"),
        (format!("{events}?before=1&wait=1s"), 400, "invalid_argument"),
        (format!("{events}?wait=1s"), 400, "invalid_argument"),
        (format!("{events}?consistency=eventual"), 400, "invalid_argument"),
    ];
    for (path, status, code) in cases {
        let reply = server.get(&server.ann, &path).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{path}");
        assert!(reply.head.contains("x-content-type-options: nosniff"), "{path}: {}", reply.head);
        assert!(reply.head.contains("cache-control: no-store"), "{path}: {}", reply.head);
    }
    let method = server.send(&server.ann, "DELETE", "/v1/rooms", "").await;
    assert_eq!((method.status, method.code().as_str()), (405, "method_not_allowed"));
    let seq = server.send(&server.ann, "DELETE", "/v1/rooms/general/messages/0", "").await;
    assert_eq!(seq.code(), "invalid_argument");
    let seq = server.send(&server.ann, "DELETE", "/v1/rooms/general/messages/9", "").await;
    assert_eq!((seq.status, seq.code().as_str()), (404, "event_not_found"));
    let direct = r#"{"room":"dm:ann:nobody","kind":"direct"}"#;
    let nobody = server.send(&server.ann, "POST", "/v1/rooms", direct).await;
    assert_eq!((nobody.status, nobody.code().as_str()), (404, "user_not_found"));
    let symbol = format!("/v1/rooms/general/messages/1/reactions/{}", "x".repeat(33));
    assert_eq!(server.send(&server.ann, "PUT", &symbol, "").await.code(), "too_large");
}

#[tokio::test]
async fn bad_tokens_are_unauthenticated() {
    let server = Server::start().await;
    let hex = "0".repeat(64);
    let stolen = server.ann.replace("fm_ann_", "fm_bob_");
    let unknown = server.ann.replace("fm_ann_", "fm_nobody_");
    for token in ["", "x", &format!("fm_ann_{hex}"), &stolen, &unknown] {
        let reply = server.get(token, "/v1/rooms").await;
        assert_eq!((reply.status, reply.code().as_str()), (401, "unauthenticated"), "{token}");
        assert!(reply.head.contains("www-authenticate: Bearer"));
    }
    let missing = server.send_raw("GET", "/v1/rooms", "", b"").await;
    assert_eq!(missing.code(), "unauthenticated");
}

#[tokio::test]
async fn permissions_are_refused_with_their_codes() {
    let server = Server::start().await;
    let post = |token| server.send(token, "POST", MESSAGES, r#"{"text":"x"}"#);
    assert_eq!(post(&server.bob).await.code(), "not_participant");
    let user = r#"{"user":"new"}"#;
    let create = server.send(&server.ann, "POST", "/v1/users", user).await;
    assert_eq!((create.status, create.code().as_str()), (403, "forbidden"));
    let compact = server.send(&server.ann, "POST", "/v1/node/compact", "").await;
    assert_eq!(compact.code(), "forbidden");
    for role in ["muted", "banned"] {
        let body = format!(r#"{{"role":"{role}"}}"#);
        let path = "/v1/rooms/general/participants/bob";
        assert_eq!(server.send(&server.ann, "PUT", path, &body).await.status, 200);
        let refused = post(&server.bob).await;
        assert_eq!((refused.status, refused.code().as_str()), (403, role));
    }
    let role = r#"{"role":"king"}"#;
    let path = "/v1/rooms/general/participants/bob";
    assert_eq!(server.send(&server.ann, "PUT", path, role).await.code(), "invalid_argument");
}

#[tokio::test]
async fn a_revoked_token_stops_working_within_a_second() {
    let server = Server::start().await;
    assert_eq!(server.get(&server.bob, "/v1/rooms").await.status, 200);
    server.revoke("bob");
    let revoked = std::time::Instant::now();
    while server.get(&server.bob, "/v1/rooms").await.status == 200 {
        assert!(revoked.elapsed().as_secs() < 1, "the token still works");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
