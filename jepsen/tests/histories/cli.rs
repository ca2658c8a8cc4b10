//! The command line, as people and scripts use it: exit codes, text, JSON, errors.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::story::Story;

fn run(args: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_folkmoot-jepsen"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may exit before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn json(tell: impl FnOnce(&mut Story)) -> Vec<u8> {
    let mut story = Story::new();
    tell(&mut story);
    let mut text = Vec::new();
    story.history.write(&mut text).unwrap();
    text
}

fn right() -> Vec<u8> {
    json(|s| {
        s.sends("a b c d e f g h i");
        s.read(0, "a b c d e f g h i");
    })
}

fn stale() -> Vec<u8> {
    json(|s| {
        s.sends("a b");
        s.read(0, "a");
        s.read(0, "a b");
    })
}

#[test]
fn the_exit_code_is_the_verdict() {
    let (code, out, err) = run(&["check", "-"], &right());
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("valid\n10 operations, rooms: 1; 10 ok"), "{out}");

    let (code, out, err) = run(&["check", "-"], &stale());
    assert_eq!((code, err.as_str()), (1, ""));
    assert!(out.starts_with("invalid: 1 stale-read\n\nstale-read in room tea: "), "{out}");

    let (code, out, err) = run(&["check", "-", "--min-ok", "11"], &right());
    assert_eq!((code, err.as_str()), (2, ""));
    assert!(out.starts_with("unknown: 10 sends and reads were ok; a verdict takes 11\n"), "{out}");
}

/// Of lines without header and end nobody knows whether they are all.
#[test]
fn what_may_have_been_cut_off_is_never_valid() {
    let text = String::from_utf8(right()).unwrap();
    let (_, lines) = text.split_once('\n').unwrap();
    let (bare, _) = lines.rsplit_once("{\"end\"").unwrap();
    let (code, out, _) = run(&["check", "-"], bare.as_bytes());
    assert_eq!(code, 2);
    assert!(out.starts_with("unknown: the file has neither a header nor an end"), "{out}");
    assert!(out.contains("{\"end\":20}"), "{out}");
    let (code, out, _) = run(&["check", "-"], lines.as_bytes());
    assert_eq!(code, 0, "{out}");
    // What is wrong with the lines that there are is wrong all the same.
    let text = String::from_utf8(stale()).unwrap();
    let bare: String =
        text.lines().filter(|line| line.contains("index")).map(|l| format!("{l}\n")).collect();
    assert_eq!(run(&["check", "-"], bare.as_bytes()).0, 1);
}

#[test]
fn a_file_is_read_as_standard_input_is() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&stale()).unwrap();
    let from_file = run(&["check", file.path().to_str().unwrap()], b"");
    assert_eq!(from_file, run(&["check", "-"], &stale()));
    let (code, out, err) = run(&["check", "no/such/file"], b"");
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.starts_with("folkmoot-jepsen: no/such/file: "), "{err}");
}

#[test]
fn json_has_everything() {
    let (code, out, _) = run(&["check", "--json", "-"], &stale());
    assert_eq!(code, 1);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let expected = serde_json::json!({
        "verdict": "invalid",
        "anomalies": { "stale-read": 1 },
        "violations": [{
            "anomaly": "stale-read",
            "room": "tea",
            "what": "a read that began when seq 2 was acknowledged has the log end at seq 1",
            "witness": [
                {
                    "operations": [2, 3],
                    "text": "process 1 on n1: send b → seq 2, from 2.000 to 3.000 ms [2, 3]",
                },
                {
                    "operations": [4, 5],
                    "text": "process 2 on n1: read after 0 → head 1, seq 1, from 4.000 to 5.000 ms \
                             [4, 5]",
                },
            ],
        }],
        "unknown": ["4 sends and reads were ok; a verdict takes 10"],
        "counts": {
            "lines": 8, "operations": 4, "ok": 4, "fail": 0, "info": 0, "deliveries": 0,
            "events_read": 3, "rooms": 1,
        },
        "availability": { "healthy_operations": 4, "healthy_ok": 4, "heals": 0 },
    });
    assert_eq!(report, expected);
}

#[test]
fn a_malformed_history_has_no_verdict() {
    let whole = right();
    let cut = &whole[..whole.len() / 2];
    let (code, out, err) = run(&["check", "-"], cut);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.starts_with("folkmoot-jepsen: -: line 1") && err.contains("cut off"), "{err}");

    let (code, out, err) = run(&["check", "--json", "-"], &[&whole[..], &whole[..]].concat());
    assert_eq!((code, out.as_str()), (2, ""));
    let error: serde_json::Value = serde_json::from_str(&err).unwrap();
    assert_eq!(error["error"]["line"], 23);
    let message = "-: line 23: goes on after its end: another history follows it";
    assert_eq!(error["error"]["message"], message);

    for format in ["--edn", "--kafka", "--porcupine"] {
        let (code, out, err) = run(&["export", format, "-"], cut);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.contains("cut off"), "{err}");
    }
}

#[test]
fn unknown_options_have_no_verdict() {
    let usages: &[&[&str]] = &[
        &["check", "-", "--fast"],
        &["check"],
        &["check", "-", "-"],
        &["check", "-", "--min-ok", "many"],
        &["check", "-", "--recover-within", "-1"],
        &["check", "-", "--recover-within", "inf"],
        &["judge", "-"],
        &["export", "-"],
        &["export", "--edn", "--porcupine", "-"],
        &[],
    ];
    for usage in usages {
        let (code, out, err) = run(usage, &right());
        assert_eq!((code, out.as_str()), (2, ""), "{usage:?}");
        assert!(err.contains("--help"), "{usage:?}: {err}");
    }
}

#[test]
fn help_has_examples() {
    for command in ["check", "export", "report"] {
        let (code, out, err) = run(&[command, "--help"], b"");
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("Examples:\n  folkmoot-jepsen"), "{out}");
    }
}

#[test]
fn names_cannot_drive_the_terminal() {
    let text = String::from_utf8(stale()).unwrap().replace("\"tea\"", "\"t\\u001b[2Jea\"");
    let (code, out, _) = run(&["check", "-"], text.as_bytes());
    assert_eq!(code, 1);
    assert!(out.contains("room t␛[2Jea") && !out.contains('\u{1b}'), "{out}");
    let text = String::from_utf8(stale()).unwrap().replace("\"ok\"", "\"\\u009b\"");
    let (code, _, err) = run(&["check", "-"], text.as_bytes());
    assert_eq!(code, 2);
    assert!(!err.contains('\u{9b}'), "{err}");
}

#[test]
fn an_export_goes_to_a_file_or_to_standard_output() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let (code, printed, _) = run(&["export", "--edn", "-"], &stale());
    assert_eq!(code, 0);
    let (code, out, _) = run(&["export", "--edn", "-", "--output", path], &stale());
    assert_eq!((code, out.as_str()), (0, ""));
    assert_eq!(std::fs::read_to_string(path).unwrap(), printed);
    let both = run(&["export", "--edn", "--kafka", "-"], &stale());
    assert_eq!(both, run(&["export", "--kafka", "-"], &stale()));
    let (code, _, err) = run(&["export", "--edn", "-", "-o", "no/such/directory/x"], &stale());
    assert_eq!(code, 2);
    assert!(err.starts_with("folkmoot-jepsen: no/such/directory/x: "), "{err}");
}

#[test]
fn a_report_is_written_where_it_is_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_string();
    let here = directory.path().to_str().unwrap();
    std::fs::write(at("history.jsonl"), stale()).unwrap();

    let (code, out, err) = run(&["report", here], b"");
    assert_eq!((code, out.trim_end(), &*err), (0, &*at("report.html"), ""));
    let page = std::fs::read_to_string(at("report.html")).unwrap();
    assert!(page.contains(" Invalid</h1>") && page.contains("<code>stale-read</code>"));

    let (code, out, _) = run(&["report", "--json", here, "--out", &at("other.html")], b"");
    assert_eq!(code, 0);
    let said: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(said["report"], at("other.html"));
    assert_eq!(std::fs::read_to_string(at("other.html")).unwrap(), page);
}

#[test]
fn a_report_that_cannot_be_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().to_str().unwrap();
    let (code, out, err) = run(&["report", here], b"");
    assert_eq!((code, &*out), (2, ""));
    assert!(
        err.contains("there is no history.jsonl in it: name the directory of one run"),
        "{err}"
    );

    let file = directory.path().join("test.json");
    std::fs::write(&file, "{}").unwrap();
    let (code, _, err) = run(&["report", file.to_str().unwrap()], b"");
    assert!(code == 2 && err.contains("there is no history.jsonl in it"), "{err}");

    std::fs::write(directory.path().join("history.jsonl"), &stale()[..90]).unwrap();
    let (code, out, err) = run(&["report", "--json", here], b"");
    assert_eq!((code, &*out), (2, ""));
    let error: serde_json::Value = serde_json::from_str(&err).unwrap();
    assert_eq!(error["error"]["line"], 2);
    assert!(error["error"]["message"].as_str().unwrap().contains("cut off"), "{error}");

    std::fs::write(directory.path().join("history.jsonl"), stale()).unwrap();
    let nowhere = directory.path().join("no/such/report.html");
    let (code, out, err) = run(&["report", here, "--out", nowhere.to_str().unwrap()], b"");
    assert_eq!((code, &*out), (2, ""));
    assert!(err.contains("no/such/report.html: No such file"), "{err}");
}
