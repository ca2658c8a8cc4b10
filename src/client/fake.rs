//! A small fake node for the client's tests: one room, an exact memory of request ids, and a
//! script of what goes wrong.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_core::Stream;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::error::{Code, Error};
use crate::proto::v1 as pb;
use pb::rooms_server::{Rooms, RoomsServer};
use pb::session_request::Request as Ask;
use pb::session_response::Response as Answer;

/// What goes wrong with one unary call, or with one session.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The call is not applied, and fails so.
    Refuse(Error),
    /// The call is applied, and fails so all the same.
    ApplyAndRefuse(Error),
    /// The session breaks after this many requests, the last one applied but not answered.
    BreakAfter(usize),
    /// Delivers up to this seq, then ends the follow with a temporary error.
    EndFollowAt(u64),
    /// Leaves this seq out of the delivery.
    Skip(u64),
    /// Answers nothing at all.
    Silence,
    /// Says that the cursor was of another epoch: delivery starts at this seq.
    LoseUpTo(u64),
    /// Answers each post so, once.
    RefusePostsOnce(Error),
    /// Nothing.
    None,
}

/// What all fake nodes of a test share.
#[derive(Debug, Default)]
pub struct State {
    /// Ids of applied posts; a post's seq is its position from 1.
    pub applied: Vec<Vec<u8>>,
    /// Ids of all posts that arrived, repeats included.
    pub arrived: Vec<Vec<u8>>,
    /// Cursors that follows started from.
    pub cursors: Vec<Option<u64>>,
    /// What goes wrong with the calls or sessions to come, in order; then nothing does.
    pub faults: VecDeque<Fault>,
}

impl State {
    fn apply(&mut self, id: &[u8]) -> pb::Ack {
        let known = self.applied.iter().position(|applied| applied == id);
        let seq = known.unwrap_or_else(|| {
            self.applied.push(id.to_vec());
            self.applied.len() - 1
        });
        pb::Ack { seq: seq as u64 + 1, epoch: "e".into(), at_ms: 1, duplicate: known.is_some() }
    }
}

/// A fake node.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    /// Shared with the test.
    pub state: Arc<Mutex<State>>,
}

impl Fake {
    /// A fake with `posts` messages in its room, and faults to come.
    pub fn new(posts: usize, faults: impl IntoIterator<Item = Fault>) -> Fake {
        let fake = Fake::default();
        let mut state = fake.state.lock().unwrap();
        state.applied = (0..posts).map(|n| n.to_le_bytes().to_vec()).collect();
        state.faults = faults.into_iter().collect();
        drop(state);
        fake
    }

    /// Serves on a free port; returns the address.
    pub async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let service = RoomsServer::new(self.clone());
        let server = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        address
    }

    /// Serves from a runtime of its own, until it is killed.
    pub fn serve_killable(&self) -> (String, Killable) {
        let (fake, (address, at)) = (self.clone(), std::sync::mpsc::channel());
        let (kill, killed) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            address.send(runtime.block_on(fake.serve())).unwrap();
            let _ = killed.recv();
        });
        (at.recv().unwrap(), Killable { kill, thread })
    }

    fn fault(&self) -> Fault {
        self.state.lock().unwrap().faults.pop_front().unwrap_or(Fault::None)
    }
}

/// A fake that can be killed.
#[derive(Debug)]
pub struct Killable {
    kill: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Killable {
    /// Cuts every connection, as when a process is killed; afterwards it answers nothing more.
    pub fn kill(self) {
        drop(self.kill);
        self.thread.join().unwrap();
    }
}

fn wire(error: &Error) -> pb::Error {
    pb::Error {
        code: error.code.as_str().into(),
        message: error.message.clone(),
        temporary: error.temporary(),
        may_have_applied: error.may_have_applied,
        retry_after_ms: error.retry_after_ms.unwrap_or(0),
        server_time_ms: error.server_time_ms.unwrap_or(0),
    }
}

fn status(error: &Error) -> Status {
    let details = wire(error).encode_to_vec();
    Status::with_details(tonic::Code::Unknown, "x", details.into())
}

fn answer(id: u64, response: Answer) -> Result<pb::SessionResponse, Status> {
    Ok(pb::SessionResponse { id, response: Some(response) })
}

type Out = mpsc::Sender<Result<pb::SessionResponse, Status>>;

async fn session(
    state: Arc<Mutex<State>>,
    fault: Fault,
    mut asks: Streaming<pb::SessionRequest>,
    out: Out,
) {
    let mut count = 0;
    let mut followed = None;
    while let Some(Ok(ask)) = asks.next().await {
        count += 1;
        let breaks = matches!(fault, Fault::BreakAfter(n) if n == count);
        let answers = match ask.request {
            Some(Ask::Post(post)) => {
                let mut state = state.lock().unwrap();
                let again = state.arrived.contains(&post.client_msg_id.to_vec());
                state.arrived.push(post.client_msg_id.to_vec());
                match &fault {
                    Fault::RefusePostsOnce(error) if !again => vec![Answer::Error(wire(error))],
                    _ => live(&followed, state.apply(&post.client_msg_id)),
                }
            }
            Some(Ask::Follow(follow)) => {
                followed = Some(follow.room.clone());
                delivery(&state, &fault, follow)
            }
            Some(Ask::Ping(_)) => vec![Answer::Pong(pb::Pong {})],
            Some(Ask::Unfollow(unfollow)) => {
                vec![Answer::Ended(pb::Ended { room: unfollow.room, ..pb::Ended::default() })]
            }
            Some(Ask::MarkRead(_) | Ask::Presence(_) | Ask::Typing(_)) | None => vec![],
        };
        if breaks {
            let _ = out.send(Err(Status::unavailable("broken"))).await;
            return;
        }
        for response in answers {
            if !matches!(fault, Fault::Silence) && out.send(answer(ask.id, response)).await.is_err()
            {
                return;
            }
        }
    }
}

/// The ack of a post, after its event when this session follows the room.
fn live(followed: &Option<String>, ack: pb::Ack) -> Vec<Answer> {
    let events = vec![pb::Event { seq: ack.seq, ..pb::Event::default() }];
    let event = followed.clone().filter(|_| !ack.duplicate);
    let delivery = event.map(|room| Answer::Delivery(pb::Delivery { room, events }));
    delivery.into_iter().chain([Answer::Ack(ack)]).collect()
}

fn delivery(state: &Mutex<State>, fault: &Fault, follow: pb::Follow) -> Vec<Answer> {
    let mut state = state.lock().unwrap();
    let head = state.applied.len() as u64;
    let room = follow.room;
    let after = follow.after.as_ref().map(|cursor| cursor.seq);
    state.cursors.push(after);
    let mut after = after.unwrap_or(head);
    let lost = if let Fault::LoseUpTo(first) = fault { Some(*first) } else { None };
    let first_seq = lost.unwrap_or(1);
    after = lost.map_or(after, |first| first - 1);
    let end = if let Fault::EndFollowAt(seq) = fault { (*seq).min(head) } else { head };
    let event = |seq| pb::Event { seq, ..pb::Event::default() };
    let skipped = if let Fault::Skip(seq) = fault { *seq } else { 0 };
    let events: Vec<_> = (after + 1..=end).filter(|seq| *seq != skipped).map(event).collect();
    let recovered = lost.is_none();
    let mut answers = vec![Answer::Followed(pb::Followed {
        room: room.clone(),
        epoch: "e".into(),
        first_seq,
        head,
        recovered,
    })];
    for part in events.chunks(7) {
        answers.push(Answer::Delivery(pb::Delivery { room: room.clone(), events: part.to_vec() }));
    }
    if matches!(fault, Fault::EndFollowAt(_)) {
        let error = Some(wire(&Error::new(Code::Unavailable, "moving")));
        answers.push(Answer::Ended(pb::Ended { room, seq: end, error }));
    } else {
        answers.push(Answer::CaughtUp(pb::CaughtUp { room, seq: head }));
    }
    answers
}

macro_rules! not_faked {
    ($($method:ident($request:ty) -> $response:ty;)*) => {
        #[tonic::async_trait]
        impl Rooms for Fake {
            $(async fn $method(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("not faked"))
            })*

            async fn post(&self, post: Request<pb::PostRequest>) -> Result<Response<pb::Ack>, Status> {
                let id = post.into_inner().client_msg_id.to_vec();
                let fault = self.fault();
                if matches!(fault, Fault::Silence) {
                    return std::future::pending().await;
                }
                let mut state = self.state.lock().unwrap();
                state.arrived.push(id.clone());
                match fault {
                    Fault::Refuse(error) => Err(status(&error)),
                    Fault::ApplyAndRefuse(error) => {
                        state.apply(&id);
                        Err(status(&error))
                    }
                    _ => Ok(Response::new(state.apply(&id))),
                }
            }

            type ExportStream =
                Pin<Box<dyn Stream<Item = Result<pb::ExportResponse, Status>> + Send>>;
            async fn export(
                &self,
                _: Request<pb::ExportRequest>,
            ) -> Result<Response<Self::ExportStream>, Status> {
                Err(Status::unimplemented("not faked"))
            }

            type SessionStream = ReceiverStream<Result<pb::SessionResponse, Status>>;
            async fn session(
                &self,
                asks: Request<Streaming<pb::SessionRequest>>,
            ) -> Result<Response<Self::SessionStream>, Status> {
                let (out, answers) = mpsc::channel(16);
                let fault = self.fault();
                if let Fault::Refuse(error) = fault {
                    return Err(status(&error));
                }
                tokio::spawn(session(self.state.clone(), fault, asks.into_inner(), out));
                Ok(Response::new(ReceiverStream::new(answers)))
            }
        }
    };
}

not_faked! {
    create_room(pb::CreateRoomRequest) -> pb::CreateRoomResponse;
    get_room(pb::GetRoomRequest) -> pb::Room;
    list_rooms(pb::ListRoomsRequest) -> pb::ListRoomsResponse;
    list_own_rooms(pb::ListOwnRoomsRequest) -> pb::ListOwnRoomsResponse;
    list_participants(pb::ListParticipantsRequest) -> pb::ListParticipantsResponse;
    set_presence(pb::SetPresenceRequest) -> pb::Presence;
    mark_read(pb::MarkReadRequest) -> pb::Ack;
    join(pb::JoinRequest) -> pb::Ack;
    leave(pb::LeaveRequest) -> pb::Ack;
    edit(pb::EditRequest) -> pb::Ack;
    redact(pb::RedactRequest) -> pb::Ack;
    react(pb::ReactRequest) -> pb::Ack;
    set_role(pb::SetRoleRequest) -> pb::Ack;
    invite(pb::InviteRequest) -> pb::Ack;
    kick(pb::KickRequest) -> pb::Ack;
    restrict(pb::RestrictRequest) -> pb::Ack;
    lift(pb::LiftRequest) -> pb::Ack;
    set_topic(pb::SetTopicRequest) -> pb::Ack;
    pin(pb::PinRequest) -> pb::Ack;
    archive(pb::ArchiveRequest) -> pb::Ack;
    set_retention(pb::SetRetentionRequest) -> pb::Ack;
    thread(pb::ThreadRequest) -> pb::EventsResponse;
    import(pb::ImportRequest) -> pb::ImportResponse;
    events(pb::EventsRequest) -> pb::EventsResponse;
}
