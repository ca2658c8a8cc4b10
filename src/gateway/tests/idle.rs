//! Sessions that are not used for long.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use super::accounts::set_password;
use super::server::{Server, soon};
use crate::gateway::limits::{AccountLimits, GatewayLimits};

const IDLE: Duration = Duration::from_secs(3600);
const EVENTS: &str = "/v1/rooms/general/events";

/// A server, and the token of a session of ann's.
async fn server() -> (Server, String) {
    let accounts = AccountLimits { session_idle: IDLE, ..AccountLimits::default() };
    let server = Server::with_limits(GatewayLimits { accounts, ..GatewayLimits::default() }).await;
    set_password(&server, &server.ann, "ann").await;
    let session = server.session("ann").await;
    (server, session)
}

/// When ann's session was last used. The token that asks for it is not of the session.
async fn used_at(server: &Server) -> Value {
    server.get(&server.ann, "/v1/sessions").await.json()["sessions"][0]["used_at"].clone()
}

#[tokio::test]
async fn a_session_that_only_reads_lives_on_and_ends_once_it_reads_no_more() {
    let (server, session) = server().await;
    for _ in 0..4 {
        let before = used_at(&server).await;
        server.pass(IDLE / 2);
        assert_eq!(server.get(&session, EVENTS).await.status, 200);
        // The answer does not wait for that to be noted.
        soon(async { while used_at(&server).await == before {} }).await;
    }
    server.pass(IDLE);
    let gone = server.get(&session, EVENTS).await;
    assert_eq!((gone.status, gone.code().as_str()), (401, "unauthenticated"));
}

#[tokio::test]
async fn nothing_is_noted_of_whoever_cannot_be_made_sure_of() {
    let (server, session) = server().await;
    assert_eq!(server.get(&session, EVENTS).await.status, 200);
    let before = used_at(&server).await;
    server.fake.accounts_cut_off.store(true, Ordering::SeqCst);
    // What was answered before counts for a while.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    server.pass(IDLE / 2);
    let local = format!("{EVENTS}?consistency=local");
    assert_eq!(server.get(&session, &local).await.status, 200);
    server.fake.accounts_cut_off.store(false, Ordering::SeqCst);
    soon(async { while server.get(&server.ann, "/v1/me").await.status != 200 {} }).await;
    assert_eq!(used_at(&server).await, before);
}
