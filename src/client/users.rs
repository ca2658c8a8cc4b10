//! Accounts.

use crate::client::Client;
use crate::error::Error;
use crate::id::UserId;
use crate::proto::v1 as pb;
use pb::users_client::UsersClient;

impl Client {
    /// Creates a user and its first token. Admins only.
    ///
    /// # Errors
    /// `already_exists` when the id is taken.
    pub async fn create_user(
        &self,
        user: &UserId,
        display_name: &str,
        admin: bool,
    ) -> Result<pb::CreateUserResponse, Error> {
        self.mutate(|channel, id| async move {
            let request = self.request(pb::CreateUserRequest {
                user: user.to_string(),
                display_name: display_name.to_string(),
                admin,
                request_id: id.as_bytes().to_vec().into(),
            });
            UsersClient::new(channel).create_user(request).await
        })
        .await
    }

    /// Reads a user's public profile.
    ///
    /// # Errors
    /// `user_not_found`.
    pub async fn get_user(&self, user: &UserId) -> Result<pb::User, Error> {
        self.read(|channel| async move {
            let request = self.request(pb::GetUserRequest { user: user.to_string() });
            UsersClient::new(channel).get_user(request).await
        })
        .await
    }

    /// A page of users in order of id, from after `after` (empty: from the first).
    ///
    /// # Errors
    /// As every call.
    pub async fn list_users(
        &self,
        after: &str,
        limit: u32,
    ) -> Result<pb::ListUsersResponse, Error> {
        self.read(|channel| async move {
            let request = self.request(pb::ListUsersRequest { limit, after: after.to_string() });
            UsersClient::new(channel).list_users(request).await
        })
        .await
    }

    /// Issues a further token for a user, good for everything, until it is revoked.
    ///
    /// # Errors
    /// `user_not_found`, `limit_reached`.
    pub async fn issue_token(&self, user: &UserId, label: &str) -> Result<String, Error> {
        self.issue_scoped_token(user, label, &[], 0).await
    }

    /// Issues a further token for a user that is good for these scopes (none: everything), for so
    /// long, in milliseconds (0: until it is revoked).
    ///
    /// # Errors
    /// `user_not_found`, `limit_reached`, `invalid_argument`.
    pub async fn issue_scoped_token(
        &self,
        user: &UserId,
        label: &str,
        scopes: &[String],
        ttl_ms: u64,
    ) -> Result<String, Error> {
        let response = self
            .mutate(|channel, id| async move {
                let request = self.request(pb::IssueTokenRequest {
                    user: user.to_string(),
                    label: label.to_string(),
                    scopes: scopes.to_vec(),
                    ttl_ms,
                    request_id: id.as_bytes().to_vec().into(),
                });
                UsersClient::new(channel).issue_token(request).await
            })
            .await?;
        Ok(response.token)
    }
}
