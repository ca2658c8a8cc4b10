//! What came of it, as a Markdown table, from the history: how long each operation took, and posts
//! meanwhile, from when each was due to its acknowledgement: who was held up by an earlier one counts, too
//! ("coordinated omission": G. Tene, How NOT to Measure Latency, 2013).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::history::{F, History, Id, Kind, Value};
use crate::run::operations::{Operation, Step};
use crate::run::store::Test;
use crate::run::verdict::Results;

/// How long 99 % of the posts may take during an operation, in milliseconds.
const P99_MS_MAX: f64 = 500.0;
/// The part of the load that there has to be: who posts does so at random, and windows may be short.
const RATE_MIN: f64 = 0.9;
/// How long a dead node may take to be replaced.
const REPLACED_WITHIN: Duration = Duration::from_secs(60);

/// When a message was to be sent first, and when it was first acknowledged, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Post {
    begin: u64,
    end: Option<u64>,
}

/// Posts that were due while a step was measured.
#[derive(Debug, PartialEq)]
struct Posts {
    count: usize,
    /// Never acknowledged, however often they were tried.
    failed: usize,
    /// Half, 99 %, and all of the others took no longer, in milliseconds.
    quantiles_ms: [f64; 3],
}

/// Every message that clients sent.
fn posts(history: &History) -> Vec<Post> {
    let mut posts: HashMap<Id, Post> = HashMap::new();
    for op in history.ops().iter().filter(|op| matches!(op.f, F::Send | F::Resend)) {
        let Value::Write { id, other_body: false, .. } = op.value else { continue };
        match op.kind {
            Kind::Invoke => {
                let begin = op.time.saturating_sub(op.late);
                posts.entry(id).or_insert(Post { begin, end: None });
            }
            Kind::Ok => {
                if let Some(post) = posts.get_mut(&id) {
                    post.end.get_or_insert(op.time);
                }
            }
            Kind::Fail | Kind::Info => {}
        }
    }
    posts.into_values().collect()
}

impl Posts {
    fn during(all: &[Post], step: &Step) -> Posts {
        let begun = || all.iter().filter(|post| (step.begin..=step.until).contains(&post.begin));
        let mut took: Vec<f64> = begun()
            .filter_map(|post| Some(post.end?.saturating_sub(post.begin) as f64 / 1e6))
            .collect();
        took.sort_by(f64::total_cmp);
        let quantile = |share: f64| {
            let rank = (share * took.len() as f64).ceil() as usize;
            took.get(rank.max(1) - 1).copied().unwrap_or(0.0)
        };
        let count = begun().count();
        let quantiles_ms = [quantile(0.5), quantile(0.99), quantile(1.0)];
        Posts { count, failed: count - took.len(), quantiles_ms }
    }
}

/// What was not reached (docs/operations.md): a p99 under 500 ms and no failed post during each
/// operation, and a replacement within a minute; and the load that was asked for, in posts a second. A crash
/// may take posts longer.
fn missed(step: &Step, posts: &Posts, rate: f64) -> Vec<String> {
    let (name, took) = (&step.name, Duration::from_nanos(step.end - step.begin));
    let [_, p99, _] = posts.quantiles_ms;
    let is = |operation: Operation| name == operation.name();
    let mut missed = vec![];
    let posted = posts.count as f64 / step.measured();
    if posted < rate * RATE_MIN {
        missed.push(format!("{name}: {posted:.0} posts a second, which are to be {rate:.0}"));
    }
    if posts.failed > 0 {
        missed.push(format!("{name}: {} posts failed for good", posts.failed));
    }
    if p99 >= P99_MS_MAX && !is(Operation::Crash) {
        missed.push(format!("{name}: a p99 of {p99:.0} ms, which is to be under {P99_MS_MAX}"));
    }
    if is(Operation::Replace) && took >= REPLACED_WITHIN {
        missed.push(format!("{name}: took {took:.1?}, which is to be under {REPLACED_WITHIN:?}"));
    }
    missed
}

/// The table, with what it was measured on and by; and what was not reached.
#[must_use]
pub fn markdown(test: &Test, history: &History, results: &Results) -> (String, Vec<String>) {
    let all = posts(history);
    let mut text = String::from(
        "| operation | commands | nodes before | took, s | posts/s | p50, ms | p99, ms | max, ms | \
         failed |\n|---|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let mut not_reached = vec![];
    let asked = test.options["rate"].as_f64().unwrap_or(0.0);
    for step in &results.outside.steps {
        let posts = Posts::during(&all, step);
        not_reached.extend(missed(step, &posts, asked));
        let seconds = (step.end - step.begin) as f64 / 1e9;
        let [p50, p99, max] = posts.quantiles_ms;
        let (rate, failed) = (posts.count as f64 / step.measured(), posts.failed);
        let name = match &step.error {
            None => step.name.clone(),
            Some(why) => format!("{} ({})", step.name, why.replace(['|', '\n'], " ")),
        };
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {seconds:.1} | {rate:.0} | {p50:.1} | {p99:.0} | {max:.0} | \
             {failed} |",
            step.commands, step.nodes
        );
    }
    let verdict = format!("{:?}", results.report.verdict).to_lowercase();
    let _ = write!(
        text,
        "\n{verdict}: lost {}, duplicate {}, gap {}, stale {}, diverged {}. {} messages before; \
         {} subscribers. Seed {}, commit {}, {}.\n\n```sh\n{}\n```\n",
        results.lost,
        results.duplicate,
        results.gap,
        results.stale_read,
        results.diverged,
        test.options["prefill"].as_u64().unwrap_or(0),
        test.options["subscribers"],
        test.seed,
        test.commit,
        test.date,
        command(&test.command),
    );
    (text, not_reached)
}

/// The command without the path of the program.
fn command(words: &[String]) -> String {
    let arguments = words.iter().skip(1).map(String::as_str);
    std::iter::once("folkmoot-jepsen").chain(arguments).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Op, Process};

    #[test]
    fn a_post_takes_from_its_first_try_to_its_first_ack() {
        let ms = |ms: u64| ms * 1_000_000;
        let mut history = History::new();
        let send = |process, f, id, at| Op::invoke(ms(at), Process(process), f, Value::send(id));
        let [a, b, c] = [1, 2, 3].map(|n: u128| Id::from_u128(n << 80));
        let room = |op: Op| op.room("r").node("n1");
        let first = room(send(0, F::Send, a, 10));
        let again = room(send(0, F::Resend, a, 40));
        let lost = room(send(1, F::Send, b, 50));
        let mut late = room(send(2, F::Send, c, 93));
        late.late = ms(3);
        for op in [
            first.clone(),
            first.fail(ms(20), "unavailable"),
            again.clone(),
            lost.clone(),
            again.ok(ms(60), Value::sent(a, 1)),
            lost.fail(ms(70), "unavailable"),
            late.clone(),
            late.ok(ms(95), Value::sent(c, 2)),
        ] {
            history.push(op).unwrap();
        }
        let all = posts(&history);
        assert_eq!(all.len(), 3);
        let (name, commands) = ("drain".to_owned(), String::new());
        let (begin, end, until) = (ms(5), ms(60), ms(80));
        let mut step = Step { name, commands, begin, end, until, nodes: 3, error: None };
        let quantiles_ms = [50.0; 3];
        assert_eq!(Posts::during(&all, &step), Posts { count: 2, failed: 1, quantiles_ms });
        (step.begin, step.end, step.until) = (ms(85), ms(90), ms(100));
        let quantiles_ms = [5.0; 3];
        let posts = Posts::during(&all, &step);
        assert_eq!(posts, Posts { count: 1, failed: 0, quantiles_ms });
        assert_eq!(missed(&step, &posts, 70.0), Vec::<String>::new());
        assert_eq!(missed(&step, &posts, 80.0), ["drain: 67 posts a second, which are to be 80"]);
        let bad = Posts { count: 9, failed: 2, quantiles_ms: [1.0, 500.0, 900.0] };
        step.name = "replace".into();
        (step.begin, step.end) = (0, ms(60_000));
        assert_eq!(missed(&step, &bad, 0.0).len(), 3);
        step.name = "crash".into();
        assert_eq!(missed(&step, &bad, 0.0), ["crash: 2 posts failed for good"]);
    }
}
