//! What administrators do beside the cluster map is in the audit log as well: that it is begun, before
//! anything is done, and then what came of it.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};

use crate::chat::command::Actor;
use crate::error::Error;
use crate::gateway::app::App;
use crate::gateway::backend::Backend;
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
        let mut begun = Begun::new(self.backend.clone(), actor, action);
        let recorded = self.backend.record(actor.user.as_str(), action, "begun").await;
        recorded.inspect_err(|_| begun.has_ended = true)?;
        begun.with_outcome(doing).await
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
        let begun = Begun::new(self.backend.clone(), actor, action);
        self.backend.try_record(actor.user.as_str(), action, "begun").await;
        begun.with_outcome(doing).await
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
}

/// Something that is begun. Records that nobody knows its outcome when it is dropped before its end, as
/// the caller has gone away.
struct Begun {
    backend: Arc<dyn Backend>,
    who: String,
    action: String,
    has_ended: bool,
}

impl Begun {
    fn new(backend: Arc<dyn Backend>, actor: &Actor, action: &str) -> Begun {
        let (who, action) = (actor.user.as_str().into(), action.into());
        Begun { backend, who, action, has_ended: false }
    }

    async fn with_outcome<T>(
        self,
        doing: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let done = doing.await;
        let outcome = match &done {
            Ok(_) => "done".to_owned(),
            Err(error) if error.may_have_applied => format!("unknown: {}", error.message),
            Err(error) => format!("failed: {}", error.message),
        };
        self.end(outcome).await;
        done
    }

    /// Records the outcome, also if nobody waits for that any more.
    async fn end(mut self, outcome: String) {
        self.has_ended = true;
        if let Some(recording) = self.record(outcome) {
            // It never panics, and is aborted only as the node stops.
            let _: Result<(), JoinError> = recording.await;
        }
    }

    fn record(&self, outcome: String) -> Option<JoinHandle<()>> {
        let (backend, who, action) = (self.backend.clone(), self.who.clone(), self.action.clone());
        // None while the process ends.
        let runtime = Handle::try_current().ok()?;
        let record = async move { backend.try_record(&who, &action, &outcome).await };
        Some(runtime.spawn(record))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.has_ended {
            let outcome = "unknown: nobody waited for the answer".into();
            drop(self.record(outcome));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::gateway::tests::fake::Fake;

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_has_an_outcome() {
        let fake = Fake::new();
        let backend: Arc<dyn Backend> = Arc::new(fake.clone());
        let actor = Actor { user: UserId::parse("root").unwrap(), admin: true };
        drop(Begun::new(backend.clone(), &actor, "one"));
        let begun = Begun::new(backend, &actor, "two");
        assert!(
            begun.end("done".into()).now_or_never().is_none(),
            "it is recorded in its own task"
        );
        let said = || {
            let records = fake.audit.lock().unwrap();
            records.iter().map(|r| (r.action.clone(), r.outcome.clone())).collect::<Vec<_>>()
        };
        while said().len() < 2 {
            tokio::task::yield_now().await;
        }
        let outcomes = [("one", "unknown: nobody waited for the answer"), ("two", "done")];
        assert_eq!(said(), outcomes.map(|(action, outcome)| (action.into(), outcome.into())));
    }
}
