//! Signing in, and one's own account.

use crate::client::Client;
use crate::error::Error;
use crate::id::UserId;
use crate::proto::v1 as pb;
use pb::accounts_client::AccountsClient;

impl Client {
    /// Begins a session with a password. An answer that is lost leaves a session that nobody knows,
    /// until it ends.
    ///
    /// # Errors
    /// `unauthenticated` when user or password is wrong.
    pub async fn login(&self, user: &UserId, password: &str) -> Result<pb::LoginResponse, Error> {
        self.read(|channel| async move {
            let request = pb::LoginRequest { user: user.to_string(), password: password.into() };
            AccountsClient::new(channel).login(self.request(request)).await
        })
        .await
    }

    /// Ends the session that this is called in.
    ///
    /// # Errors
    /// `invalid_argument` when it is a token.
    pub async fn logout(&self) -> Result<(), Error> {
        let end = self.read(|channel| async move {
            AccountsClient::new(channel).logout(self.request(pb::LogoutRequest {})).await
        });
        end.await.map(|pb::Done {}| ())
    }

    /// The providers of OpenID Connect by which people sign in.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_providers(&self) -> Result<Vec<pb::Provider>, Error> {
        let list = self.read(|channel| async move {
            let request = self.request(pb::ListProvidersRequest {});
            AccountsClient::new(channel).list_providers(request).await
        });
        Ok(list.await?.providers)
    }

    /// Begins a sign-in by a provider, which somebody goes on with in a browser.
    ///
    /// # Errors
    /// `not_found` when there is no such provider, `unavailable` when it does not answer.
    pub async fn begin_device_login(
        &self,
        provider: &str,
    ) -> Result<pb::BeginDeviceLoginResponse, Error> {
        self.read(|channel| async move {
            let request = pb::BeginDeviceLoginRequest { provider: provider.into() };
            AccountsClient::new(channel).begin_device_login(self.request(request)).await
        })
        .await
    }

    /// Asks what has become of it. An answer that is lost, with the session, is not given again.
    ///
    /// # Errors
    /// `unauthenticated` when it was refused, or is over.
    pub async fn poll_device_login(
        &self,
        provider: &str,
        handle: &str,
    ) -> Result<pb::PollDeviceLoginResponse, Error> {
        self.read(|channel| async move {
            let (provider, handle) = (provider.into(), handle.into());
            let request = pb::PollDeviceLoginRequest { provider, handle };
            AccountsClient::new(channel).poll_device_login(self.request(request)).await
        })
        .await
    }

    /// Lets a user sign in by an account of a provider.
    ///
    /// # Errors
    /// `forbidden` unless the caller is an administrator; `already_exists` when it is another user's.
    pub async fn link_user(
        &self,
        user: &UserId,
        provider: &str,
        subject: &str,
    ) -> Result<pb::User, Error> {
        self.read(|channel| async move {
            let (provider, subject) = (provider.into(), subject.into());
            let request = pb::LinkUserRequest { user: user.to_string(), provider, subject };
            AccountsClient::new(channel).link_user(self.request(request)).await
        })
        .await
    }

    /// Who the token is of, and what it is good for.
    ///
    /// # Errors
    /// As every call.
    pub async fn who_am_i(&self) -> Result<pb::WhoAmIResponse, Error> {
        self.read(|channel| async move {
            AccountsClient::new(channel).who_am_i(self.request(pb::WhoAmIRequest {})).await
        })
        .await
    }

    /// Sets a password; returns the one that the node has chosen, if it was to.
    ///
    /// # Errors
    /// `forbidden` when the old password is wrong, or for another user's unless the caller is an
    /// administrator.
    pub async fn set_password(
        &self,
        user: &UserId,
        new: Option<&str>,
        old: Option<&str>,
    ) -> Result<String, Error> {
        let set = self.read(|channel| async move {
            let request = pb::SetPasswordRequest {
                user: user.to_string(),
                password: new.unwrap_or_default().into(),
                old_password: old.unwrap_or_default().into(),
            };
            AccountsClient::new(channel).set_password(self.request(request)).await
        });
        Ok(set.await?.password)
    }

    /// The caller's sessions.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_sessions(&self) -> Result<Vec<pb::Session>, Error> {
        let list = self.read(|channel| async move {
            let request = self.request(pb::ListSessionsRequest {});
            AccountsClient::new(channel).list_sessions(request).await
        });
        Ok(list.await?.sessions)
    }

    /// Ends one of the caller's sessions; all others than the one that this is called in when `id`
    /// is empty.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn end_session(&self, id: &str) -> Result<(), Error> {
        let end = self.read(|channel| async move {
            let request = self.request(pb::EndSessionRequest { id: id.into() });
            AccountsClient::new(channel).end_session(request).await
        });
        end.await.map(|pb::Done {}| ())
    }

    /// A user's tokens.
    ///
    /// # Errors
    /// `forbidden` for another user's, unless the caller is an administrator.
    pub async fn list_tokens(&self, user: &UserId) -> Result<Vec<pb::Token>, Error> {
        let list = self.read(|channel| async move {
            let request = self.request(pb::ListTokensRequest { user: user.to_string() });
            AccountsClient::new(channel).list_tokens(request).await
        });
        Ok(list.await?.tokens)
    }

    /// Revokes a user's token.
    ///
    /// # Errors
    /// `not_found`; `forbidden` for another user's, unless the caller is an administrator.
    pub async fn revoke_token(&self, user: &UserId, id: &str) -> Result<(), Error> {
        let revoke = self.read(|channel| async move {
            let request = pb::RevokeTokenRequest { user: user.to_string(), id: id.into() };
            AccountsClient::new(channel).revoke_token(self.request(request)).await
        });
        revoke.await.map(|pb::Done {}| ())
    }

    /// Changes what people see of a user, or locks them out.
    ///
    /// # Errors
    /// `forbidden` for another user, and for locking out, unless the caller is an administrator.
    pub async fn update_user(&self, update: &pb::UpdateUserRequest) -> Result<pb::User, Error> {
        self.read(|channel| async move {
            AccountsClient::new(channel).update_user(self.request(update.clone())).await
        })
        .await
    }

    /// Makes an invite for so many, for so long in milliseconds. An answer that is lost leaves an
    /// invite that nobody knows, until it expires.
    ///
    /// # Errors
    /// `forbidden` unless the caller is an administrator; `limit_reached`.
    pub async fn make_invite(
        &self,
        uses: u32,
        ttl_ms: u64,
    ) -> Result<pb::MakeInviteResponse, Error> {
        self.read(|channel| async move {
            let request = self.request(pb::MakeInviteRequest { uses, ttl_ms });
            AccountsClient::new(channel).make_invite(request).await
        })
        .await
    }

    /// The caller's invites.
    ///
    /// # Errors
    /// `forbidden` unless the caller is an administrator.
    pub async fn list_invites(&self) -> Result<Vec<pb::Invite>, Error> {
        let list = self.read(|channel| async move {
            let request = self.request(pb::ListInvitesRequest {});
            AccountsClient::new(channel).list_invites(request).await
        });
        Ok(list.await?.invites)
    }

    /// Takes one of the caller's invites back.
    ///
    /// # Errors
    /// `not_found`; `forbidden` unless the caller is an administrator.
    pub async fn drop_invite(&self, id: &str) -> Result<(), Error> {
        let drop = self.read(|channel| async move {
            let request = self.request(pb::DropInviteRequest { id: id.into() });
            AccountsClient::new(channel).drop_invite(request).await
        });
        drop.await.map(|pb::Done {}| ())
    }
}
