//! gRPC: the services of `folkmoot.v1`, health and reflection, as routes beside REST's.
//!
//! Each service is one file; they translate only, what they do is in `operations.rs`.

pub mod accounts;
pub mod admin;
pub mod cluster;
pub mod export;
mod marks;
mod moderation;
mod presence;
pub mod rooms;
pub mod session;
pub mod users;
pub mod verify;
pub mod wire;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::State;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tonic::server::NamedService;
use tonic_health::pb::health_server::HealthServer;
use tower::Service;

use crate::error::{Code, Error};
use crate::gateway::app::{App, Caller};
use crate::gateway::body::BoundedBody;
use crate::gateway::health::HealthService;
use crate::gateway::status::{self, Refused};
use crate::limits::BODY_BYTES_MAX;
use crate::proto::DESCRIPTORS;
use crate::proto::v1::accounts_server::AccountsServer;
use crate::proto::v1::admin_server::AdminServer;
use crate::proto::v1::cluster_server::ClusterServer;
use crate::proto::v1::rooms_server::RoomsServer;
use crate::proto::v1::users_server::UsersServer;

/// What may be called without a token: there is none before `Init` and before people have signed in,
/// and `Status` must work when none can be verified.
pub(super) const OPEN: [&str; 7] = [
    "/folkmoot.v1.Cluster/Init",
    "/folkmoot.v1.Cluster/Status",
    "/folkmoot.v1.Accounts/Login",
    "/folkmoot.v1.Accounts/Register",
    "/folkmoot.v1.Accounts/ListProviders",
    "/folkmoot.v1.Accounts/BeginDeviceLogin",
    "/folkmoot.v1.Accounts/PollDeviceLogin",
];
/// Messages to services that need no token, in bytes.
const OPEN_BYTES_MAX: usize = 16 * 1024;

/// Answers a unary call of someone whom `admit` let in: acts, counts what was refused.
pub async fn answer<Q, A, F>(
    app: &Arc<App>,
    mut request: tonic::Request<Q>,
    act: impl FnOnce(Arc<App>, Caller, Q) -> F,
) -> Result<tonic::Response<A>, tonic::Status>
where
    F: Future<Output = Result<A, Error>>,
{
    let caller = request.extensions_mut().remove::<Caller>();
    let result = async {
        let mut caller = caller.ok_or_else(|| {
            Error::new(Code::Internal, "a method without a caller was routed as if it had one")
        })?;
        app.trust_on_arrival(&mut caller).await?;
        act(app.clone(), caller, request.into_inner()).await
    };
    Ok(tonic::Response::new(app.metrics.count(result.await)?))
}

/// The gRPC half of the gateway.
pub fn router(app: &Arc<App>) -> Router<Arc<App>> {
    let users = UsersServer::new(users::UsersService::new(app.clone()));
    let rooms = RoomsServer::new(rooms::RoomsService::new(app.clone()));
    let cluster = ClusterServer::new(cluster::ClusterService::new(app.clone()));
    let admin = AdminServer::new(admin::AdminService::new(app.clone()));
    let accounts = AccountsServer::new(accounts::AccountsService::new(app.clone()));
    let mut closed = Router::new();
    closed = add(closed, accounts.max_decoding_message_size(OPEN_BYTES_MAX));
    closed = add(closed, users.max_decoding_message_size(BODY_BYTES_MAX));
    closed = add(closed, rooms.max_decoding_message_size(BODY_BYTES_MAX));
    closed = add(closed, admin.max_decoding_message_size(OPEN_BYTES_MAX));
    closed = add(closed, cluster.max_decoding_message_size(OPEN_BYTES_MAX));
    let closed = closed.route_layer(from_fn_with_state(app.clone(), admit));
    let health = HealthServer::new(HealthService::new(app.clone()));
    let open = add(Router::new(), health.max_decoding_message_size(OPEN_BYTES_MAX));
    closed
        .merge(reflection(open))
        .route_layer(from_fn_with_state(app.clone(), bound))
        // A session's requests may take as long as they like; and it needs no generated service.
        .route_service("/folkmoot.v1.Rooms/Session", session::service(app.clone()))
}

/// Finds out who is calling before their message is read, so that nobody else can make the node
/// hold one.
async fn admit(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !OPEN.contains(&path) {
        match app.rpc_caller(request.headers(), path).await {
            Ok(caller) => request.extensions_mut().insert(caller),
            Err(error) => return status::grpc_response(error),
        };
    }
    next.run(request).await
}

fn add<S>(router: Router<Arc<App>>, service: S) -> Router<Arc<App>>
where
    S: Service<Request, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    router.route_service(&format!("/{}/{{*method}}", S::NAME), service)
}

/// Server reflection in both versions that tools speak.
fn reflection(mut router: Router<Arc<App>>) -> Router<Arc<App>> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("folkmoot.v1.Accounts")
            .with_service_name("folkmoot.v1.Users")
            .with_service_name("folkmoot.v1.Admin")
            .with_service_name("folkmoot.v1.Rooms")
            .with_service_name("folkmoot.v1.Cluster")
            .with_service_name("grpc.health.v1.Health")
    };
    // The descriptors are our own; a test holds that they register.
    if let Ok(service) = builder().build_v1() {
        router = add(router, service.max_decoding_message_size(OPEN_BYTES_MAX));
    }
    if let Ok(service) = builder().build_v1alpha() {
        router = add(router, service.max_decoding_message_size(OPEN_BYTES_MAX));
    }
    router
}

/// Bounds what a request may take to arrive, and shapes tonic's own refusals.
async fn bound(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let timeout = app.limits().body_read_timeout;
    let budget = app.bodies.clone();
    let request = request.map(|body| Body::new(BoundedBody::new(body, timeout, budget)));
    let response = status::reshape_grpc(next.run(request).await);
    if let Some(Refused(code)) = response.extensions().get() {
        app.metrics.refused(*code);
    }
    response
}
