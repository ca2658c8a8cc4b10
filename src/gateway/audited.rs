//! What administrators do beside the cluster map is in the audit log as well: that it is begun, before
//! anything is done, and then what came of it.

use crate::chat::command::Actor;
use crate::error::Error;
use crate::gateway::app::App;
use crate::gateway::caller::Caller;
use crate::id::UserId;

impl App {
    /// Does something that is audited, once it is recorded that it is begun.
    ///
    /// # Errors
    /// Why it cannot be recorded, and nothing is done then; and those of what is done.
    pub(super) async fn audited<T>(
        &self,
        actor: &Actor,
        action: &str,
        doing: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        self.backend.record(actor.user.as_str(), action, "begun").await?;
        self.with_outcome(actor, action, doing).await
    }

    /// The same of what must be possible while nothing can be recorded: this node's own log has it then.
    ///
    /// # Errors
    /// Those of what is done.
    pub(super) async fn audited_if_possible<T>(
        &self,
        actor: &Actor,
        action: &str,
        doing: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        self.backend.try_record(actor.user.as_str(), action, "begun").await;
        self.with_outcome(actor, action, doing).await
    }

    /// The same of what is done to an account, which is audited when an administrator does it to
    /// somebody else's.
    ///
    /// # Errors
    /// As [`App::audited`].
    pub(super) async fn audited_for_another<T>(
        &self,
        caller: &Caller,
        user: &UserId,
        what: &str,
        doing: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let actor = &caller.actor;
        match actor.admin && actor.user != *user {
            true => self.audited(actor, &format!("{what} {user}"), doing).await,
            false => doing.await,
        }
    }

    async fn with_outcome<T>(
        &self,
        actor: &Actor,
        action: &str,
        doing: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let done = doing.await;
        let outcome = match &done {
            Ok(_) => "done".to_owned(),
            Err(error) if error.may_have_applied => format!("unknown: {}", error.message),
            Err(error) => format!("failed: {}", error.message),
        };
        self.backend.try_record(actor.user.as_str(), action, &outcome).await;
        done
    }
}
