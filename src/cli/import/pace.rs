//! How fast an import goes: as fast as it can, at a rate, or as it was said.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::limits;
use crate::proto::v1 as pb;

/// The pace of all files together.
#[derive(Debug)]
pub(super) struct Pace {
    begun: Instant,
    rate: Option<u32>,
    speed: Option<f64>,
    /// Lines sent so far, by all files.
    sent: AtomicU64,
}

/// The pace of one file.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pace: &'a Pace,
    begun: Instant,
    /// The original time of the first line sent; 0 before that.
    first_ms: AtomicU64,
}

impl Pace {
    /// At most `rate` lines a second, or as said times `speed`, or without limit.
    pub(super) fn new(rate: Option<u32>, speed: Option<f64>) -> Pace {
        Pace { begun: Instant::now(), rate, speed, sent: AtomicU64::new(0) }
    }

    /// Lines in one batch, so that a slow pace is even: a tenth of a second at a rate.
    pub(super) fn batch_lines_max(&self) -> usize {
        let even = self.rate.map_or(usize::MAX, |rate| rate as usize / 10);
        even.clamp(1, limits::IMPORT_LINES_MAX)
    }

    /// Begins a file.
    pub(super) fn start(&self) -> Start<'_> {
        Start { pace: self, begun: Instant::now(), first_ms: AtomicU64::new(0) }
    }
}

impl Start<'_> {
    /// Waits until a batch may be sent. With a speed, the batch goes when its last line is due.
    pub(super) async fn wait_for(&self, batch: &[pb::ImportLine]) {
        if let Some(rate) = self.pace.rate {
            let before = self.pace.sent.fetch_add(batch.len() as u64, Ordering::Relaxed);
            let due = Duration::from_secs_f64(before as f64 / f64::from(rate));
            sleep_until(self.pace.begun + due).await;
        }
        if let (Some(speed), Some(first), Some(last)) =
            (self.pace.speed, batch.first(), batch.last())
        {
            let _ = self.first_ms.compare_exchange(
                0,
                first.original_at_ms,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            let first_ms = self.first_ms.load(Ordering::Relaxed);
            let passed = last.original_at_ms.saturating_sub(first_ms);
            let due = Duration::from_secs_f64(passed as f64 / 1000.0 / speed);
            sleep_until(self.begun + due).await;
        }
    }
}

/// Parses a speed, for arguments.
pub(super) fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    let in_range = (0.001..=1e9).contains(&speed);
    if in_range { Ok(speed) } else { Err("use a factor from 0.001 to 1000000000".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(lines: usize, at_ms: u64) -> Vec<pb::ImportLine> {
        vec![pb::ImportLine { original_at_ms: at_ms, ..pb::ImportLine::default() }; lines]
    }

    #[tokio::test]
    async fn a_rate_holds_for_all_files_together() {
        let pace = Pace::new(Some(1000), None);
        assert_eq!(pace.batch_lines_max(), 100);
        let (a, b) = (pace.start(), pace.start());
        let begun = Instant::now();
        for _ in 0..2 {
            a.wait_for(&batch(100, 1)).await;
            b.wait_for(&batch(100, 1)).await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_speed_follows_the_original_times() {
        let pace = Pace::new(None, Some(60.0));
        let start = pace.start();
        let begun = Instant::now();
        start.wait_for(&batch(1, 1_000_000)).await;
        start.wait_for(&batch(1, 1_006_000)).await;
        assert!(begun.elapsed() >= Duration::from_millis(99), "{:?}", begun.elapsed());
    }

    #[test]
    fn speeds_are_sane() {
        assert_eq!(speed("1.5"), Ok(1.5));
        for bad in ["0", "-1", "NaN", "inf", "x"] {
            assert!(speed(bad).is_err(), "{bad}");
        }
    }
}
