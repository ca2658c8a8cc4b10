//! The task that owns a session's stream, and opens another when it breaks.

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::retry::Backoff;
use crate::client::session::follows::Follows;
use crate::client::session::posts::{Next, Posts, SWEEP_INTERVAL};
use crate::client::session::{Command, SharedTrouble, note};
use crate::client::{Client, wire};
use crate::error::{Code, Error};
use crate::id::RoomId;
use crate::proto::v1 as pb;
use pb::rooms_client::RoomsClient;
use pb::session_request::Request;
use pb::session_response::Response;

/// Commands taken from the queue at once.
const COMMANDS_AT_ONCE: usize = 64;
/// Room in the stream's queue beyond the posts in flight: follows and pings.
const REQUEST_QUEUE_EXTRA: usize = 4096;

/// One open stream.
struct Connection {
    requests: mpsc::Sender<pb::SessionRequest>,
    responses: Streaming<pb::SessionResponse>,
    heard: Instant,
    /// When it was asked whether it is there, since it was heard last.
    pinged: Option<Instant>,
}

/// Why a stream is over.
enum Over {
    /// Another server is worth a try.
    Broken(Error),
    /// Nobody needs the session any more.
    Done,
}

/// Owns a session's stream.
pub(super) struct Driver {
    client: Client,
    server: usize,
    commands: mpsc::Receiver<Command>,
    trouble: SharedTrouble,
    posts: Posts,
    follows: Follows,
    number: u64,
    backoff: Backoff,
    /// All handles are dropped.
    closed: bool,
}

impl Driver {
    /// A driver that will connect to `server` first.
    pub(super) fn new(
        client: Client,
        server: usize,
        commands: mpsc::Receiver<Command>,
        trouble: SharedTrouble,
    ) -> Driver {
        let posts = Posts::new(client.clone());
        let backoff = Backoff::new(client.options());
        let follows = Follows::default();
        Driver {
            client,
            server,
            commands,
            trouble,
            posts,
            follows,
            number: 0,
            backoff,
            closed: false,
        }
    }

    /// Runs until nobody needs the session, or no server will have it.
    pub(super) async fn run(mut self, ready: oneshot::Sender<()>) {
        let mut ready = Some(ready);
        loop {
            let error = match self.connect().await {
                Ok(mut connection) => {
                    if let Some(ready) = ready.take() {
                        let _ = ready.send(());
                    }
                    match self.talk(&mut connection).await {
                        Over::Broken(error) => error,
                        Over::Done => return,
                    }
                }
                Err(error) if error.temporary() => error,
                Err(error) => {
                    note(&self.trouble, |trouble| trouble.fatal = Some(error.clone()));
                    self.posts.fail_all(&error);
                    self.follows.fail_all(&error).await;
                    return;
                }
            };
            note(&self.trouble, |trouble| trouble.last = Some(error.clone()));
            self.server = self.server.wrapping_add(1);
            self.posts.sweep();
            if self.unneeded() {
                return;
            }
            let delay = self.backoff.next(error.retry_after_ms);
            sleep(delay).await;
        }
    }

    fn unneeded(&self) -> bool {
        (self.closed || self.commands.is_closed() && self.commands.is_empty())
            && self.posts.len() == 0
            && self.follows.is_empty()
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Opens a stream, with everything followed and unacknowledged at its start.
    async fn connect(&mut self) -> Result<Connection, Error> {
        let options = self.client.options().clone();
        let capacity = options.posts_in_flight_max * 2 + REQUEST_QUEUE_EXTRA;
        let (requests, queue) = mpsc::channel(capacity);
        for room in self.follows.resume() {
            let number = self.next_number();
            if let Some(request) = self.follows.request(&room, number) {
                offer(&requests, request)?;
            }
        }
        for number in self.posts.broken() {
            if let Some(request) = self.posts.send(number) {
                offer(&requests, request)?;
            }
        }
        let mut rooms = RoomsClient::new(self.client.channel(self.server));
        let stream = self.client.request(ReceiverStream::new(queue));
        let responses = match timeout(options.attempt_timeout, rooms.session(stream)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(wire::error_of(&status)),
            Err(_) => return Err(Error::new(Code::Timeout, "the server opens no session")),
        };
        Ok(Connection { requests, responses, heard: Instant::now(), pinged: None })
    }

    /// Talks over one stream until it is over.
    async fn talk(&mut self, connection: &mut Connection) -> Over {
        let mut sweep = interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = Vec::with_capacity(COMMANDS_AT_ONCE);
        let in_flight_max = self.client.options().posts_in_flight_max;
        loop {
            let room_for = in_flight_max.saturating_sub(self.posts.len()).min(COMMANDS_AT_ONCE);
            let due = self.posts.next_due();
            let step = tokio::select! {
                response = connection.responses.message() => match response {
                    Ok(Some(response)) => {
                        let step = self.on_response(connection, response).await;
                        connection.heard = Instant::now();
                        connection.pinged = None;
                        step
                    }
                    Ok(None) => Err(Error::new(Code::Unavailable, "the server ended the session")),
                    Err(status) => Err(wire::error_of(&status)),
                },
                count = self.commands.recv_many(&mut taken, room_for),
                    if room_for > 0 && !self.closed => {
                    self.closed = count == 0;
                    self.on_commands(connection, &mut taken)
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.send_due(connection)
                }
                due = sweep.tick() => self.on_sweep(connection, due),
            };
            if let Err(error) = step {
                return Over::Broken(error);
            }
            if self.closed && self.unneeded() {
                return Over::Done;
            }
        }
    }

    fn on_commands(
        &mut self,
        connection: &Connection,
        taken: &mut Vec<Command>,
    ) -> Result<(), Error> {
        let mut sent = Ok(());
        // All are taken in, even when the stream is full: the next one sends them.
        for command in taken.drain(..) {
            let number = self.next_number();
            match command {
                Command::Post { post, reply } => {
                    self.posts.add(number, post, reply);
                    if let Some(request) = self.posts.send(number) {
                        sent = sent.and(offer(&connection.requests, request));
                    }
                }
                Command::Follow { room, after, queue } => {
                    if self.follows.add(number, room.clone(), after, queue) {
                        sent = sent.and(unfollow(&connection.requests, number, &room));
                    }
                    if self.follows.room_of(number).is_some()
                        && let Some(request) = self.follows.request(&room, number)
                    {
                        sent = sent.and(offer(&connection.requests, request));
                    }
                }
                Command::Unfollow(room) => {
                    if self.follows.remove(&room) {
                        sent = sent.and(unfollow(&connection.requests, number, &room));
                    }
                }
            }
        }
        sent
    }

    fn send_due(&mut self, connection: &Connection) -> Result<(), Error> {
        let now = Instant::now();
        while let Some(number) = self.posts.pop_due(now) {
            if let Some(request) = self.posts.send(number) {
                offer(&connection.requests, request)?;
            }
        }
        Ok(())
    }

    async fn on_response(
        &mut self,
        connection: &Connection,
        response: pb::SessionResponse,
    ) -> Result<(), Error> {
        let number = response.id;
        match response.response {
            Some(Response::Ack(ack)) => {
                self.backoff.reset();
                self.posts.acked(number, ack);
            }
            Some(Response::Error(error)) => {
                return self.on_error(number, wire::from_proto(error)).await;
            }
            Some(Response::Followed(followed)) => {
                self.backoff.reset();
                self.follows.started(followed, number).await?;
            }
            Some(Response::Delivery(delivery)) => {
                let room = delivery.room.clone();
                if !self.follows.deliver(delivery).await
                    && let Ok(room) = RoomId::parse(&room)
                {
                    self.follows.remove(&room);
                    let number = self.next_number();
                    return unfollow(&connection.requests, number, &room);
                }
            }
            Some(Response::CaughtUp(mark)) => self.follows.caught_up(mark).await,
            Some(Response::Ended(ended)) => {
                // Without one it answers an Unfollow.
                let Some(error) = ended.error.map(wire::from_proto) else { return Ok(()) };
                if error.temporary() {
                    return Err(error);
                }
                if let Ok(room) = RoomId::parse(&ended.room) {
                    self.follows.fail(&room, error).await;
                }
            }
            // Who is there is not asked for.
            Some(Response::Presence(_) | Response::Typing(_) | Response::Receipts(_)) => {}
            Some(Response::Pong(_)) | None => {}
        }
        Ok(())
    }

    async fn on_error(&mut self, number: u64, error: Error) -> Result<(), Error> {
        note(&self.trouble, |trouble| trouble.last = Some(error.clone()));
        if let Some(room) = self.follows.room_of(number) {
            if error.temporary() {
                return Err(error);
            }
            self.follows.fail(&room, error).await;
            return Ok(());
        }
        match self.posts.failed(number, error.clone()) {
            Next::Go => Ok(()),
            Next::Move => Err(error),
        }
    }

    /// `due`: when it was to be, which may be long ago if this process had no time. What the server has said
    /// meanwhile is read before the next one.
    fn on_sweep(&mut self, connection: &mut Connection, due: Instant) -> Result<(), Error> {
        self.posts.sweep();
        for room in self.follows.abandoned() {
            self.follows.remove(&room);
            let number = self.next_number();
            unfollow(&connection.requests, number, &room)?;
        }
        let since = |then: Instant| due.saturating_duration_since(then);
        let ask_after = self.client.options().silence_max / 3;
        if connection.pinged.is_some_and(|pinged| since(pinged) >= 2 * ask_after) {
            return Err(Error::new(Code::Timeout, "the server has gone silent"));
        }
        if connection.pinged.is_none() && since(connection.heard) >= ask_after {
            connection.pinged = Some(Instant::now());
            let ping = pb::SessionRequest {
                id: self.next_number(),
                request: Some(Request::Ping(pb::Ping {})),
            };
            return offer(&connection.requests, ping);
        }
        Ok(())
    }
}

/// Queues a request for the stream. A full queue means that the server has stopped reading.
fn offer(
    requests: &mpsc::Sender<pb::SessionRequest>,
    request: pb::SessionRequest,
) -> Result<(), Error> {
    requests.try_send(request).map_err(|_| Error::new(Code::Unavailable, "the stream is stuck"))
}

fn unfollow(
    requests: &mpsc::Sender<pb::SessionRequest>,
    number: u64,
    room: &RoomId,
) -> Result<(), Error> {
    let unfollow = pb::Unfollow { room: room.to_string() };
    offer(requests, pb::SessionRequest { id: number, request: Some(Request::Unfollow(unfollow)) })
}
