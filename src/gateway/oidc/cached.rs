//! What a provider has said once, kept for a while: one task asks, however many wait for it.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;

/// It is asked for again after this, while what is there is used.
const FRESH_FOR: Duration = Duration::from_secs(600);
/// It is not used after this.
const GOOD_FOR: Duration = Duration::from_secs(24 * 3600);
/// It is not asked for sooner after an answer, whatever anybody shows.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// It is not asked for sooner after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(3);

/// One thing that is kept.
#[derive(Debug)]
pub struct Cached<T> {
    kept: Mutex<Kept<T>>,
    asking: Arc<tokio::sync::Mutex<()>>,
    now: fn() -> Instant,
}

#[derive(Debug)]
struct Kept<T> {
    value: Option<(Arc<T>, Instant)>,
    failed: Option<(Error, Instant)>,
}

impl<T> Default for Cached<T> {
    fn default() -> Cached<T> {
        let kept = Mutex::new(Kept { value: None, failed: None });
        Cached { kept, asking: Arc::default(), now: Instant::now }
    }
}

impl<T: Send + Sync + 'static> Cached<T> {
    /// What is kept, or else what `fetch` gets. When it is old it is fetched anew meanwhile.
    ///
    /// # Errors
    /// `fetch`'s; for 3 s after it has failed the same one.
    pub async fn get<F>(self: &Arc<Self>, fetch: F) -> Result<Arc<T>, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let now = (self.now)();
        if let Some((value, at)) = self.kept(now) {
            let failed_lately = self.failure(now).is_some();
            if now - at > FRESH_FOR
                && !failed_lately
                && let Ok(turn) = self.asking.clone().try_lock_owned()
            {
                let cached = self.clone();
                tokio::spawn(async move {
                    let _turn = turn;
                    let _ = cached.note(fetch.await); // the next one who asks hears of it
                });
            }
            return Ok(value);
        }
        let _turn = self.asking.lock().await;
        let now = (self.now)();
        if let Some((value, _)) = self.kept(now) {
            return Ok(value);
        }
        match self.failure(now) {
            Some(error) => Err(error),
            None => self.note(fetch.await),
        }
    }

    /// What `fetch` gets now, as what is kept does not have what somebody shows; what is kept when that
    /// was fetched lately.
    ///
    /// # Errors
    /// As [`Cached::get`].
    pub async fn get_newer<F>(self: &Arc<Self>, fetch: F) -> Result<Arc<T>, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let _turn = self.asking.lock().await;
        let now = (self.now)();
        match (self.kept(now), self.failure(now)) {
            (Some((value, at)), _) if now - at < ASK_EVERY => Ok(value),
            (Some((value, _)), Some(_)) => Ok(value),
            (None, Some(error)) => Err(error),
            (kept, None) => match (self.note(fetch.await), kept) {
                (Err(_), Some((value, _))) => Ok(value),
                (fetched, _) => fetched,
            },
        }
    }

    fn kept(&self, now: Instant) -> Option<(Arc<T>, Instant)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.value.clone().filter(|(_, at)| now - *at < GOOD_FOR)
    }

    fn failure(&self, now: Instant) -> Option<Error> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.failed.as_ref().filter(|(_, at)| now - *at < RETRY_AFTER).map(|(e, _)| e.clone())
    }

    fn note(&self, fetched: Result<T, Error>) -> Result<Arc<T>, Error> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match fetched {
            Ok(value) => {
                let value = Arc::new(value);
                *kept = Kept { value: Some((value.clone(), (self.now)())), failed: None };
                Ok(value)
            }
            Err(error) => {
                kept.failed = Some((error.clone(), (self.now)()));
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;
    use crate::error::Code;

    static LATER_S: AtomicU64 = AtomicU64::new(0);
    static ASKED: AtomicUsize = AtomicUsize::new(0);

    async fn good() -> Result<usize, Error> {
        Ok(ASKED.fetch_add(1, Ordering::SeqCst))
    }

    async fn bad() -> Result<usize, Error> {
        ASKED.fetch_add(1, Ordering::SeqCst);
        Err(Error::new(Code::Unavailable, "down"))
    }

    /// What was got, and how often it was asked for.
    async fn counted(got: impl Future<Output = Result<Arc<usize>, Error>>) -> (bool, usize) {
        let before = ASKED.load(Ordering::SeqCst);
        let got = got.await.is_ok();
        tokio::task::yield_now().await; // for what is asked meanwhile
        (got, ASKED.load(Ordering::SeqCst) - before)
    }

    #[tokio::test]
    async fn it_is_asked_for_seldom() {
        let now = || Instant::now() + Duration::from_secs(LATER_S.load(Ordering::SeqCst));
        let cached = Arc::new(Cached { now, ..Cached::default() });
        let later = |time: Duration| LATER_S.fetch_add(time.as_secs() + 1, Ordering::SeqCst);
        assert_eq!(counted(cached.get(bad())).await, (false, 1));
        assert_eq!(counted(cached.get(good())).await, (false, 0), "it has just failed");
        assert_eq!(counted(cached.get_newer(good())).await, (false, 0));
        later(RETRY_AFTER);
        assert_eq!(counted(cached.get(good())).await, (true, 1));
        assert_eq!(counted(cached.get(good())).await, (true, 0));
        assert_eq!(counted(cached.get_newer(good())).await, (true, 0), "it has just been asked");
        later(ASK_EVERY);
        assert_eq!(counted(cached.get_newer(bad())).await, (true, 1), "the old one is still good");
        assert_eq!(counted(cached.get_newer(good())).await, (true, 0));
        later(FRESH_FOR);
        assert_eq!(counted(cached.get(good())).await, (true, 1), "meanwhile");
        later(GOOD_FOR);
        assert_eq!(counted(cached.get(bad())).await, (false, 1));
    }
}
