//! Accounts over gRPC, and what scopes let a session do.

use tonic::Request;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use super::grpc::{code, with_token};
use super::server::Server;
use super::sessions::Session;
use crate::gateway::grpc::OPEN;
use crate::gateway::limits::{AccountLimits, GatewayLimits, Registration};
use crate::gateway::scope;
use crate::proto::v1 as proto;
use crate::proto::v1::accounts_client::AccountsClient;
use crate::proto::v1::rooms_client::RoomsClient;
use crate::proto::v1::session_request::Request as Ask;
use crate::proto::v1::session_response::Response as Said;
use crate::proto::v1::users_client::UsersClient;

const PASSWORD: &str = "correct horse";

async fn open_server() -> Server {
    let accounts = AccountLimits { registration: Registration::Open, ..AccountLimits::default() };
    Server::with_limits(GatewayLimits { accounts, ..GatewayLimits::default() }).await
}

#[tokio::test]
async fn people_register_sign_in_and_out() {
    let server = open_server().await;
    let mut accounts = AccountsClient::new(server.channel().await);
    let register = proto::RegisterRequest {
        user: "cid".into(),
        password: PASSWORD.into(),
        ..Default::default()
    };
    let made = accounts.register(Request::new(register.clone())).await.unwrap().into_inner();
    assert_eq!(made.user.unwrap().user, "cid");
    let again = accounts.register(Request::new(register)).await.unwrap_err();
    assert_eq!(code(&again), "already_exists");
    let login = |password: &str| {
        Request::new(proto::LoginRequest { user: "cid".into(), password: password.into() })
    };
    let wrong = accounts.login(login("incorrect horse")).await.unwrap_err();
    assert_eq!(code(&wrong), "unauthenticated");
    let begun = accounts.login(login(PASSWORD)).await.unwrap().into_inner();
    let who = accounts.who_am_i(with_token(&begun.token, proto::WhoAmIRequest {})).await.unwrap();
    assert_eq!(who.into_inner().scopes.len(), 5);
    let list = proto::ListSessionsRequest {};
    let list = accounts.list_sessions(with_token(&begun.token, list)).await.unwrap().into_inner();
    assert_eq!(list.sessions.len(), 2);
    assert!(list.sessions[1].current && list.sessions[1].address == "127.0.0.1");
    accounts.logout(with_token(&begun.token, proto::LogoutRequest {})).await.unwrap();
    let gone = accounts.who_am_i(with_token(&begun.token, proto::WhoAmIRequest {})).await;
    assert_eq!(code(&gone.unwrap_err()), "unauthenticated");
    let nobody = accounts.who_am_i(Request::new(proto::WhoAmIRequest {})).await;
    assert_eq!(code(&nobody.unwrap_err()), "unauthenticated");
}

#[tokio::test]
async fn a_token_of_a_bot_reads_and_does_no_more() {
    let server = Server::start().await;
    let mut users = UsersClient::new(server.channel().await);
    let issue = proto::IssueTokenRequest {
        user: "ann".into(),
        scopes: vec!["read".into()],
        ttl_ms: 60_000,
        ..Default::default()
    };
    let token = users.issue_token(with_token(&server.ann, issue.clone())).await.unwrap();
    let token = token.into_inner().token;
    let unknown = proto::IssueTokenRequest { scopes: vec!["fly".into()], ..issue.clone() };
    let refused = users.issue_token(with_token(&server.ann, unknown)).await.unwrap_err();
    assert_eq!(code(&refused), "invalid_argument");
    let refused = users.issue_token(with_token(&token, issue)).await.unwrap_err();
    assert_eq!(code(&refused), "forbidden");

    let mut rooms = RoomsClient::new(server.channel().await);
    let list = proto::ListRoomsRequest::default();
    rooms.list_rooms(with_token(&token, list)).await.unwrap();
    let post =
        proto::PostRequest { room: "general".into(), text: "x".into(), ..Default::default() };
    let refused = rooms.post(with_token(&token, post.clone())).await.unwrap_err();
    assert_eq!(code(&refused), "forbidden");
    let join = proto::JoinRequest { room: "general".into(), ..Default::default() };
    assert_eq!(code(&rooms.join(with_token(&token, join)).await.unwrap_err()), "forbidden");

    let mut session = Session::open(&server, &token).await.unwrap();
    session.follow(1, "general", None).await;
    session.catch_up().await;
    session.ask(2, Ask::Post(post)).await;
    assert!(matches!(session.hear().await, (2, Said::Error(error)) if error.code == "forbidden"));

    let mut accounts = AccountsClient::new(server.channel().await);
    let tokens = proto::ListTokensRequest { user: "ann".into() };
    let tokens = accounts.list_tokens(with_token(&server.ann, tokens)).await.unwrap().into_inner();
    assert_eq!(tokens.tokens[1].scopes, ["read"]);
    let revoke = |id: &str| proto::RevokeTokenRequest { user: "ann".into(), id: id.into() };
    let other = accounts.revoke_token(with_token(&server.bob, revoke(&tokens.tokens[1].id))).await;
    assert_eq!(code(&other.unwrap_err()), "forbidden");
    accounts.revoke_token(with_token(&server.ann, revoke(&tokens.tokens[1].id))).await.unwrap();
    let end = session.responses.message().await.unwrap_err();
    assert_eq!(code(&end), "unauthenticated");
}

#[tokio::test]
async fn whoever_is_signed_in_no_more_is_refused_by_every_method() {
    let server = Server::start().await;
    let disable = r#"{"disabled":true}"#;
    assert_eq!(server.send(&server.root, "PATCH", "/v1/users/ann", disable).await.status, 200);
    server.revoke("bob");
    for path in scope::rpcs().into_iter().filter(|path| !OPEN.contains(&path.as_str())) {
        for token in [&server.ann, &server.bob] {
            let mut client = Grpc::new(server.channel().await);
            client.ready().await.unwrap();
            let (method, codec) = (path.parse().unwrap(), ProstCodec::<(), ()>::default());
            let answer = client.unary(with_token(token, ()), method, codec).await;
            assert_eq!(code(&answer.unwrap_err()), "unauthenticated", "{path}");
        }
    }
}
