//! The page: sections in order, the data for the charts, style and script.

use serde::Serialize;

use crate::report::html::{self, Text, count};
use crate::report::operations::{OTHER_TEXT, Operations};
use crate::report::points::Scatter;
use crate::report::series::{OverTime, Series};
use crate::report::store::Run;
use crate::report::timeline::Timeline;
use crate::report::waits::Recovery;
use crate::report::{facts, tables, witnesses};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// A kind of operation has a chart of its quantiles when it was ok in so many windows.
const OFTEN: usize = 5;

/// What `report.js` draws.
#[derive(Serialize)]
struct Data<'a> {
    span_ms: f64,
    kinds: &'a [&'static str],
    /// The kind that is meant to fail.
    refused: &'static str,
    nodes: Vec<String>,
    scatter: &'a Scatter,
    over_time: &'a OverTime,
    recovery: &'a Recovery,
    timelines: &'a [Timeline],
}

pub(super) fn page(run: &Run) -> String {
    let operations = Operations::of(&run.history);
    let scatter = Scatter::of(&run.history, &operations);
    let over_time = OverTime::of(&operations);
    let recovery = Recovery::of(&run.history, &operations);
    let (wrong, timelines) = witnesses::section(run);
    let data = Data {
        span_ms: operations.span_ns as f64 / 1e6,
        kinds: &operations.kinds,
        refused: OTHER_TEXT,
        nodes: operations.nodes.iter().map(|node| html::name(node)).collect(),
        scatter: &scatter,
        over_time: &over_time,
        recovery: &recovery,
        timelines: &timelines,
    };
    let data = html::json(&data).expect("numbers and strings are JSON");
    let verdict = run.results["verdict"].as_str().unwrap_or("unknown");
    let name = run.test["name"].as_str().unwrap_or("a run");
    let body = [
        facts::head(run, &recovery, &over_time),
        "<main id=\"main\">\n".into(),
        "<p class=\"warning\" id=\"trouble\" role=\"alert\" hidden></p>\n".into(),
        facts::warnings(run, &recovery),
        wrong,
        latency(&scatter, &over_time),
        quantiles(&over_time),
        throughput(&over_time),
        faults(&recovery),
        tables::nodes(run),
        facts::what_ran(run),
        "</main>\n".into(),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
         form-action 'none'\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <title>{}: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">To the results</a>\n{}\
         <footer>Written by folkmoot-jepsen {}. It loads nothing, and works without a network.</footer>\n\
         <script type=\"application/json\" id=\"data\">{data}</script>\n\
         <script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        Text(html::sentence(name)),
        Text(verdict),
        body.concat(),
        env!("CARGO_PKG_VERSION")
    )
}

/// A place for a chart, with what it shows in words.
fn chart(name: &str, title: &str, words: &str) -> String {
    format!(
        "<figure class=\"chart\" data-chart=\"{name}\">\n<figcaption><b>{title}</b> {words}</figcaption>\n\
         </figure>\n"
    )
}

const NO_SCRIPT: &str = "<noscript><p>The charts are drawn by a script in this page, and scripts \
     are off. All numbers are in the tables.</p></noscript>\n";

fn latency(scatter: &Scatter, over_time: &OverTime) -> String {
    let [ok, fail, info] = scatter.thinned;
    let mut drawn = String::from("Each operation is a point.");
    if ok + fail + info > 0 {
        let also = [(fail, "failed"), (info, "of unknown outcome")]
            .into_iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!(" and {} {what}", count(n)))
            .collect::<String>();
        drawn = format!(
            "<strong>Thinned:</strong> {} operations that were ok{also} lie too dense to be drawn one by \
             one. They are in {} cells, darker where there are more. The other {} are a point each{}.",
            count(ok),
            count(scatter.cells.x.len() as u64),
            count(scatter.points.time.len() as u64),
            if fail + info == 0 {
                ": all that failed, all of unknown outcome, and the slowest of each kind"
            } else {
                ""
            }
        );
    }
    let refused = if over_time.kinds.iter().any(|kind| kind.name == OTHER_TEXT) {
        " Resends with another text are meant to be refused, and are hidden at first."
    } else {
        ""
    };
    format!(
        "<section aria-labelledby=\"latency\">\n<h2 id=\"latency\">Latency</h2>\n{NO_SCRIPT}\
         <p class=\"hint\">Drag over a chart to look closer; all follow. <kbd>←</kbd> <kbd>→</kbd> \
         <kbd>+</kbd> <kbd>−</kbd> move and zoom the one that has the focus; <kbd>0</kbd> or a double \
         click shows all again. Shaded: faults.</p>\n{}{}</section>\n",
        chart(
            "scatter",
            "Every operation",
            &format!("by when it began and how long it took. {drawn}{refused}")
        ),
        tables::summary(over_time)
    )
}

/// Seconds, or less, in words.
fn width(over_time: &OverTime) -> String {
    html::millis(over_time.width_ms as f64).replace(".00", "")
}

fn quantiles(over_time: &OverTime) -> String {
    let mut charts = String::new();
    // Few points make no line: what is seldom done is in the tables.
    let often = |series: &&Series| series.quantiles.iter().flatten().count() >= OFTEN;
    for (number, series) in over_time.kinds.iter().enumerate().filter(|(_, s)| often(s)) {
        let name = Text(&series.name).to_string();
        charts.push_str(&chart(&format!("quantiles-{number}"), &name, "p50, p99, p99.9"));
    }
    format!(
        "<section aria-labelledby=\"quantiles\">\n<h2 id=\"quantiles\">Quantiles</h2>\n\
         <p>Latency of what was ok, in windows of {}.</p>\n<div class=\"grid\">\n{charts}</div>\n{}</section>\n",
        width(over_time),
        chart(
            "p99-nodes",
            "By node",
            "p99 of sends, resends and reads, by the node that was asked."
        )
    )
}

fn throughput(over_time: &OverTime) -> String {
    let mut charts = vec![
        chart("rate-kinds", "By kind", "what was ok, a second."),
        chart("rate-nodes", "By node", "sends, resends and reads that were ok, a second."),
        chart(
            "rate-not-ok",
            "Not ok",
            "what failed or is of unknown outcome, a second. Without resends with another text.",
        ),
    ];
    if !over_time.deliveries.is_empty() {
        charts.push(chart("rate-deliveries", "Deliveries", "on all subscriptions, a second."));
    }
    format!(
        "<section aria-labelledby=\"throughput\">\n<h2 id=\"throughput\">Throughput</h2>\n\
         <div class=\"grid\">\n{}</div>\n{}</section>\n",
        charts.concat(),
        tables::windows(over_time)
    )
}

fn faults(recovery: &Recovery) -> String {
    let drawn = if recovery.spans.is_empty() {
        String::new()
    } else {
        chart(
            "recovery",
            "How long clients waited",
            "for an ok: after each fault began (diamonds, by its start), and after all had ended \
             (squares: the last room that was waiting).",
        )
    };
    format!(
        "<section aria-labelledby=\"faults\">\n<h2 id=\"faults\">Faults and recovery</h2>\n{drawn}\
         <p class=\"hint\">A wait is the time in which clients asked something of a room and none was \
         answered with ok, in the room that waited longest.</p>\n{}</section>\n",
        tables::faults(recovery)
    )
}
