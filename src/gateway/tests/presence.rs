//! Who is there, as those who follow a room are told.

use super::server::{NOW_MS, Server};
use super::sessions::Session;
use crate::chat::command::{Actor, Command, Request};
use crate::gateway::backend::Backend as _;
use crate::gateway::presence::PEOPLE_MAX;
use crate::id::{RequestId, RoomId, UserId};
use crate::presence::Status;
use crate::proto::v1 as proto;
use crate::proto::v1::session_request::Request as Ask;
use crate::proto::v1::session_response::Response as Said;

fn guest(n: usize) -> UserId {
    UserId::parse(&format!("guest{n:03}")).unwrap()
}

fn general() -> RoomId {
    RoomId::parse("general").unwrap()
}

fn apply(server: &Server, user: UserId, command: Command) {
    let id = RequestId::mint(NOW_MS, rand::random());
    server.fake.apply(Request { actor: Actor { user, admin: false }, id, command }).unwrap();
}

fn join(server: &Server, n: usize) {
    apply(server, guest(n), Command::Join { room: general(), salt: [0; 16] });
}

/// What is told next: how many are there, and who is named as online, or not.
async fn told(session: &mut Session) -> (u64, Vec<(String, bool)>) {
    loop {
        if let (_, Said::Presence(told)) = session.hear().await {
            let online = |it: &proto::Presence| it.status() == proto::PresenceStatus::Online;
            let named = told.people.iter().map(|it| (it.user.clone(), online(it)));
            return (told.present, named.collect());
        }
    }
}

#[tokio::test]
async fn whoever_follows_a_room_that_grows_large_hears_of_nobody_until_it_is_small_again() {
    let server = Server::start().await;
    // Ann is in it already.
    (1..PEOPLE_MAX).for_each(|n| join(&server, n));
    let _guest = server.fake.presence().enter(guest(1), Status::Online);
    let mut session = Session::open(&server, &server.ann).await.unwrap();
    let follow = proto::Follow { room: "general".into(), after: None, presence: true };
    session.ask(1, Ask::Follow(follow)).await;
    let all = vec![("ann".to_owned(), true), ("guest001".to_owned(), true)];
    assert_eq!(told(&mut session).await, (2, all.clone()));
    join(&server, PEOPLE_MAX);
    assert_eq!(told(&mut session).await, (2, Vec::new()));
    apply(&server, guest(PEOPLE_MAX), Command::Leave { room: general(), salt: [0; 16] });
    assert_eq!(told(&mut session).await, (2, all));
}
