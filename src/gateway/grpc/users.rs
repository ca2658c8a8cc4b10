//! `folkmoot.v1.Users`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::gateway::accounts::{self, TokenWish};
use crate::gateway::app::App;
use crate::gateway::convert;
use crate::gateway::grpc::answer;
use crate::id::UserId;
use crate::proto::v1 as proto;
use crate::proto::v1::users_server::Users;

/// The service.
#[derive(Debug)]
pub struct UsersService {
    app: Arc<App>,
}

impl UsersService {
    /// Serves this gateway's users.
    pub fn new(app: Arc<App>) -> UsersService {
        UsersService { app }
    }
}

#[tonic::async_trait]
impl Users for UsersService {
    async fn create_user(
        &self,
        request: Request<proto::CreateUserRequest>,
    ) -> Result<Response<proto::CreateUserResponse>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let id = convert::request_id(&request.request_id)?;
            let user = UserId::parse(&request.user)?;
            let proto::CreateUserRequest { display_name, admin, .. } = request;
            let (user, token, duplicate) =
                app.create_user(&caller.actor, user, display_name, admin, id).await?;
            let user = Some(convert::user(&user));
            Ok(proto::CreateUserResponse { user, token, duplicate })
        })
        .await
    }

    async fn get_user(
        &self,
        request: Request<proto::GetUserRequest>,
    ) -> Result<Response<proto::User>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let user = app.user(&caller.actor, UserId::parse(&request.user)?).await?;
            Ok(convert::user(&user))
        })
        .await
    }

    async fn list_users(
        &self,
        request: Request<proto::ListUsersRequest>,
    ) -> Result<Response<proto::ListUsersResponse>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let limit = convert::page_limit(request.limit)?;
            let after = match request.after.as_str() {
                "" => None,
                after => Some(UserId::parse(after)?),
            };
            let (users, next) = app.users(&caller.actor, after, limit).await?;
            let users = users.iter().map(|user| convert::user(user)).collect();
            Ok(proto::ListUsersResponse { users, next: next.unwrap_or_default() })
        })
        .await
    }

    async fn issue_token(
        &self,
        request: Request<proto::IssueTokenRequest>,
    ) -> Result<Response<proto::IssueTokenResponse>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let id = convert::request_id(&request.request_id)?;
            let user = UserId::parse(&request.user)?;
            let scopes = accounts::scopes(request.scopes.iter().map(String::as_str))?;
            let wish = TokenWish { label: request.label, scopes, ttl_ms: request.ttl_ms };
            let token = app.issue_token_as_wished(&caller, user, wish, id).await?;
            Ok(proto::IssueTokenResponse { token })
        })
        .await
    }
}
