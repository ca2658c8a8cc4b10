//! The report of a run: what it says, what it leaves out, and that nothing in a history harms it.
//!
//! The pages that these tests make stay in `target/tmp/reports/`, to be looked at.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use crate::browser;
use crate::generated::{self, MINUTE, Plan};
use crate::story::{self, Story, events};
use folkmoot_jepsen::history::{F, Fault, History, Id, Op, Phase, Process, Value as Is};
use folkmoot_jepsen::report::{self, Run};
use serde_json::{Value, json};

/// A run's directory with these files in it.
fn store(name: &str, history: &History, files: &[(&str, String)]) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reports").join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let file = File::create(directory.join("history.jsonl")).unwrap();
    history.write(BufWriter::new(file)).unwrap();
    for (name, text) in files {
        fs::write(directory.join(name), text).unwrap();
    }
    directory
}

/// The page of this directory's run, and what its charts are drawn from.
fn page(directory: &Path) -> (String, Value) {
    let out = directory.join("report.html");
    report::write(directory, &out).unwrap();
    let page = fs::read_to_string(&out).unwrap();
    let start = "<script type=\"application/json\" id=\"data\">";
    let data = page.split(start).nth(1).unwrap().split("</script>").next().unwrap();
    let data = serde_json::from_str(data).unwrap();
    (page, data)
}

fn test_json() -> Value {
    json!({
        "name": "mixed", "seed": 11, "commit": "0123abc", "mode": "root",
        "date": "2026-01-01T12:00:00Z",
        "command": ["folkmoot-jepsen", "run", "--nodes", "3", "--nemesis", "all"],
        "nodes": [
            { "name": "n1", "client": "10.7.0.1:7400", "peer": "10.7.0.1:7401" },
            { "name": "n2", "client": "10.7.0.2:7400", "peer": "10.7.0.2:7401" },
            { "name": "n3", "client": "10.7.0.3:7400", "peer": "10.7.0.3:7401" },
        ],
        "nemeses": ["kill", "partition", "pause", "powercut", "clock", "diskfull", "bitflip"],
        "missing": [{ "fault": "diskfull", "why": "no loop devices: run as root" }],
        "options": { "rooms": 16, "workers": 24 },
    })
}

#[test]
fn a_minute_with_faults_is_all_there() {
    let files = [("test.json", test_json().to_string())];
    let directory = store("valid", &generated::run(MINUTE, 11), &files);
    let (page, data) = page(&directory);
    for said in [
        " Valid</h1>",
        "<dt>lost</dt><dd><strong>0</strong>",
        "<strong>diskfull was not tested:</strong> no loop devices: run as root",
        "<strong>bitflip was asked for, and never happened</strong>",
        "There is no results.json: the history was judged anew",
        "folkmoot-jepsen run --nodes 3 --nemesis all --seed 11",
        "<code>n2</code> clients at 10.7.0.2:7400, peers at 10.7.0.2:7401",
    ] {
        assert!(page.contains(said), "{said}");
    }
    assert!(!page.contains("kill was asked for"));
    let spans = data["recovery"]["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 7);
    assert_eq!(spans[0]["fault"], "kill");
    let wait = spans[0]["wait_ms"].as_f64().unwrap();
    assert!((450.0..1_500.0).contains(&wait), "{wait}");
    browser::draws(&directory.join("report.html"), "10 charts, 0 pictures");
}

#[test]
fn what_is_wrong_comes_first() {
    let plan = Plan { loses: true, stale: true, ..MINUTE };
    let files = [("test.json", test_json().to_string())];
    let directory = store("invalid", &generated::run(plan, 11), &files);
    let (page, data) = page(&directory);
    assert!(page.contains(" Invalid</h1>"));
    let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}"));
    assert!(place("id=\"anomalies\"") < place("id=\"latency\""));
    let pictures = data["timelines"].as_array().unwrap();
    assert!(pictures.len() > 5, "{}", pictures.len());
    for picture in pictures {
        let bars = picture["bars"].as_array().unwrap();
        assert!(bars.iter().any(|bar| bar["witness"] == "A"), "{picture}");
        assert!((1..=30).contains(&bars.len()), "{picture}");
    }
    browser::draws(
        &directory.join("report.html"),
        &format!("10 charts, {} pictures", pictures.len()),
    );
}

#[test]
fn a_stale_read_is_understood_from_its_picture() {
    let mut story = Story::new();
    story.sends("a b c");
    story.fault("partition", Phase::Start, Some(true));
    let slow = story.begin_on("n2", F::Send, Is::send(story::id("d")));
    story.read(0, "a");
    story.info(&slow);
    story.fault("partition", Phase::Stop, None);
    story.read(0, "a b c");
    let (page, data) = page(&store("stale", &story.history, &[]));
    assert!(
        page.contains("<h3 id=\"witness-1\"><code>stale-read</code> in room <bdi>tea</bdi></h3>")
    );
    assert!(page.contains("Faults between the first and the last: partition."));
    let picture = &data["timelines"][0];
    let lit: Vec<&Value> =
        picture["bars"].as_array().unwrap().iter().filter(|b| !b["witness"].is_null()).collect();
    assert_eq!(lit[0]["witness"], "A");
    assert_eq!(lit[0]["label"], "send b → seq 2");
    assert_eq!(lit[1]["witness"], "B");
    assert_eq!(lit[1]["label"], "read → head 1");
    // A was over before B began.
    assert!(lit[0]["to"].as_u64().unwrap() < lit[1]["from"].as_u64().unwrap());
    let bars = picture["bars"].as_array().unwrap();
    let unknown = bars.iter().find(|bar| bar["label"] == "send d → unknown").unwrap();
    assert_eq!(unknown["outcome"], "info");
    assert_eq!(picture["marks"][0]["text"], "process nemesis: partition starts, at 6.000 ms [6]");
    let times = picture["times_ms"].as_array().unwrap();
    assert!(times.is_sorted_by_key(|ms| ms.as_f64().unwrap()));
}

#[test]
fn every_sort_of_witness_has_a_picture() {
    let other = |seq| Is::Write { id: story::id("a"), seq, other_body: true };
    let mut story = Story::new();
    story.sends("a b c");
    story.subscribe(1, 0);
    story.deliver(1, 1, "a");
    story.deliver(1, 3, "c");
    let resend = story.begin_on("n2", F::Resend, other(None));
    story.ok(&resend, other(Some(1)));
    story.chain("n1", 3, "aa");
    story.chain("n2", 3, "ab");
    story.fault("kill", Phase::Start, None);
    story.fault("kill", Phase::Stop, None);
    let read = story.begin_on("n1", F::Read, Is::range(0, None));
    story.wait(31_000);
    story.ok(&read, Is::Page { head: 5, events: events(1, "a b c c y") });
    story.final_read("n1", "a b c c");
    story.final_read("n2", "a b z c");
    let report = story.check();
    assert!(report.anomalies.len() >= 7, "{report}");
    let directory = store("sorts", &story.history, &[]);
    let (_, data) = page(&directory);
    let pictures = data["timelines"].as_array().unwrap();
    assert_eq!(pictures.len(), report.violations.len());
    for (violation, picture) in report.violations.iter().zip(pictures) {
        let drawn = [&picture["bars"], &picture["marks"]].map(|list| list.as_array().unwrap());
        let mut letters: Vec<&str> =
            drawn.into_iter().flatten().filter_map(|one| one["witness"].as_str()).collect();
        letters.sort_unstable();
        let wanted = &["A", "B", "C", "D"][..violation.witness.len()];
        assert_eq!(letters, wanted, "{violation}");
    }
    browser::draws(
        &directory.join("report.html"),
        &format!("7 charts, {} pictures", pictures.len()),
    );
}

#[test]
fn two_replicas_that_differ_show_where() {
    let mut story = Story::new();
    story.sends("a b c d");
    story.final_read("n1", "a b c d");
    story.final_read("n2", "a x c d");
    let (_, data) = page(&store("diverged", &story.history, &[]));
    let texts = data["timelines"].to_string();
    assert!(texts.contains("; shows x at seq 2"), "{texts}");
}

#[test]
fn numbers_are_those_of_the_history() {
    let mut history = History::new();
    // A send a second, of 1 to 10 ms; a read that fails, and one that nobody answers.
    for n in 1..=10 {
        let time = n * 1_000_000_000;
        let id = Id::from_u128(n.into());
        let send = Op::invoke(time, Process(0), F::Send, Is::send(id)).node("n1").room("tea");
        history.push(send.clone()).unwrap();
        history.push(send.ok(time + n * 1_000_000, Is::sent(id, n))).unwrap();
    }
    let read = Op::invoke(10_500_000_000, Process(0), F::Read, Is::range(0, None));
    let read = read.node("n2").room("tea");
    history.push(read.clone()).unwrap();
    history.push(read.fail(10_510_000_000, "unavailable")).unwrap();
    let read = Op { time: 10_600_000_000, ..read };
    history.push(read.clone()).unwrap();
    history.push(read.info(11_000_000_000, "timeout")).unwrap();
    let (page, data) = page(&store("numbers", &history, &[]));
    let all = json!({ "count": 10, "p50": 5.0, "p99": 10.0, "p999": 10.0, "max": 10.0 });
    assert_eq!(data["over_time"]["kinds"][0]["all"], all);
    assert_eq!(data["over_time"]["width_ms"], 200);
    assert_eq!(data["over_time"]["kinds"][0]["quantiles"][10]["p50"], 3.0);
    assert_eq!(data["over_time"]["kinds"][1]["counts"], json!([0, 1, 1]));
    assert_eq!(data["over_time"]["nodes"][1]["counts"], json!([0, 1, 1]));
    let cells = ["5.00 ms", "10.0 ms", "10.0 ms", "10.0 ms"];
    let cells = cells.map(|cell| format!("<td class=\"n\">{cell}</td>")).concat();
    assert!(page.contains(&format!("<td class=\"n\">0</td>{cells}")));
    assert_eq!(data["scatter"]["points"]["outcome"], json!([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]));
    assert_eq!(data["scatter"]["points"]["latency"][11], 400_000);
    assert_eq!(data["scatter"]["points"]["errors"], json!(["unavailable", "timeout"]));
}

/// Markup, ends of what surrounds it, and marks that turn text around.
const HOSTILE: &str = "</script><script>document.body.dataset.hacked=1</script>\
    <img src=x onerror=\"document.body.dataset.hacked=2\">'\"&lt;\u{202e}\u{0}]]>--><!--";

#[test]
fn a_hostile_history_is_only_text() {
    let mut story = Story::new();
    story.room = HOSTILE;
    story.sends("<b>a</b> b");
    let op = story.begin_on(HOSTILE, F::Send, Is::send(story::id("<i>c</i>")));
    let op = op.fail(90_000_000, HOSTILE);
    story.history.push(op).unwrap();
    story.wait(100);
    let fault =
        |phase| Fault { fault: HOSTILE.into(), phase, on: vec![HOSTILE.into()], majority: None };
    story.history.push(Op::nemesis(95_000_000, fault(Phase::Start))).unwrap();
    story.read_page(0, 2, events(1, "<b>a</b>"));
    story.read(0, "<b>a</b>");
    story.history.push(Op::nemesis(200_000_000, fault(Phase::Stop))).unwrap();
    let test = json!({
        "name": HOSTILE, "seed": HOSTILE, "commit": HOSTILE, "command": [HOSTILE, "'; rm"],
        "nodes": [{ "name": HOSTILE, "client": HOSTILE, "peer": 7 }, 3, null],
        "nemeses": [HOSTILE, 4], "missing": [{ "fault": HOSTILE, "why": HOSTILE }, "x"],
        "options": { HOSTILE: HOSTILE }, "mode": [HOSTILE], "date": HOSTILE,
    });
    let results = json!({
        "verdict": HOSTILE, "counts": { "lines": story.history.len() }, "unknown": [HOSTILE],
        "anomalies": { HOSTILE: 3, "stale-read": 1 }, "findings": [HOSTILE], "problems": [HOSTILE],
        "violations": [
            { "anomaly": HOSTILE, "room": HOSTILE, "what": HOSTILE,
              "witness": [{ "operations": [2, 3], "text": HOSTILE }, { "operations": [9_999_999] }] },
            { "anomaly": "stale-read", "what": 3 },
        ],
        "failover_ms": { "worst": HOSTILE }, "availability": { "healthy_ok": "no" },
        "nodes": [{ "name": HOSTILE, "stopped_by_itself": 1, "why": [HOSTILE], "panics": [HOSTILE] }],
    });
    let files = [("test.json", test.to_string()), ("results.json", results.to_string())];
    let directory = store("hostile", &story.history, &files);
    let (page, data) = page(&directory);
    assert_eq!(page.matches("<script").count(), 2, "the data and the page's own script");
    assert_eq!(page.matches("</script").count(), 2);
    for markup in ["<img", "<b>a", "<i>c", "<!--", "\u{202e}", "\u{0}"] {
        assert!(!page.contains(markup), "{markup:?}");
    }
    assert!(page.contains("&lt;img src=x onerror=&quot;"));
    assert!(!data.to_string().contains('\u{202e}'));
    browser::draws(&directory.join("report.html"), "6 charts, 1 pictures");
}

#[test]
fn what_is_missing_or_broken_is_said() {
    let mut story = Story::new();
    story.sends("a b");
    story.read(0, "a b");
    let said = |files: &[(&str, String)]| {
        let directory = store("missing", &story.history, files);
        page(&directory).0
    };
    let page = said(&[]);
    assert!(page.contains("There is no test.json: what ran, with which seed"));
    assert!(page.contains("There is no results.json: the history was judged anew"));
    assert!(page.contains("3 sends and reads were ok; a verdict takes 10"));
    let page = said(&[("test.json", "{\"name\":".into()), ("results.json", "[]".into())]);
    assert!(page.contains("test.json is malformed (EOF while parsing"));
    assert!(page.contains("results.json is no JSON object"));
    let other = json!({ "verdict": "valid", "counts": { "lines": 7 } }).to_string();
    let page = said(&[("results.json", other)]);
    assert!(page.contains("results.json is not of this history"));
    assert!(page.contains(" Unknown</h1>"));
    let run = Run::new(History::new(), Value::Null, json!({}));
    assert!(report::html(&run).contains(" Unknown</h1>"));
    let finding = json!({
        "verdict": "invalid", "counts": { "lines": 6 }, "findings": ["n2 never came back"],
        "nodes": [{ "name": "n2", "stopped_by_itself": 1, "why": ["exit 101\nlog is lost"], "well": false }],
    });
    let page = said(&[("results.json", finding.to_string())]);
    assert!(page.contains(" Invalid</h1>") && page.contains("<li>n2 never came back</li>"));
    assert!(page.contains("<td>1 times</td><td>no</td><td>exit 101<br>log is lost<br></td>"));
}

#[test]
fn an_empty_history_has_a_page() {
    let directory = store("empty", &History::new(), &[]);
    let (page, _) = page(&directory);
    assert!(page.contains("no send was ok"));
    browser::draws(&directory.join("report.html"), "4 charts, 0 pictures");
}
