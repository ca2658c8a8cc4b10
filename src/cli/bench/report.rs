//! The report of a run, with the names that the peers' benchmark uses.

use serde_json::{Value, json};

use crate::cli::bench::Args;
use crate::cli::bench::check::Verdict;
use crate::cli::bench::load::{Latencies, Measured};
use crate::cli::bench::stats::Waited;
use crate::cli::output::Table;

/// Everything that is reported.
pub(super) struct Report<'a> {
    pub args: &'a Args,
    pub load_before: f64,
    pub waited: Waited,
    pub measured: &'a Measured,
    pub verdict: Option<Verdict>,
}

/// Three digits after the point.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A quantile in milliseconds; null when nothing was recorded.
fn quantile(latencies: &Latencies, quantile: f64) -> Value {
    if latencies.is_empty() {
        return Value::Null;
    }
    json!(latencies.value_at_quantile(quantile) as f64 / 1000.0)
}

impl Report<'_> {
    /// One JSON object.
    pub(super) fn json(&self) -> Value {
        let (args, measured) = (self.args, self.measured);
        let mut report = json!({
            "peer": "folkmoot",
            "mode": args.mode,
            "clients": args.clients,
            "conns": measured.connections,
            "rooms": args.rooms,
            "subscribers": args.subscribers,
            "size": args.size,
            "seconds": rounded(measured.seconds),
            "connect_s": rounded(measured.connect_seconds),
            "load_before": self.load_before,
            "load_after": measured.load_after,
            "other_cores_before": rounded(self.waited.other_cores),
            "waited_s": rounded(self.waited.seconds),
            "errors": measured.errors,
            "error_samples": measured.error_samples,
        });
        let parts = [self.latencies(), self.costs()];
        if let Some(report) = report.as_object_mut() {
            for part in parts {
                if let Value::Object(part) = part {
                    report.extend(part);
                }
            }
            if let Some(verdict) = &self.verdict {
                report.insert("verdict".into(), verdict.json());
            }
        }
        report
    }

    fn latencies(&self) -> Value {
        let Measured { ack, deliver, seconds, acked_in_window: acked, .. } = self.measured;
        json!({
            "acked": acked,
            "acked_per_s": rounded(*acked as f64 / seconds),
            "ack_ms_p50": quantile(ack, 0.50),
            "ack_ms_p90": quantile(ack, 0.90),
            "ack_ms_p99": quantile(ack, 0.99),
            "ack_ms_p999": quantile(ack, 0.999),
            "ack_ms_max": quantile(ack, 1.0),
            "deliver_ms_p50": quantile(deliver, 0.50),
            "deliver_ms_p90": quantile(deliver, 0.90),
            "deliver_ms_p99": quantile(deliver, 0.99),
            "delivered": self.measured.delivered,
            "deliver_expected": self.measured.deliver_expected,
            "subscribers_failed": self.measured.subscribers_failed,
        })
    }

    fn costs(&self) -> Value {
        let Measured { before: a, after: b, seconds, .. } = self.measured;
        let messages = self.measured.acked_in_window.max(1) as f64;
        let (server, own) = (b.server_cpu - a.server_cpu, b.self_cpu - a.self_cpu);
        let per_message =
            |after: u64, before: u64| json!(rounded((after as f64 - before as f64) / messages));
        let flushes = b.flushes as f64 - a.flushes as f64;
        let rss = &self.measured.rss_mib;
        // What was not asked for is not known, rather than nothing.
        let servers = |value: Value| if rss.is_empty() { Value::Null } else { value };
        let data = |value: Value| if b.apparent == 0 { Value::Null } else { value };
        json!({
            "server_cpu_s_per_1000": servers(json!(rounded(server / messages * 1000.0))),
            "server_cores": servers(json!(rounded(server / seconds))),
            "client_cpu_s_per_1000": rounded(own / messages * 1000.0),
            "client_cores": rounded(own / seconds),
            "other_cores": rounded(b.others_since(a) / seconds),
            "kernel_cores": rounded(b.kernel_since(a) / seconds),
            "steal_cores": rounded((b.stolen - a.stolen) / seconds),
            "server_rss_mib": servers(json!(rounded(rss.iter().sum()))),
            "server_rss_mib_each": rss.iter().map(|mib| mib.round()).collect::<Vec<_>>(),
            "du_bytes_per_msg": data(per_message(b.allocated, a.allocated)),
            "apparent_bytes_per_msg": data(per_message(b.apparent, a.apparent)),
            "written_bytes_per_msg": servers(per_message(b.written, a.written)),
            "device_bytes_per_msg": data(per_message(b.device_written, a.device_written)),
            "device_flushes_per_s": data(json!(rounded(flushes / seconds))),
            "device_flushes_per_msg": data(per_message(b.flushes, a.flushes)),
        })
    }

    /// A table for people.
    pub(super) fn text(&self) -> String {
        let report = self.json();
        let value = |name: &str| match &report[name] {
            Value::Null => "-".to_string(),
            value => value.to_string(),
        };
        let mut table = Table::new(&["WHAT", "VALUE>"]);
        for (what, name) in [
            ("clients", "clients"),
            ("connections", "conns"),
            ("acked/s", "acked_per_s"),
            ("ack p50, ms", "ack_ms_p50"),
            ("ack p90, ms", "ack_ms_p90"),
            ("ack p99, ms", "ack_ms_p99"),
            ("ack p99.9, ms", "ack_ms_p999"),
            ("deliver p50, ms", "deliver_ms_p50"),
            ("deliver p99, ms", "deliver_ms_p99"),
            ("delivered", "delivered"),
            ("of", "deliver_expected"),
            ("errors", "errors"),
            ("servers' CPU s per 1,000", "server_cpu_s_per_1000"),
            ("servers' RSS, MiB", "server_rss_mib"),
            ("disk bytes per message", "du_bytes_per_msg"),
        ] {
            table.row([what.to_string(), value(name)]);
        }
        let verdict = match &self.verdict {
            Some(verdict) if verdict.ok() => format!("ok: {}", verdict.text()),
            Some(verdict) => format!("BROKEN: {}", verdict.text()),
            None => "not checked".into(),
        };
        format!("{}\n\nhistory  {verdict}", table.render())
    }
}
