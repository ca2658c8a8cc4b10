//! Whether what was found valid still is.
//!
//! Each shard of users counts revocations (`chat`): ended sessions, revoked tokens, changed
//! passwords, disabled users. While anybody is signed in, a node asks each shard that matters for
//! its count, linearizably, four times a second: one question for all its users. What was verified
//! at the present count is valid as long as the last answer is no older than [`TRUST`]; when the
//! count has moved, each caller is looked up again, and who follows something is told to at once.
//!
//! **Invariant:** nothing is taken for valid on an answer whose question was asked longer than
//! [`TRUST`] ago. Who cannot ask (no leader, a partition) waits, delivers nothing meanwhile, and
//! gives up after [`GIVE_UP`] (docs/adr/0013).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Code, Error};
use crate::gateway::backend::Backend;
use crate::id::ShardId;

/// For how long an answer counts, from when it was asked for.
pub const TRUST: Duration = Duration::from_millis(750);
/// Between a question and the next.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// A question is asked anew after so long: an answer counts from when it was asked for.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// After a question that failed at once.
const ASK_PAUSE: Duration = Duration::from_millis(50);
/// After so long without an answer, callers are told that it cannot be said who they are; from then
/// on, each waits for one question more. A failover takes about a second.
pub const GIVE_UP: Duration = Duration::from_secs(5);
/// A shard that nobody wants to know about is not asked for longer than this.
const IDLE: Duration = Duration::from_secs(2);

/// How many revocations each shard of users has had.
#[derive(Debug, Default)]
pub struct Trust {
    shards: Mutex<BTreeMap<ShardId, Shard>>,
}

#[derive(Debug, Default)]
struct Shard {
    counted: Arc<Counted>,
    /// Asks while anybody wants to know; ends with the gateway.
    _asker: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct Counted {
    known: watch::Sender<Known>,
    /// Rises when those who follow something had better be verified again.
    stirred: watch::Sender<u64>,
    asking: Mutex<Asking>,
    /// Ask at once.
    hurry: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    count: u64,
    /// When it was asked for; `None` before the first answer.
    as_of: Option<Instant>,
    /// Answers that were asked for before this do not count: something was revoked here then.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Asking {
    /// Since when; `None` while nobody asks.
    since: Option<Instant>,
    /// When somebody last wanted to know.
    wanted: Instant,
}

impl Default for Counted {
    fn default() -> Counted {
        Counted {
            known: watch::Sender::new(Known { count: 0, as_of: None, not_before: None }),
            stirred: watch::Sender::new(0),
            asking: Mutex::new(Asking { since: None, wanted: Instant::now() }),
            hurry: Notify::new(),
        }
    }
}

impl Known {
    fn is_fresh(&self) -> bool {
        let recent = self.as_of.is_some_and(|at| at.elapsed() < TRUST);
        recent && self.as_of >= self.not_before
    }
}

impl Trust {
    /// A shard's count of revocations, no older than [`TRUST`].
    ///
    /// # Errors
    /// [`Code::Unavailable`] when there is no answer for `patience`; when the shard has not answered
    /// for [`GIVE_UP`], for as long as a question may take.
    pub async fn count(
        &self,
        backend: &Arc<dyn Backend>,
        shard: ShardId,
        patience: Duration,
    ) -> Result<u64, Error> {
        let (counted, since) = self.ask(backend, shard);
        let known = *counted.known.borrow();
        if known.is_fresh() {
            return Ok(known.count);
        }
        let begin = known.as_of.map_or(since, |as_of| as_of.max(since));
        let now = Instant::now();
        // The shard may have got a leader this very moment.
        let deadline = (begin + GIVE_UP).max(now + ASK_TIMEOUT).min(now + patience);
        let mut answers = counted.known.subscribe();
        let answer = timeout_at(deadline, answers.wait_for(Known::is_fresh)).await;
        match answer {
            Ok(Ok(known)) => Ok(known.count),
            _ => {
                let message = "it cannot be made sure that you are still signed in: the shard of \
                               your account does not answer";
                Err(Error::new(Code::Unavailable, message).retry_after(1000))
            }
        }
    }

    /// Changes when a shard's users had better be verified again; for those who follow something.
    /// The shard is asked for as long as the receiver lives.
    pub fn stirred(&self, backend: &Arc<dyn Backend>, shard: ShardId) -> watch::Receiver<u64> {
        // Subscribed first: whoever asks goes on while there is a receiver.
        let receiver = self.counted(shard).stirred.subscribe();
        self.ask(backend, shard);
        receiver
    }

    /// Takes note that something of the shard may have been revoked by this very node: nobody is told
    /// otherwise here from now on.
    pub fn doubt(&self, shard: ShardId) {
        let counted = self.counted(shard);
        counted.known.send_modify(|known| known.not_before = Some(Instant::now()));
        counted.hurry.notify_one();
    }

    fn counted(&self, shard: ShardId) -> Arc<Counted> {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.entry(shard).or_default().counted.clone()
    }

    /// Sees to it that the shard is asked; says since when it is.
    fn ask(&self, backend: &Arc<dyn Backend>, shard: ShardId) -> (Arc<Counted>, Instant) {
        let counted = self.counted(shard);
        let now = Instant::now();
        let started = {
            let mut asking = counted.asking();
            asking.wanted = now;
            match asking.since {
                Some(since) => return (counted.clone(), since),
                None => asking.since = Some(now),
            }
            now
        };
        let asker =
            AbortOnDropHandle::new(tokio::spawn(ask(backend.clone(), shard, counted.clone())));
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.entry(shard).or_default()._asker = Some(asker);
        (counted, started)
    }
}

impl Counted {
    fn asking(&self) -> std::sync::MutexGuard<'_, Asking> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody wants to know any more; then this asker is the last to hear of it.
    fn retire(&self) -> bool {
        let mut asking = self.asking();
        let idle = self.stirred.receiver_count() == 0 && asking.wanted.elapsed() > IDLE;
        if idle {
            asking.since = None;
        }
        idle
    }
}

async fn ask(backend: Arc<dyn Backend>, shard: ShardId, counted: Arc<Counted>) {
    let mut last = Instant::now();
    while !counted.retire() {
        let began = Instant::now();
        let answer = match timeout(ASK_TIMEOUT, backend.revocations(shard)).await {
            Ok(Ok(count)) => Some(count),
            // An older release leads the shard, and does not count: as if something was revoked.
            Ok(Err(error)) if !error.temporary() => {
                Some(counted.known.borrow().count.wrapping_add(1))
            }
            _ => None,
        };
        if let Some(count) = answer {
            last = began;
            let mut moved = false;
            counted.known.send_modify(|known| {
                moved = known.count != count || known.as_of.is_none();
                *known = Known { count, as_of: Some(began), ..*known };
            });
            if moved {
                counted.stirred.send_modify(|times| *times += 1);
            }
            let _ =
                timeout(ASK_EVERY.saturating_sub(began.elapsed()), counted.hurry.notified()).await;
            continue;
        }
        if last.elapsed() >= GIVE_UP {
            last = Instant::now();
            counted.stirred.send_modify(|times| *times += 1);
        }
        sleep(ASK_PAUSE.saturating_sub(began.elapsed())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::fake::Fake;
    use futures_util::poll;
    use std::pin::pin;
    use std::sync::atomic::Ordering;

    const SHARD: ShardId = ShardId(1);

    fn times(trust: &Trust) -> u64 {
        *trust.counted(SHARD).stirred.borrow()
    }

    #[tokio::test]
    async fn one_question_serves_all_and_nobody_asks_when_nobody_wants_to_know() {
        let fake = Fake::new();
        let backend: Arc<dyn Backend> = Arc::new(fake.clone());
        let trust = Trust::default();
        let asked = || fake.revocations_asked.load(Ordering::SeqCst);
        for _ in 0..1000 {
            assert_eq!(trust.count(&backend, SHARD, GIVE_UP).await, Ok(0));
        }
        assert_eq!(asked(), 1);
        sleep(IDLE + ASK_EVERY * 3).await;
        let before = asked();
        assert!((2..=14).contains(&before), "{before}");
        sleep(ASK_EVERY * 3).await;
        assert_eq!(asked(), before, "nobody wants to know");
        let stirred = trust.stirred(&backend, SHARD);
        while asked() < before + 3 {
            sleep(ASK_PAUSE).await; // somebody follows something
        }
        drop(stirred);
        assert_eq!(trust.count(&backend, SHARD, GIVE_UP).await, Ok(0));
    }

    #[tokio::test]
    async fn an_answer_counts_for_a_while_and_then_nobody_is_sure() {
        let fake = Fake::new();
        let backend: Arc<dyn Backend> = Arc::new(fake.clone());
        let trust = Trust::default();
        let stirred = trust.stirred(&backend, SHARD);
        assert_eq!(trust.count(&backend, SHARD, GIVE_UP).await, Ok(0));
        let before = times(&trust);
        fake.accounts_cut_off.store(true, Ordering::SeqCst);
        assert_eq!(trust.count(&backend, SHARD, GIVE_UP).await, Ok(0));
        sleep(TRUST).await;
        let patient = trust.count(&backend, SHARD, Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(patient.code, Code::Unavailable);
        fake.accounts_cut_off.store(false, Ordering::SeqCst);
        assert_eq!(trust.count(&backend, SHARD, GIVE_UP).await, Ok(0));
        assert_eq!(times(&trust), before, "and nobody need be verified again");
        drop(stirred);
    }

    #[tokio::test]
    async fn whoever_comes_when_the_shard_answers_again_is_let_in() {
        let fake = Fake::new();
        let backend: Arc<dyn Backend> = Arc::new(fake.clone());
        let trust = Trust::default();
        fake.accounts_cut_off.store(true, Ordering::SeqCst);
        let begin = Instant::now();
        let _asked = trust.stirred(&backend, SHARD);
        trust.count(&backend, SHARD, GIVE_UP).await.unwrap_err();
        assert!(begin.elapsed() >= GIVE_UP);
        let begin = Instant::now();
        trust.count(&backend, SHARD, GIVE_UP).await.unwrap_err();
        assert!(begin.elapsed() < GIVE_UP, "nobody waits for long who comes later");
        let mut waits = pin!(trust.count(&backend, SHARD, GIVE_UP));
        assert!(poll!(&mut waits).is_pending());
        fake.accounts_cut_off.store(false, Ordering::SeqCst);
        assert_eq!(waits.await, Ok(0));
    }

    #[tokio::test]
    async fn what_this_node_has_revoked_is_asked_for_at_once() {
        let fake = Fake::new();
        let backend: Arc<dyn Backend> = Arc::new(fake.clone());
        let trust = Trust::default();
        assert_eq!(trust.count(&backend, SHARD, GIVE_UP).await, Ok(0));
        fake.revoke_one();
        assert_eq!(trust.count(&backend, SHARD, GIVE_UP).await, Ok(0), "as of a moment ago");
        let begin = Instant::now();
        trust.doubt(SHARD);
        assert_eq!(trust.count(&backend, SHARD, GIVE_UP).await, Ok(1));
        assert!(begin.elapsed() < ASK_EVERY);
    }
}
