//! A run as a row of a Markdown table, such as that of docs/attacks.md: made from what the run wrote
//! down, and not typed.

use std::path::Path;

use serde_json::Value;

use crate::report::html;
use crate::report::store::{ReportError, object};

/// The head of the table.
pub const HEAD: &str = "\
| date | attacks | nodes | time | rate | commit | seed | verdict | ok | lost | duplicate | gap | stale \
| diverged | failover: median, worst, of | first ok after healing: median, worst, of |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
";

/// The row of the run in this directory.
///
/// # Errors
///
/// [`ReportError::NoResults`] when it did not end, or the directory is not one of a run.
pub fn of(directory: &Path) -> Result<String, ReportError> {
    let read = |name| {
        object(directory, name)
            .map_err(|why| ReportError::NoResults { directory: directory.into(), why })
    };
    Ok(row(&read("test.json")?, &read("results.json")?))
}

fn row(test: &Value, results: &Value) -> String {
    let text = |value: &Value| value.as_str().map(cell).unwrap_or_else(|| "–".into());
    let number = |value: &Value| value.as_u64().map_or_else(|| "–".into(), count);
    let options = &test["options"];
    let date = text(&test["date"]);
    let seconds = options["time_s"].as_f64().map_or_else(|| "–".into(), |s| format!("{s:.0} s"));
    let rate = options["rate"].as_u64().map_or_else(|| "–".into(), |n| format!("{n}/s"));
    let mut cells = vec![
        date.split('T').next().unwrap_or_default().to_owned(),
        attacks(test),
        nodes(test),
        seconds,
        rate,
        text(&test["commit"]),
        test["seed"].as_u64().map_or_else(|| "–".into(), |seed| seed.to_string()),
        text(&results["verdict"]),
        number(&results["counts"]["ok"]),
    ];
    let numbers = ["lost", "duplicate", "gap", "stale_read", "diverged"];
    cells.extend(numbers.map(|name| number(&results[name])));
    cells.extend(["failover_ms", "first_ok_after_heal_ms"].map(|name| times(&results[name])));
    format!("| {} |\n", cells.join(" | "))
}

/// What was asked for, as it was asked for where the command says so.
fn attacks(test: &Value) -> String {
    let words: Vec<&str> =
        test["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let asked = words.iter().enumerate().rev().find_map(|(at, word)| match *word {
        "--nemesis" => words.get(at + 1).copied(),
        word => word.strip_prefix("--nemesis="),
    });
    let mode = if test["mode"] == "local" { " (--local)" } else { "" };
    let missing = test["missing"].as_array().into_iter().flatten();
    let missing: Vec<String> =
        missing.filter_map(|missing| missing["fault"].as_str().map(cell)).collect();
    let without = match missing.is_empty() {
        true => String::new(),
        false => format!(", without {}", missing.join(", ")),
    };
    let asked = cell(&asked.unwrap_or("all").replace(',', ", "));
    format!("{asked}{mode}{without}")
}

/// How many nodes there were; spare ones apart.
fn nodes(test: &Value) -> String {
    let all = test["nodes"].as_array().map_or(0, Vec::len);
    match test["options"]["spares"].as_u64() {
        None | Some(0) => all.to_string(),
        Some(spares) => format!("{} + {spares}", all as u64 - spares.min(all as u64)),
    }
}

fn times(times: &Value) -> String {
    match (times["median"].as_f64(), times["worst"].as_f64(), times["count"].as_u64()) {
        (Some(median), Some(worst), Some(all)) => {
            format!("{} ms, {} ms, {all}", whole(median), whole(worst))
        }
        _ => "–".into(),
    }
}

/// With commas, as the rest of the table's page has them.
fn count(number: u64) -> String {
    html::count(number).replace('\u{202f}', ",")
}

fn whole(ms: f64) -> String {
    count(ms.round() as u64)
}

/// Text that cannot end its cell.
fn cell(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_is_a_row_with_a_cell_for_each_head() {
        let test = json!({
            "date": "2026-01-02T03:04:05Z", "commit": "0123abc", "seed": 7, "mode": "root",
            "nodes": [{}, {}, {}], "options": { "time_s": 300.0, "rate": 150 },
            "command": ["folkmoot-jepsen", "run", "--nemesis", "kill,pause"], "missing": [],
        });
        let results = json!({
            "verdict": "valid", "counts": { "ok": 50_600 }, "lost": 0, "duplicate": 1, "gap": 2,
            "stale_read": 3, "diverged": 4,
            "failover_ms": { "median": 900.4, "worst": 1300.6, "count": 12 },
            "first_ok_after_heal_ms": { "median": null, "worst": null, "count": 0 },
        });
        let expected = "| 2026-01-02 | kill, pause | 3 | 300 s | 150/s | 0123abc | 7 | valid | 50,600 \
             | 0 | 1 | 2 | 3 | 4 | 900 ms, 1,301 ms, 12 | – |\n";
        assert_eq!(row(&test, &results), expected);
        for line in HEAD.lines() {
            assert_eq!(line.matches('|').count(), expected.matches('|').count(), "{line}");
        }
    }

    #[test]
    fn what_is_missing_is_in_the_row_and_nothing_ends_a_cell() {
        let test = json!({
            "command": ["run", "--nemesis=all"], "mode": "local", "commit": "a|b\nc",
            "missing": [{ "fault": "clock", "why": "x" }, { "fault": "delay", "why": "y" }],
        });
        let row = row(&test, &json!({ "verdict": "unknown" }));
        assert!(row.contains("| all (--local), without clock, delay | 0 | – |"), "{row}");
        let spare = json!({ "nodes": [{}, {}, {}, {}, {}], "options": { "spares": 2 } });
        assert_eq!(nodes(&spare), "3 + 2");
        assert!(row.contains("a\\|b c | – | unknown | – |") && row.lines().count() == 1, "{row}");
    }
}
