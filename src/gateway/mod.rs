//! The gateway: every way in which clients reach a node, on one port.
//!
//! ```text
//!            ┌ HTTP/1.1 ┐   ┌ http/  REST, event streams, long polls ┐
//! accept ──► │          ├──►│ grpc/  users, rooms, cluster           ├──► operations ──► Backend
//!            └ HTTP/2   ┘   │ grpc/session, websocket/ ──► session/  │    (the router)
//!           connection.rs   │ health, metrics, openapi               │
//!                           └────────────────────────────────────────┘
//! ```
//!
//! Made and served by `node.rs`. This is an edge layer: tokio and randomness are used freely here,
//! and it is here that request ids, salts, epochs and tokens are minted, so that everything below
//! is told what to do and decides nothing by chance.
//!
//! **Invariants**
//! - Nothing that a client sends can panic; each bad input gets its code from `status.rs`, in one
//!   shape on every interface.
//! - Everything a client can make grow is bounded: connections, headers, bodies, time to send
//!   them, requests in flight, and in a second (`rates.rs`), rooms followed, responses not taken.
//! - Only what carries a valid token gets past here, but for health, metrics, the API's
//!   description, the web page, the cluster's status and its first initialisation, login, by a provider
//!   too, and registration.
//! - What is revoked stops working within a second, open streams included (`trust.rs`).
//! - Tokens, passwords and message bodies are not logged.
//!
//! Left out: TLS (a proxy's, so far).

pub mod accounts;
mod allowance;
pub mod app;
pub mod attempts;
mod audited;
pub mod auth;
pub mod authenticator;
pub mod backend;
pub mod body;
pub mod caller;
pub mod connection;
pub mod convert;
pub mod cookie;
pub mod drain;
pub mod follow;
pub mod founding;
pub mod grpc;
pub mod health;
pub mod http;
pub mod json;
pub mod limits;
pub mod metrics;
mod mint;
pub mod oidc;
pub mod openapi;
pub mod operations;
pub mod passwords;
pub mod presence;
pub mod rates;
pub mod registration;
pub mod scope;
pub mod session;
pub mod status;
pub mod trust;
pub mod websocket;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::gateway::app::App;
use crate::gateway::backend::Backend;
use crate::gateway::connection::Acceptor;
use crate::gateway::drain::Drain;
use crate::gateway::limits::SharedLimits;
use crate::gateway::metrics::Metrics;

/// One node's gateway.
#[derive(Debug)]
pub struct Gateway {
    app: Arc<App>,
    routes: axum::Router,
}

impl Gateway {
    /// Makes a gateway over a router (or whatever answers like one).
    ///
    /// `metrics` is what [`metrics::install`] returned. `drain` turns readiness false and ends
    /// streams; cancelling its shutdown lets [`Gateway::serve`] return besides.
    pub fn new(
        backend: Arc<dyn Backend>,
        clock: Arc<dyn Clock>,
        limits: SharedLimits,
        metrics: PrometheusHandle,
        drain: Drain,
    ) -> Gateway {
        let app = Arc::new(App::new(backend, clock, limits, Metrics::new(metrics), drain));
        let routes = http::router(&app).merge(grpc::router(&app));
        let attending = axum::middleware::from_fn_with_state(app.clone(), connection::attend);
        let routes = routes.layer(attending).with_state(app.clone());
        Gateway { app, routes }
    }

    /// The routes alone, for whoever calls them in its own process and needs no connections.
    pub fn into_routes(self) -> axum::Router {
        self.routes
    }

    /// Serves clients until shutdown.
    ///
    /// Requests that are under way then have `drain_timeout` to finish; meanwhile new connections
    /// are still answered, so that a load balancer hears that this node is not ready any more.
    /// Returns when all connections are closed.
    pub async fn serve(self, listener: TcpListener) {
        let _gathering = AbortOnDropHandle::new(tokio::spawn(presence::gather(self.app.clone())));
        Acceptor::new(self.app, self.routes).run(listener).await;
    }
}
