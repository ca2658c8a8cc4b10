//! Client connections: accepting, telling HTTP/1.1 from HTTP/2, limits, and the end.
//!
//! **Invariants:** a connection that does not say what it wants within `header_read_timeout` is
//! closed; there are never more than `connections_max` (and a few being turned away); every
//! connection's task is in this file's set, and gone when [`Acceptor::run`] returns. A connection
//! that is upgraded to something else stays in its task: see [`Handover`].

use std::io::{self, Cursor};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tower::ServiceExt;
use tower::util::MapRequest;
use tracing::{debug, warn};

use crate::error::{Code, Error};
use crate::gateway::app::App;
use crate::gateway::caller::{Peer, address_of};
use crate::gateway::limits::{
    HEADER_BYTES_MAX, HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_SEND_BYTES_MAX,
    HTTP2_STREAM_WINDOW_BYTES, HTTP2_STREAMS_MAX, REFUSALS_MAX,
};
use crate::gateway::metrics::{InGauge, UPKEEP_INTERVAL};
use crate::gateway::status;

/// What every HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// After a failed accept (no file descriptors, say), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// For how long a connection that is turned away may take to hear so.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Response bytes that one HTTP/1 connection may buffer.
const HTTP1_BUFFER_BYTES_MAX: usize = 128 * 1024;

/// Where a handler leaves what goes on over its connection once that is upgraded: the connection's
/// own task does it then. In the extensions of each HTTP/1 request that asks for an upgrade.
#[derive(Clone, Default)]
pub struct Handover(Arc<Mutex<Option<BoxFuture<'static, ()>>>>);

impl Handover {
    /// Leaves what is to be done after the upgrade.
    pub fn give(&self, work: BoxFuture<'static, ()>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
    }

    fn take(&self) -> Option<BoxFuture<'static, ()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Accepts connections and serves the routes to them.
#[derive(Debug)]
pub struct Acceptor {
    app: Arc<App>,
    routes: Router,
    connections: JoinSet<()>,
    /// Accepted after the shutdown began; not waited for.
    latecomers: JoinSet<()>,
    refusals: JoinSet<()>,
}

impl Acceptor {
    /// Serves `routes`.
    pub fn new(app: Arc<App>, routes: Router) -> Acceptor {
        Acceptor {
            app,
            routes,
            connections: JoinSet::new(),
            latecomers: JoinSet::new(),
            refusals: JoinSet::new(),
        }
    }

    /// Accepts until shutdown, then waits for connections to close, for `drain_timeout` at most.
    pub async fn run(mut self, listener: TcpListener) {
        let mut upkeep = interval(UPKEEP_INTERVAL);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = self.app.drain.shutdown().clone();
        let mut deadline = None;
        loop {
            if deadline.is_some() && self.connections.is_empty() {
                break;
            }
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(stream, Peer(peer.ip())),
                    Err(error) => {
                        warn!(%error, "could not accept a client connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = self.connections.join_next() => {}
                Some(_) = self.latecomers.join_next() => {}
                Some(_) = self.refusals.join_next() => {}
                _ = upkeep.tick() => self.app.metrics.upkeep(),
                () = shutdown.cancelled(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + self.app.limits().drain_timeout);
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    warn!(connections = self.connections.len(), "closing busy client connections");
                    break;
                }
            }
        }
        drop(listener);
        self.refusals.shutdown().await;
        self.latecomers.shutdown().await;
        self.connections.shutdown().await;
    }

    fn admit(&mut self, stream: TcpStream, peer: Peer) {
        if self.connections.len() + self.latecomers.len() >= self.app.limits().connections_max {
            self.app.metrics.connections_refused.increment(1);
            self.app.metrics.refused(Code::TooManyConnections);
            if self.refusals.len() < REFUSALS_MAX {
                self.refusals.spawn(refuse(stream));
            }
            return;
        }
        self.app.metrics.connections_total.increment(1);
        let counted = InGauge::enter(&self.app.metrics.connections);
        let connection = serve(self.app.clone(), self.routes.clone(), stream, peer);
        let stopping = self.app.drain.shutdown().is_cancelled();
        let set = if stopping { &mut self.latecomers } else { &mut self.connections };
        set.spawn(async move {
            let _counted = counted;
            if let Err(error) = connection.await {
                // Clients hang up as they like.
                debug!(%error, "client connection failed");
            }
        });
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn serve(
    app: Arc<App>,
    routes: Router,
    mut stream: TcpStream,
    peer: Peer,
) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    let opening = timeout(app.limits().header_read_timeout, sniff(&mut stream)).await??;
    let is_http2 = opening == PREFACE;
    let (reader, writer) = stream.into_split();
    let io = TokioIo::new(tokio::io::join(Cursor::new(opening).chain(reader), writer));
    let handover = Handover::default();
    let upgrades = (!is_http2).then(|| handover.clone());
    let service = TowerToHyperService::new(ServiceExt::<Incoming>::map_request(
        routes,
        move |mut request: Incoming| {
            request.extensions_mut().insert(peer);
            if let Some(handover) = &upgrades
                && request.headers().contains_key(header::UPGRADE)
            {
                request.extensions_mut().insert(handover.clone());
            }
            request
        },
    ));
    if is_http2 {
        return serve_http2(&app, service, io).await;
    }
    serve_http1(&app, service, io).await?;
    if let Some(upgraded) = handover.take() {
        upgraded.await;
    }
    Ok(())
}

type Incoming = hyper::Request<hyper::body::Incoming>;

/// The routes, as one connection has them.
type Service<F> = TowerToHyperService<MapRequest<Router, F>>;

/// Reads as much as tells the protocol, [`PREFACE`] or something else.
async fn sniff(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut opening = Vec::with_capacity(PREFACE.len());
    while PREFACE.starts_with(&opening) && opening.len() < PREFACE.len() {
        let mut rest = [0; PREFACE.len()];
        let missing = PREFACE.len() - opening.len();
        let read = stream.read(&mut rest[..missing]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        opening.extend_from_slice(&rest[..read]);
    }
    Ok(opening)
}

/// Serves HTTP/1 up to the end of the connection, or an upgrade.
async fn serve_http1<I, F>(app: &App, service: Service<F>, io: TokioIo<I>) -> Result<(), BoxError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: FnMut(Incoming) -> Incoming + Clone + Send + 'static,
{
    // hyper shuts a connection down at once that has not begun a request; one that was accepted
    // during a shutdown shall have its answer.
    let shutdown = app.drain.shutdown();
    let stopping = shutdown.is_cancelled();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(!stopping)
        .header_read_timeout(app.limits().header_read_timeout)
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size(HTTP1_BUFFER_BYTES_MAX)
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return Ok(result?),
        () = shutdown.cancelled(), if !stopping => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

async fn serve_http2<I, F>(app: &App, service: Service<F>, io: TokioIo<I>) -> Result<(), BoxError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: FnMut(Incoming) -> Incoming + Clone + Send + 'static,
{
    // The streams' tasks end with the connection that this future owns.
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(app.limits().keep_alive)
        .keep_alive_timeout(app.limits().keep_alive)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(HTTP2_SEND_BYTES_MAX)
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    // Streams that were opened before GOAWAY go on to their end, and the client opens others on a
    // new connection. One made during a drain is served until the shutdown.
    let drain = app.drain.begun();
    let goodbye = if drain.is_cancelled() { app.drain.shutdown().clone() } else { drain };
    tokio::select! {
        result = connection.as_mut() => return Ok(result?),
        () = goodbye.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

/// Around every request: refuses those of an address that has made too many, unless they are to find
/// out how the node is; and closes an HTTP/1 connection after its answer while the gateway is drained, so
/// that the next request comes over a new one, perhaps to another node. One that idles is left alone until
/// the shutdown: its client may be sending right now.
pub async fn attend(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let is_probe = request.uri().path().starts_with("/health/");
    let peer = request.extensions().get::<Peer>().copied();
    if !is_probe && let Err(error) = app.count_address(address_of(&app, request.headers(), peer)) {
        app.metrics.refused(error.code);
        return match status::is_grpc(request.headers()) {
            true => status::grpc_response(error),
            false => error.into_response(),
        };
    }
    let http1 = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if http1 && !upgraded && app.drain.is_on() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Tells an HTTP/1 client that there are too many connections; closes any other.
async fn refuse(mut stream: TcpStream) {
    let answer = async {
        if sniff(&mut stream).await? == PREFACE {
            return Ok(());
        }
        let error = Error::new(Code::TooManyConnections, "this node has as many as it takes")
            .retry_after(1000);
        let body = status::json(&error);
        let head = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
             retry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        stream.shutdown().await?;
        // Closing with unread input would reset the connection and the answer with it.
        tokio::io::copy(&mut (&mut stream).take(64 * 1024), &mut tokio::io::sink()).await?;
        io::Result::Ok(())
    };
    let _ = timeout(REFUSAL_TIMEOUT, answer).await;
}
