//! Tries a call until it succeeds, is rejected, or its deadline passes.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::client::{Client, ClientOptions, wire};
use crate::error::{Code, Error};
use crate::id::RequestId;

/// Corrections of the clock within one call; more means that servers disagree about the time.
const SKEW_CORRECTIONS_MAX: u32 = 3;

/// Doubling delays with jitter.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts with the options' shortest delay.
    pub(super) fn new(options: &ClientOptions) -> Backoff {
        Backoff { min: options.backoff_min, max: options.backoff_max, failures: 0 }
    }

    /// Starts over after a success.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after another failure, at least as long as the server asks for.
    pub(super) fn next(&mut self, retry_after_ms: Option<u64>) -> Duration {
        let delay = self.delay(self.failures);
        self.failures = self.failures.saturating_add(1);
        delay.max(Duration::from_millis(retry_after_ms.unwrap_or(0)).min(self.max * 5))
    }

    /// The delay after `failures` earlier ones: between a half and the whole of the doubled one.
    fn delay(&self, failures: u32) -> Duration {
        let full = self.min.saturating_mul(1 << failures.min(16)).min(self.max);
        full.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }
}

/// Whether another server may answer what this one could not.
pub(super) fn other_server_may_help(error: &Error) -> bool {
    !matches!(error.code, Code::Overloaded | Code::DiskFull | Code::RateLimited)
}

impl Client {
    /// Reads: any attempt is harmless.
    pub(super) async fn read<R, F, Fut>(&self, attempt: F) -> Result<R, Error>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let limit = self.options().attempt_timeout;
        self.attempts(None, limit, |channel, _| attempt(channel)).await
    }

    /// Changes something: every attempt carries the same request id.
    pub(super) async fn mutate<R, F, Fut>(&self, attempt: F) -> Result<R, Error>
    where
        F: Fn(Channel, RequestId) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        self.attempts(None, self.options().attempt_timeout, attempt).await
    }

    /// Tries `attempt` until the deadline. `id` is the caller's, or one is minted (and minted
    /// anew on clock skew, which a caller's id is not). Each attempt gets `attempt_timeout`; one
    /// that may take longer than the deadline is not begun again after that.
    pub(super) async fn attempts<R, F, Fut>(
        &self,
        id: Option<RequestId>,
        attempt_timeout: Duration,
        attempt: F,
    ) -> Result<R, Error>
    where
        F: Fn(Channel, RequestId) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let options = self.options();
        let servers = &self.shared.servers;
        let deadline = Instant::now() + options.deadline;
        let mut backoff = Backoff::new(options);
        let mut request_id = id.unwrap_or_else(|| self.mint_id());
        let mut maybe_applied = false;
        let (mut skews, mut moves) = (0, 0);
        let mut before = None;
        loop {
            let server = servers.current();
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = match attempt_timeout > options.deadline {
                true => attempt_timeout,
                false => attempt_timeout.min(left).max(Duration::from_millis(1)),
            };
            let mut error = match timeout(limit, attempt(servers.channel(server), request_id)).await
            {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => wire::error_of(&status),
                Err(_) => {
                    let late = || {
                        let why = format!("no answer within {:.1} s", limit.as_secs_f64());
                        Error::new(Code::Timeout, why)
                    };
                    // An attempt that was cut short says less than the one before it.
                    let earlier = before.take().filter(|_| limit < attempt_timeout);
                    earlier.unwrap_or_else(late).maybe_applied()
                }
            };
            if let Some(server_time_ms) = error.server_time_ms
                && error.code == Code::ClockSkew
                && id.is_none()
                && !maybe_applied
                && skews < SKEW_CORRECTIONS_MAX
            {
                self.shared.mint.correct(server_time_ms);
                request_id = self.mint_id();
                skews += 1;
                continue;
            }
            maybe_applied |= error.may_have_applied;
            error.may_have_applied = maybe_applied;
            if !error.temporary() {
                return Err(error);
            }
            let mut delay = backoff.next(error.retry_after_ms);
            if other_server_may_help(&error) {
                servers.leave(server);
                moves += 1;
                if moves < servers.len() && error.retry_after_ms.is_none() {
                    delay = Duration::ZERO; // every server gets one try before any waiting
                }
            }
            if Instant::now() + delay >= deadline {
                return Err(error);
            }
            before = Some(error);
            sleep(delay).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let mut backoff = Backoff::new(&ClientOptions::default());
        let mut last = Duration::ZERO;
        for _ in 0..40 {
            last = backoff.next(None);
            assert!(last >= Duration::from_millis(10) && last <= Duration::from_secs(1));
        }
        assert!(last >= Duration::from_millis(500));
        assert!(backoff.next(Some(1500)) >= Duration::from_millis(1500));
        backoff.reset();
        assert!(backoff.next(None) <= Duration::from_millis(20));
    }
}
