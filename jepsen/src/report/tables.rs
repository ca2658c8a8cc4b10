//! What the charts show, as tables: for those who read rather than look, and to copy from.

use serde_json::Value;

use crate::report::html::{Text, count, millis, sentence};
use crate::report::series::{OverTime, Quantiles, Series};
use crate::report::store::Run;
use crate::report::waits::{Recovery, Span};

fn cell(ms: Option<f64>) -> String {
    ms.map_or("–".into(), millis)
}

/// A number with a bar as long as its share of the largest.
fn bar(ms: Option<f64>, largest: f64, class: &str) -> String {
    let Some(ms) = ms else { return "<td class=\"n\">–</td>".into() };
    let share = if largest > 0.0 { ms / largest * 100.0 } else { 0.0 };
    format!(
        "<td class=\"bar\"><span class=\"{class}\" style=\"--share:{share:.1}%\"></span>{}</td>",
        millis(ms)
    )
}

fn largest(values: impl Iterator<Item = Option<f64>>) -> f64 {
    values.flatten().fold(0.0, f64::max)
}

fn table(caption: &str, columns: &[&str], rows: &str) -> String {
    let columns: String = columns
        .iter()
        .map(|column| match column.strip_prefix('#') {
            Some(column) => format!("<th scope=\"col\" class=\"n\">{column}</th>"),
            None => format!("<th scope=\"col\">{column}</th>"),
        })
        .collect();
    format!(
        "<div class=\"wide\"><table>\n<caption>{caption}</caption>\n<thead><tr>{columns}</tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}

/// Latencies and outcomes by kind and by node.
pub(super) fn summary(over_time: &OverTime) -> String {
    let columns = ["", "#ok", "#failed", "#unknown", "#p50", "#p99", "#p99.9", "#slowest"];
    let rows = |series: &[Series]| series.iter().map(row).collect::<String>();
    let mut out = table(
        "By kind of operation. Latencies are of what was ok.",
        &columns,
        &rows(&over_time.kinds),
    );
    if !over_time.nodes.is_empty() {
        out.push_str(&table(
            "By the node that was asked: sends, resends with the same text, and reads.",
            &columns,
            &rows(&over_time.nodes),
        ));
    }
    out
}

fn row(series: &Series) -> String {
    let quantile = |of: fn(&Quantiles) -> f64| cell(series.all.as_ref().map(of));
    let [ok, fail, info] = series.counts.map(count);
    let numbers = [
        ok,
        fail,
        info,
        quantile(|q| q.p50),
        quantile(|q| q.p99),
        quantile(|q| q.p999),
        quantile(|q| q.max),
    ];
    let cells: String = numbers.iter().map(|n| format!("<td class=\"n\">{n}</td>")).collect();
    format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", Text(&series.name))
}

/// Quantiles and rates in each window.
pub(super) fn windows(over_time: &OverTime) -> String {
    let mut out = String::new();
    for series in &over_time.kinds {
        let mut rows = String::new();
        for (at, quantiles) in series.quantiles.iter().enumerate() {
            if series.ok[at] + series.not_ok[at] == 0.0 && quantiles.is_none() {
                continue;
            }
            let [p50, p99, p999] =
                [|q: &Quantiles| q.p50, |q: &Quantiles| q.p99, |q: &Quantiles| q.p999]
                    .map(|of| cell(quantiles.as_ref().map(of)));
            rows.push_str(&format!(
                "<tr><th scope=\"row\" class=\"n\">{} s</th><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{p50}</td><td class=\"n\">{p99}</td><td class=\"n\">{p999}</td></tr>\n",
                at as f64 * over_time.width_ms as f64 / 1e3,
                series.ok[at],
                series.not_ok[at],
            ));
        }
        let columns = ["#from", "#ok a second", "#not ok a second", "#p50", "#p99", "#p99.9"];
        out.push_str(&table(&Text(&series.name).to_string(), &columns, &rows));
    }
    format!("<details><summary>Quantiles and rates as tables</summary>\n{out}</details>\n")
}

/// Each fault, what it did, and each heal.
pub(super) fn faults(recovery: &Recovery) -> String {
    if recovery.spans.is_empty() {
        return "<p>No fault was injected.</p>\n".into();
    }
    let longest = largest(recovery.spans.iter().map(|span| span.wait_ms));
    let rows: String = recovery.spans.iter().map(|span| fault(span, longest)).collect();
    let columns = ["Fault", "On", "#From", "#To", "Majority", "Longest wait for an ok"];
    let mut out = table("Each fault", &columns, &rows);
    if !recovery.heals.is_empty() {
        let heals = &recovery.heals;
        let longest = largest(heals.iter().flat_map(|heal| [heal.first_ok_ms, heal.last_room_ms]));
        let rows: String = heals
            .iter()
            .map(|heal| {
                format!(
                    "<tr><th scope=\"row\" class=\"n\">{}</th>{}{}</tr>\n",
                    millis(heal.at_ms),
                    bar(heal.first_ok_ms, longest, "heal"),
                    bar(heal.last_room_ms, longest, "heal")
                )
            })
            .collect();
        let columns = ["#All faults ended at", "First ok after", "Last waiting room served after"];
        out.push_str(&table("Each time that all faults had ended", &columns, &rows));
    }
    out
}

fn fault(span: &Span, longest: f64) -> String {
    format!(
        "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
         <td>{}</td>{}</tr>\n",
        Text(&span.fault),
        Text(span.on.join(", ")),
        millis(span.from_ms),
        if span.stops { millis(span.to_ms) } else { "never".into() },
        match span.majority {
            Some(true) => "kept",
            Some(false) => "lost",
            None => "not said",
        },
        bar(span.wait_ms, longest, if span.majority == Some(false) { "lost" } else { "kept" })
    )
}

/// Which nodes stopped by themselves, and why.
pub(super) fn nodes(run: &Run) -> String {
    let Some(nodes) = run.results["nodes"].as_array().filter(|nodes| !nodes.is_empty()) else {
        return String::new();
    };
    let rows: String = nodes
        .iter()
        .map(|node| {
            let stopped = match &node["stopped_by_itself"] {
                Value::Bool(true) => "yes".into(),
                Value::Bool(false) => "no".into(),
                Value::Number(times) if times.as_u64() == Some(0) => "no".into(),
                Value::Number(times) => format!("{times} times"),
                _ => "not said".into(),
            };
            let away = node["away"] == Value::Bool(true);
            let lit = !["no", "not said"].contains(&&*stopped)
                || (node["well"] == Value::Bool(false) && !away)
                || node["panics"].as_array().is_some_and(|panics| !panics.is_empty());
            let well = match &node["well"] {
                _ if away => "not in the cluster",
                Value::Bool(true) => "yes",
                Value::Bool(false) => "no",
                _ => "not said",
            };
            format!(
                "<tr{}><th scope=\"row\">{}</th><td>{stopped}</td><td>{well}</td><td>{}</td></tr>\n",
                if lit { " class=\"lit\"" } else { "" },
                Text(sentence(node["name"].as_str().unwrap_or("a node"))),
                [&node["why"], &node["panics"]].map(why).concat()
            )
        })
        .collect();
    format!(
        "<section aria-labelledby=\"nodes\">\n<h2 id=\"nodes\">Nodes</h2>\n{}</section>\n",
        table(
            "Which stopped without being told to, and the last that they said.",
            &["Node", "Stopped by itself", "Well at the end", "Why"],
            &rows
        )
    )
}

/// Each line of a text, or of each of several.
fn why(value: &Value) -> String {
    let lines = |text: &str| {
        let each = text.lines().map(|line| format!("{}<br>", Text(sentence(line))));
        each.collect::<String>()
    };
    match value {
        Value::Null => String::new(),
        Value::String(text) => lines(text),
        Value::Array(items) => items.iter().map(why).collect(),
        other => lines(&other.to_string()),
    }
}
