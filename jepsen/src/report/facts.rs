//! The top of the page: the verdict, the numbers, what ran, and what did not.

use serde_json::Value;

use crate::report::html::{Text, count, millis, sentence};
use crate::report::series::OverTime;
use crate::report::store::Run;
use crate::report::waits::Recovery;

/// So many reasons or problems are listed.
const SENTENCES_MAX: usize = 10;

/// A number on top.
struct Number {
    label: &'static str,
    value: String,
    below: String,
    /// Whether it is as it must be; `None` when there is no such bar.
    good: Option<bool>,
}

/// Verdict and numbers.
pub(super) fn head(run: &Run, recovery: &Recovery, over_time: &OverTime) -> String {
    let verdict = run.results["verdict"].as_str().unwrap_or("unknown");
    let (class, sign, word) = match verdict {
        "valid" => ("valid", "✓", "Valid"),
        "invalid" => ("invalid", "✗", "Invalid"),
        _ => ("unknown", "?", "Unknown"),
    };
    let mut out = format!(
        "<header class=\"{class}\">\n<p class=\"name\">{}</p>\n\
         <h1><span class=\"sign\" aria-hidden=\"true\">{sign}</span> {word}</h1>\n{}\n",
        title(run),
        explain(run, verdict)
    );
    out.push_str("<dl class=\"numbers\">\n");
    for number in numbers(run, recovery) {
        let class = match number.good {
            Some(true) => "good",
            Some(false) => "bad",
            None => "plain",
        };
        out.push_str(&format!(
            "<div class=\"{class}\"><dt>{}</dt><dd><strong>{}</strong><span>{}</span></dd></div>\n",
            number.label,
            Text(number.value),
            Text(number.below)
        ));
    }
    out.push_str("</dl>\n<dl class=\"more\">\n");
    for (label, value) in more(run, recovery, over_time) {
        let class = match (label, slowest_heal(run, recovery)) {
            (SLOWEST_HEAL, Some(ms)) => match within(run, &[("recover_ms", Some(ms))]) {
                Some(true) => " class=\"good\"",
                Some(false) => " class=\"bad\"",
                None => "",
            },
            _ => "",
        };
        out.push_str(&format!("<div{class}><dt>{label}</dt><dd>{}</dd></div>\n", Text(value)));
    }
    out.push_str("</dl>\n</header>\n");
    out
}

/// The test's name, mode and date, as far as known.
fn title(run: &Run) -> String {
    let name = run.test["name"].as_str().unwrap_or("A run without a name");
    let date = run.test["date"].as_str().map(|date| format!(" · {}", Text(date)));
    format!("{}{}", Text(sentence(name)), date.unwrap_or_default())
}

fn explain(run: &Run, verdict: &str) -> String {
    let counts = &run.results["counts"];
    let number = |name: &str| count(counts[name].as_u64().unwrap_or(0));
    let done = format!(
        "Operations: {}, rooms: {}; {} ok, {} failed, {} of unknown outcome; deliveries: {}; \
         events read: {}.",
        number("operations"),
        number("rooms"),
        number("ok"),
        number("fail"),
        number("info"),
        number("deliveries"),
        number("events_read")
    );
    match verdict {
        "valid" => format!(
            "<p>Every acknowledged message was there, once, in one order, for every reader. {done}</p>"
        ),
        "invalid" => {
            let anomalies = run.results["anomalies"].as_object();
            let found = anomalies.into_iter().flatten().map(|(name, n)| format!("{n} {name}"));
            let findings = strings(&run.results["findings"]);
            let slow = strings(&run.results["too_slow"]);
            let found: Vec<String> = found.chain(findings).chain(slow).collect();
            let found = Text(sentence(&found.join(", ")));
            format!("<p><a href=\"#anomalies\">{found}</a>. {done}</p>")
        }
        _ => {
            let problems: Vec<String> = strings(&run.results["problems"]).collect();
            let reasons = strings(&run.results["unknown"]).filter(|why| !problems.contains(why));
            let items: String =
                few(reasons).into_iter().map(|why| format!("<li>{why}</li>")).collect();
            format!(
                "<p>Nothing is wrong that could be seen, but too little was done or read to say that all is right. {done}</p><ul>{items}</ul>"
            )
        }
    }
}

/// The texts in a list of a JSON file.
pub(super) fn strings(list: &Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from)
}

/// The first of some sentences as HTML, each once, with how often it comes.
fn few(sentences: impl Iterator<Item = String>) -> Vec<String> {
    let mut times: Vec<(String, u64)> = Vec::new();
    for sentence in sentences {
        match times.iter_mut().find(|(other, _)| *other == sentence) {
            Some((_, n)) => *n += 1,
            None => times.push((sentence, 1)),
        }
    }
    let more = times.len().saturating_sub(SENTENCES_MAX);
    let shown = times.into_iter().take(SENTENCES_MAX).map(|(text, n)| {
        let times = if n > 1 { format!(" ({n} times)") } else { String::new() };
        format!("{}{times}", Text(sentence(&text)))
    });
    shown.chain((more > 0).then(|| format!("and {more} more in results.json"))).collect()
}

/// Lost, duplicate, gap, failover.
fn numbers(run: &Run, recovery: &Recovery) -> [Number; 4] {
    // A message in the place of another may be a loss, whatever name it has: then 0 is not green.
    let displaced = run.anomaly("inconsistent-offsets");
    let counted = |label: &'static str, names: &[&str]| {
        let value = run.results[label].as_u64();
        let value = value.unwrap_or(names.iter().map(|name| run.anomaly(name)).sum());
        let mut below: Vec<String> =
            names.iter().map(|name| format!("{name} {}", count(run.anomaly(name)))).collect();
        let doubt = value == 0 && displaced > 0 && label == "lost";
        if doubt {
            below.push(format!("but inconsistent-offsets {}", count(displaced)));
        }
        Number {
            label,
            value: count(value),
            below: below.join(", "),
            good: (!doubt).then_some(value == 0),
        }
    };
    let told = &run.results["failover_ms"];
    let waits = recovery.failovers_ms();
    let (median, worst, many) = if told["count"].is_u64() {
        (told["median"].as_f64(), told["worst"].as_f64(), told["count"].as_u64().unwrap_or(0))
    } else {
        (median(&waits), waits.last().copied(), waits.len() as u64)
    };
    let below = match worst {
        Some(worst) => format!("median of {many}; worst {}", millis(worst)),
        None => "no failover was seen".into(),
    };
    [
        counted("lost", &["lost-write", "unseen"]),
        counted("duplicate", &["duplicate"]),
        counted("gap", &["gap", "poll-skip"]),
        Number {
            label: "failover",
            value: median.map_or("–".into(), millis),
            below,
            good: within(run, &[("failover_median_ms", median), ("failover_worst_ms", worst)]),
        },
    ]
}

/// Whether what was measured is within the limits that the run had; `None` when it had none, or
/// nothing was measured.
fn within(run: &Run, measured: &[(&str, Option<f64>)]) -> Option<bool> {
    let judged = measured.iter().filter_map(|(limit, took)| {
        let limit = run.results["limits"][limit].as_f64()?;
        Some((*took)? <= limit)
    });
    judged.reduce(|all, one| all && one)
}

fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

const SLOWEST_HEAL: &str = "slowest heal";

/// In milliseconds.
fn slowest_heal(run: &Run, recovery: &Recovery) -> Option<f64> {
    let last = recovery.heals.iter().filter_map(|heal| heal.last_room_ms);
    let told = run.results["first_ok_after_heal_ms"]["worst"].as_f64();
    told.or(last.max_by(f64::total_cmp))
}

/// Further numbers, smaller.
fn more(run: &Run, recovery: &Recovery, over_time: &OverTime) -> Vec<(&'static str, String)> {
    let mut more = vec![
        ("stale reads", count(run.anomaly("stale-read"))),
        ("diverged", count(run.anomaly("diverged"))),
    ];
    let available = &run.results["availability"];
    if let (Some(ok), Some(all)) =
        (available["healthy_ok"].as_u64(), available["healthy_operations"].as_u64())
        && all > 0
    {
        more.push(("ok with a majority", format!("{:.2} %", ok as f64 / all as f64 * 100.0)));
    }
    if let Some(slowest) = slowest_heal(run, recovery) {
        more.push((SLOWEST_HEAL, millis(slowest)));
    }
    let sends = over_time.kinds.iter().find(|kind| kind.name == "send");
    if let Some(all) = sends.and_then(|sends| sends.all) {
        more.push(("send, median", millis(all.p50)));
        more.push(("send, p99", millis(all.p99)));
    }
    let windows = over_time.kinds.first().map_or(0, |kind| kind.ok.len());
    let ok: f64 = over_time.kinds.iter().flat_map(|kind| &kind.ok).sum();
    if let Some(rate) = run.results["throughput_per_s"].as_f64() {
        more.push(("ok a second", count(rate.round() as u64)));
    } else if windows > 0 {
        more.push(("ok a second", count((ok / windows as f64).round() as u64)));
    }
    more
}

/// What the reader must know before anything else: what is missing.
pub(super) fn warnings(run: &Run, recovery: &Recovery) -> String {
    let mut items: Vec<String> =
        run.notes.iter().map(|note| Text(sentence(note)).to_string()).collect();
    let problems = few(strings(&run.results["problems"]));
    if !problems.is_empty() {
        let list: String = problems.iter().map(|problem| format!("<li>{problem}</li>")).collect();
        items.push(format!("The run itself went wrong:<ul>{list}</ul>"));
    }
    for missing in run.test["missing"].as_array().into_iter().flatten() {
        let fault = missing["fault"].as_str().unwrap_or("a fault");
        let why = missing["why"].as_str().unwrap_or("no reason given");
        items.push(format!(
            "<strong>{} was not tested:</strong> {}",
            Text(sentence(fault)),
            Text(sentence(why))
        ));
    }
    for asked in run.test["nemeses"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let seen = recovery.spans.iter().any(|span| span.fault.starts_with(asked))
            || run.results["attacks"][asked].as_u64().is_some_and(|times| times > 0);
        let missing = run.test["missing"].as_array().into_iter().flatten();
        let said = missing.into_iter().any(|missing| missing["fault"].as_str() == Some(asked));
        if !seen && !said && asked != "all" && asked != "none" {
            items.push(format!(
                "<strong>{} was asked for, and never happened</strong>: the history has no such fault.",
                Text(sentence(asked))
            ));
        }
    }
    if items.is_empty() {
        return String::new();
    }
    let items: String = items.iter().map(|item| format!("<li>{item}</li>\n")).collect();
    format!(
        "<section class=\"warning\" aria-labelledby=\"missing\">\n\
         <h2 id=\"missing\">What this run does not show</h2>\n<ul>\n{items}</ul>\n</section>\n"
    )
}

/// The command, commit, seed, nodes and faults; and how to run it again.
pub(super) fn what_ran(run: &Run) -> String {
    let test = &run.test;
    if test.is_null() {
        return String::new();
    }
    let mut rows: Vec<(&str, String)> = Vec::new();
    for (label, key) in
        [("Version", "version"), ("Commit", "commit"), ("Seed", "seed"), ("Mode", "mode")]
    {
        if let Some(value) = scalar(&test[key]) {
            rows.push((label, format!("<code>{}</code>", Text(value))));
        }
    }
    let nodes = test["nodes"].as_array().into_iter().flatten();
    let nodes: Vec<String> = nodes.map(node).collect();
    if !nodes.is_empty() {
        rows.push(("Nodes", nodes.join("<br>")));
    }
    let faults = test["nemeses"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let faults: Vec<String> = faults.map(|fault| Text(sentence(fault)).to_string()).collect();
    rows.push(("Faults", if faults.is_empty() { "none".into() } else { faults.join(", ") }));
    let options: Vec<String> = test["options"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some(format!("{name} {}", scalar(value)?)))
        .collect();
    if !options.is_empty() {
        rows.push(("Options", Text(sentence(&options.join(", "))).to_string()));
    }
    let rows: String = rows
        .iter()
        .map(|(label, value)| format!("<div><dt>{label}</dt><dd>{value}</dd></div>\n"))
        .collect();
    let mut out = format!(
        "<section aria-labelledby=\"ran\">\n<h2 id=\"ran\">What ran</h2>\n<dl class=\"facts\">\n{rows}</dl>\n"
    );
    if let Some(command) = command(test) {
        out.push_str(&format!(
            "<h3>To run it again</h3>\n<div class=\"command\"><pre tabindex=\"0\"><code id=\"command\">{}</code></pre>\
             <button type=\"button\" data-copy=\"command\" hidden>Copy</button></div>\n",
            Text(command)
        ));
    }
    out.push_str("</section>\n");
    out
}

fn node(node: &Value) -> String {
    let text = |key: &str| node[key].as_str().map(|text| Text(sentence(text)).to_string());
    let name = text("name").unwrap_or_else(|| "a node".into());
    let addresses = [("clients", text("client")), ("peers", text("peer"))];
    let known = addresses.into_iter().filter_map(|(who, at)| Some(format!("{who} at {}", at?)));
    format!("<code>{name}</code> {}", known.collect::<Vec<_>>().join(", "))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(sentence(text)),
        Value::Array(items) => Some(items.iter().filter_map(scalar).collect::<Vec<_>>().join(",")),
        other => Some(sentence(&other.to_string())),
    }
}

/// The command for a shell, with the seed.
fn command(test: &Value) -> Option<String> {
    let words = test["command"].as_array().filter(|words| !words.is_empty())?;
    let mut words: Vec<String> = words.iter().filter_map(Value::as_str).map(quote).collect();
    let seeded = words.iter().any(|word| word == "--seed" || word.starts_with("--seed="));
    if let Some(seed) = scalar(&test["seed"]).filter(|_| !seeded) {
        words.extend(["--seed".into(), quote(&seed)]);
    }
    Some(words.join(" "))
}

fn quote(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(safe) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_command_has_its_seed_and_can_be_pasted() {
        let test = json!({ "command": ["folkmoot-jepsen", "run", "--time", "60s"], "seed": 7 });
        assert_eq!(command(&test).unwrap(), "folkmoot-jepsen run --time 60s --seed 7");
        let test = json!({ "command": ["run", "--seed", "9", "--store", "it's $HOME"], "seed": 9 });
        assert_eq!(command(&test).unwrap(), "run --seed 9 --store 'it'\\''s $HOME'");
        assert_eq!(command(&json!({ "seed": 7 })), None);
    }

    #[test]
    fn what_was_measured_is_held_to_the_limits_of_the_run() {
        let limits = json!({ "limits": { "recover_ms": 3000, "failover_worst_ms": 2000 } });
        let run = Run::new(crate::history::History::new(), json!({}), limits);
        assert_eq!(within(&run, &[("recover_ms", Some(3000.0))]), Some(true));
        assert_eq!(within(&run, &[("recover_ms", Some(3000.5))]), Some(false));
        let both = [("recover_ms", Some(1.0)), ("failover_worst_ms", Some(2001.0))];
        assert_eq!(within(&run, &both), Some(false));
        assert_eq!(within(&run, &[("recover_ms", None)]), None);
        assert_eq!(within(&run, &[("failover_median_ms", Some(1.0))]), None, "it had none");
    }
}
