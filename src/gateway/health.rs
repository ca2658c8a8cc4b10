//! Whether this node lives and serves: `/health/live`, `/health/ready`, `/metrics`, and
//! `grpc.health.v1`. No token: load balancers and scrapers ask.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use futures_util::stream;
use serde::Serialize;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::gateway::app::App;
use crate::gateway::http::json;

#[derive(Serialize)]
struct HealthJson {
    status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

/// `GET /health/live`: 200 as long as the process serves.
pub async fn live() -> Response {
    json(StatusCode::OK, &HealthJson { status: "live", reason: String::new() })
}

/// `GET /health/ready`: 200, or 503 with the reason; `draining` while clients are to go elsewhere.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let readiness = app.readiness();
    if readiness.ready {
        return json(StatusCode::OK, &HealthJson { status: "ready", reason: readiness.reason });
    }
    let status = if app.drain.is_on() { "draining" } else { "not_ready" };
    let body = HealthJson { status, reason: readiness.reason };
    json(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// `GET /metrics`, in Prometheus' text format.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, text)], app.metrics.render()).into_response()
}

/// How often a health watch looks for a change.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// The services that can be asked about; the empty name is the node as a whole.
const SERVICES: [&str; 5] =
    ["", "folkmoot.v1.Users", "folkmoot.v1.Rooms", "folkmoot.v1.Cluster", "folkmoot.v1.Admin"];

/// `grpc.health.v1.Health`, following the node's readiness.
#[derive(Debug)]
pub struct HealthService {
    app: Arc<App>,
}

impl HealthService {
    /// Answers for this gateway.
    pub fn new(app: Arc<App>) -> HealthService {
        HealthService { app }
    }
}

fn serving(app: &App, service: &str) -> ServingStatus {
    match (SERVICES.contains(&service), app.readiness().ready) {
        (false, _) => ServingStatus::ServiceUnknown,
        (true, true) => ServingStatus::Serving,
        (true, false) => ServingStatus::NotServing,
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, tonic::Status> {
        match serving(&self.app, &request.get_ref().service) {
            ServingStatus::ServiceUnknown => Err(tonic::Status::not_found("no such service")),
            status => Ok(tonic::Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, tonic::Status>> + Send>>;

    async fn watch(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, tonic::Status> {
        let service = request.into_inner().service;
        let changes = stream::unfold((self.app.clone(), None), move |(app, told)| {
            let service = service.clone();
            async move {
                loop {
                    let status = serving(&app, &service);
                    if told != Some(status) {
                        let response = HealthCheckResponse { status: status.into() };
                        return Some((Ok(response), (app, Some(status))));
                    }
                    if app.drain.shutdown().is_cancelled() {
                        return None;
                    }
                    let drained = app.drain.begun();
                    tokio::select! {
                        () = tokio::time::sleep(WATCH_INTERVAL) => {}
                        () = app.drain.shutdown().cancelled() => {}
                        () = drained.cancelled(), if !drained.is_cancelled() => {}
                    }
                }
            }
        });
        Ok(tonic::Response::new(Box::pin(changes)))
    }
}
