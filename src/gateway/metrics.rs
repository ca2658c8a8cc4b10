//! The gateway's metrics. Handles are registered once, so that the hot path only adds.
//!
//! Names carry their unit. Other layers register their own with the same recorder; `/metrics`
//! renders all of them.

mod help;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::error::{Code, Error};

/// Bounds of histogram buckets of durations, in seconds.
const DURATION_BUCKETS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

/// The same of counts.
const COUNT_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Installs the process's one metrics recorder. `node.rs` calls it before any layer is made.
///
/// # Errors
/// When a recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets(DURATION_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_per_fsync".into()), COUNT_BUCKETS)?
        .install_recorder()?;
    help::describe();
    Ok(handle)
}

/// Every metric that the gateway writes.
pub struct Metrics {
    /// Messages acknowledged, duplicates included.
    pub posts: Counter,
    /// From a post's arrival to its outcome.
    pub post_duration: Histogram,
    /// From a read of a page to its events, waiting for a new one left out.
    pub read_duration: Histogram,
    /// Events handed to connections, one for each event and subscriber.
    pub deliveries: Counter,
    /// Rooms followed now, over all connections.
    pub subscribers: Gauge,
    /// Feeds of followed rooms that went on at another replica, or at the same one later.
    pub follows_moved: Counter,
    /// Sessions open now.
    pub sessions: Gauge,
    /// WebSockets open now, signed in or not.
    pub websockets: Gauge,
    /// Users who are there by a device on this node.
    pub present: Gauge,
    /// Client connections open now.
    pub connections: Gauge,
    /// Client connections accepted.
    pub connections_total: Counter,
    /// Client connections turned away at the limit.
    pub connections_refused: Counter,
    rejections: HashMap<Code, Counter>,
    http_requests: Mutex<HashMap<(String, u16), Counter>>,
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Registers the metrics with the current recorder, whose handle this is.
    pub fn new(handle: PrometheusHandle) -> Metrics {
        let rejections = Code::ALL
            .iter()
            .map(|code| (*code, counter!("folkmoot_rejections_total", "code" => code.as_str())))
            .collect();
        Metrics {
            posts: counter!("folkmoot_posts_total"),
            post_duration: histogram!("folkmoot_post_duration_seconds"),
            read_duration: histogram!("folkmoot_read_duration_seconds"),
            deliveries: counter!("folkmoot_deliveries_total"),
            subscribers: gauge!("folkmoot_subscribers"),
            follows_moved: counter!("folkmoot_follows_moved_total"),
            sessions: gauge!("folkmoot_sessions"),
            websockets: gauge!("folkmoot_websockets"),
            present: gauge!("folkmoot_users_present"),
            connections: gauge!("folkmoot_connections"),
            connections_total: counter!("folkmoot_connections_accepted_total"),
            connections_refused: counter!("folkmoot_connections_refused_total"),
            rejections,
            http_requests: Mutex::default(),
            handle,
        }
    }

    /// Counts a request that was refused or failed.
    pub fn refused(&self, code: Code) {
        if let Some(counter) = self.rejections.get(&code) {
            counter.increment(1);
        }
    }

    /// Counts an error on its way to the client, and passes it on.
    pub fn count<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result {
            self.refused(error.code);
        }
        result
    }

    /// Counts a REST request by its route (a pattern, of which there are few) and status.
    pub fn http_request(&self, route: &str, status: u16) {
        let mut counters = self.http_requests.lock().unwrap_or_else(PoisonError::into_inner);
        counters
            .entry((route.to_owned(), status))
            .or_insert_with(|| {
                counter!(
                    "folkmoot_http_requests_total",
                    "route" => route.to_owned(), "status" => status.to_string()
                )
            })
            .increment(1);
    }

    /// Counts a WebSocket that this node closed, by the close code.
    pub fn websocket_closed(&self, code: u16) {
        counter!("folkmoot_websockets_closed_total", "code" => code.to_string()).increment(1);
    }

    /// Counts a followed room for as long as the result lives.
    pub fn subscribed(&self) -> InGauge {
        InGauge::enter(&self.subscribers)
    }

    /// Everything that was registered in this process, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds recorded samples into their histograms; without it they pile up in memory between
    /// scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// How often [`Metrics::upkeep`] is due.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Adds one to a gauge for as long as it lives.
pub struct InGauge(Gauge);

impl InGauge {
    /// Adds one.
    pub fn enter(gauge: &Gauge) -> InGauge {
        gauge.increment(1.0);
        InGauge(gauge.clone())
    }
}

impl std::fmt::Debug for InGauge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InGauge").finish_non_exhaustive()
    }
}

impl Drop for InGauge {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
