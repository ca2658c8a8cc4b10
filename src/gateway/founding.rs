//! The first call of all: nodes become a cluster, with one administrator.

use std::sync::Arc;

use crate::chat::command::{Actor, Command};
use crate::chat::event::Hash;
use crate::error::{Code, Error};
use crate::gateway::app::App;
use crate::gateway::auth::{Credentials, mint_token};
use crate::id::UserId;

/// The user that `cluster init` creates.
pub const FIRST_ADMIN: &str = "admin";

/// Mints a token that the first administrator can have.
///
/// # Errors
/// None: the user's id is well-formed.
pub fn mint_first_token() -> Result<String, Error> {
    Ok(mint_token(&UserId::parse(FIRST_ADMIN)?).0)
}

/// The hash of a token that the first administrator is to have.
///
/// # Errors
/// When it is not of the form of those that are minted, or somebody else's.
pub fn check_first_token(token: &str) -> Result<Hash, Error> {
    match Credentials::parse(token) {
        Some(first) if first.user().as_str() == FIRST_ADMIN => Ok(*first.hash()),
        _ => {
            let form = format!("the token must be fm_{FIRST_ADMIN}_ and 64 random hex digits");
            Err(Error::invalid(form))
        }
    }
}

impl App {
    /// Forms a cluster and its first administrator: the cluster's id, and the token, which the caller may
    /// have chosen.
    ///
    /// The one mutating call without a token, so it does nothing once there is an administrator, but
    /// to answer as before whoever has chosen their token; before, it finishes what an interrupted
    /// call left undone. It goes on though whoever has asked is gone: between the cluster and its
    /// administrator there is nobody to refuse another one. But not with a token that nobody would know
    /// then: such a call ends with its caller, and the next one finishes it.
    ///
    /// # Errors
    /// [`Code::AlreadyInitialized`], also when the cluster has another number of shards, and the
    /// router's.
    pub async fn init_cluster(
        self: &Arc<Self>,
        nodes: u32,
        shards: u32,
        chosen: Option<String>,
    ) -> Result<(String, String), Error> {
        if ![1, 3, 5].contains(&nodes) {
            return Err(Error::invalid("nodes must be 1, 3 or 5"));
        }
        let shards = match u16::try_from(shards) {
            Ok(0) => 8,
            Ok(shards) if shards <= 256 => shards,
            _ => return Err(Error::invalid("shards must be 1 to 256")),
        };
        let user = UserId::parse(FIRST_ADMIN)?;
        let is_known = chosen.is_some();
        let token = chosen.map_or_else(mint_first_token, Ok)?;
        let hash = check_first_token(&token)?;
        let alone = self.founding.clone().try_lock_owned().map_err(|_| {
            Error::new(Code::Overloaded, "the cluster is just being initialised").retry_after(300)
        })?;
        let app = self.clone();
        let founding = async move {
            let _alone = alone;
            let cluster_id = app.found(nodes as usize, shards).await?;
            if app.create_first_admin(&user, hash).await? || app.is_token_of(&token, &user).await? {
                return Ok((cluster_id, token));
            }
            Err(Error::new(Code::AlreadyInitialized, "the cluster is initialised already"))
        };
        if !is_known {
            return founding.await;
        }
        tokio::spawn(founding).await.unwrap_or_else(|error| {
            let message = format!("nobody knows whether the cluster is formed: {error}");
            Err(Error::new(Code::Internal, message).maybe_applied())
        })
    }

    /// The id of the cluster, which may be there.
    async fn found(&self, nodes: usize, shards: u16) -> Result<String, Error> {
        match self.backend.init_cluster(nodes, shards).await {
            Err(error) if error.code == Code::AlreadyInitialized => {}
            outcome => return outcome,
        }
        let there = self.backend.data_shards()?.len();
        if there != usize::from(shards) {
            let message = format!("the cluster is initialised already, with {there} shards");
            return Err(Error::new(Code::AlreadyInitialized, message));
        }
        Ok(self.backend.status().await.cluster_id)
    }

    /// Whether the user was created: it may be there.
    async fn create_first_admin(&self, user: &UserId, hash: Hash) -> Result<bool, Error> {
        let actor = Actor { user: user.clone(), admin: true };
        // Without a token nobody is to write to the log once there is an administrator.
        match self.user(&actor, user.clone()).await {
            Err(missing) if missing.code == Code::UserNotFound => {}
            Err(unknown) => return Err(unknown),
            Ok(_) => return Ok(false),
        }
        let command = Command::CreateUser {
            user: user.clone(),
            display_name: "Administrator".into(),
            admin: true,
            token_hash: Some(hash),
        };
        match self.execute(&actor, None, command).await {
            Ok(_) => {
                let action = format!("form the cluster, with administrator {user}");
                self.backend.try_record(user.as_str(), &action, "done").await;
                Ok(true)
            }
            // Another call was faster.
            Err(error) if error.code == Code::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn is_token_of(&self, token: &str, user: &UserId) -> Result<bool, Error> {
        let malformed = || Error::new(Code::Unauthenticated, "this is not a token");
        let credentials = Credentials::parse(token).ok_or_else(malformed)?;
        match self.auth.verify(&self.backend, &credentials, self.clock.now_ms()).await {
            Ok(verified) => Ok(verified.actor.user == *user && verified.actor.admin),
            Err(error) if error.code == Code::Unauthenticated => Ok(false),
            Err(unknown) => Err(unknown),
        }
    }
}
