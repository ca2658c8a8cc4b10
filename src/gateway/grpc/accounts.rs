//! `folkmoot.v1.Accounts`.

use std::sync::Arc;

use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::chat::account::{Invite, Scope, Scopes, Session, Token};
use crate::error::{Code, Error};
use crate::gateway::accounts::{From as Source, LoggedIn, Update, id_of};
use crate::gateway::app::{App, Caller};
use crate::gateway::caller::{Peer, address_of};
use crate::gateway::convert;
use crate::gateway::grpc::answer;
use crate::gateway::oidc::Shown;
use crate::gateway::oidc::device::Progress;
use crate::id::UserId;
use crate::proto::v1 as proto;
use crate::proto::v1::accounts_server::Accounts;

/// The service.
#[derive(Debug)]
pub struct AccountsService {
    app: Arc<App>,
}

impl AccountsService {
    /// Serves this gateway's accounts.
    pub fn new(app: Arc<App>) -> AccountsService {
        AccountsService { app }
    }

    fn source<T>(&self, request: &Request<T>) -> Source {
        let headers = MetadataMap::clone(request.metadata()).into_headers();
        let peer = request.extensions().get::<Peer>().copied();
        let user_agent = headers.get("user-agent").map(|value| value.as_bytes());
        let user_agent = String::from_utf8_lossy(user_agent.unwrap_or_default()).into_owned();
        Source { address: address_of(&self.app, &headers, peer), user_agent }
    }
}

fn logged_in(session: LoggedIn) -> proto::LoginResponse {
    let LoggedIn { user, token, expires_at_ms, .. } = session;
    proto::LoginResponse { user: Some(convert::user(&user)), token, expires_at_ms }
}

fn names(scopes: Scopes) -> Vec<String> {
    scopes.iter().map(|scope: Scope| scope.as_str().to_owned()).collect()
}

fn session((session, current): &(Session, bool)) -> proto::Session {
    proto::Session {
        id: id_of(&session.hash),
        created_at_ms: session.created_at_ms,
        used_at_ms: session.used_at_ms,
        ends_at_ms: session.ends_at_ms(),
        user_agent: session.user_agent.clone(),
        address: session.address.clone(),
        current: *current,
    }
}

fn token(token: &Token) -> proto::Token {
    proto::Token {
        id: id_of(&token.hash),
        label: token.label.clone(),
        issued_at_ms: token.issued_at_ms,
        scopes: names(token.scopes),
        expires_at_ms: token.expires_at_ms.unwrap_or(0),
    }
}

fn invite(invite: &Invite) -> proto::Invite {
    proto::Invite {
        id: id_of(&invite.hash),
        created_at_ms: invite.created_at_ms,
        expires_at_ms: invite.expires_at_ms,
        uses: invite.uses_max,
        used_by: invite.used_by.iter().map(|user| user.as_str().to_owned()).collect(),
    }
}

fn done() -> proto::Done {
    proto::Done {}
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

async fn set_password(
    app: Arc<App>,
    caller: Caller,
    request: proto::SetPasswordRequest,
    source: Source,
) -> Result<proto::SetPasswordResponse, Error> {
    let user = UserId::parse(&request.user)?;
    let old = some(&request.old_password);
    let new = some(&request.password).map(str::to_owned);
    let chosen = app.set_password(&caller, user, new, old, &source).await?;
    Ok(proto::SetPasswordResponse { password: chosen.unwrap_or_default() })
}

#[tonic::async_trait]
impl Accounts for AccountsService {
    async fn login(
        &self,
        request: Request<proto::LoginRequest>,
    ) -> Result<Response<proto::LoginResponse>, Status> {
        let source = self.source(&request);
        let proto::LoginRequest { user, password } = request.into_inner();
        let begun = async {
            let user = UserId::parse(&user)?;
            self.app.login(user, &password, source).await
        };
        Ok(Response::new(logged_in(self.app.metrics.count(begun.await)?)))
    }

    async fn register(
        &self,
        request: Request<proto::RegisterRequest>,
    ) -> Result<Response<proto::LoginResponse>, Status> {
        let source = self.source(&request);
        let proto::RegisterRequest { user, password, display_name, invite } = request.into_inner();
        let begun = async {
            let user = UserId::parse(&user)?;
            self.app.register(user, &password, display_name, some(&invite), source).await
        };
        Ok(Response::new(logged_in(self.app.metrics.count(begun.await)?)))
    }

    async fn logout(
        &self,
        request: Request<proto::LogoutRequest>,
    ) -> Result<Response<proto::Done>, Status> {
        answer(&self.app, request, |app, caller, proto::LogoutRequest {}| async move {
            app.logout(&caller).await.map(|()| done())
        })
        .await
    }

    async fn who_am_i(
        &self,
        request: Request<proto::WhoAmIRequest>,
    ) -> Result<Response<proto::WhoAmIResponse>, Status> {
        answer(&self.app, request, |app, caller, proto::WhoAmIRequest {}| async move {
            let user = app.user(&caller.actor, caller.actor.user.clone()).await?;
            Ok(proto::WhoAmIResponse {
                user: Some(convert::user(&user)),
                scopes: names(caller.scopes),
                expires_at_ms: caller.ends_at_ms().unwrap_or(0),
            })
        })
        .await
    }

    async fn set_password(
        &self,
        request: Request<proto::SetPasswordRequest>,
    ) -> Result<Response<proto::SetPasswordResponse>, Status> {
        let source = self.source(&request);
        answer(&self.app, request, |app, caller, request| {
            set_password(app, caller, request, source)
        })
        .await
    }

    async fn list_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsResponse>, Status> {
        answer(&self.app, request, |app, caller, proto::ListSessionsRequest {}| async move {
            let sessions = app.sessions(&caller).await?.iter().map(session).collect();
            Ok(proto::ListSessionsResponse { sessions })
        })
        .await
    }

    async fn end_session(
        &self,
        request: Request<proto::EndSessionRequest>,
    ) -> Result<Response<proto::Done>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            app.end_session(&caller, some(&request.id)).await.map(|()| done())
        })
        .await
    }

    async fn list_tokens(
        &self,
        request: Request<proto::ListTokensRequest>,
    ) -> Result<Response<proto::ListTokensResponse>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let user = UserId::parse(&request.user)?;
            let tokens = app.tokens(&caller, &user).await?.iter().map(token).collect();
            Ok(proto::ListTokensResponse { tokens })
        })
        .await
    }

    async fn revoke_token(
        &self,
        request: Request<proto::RevokeTokenRequest>,
    ) -> Result<Response<proto::Done>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let user = UserId::parse(&request.user)?;
            app.revoke_token(&caller, &user, &request.id).await.map(|()| done())
        })
        .await
    }

    async fn update_user(
        &self,
        request: Request<proto::UpdateUserRequest>,
    ) -> Result<Response<proto::User>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let proto::UpdateUserRequest { user, display_name, status, disabled } = request;
            let update = Update { display_name, status, disabled };
            let user = app.update_user(&caller, UserId::parse(&user)?, update, None).await?;
            Ok(convert::user(&user))
        })
        .await
    }

    async fn make_invite(
        &self,
        request: Request<proto::MakeInviteRequest>,
    ) -> Result<Response<proto::MakeInviteResponse>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let uses = request.uses.max(1);
            let ttl_ms = if request.ttl_ms == 0 { convert::INVITE_TTL_MS } else { request.ttl_ms };
            let (invite, expires_at_ms) = app.make_invite(&caller, uses, ttl_ms).await?;
            Ok(proto::MakeInviteResponse { invite, expires_at_ms })
        })
        .await
    }

    async fn list_invites(
        &self,
        request: Request<proto::ListInvitesRequest>,
    ) -> Result<Response<proto::ListInvitesResponse>, Status> {
        answer(&self.app, request, |app, caller, proto::ListInvitesRequest {}| async move {
            let invites = app.invites(&caller).await?.iter().map(invite).collect();
            Ok(proto::ListInvitesResponse { invites })
        })
        .await
    }

    async fn drop_invite(
        &self,
        request: Request<proto::DropInviteRequest>,
    ) -> Result<Response<proto::Done>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            if request.id.is_empty() {
                return Err(Error::new(Code::InvalidArgument, "say which invite"));
            }
            app.drop_invite(&caller, &request.id).await.map(|()| done())
        })
        .await
    }

    async fn list_providers(
        &self,
        _: Request<proto::ListProvidersRequest>,
    ) -> Result<Response<proto::ListProvidersResponse>, Status> {
        let shown = self.app.limits().accounts.oidc.shown().into_iter();
        let provider = |Shown { name, title }| proto::Provider { name, title };
        let providers = shown.map(provider).collect();
        Ok(Response::new(proto::ListProvidersResponse { providers }))
    }

    async fn begin_device_login(
        &self,
        request: Request<proto::BeginDeviceLoginRequest>,
    ) -> Result<Response<proto::BeginDeviceLoginResponse>, Status> {
        let source = self.source(&request);
        let begun = self.app.begin_device(&request.get_ref().provider, &source).await;
        let begun = self.app.metrics.count(begun)?;
        Ok(Response::new(proto::BeginDeviceLoginResponse {
            handle: begun.handle,
            user_code: begun.user_code,
            verification_uri: begun.verification_uri,
            verification_uri_complete: begun.verification_uri_complete,
            expires_in_ms: begun.expires_in_ms,
            interval_ms: begun.interval_ms,
        }))
    }

    async fn poll_device_login(
        &self,
        request: Request<proto::PollDeviceLoginRequest>,
    ) -> Result<Response<proto::PollDeviceLoginResponse>, Status> {
        let source = self.source(&request);
        let proto::PollDeviceLoginRequest { provider, handle } = request.into_inner();
        let polled = self.app.poll_device(&provider, &handle, source).await;
        let (login, slow_down) = match self.app.metrics.count(polled)? {
            Progress::Done(session) => (Some(logged_in(session)), false),
            Progress::Pending => (None, false),
            Progress::SlowDown => (None, true),
        };
        Ok(Response::new(proto::PollDeviceLoginResponse { login, slow_down }))
    }

    async fn link_user(
        &self,
        request: Request<proto::LinkUserRequest>,
    ) -> Result<Response<proto::User>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let proto::LinkUserRequest { user, provider, subject } = request;
            let user = UserId::parse(&user)?;
            Ok(convert::user(&*app.link_user(&caller, user, &provider, &subject).await?))
        })
        .await
    }
}
