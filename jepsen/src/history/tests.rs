//! Histories round trip, and malformed ones are refused at the right line.

use super::*;

/// A history with every sort of line.
const ALL: &str = r#"{"format":"folkmoot-history-1"}
{"index":0,"time":5,"process":0,"type":"invoke","f":"send","node":"n1","room":"tea","value":{"id":"018f3c1a-7b2c-7d3e-8f40-123456789abc"}}
{"index":1,"time":5,"process":1,"type":"invoke","f":"send","node":"n2","room":"tea","value":{"id":"b"}}
{"index":2,"time":7,"process":0,"type":"ok","f":"send","node":"n1","room":"tea","value":{"id":"018f3c1a-7b2c-7d3e-8f40-123456789abc","seq":1}}
{"index":3,"time":8,"process":1,"type":"info","f":"send","node":"n2","room":"tea","error":"timeout"}
{"index":4,"time":9,"process":0,"type":"invoke","f":"resend","room":"tea","value":{"id":"b","other_body":true}}
{"index":5,"time":9,"process":0,"type":"fail","f":"resend","room":"tea","value":{"id":"b","other_body":true},"error":"id_reused"}
{"index":6,"time":9,"process":0,"type":"invoke","f":"read","room":"tea","value":{"after":0,"limit":2}}
{"index":7,"time":9,"process":0,"type":"ok","f":"read","room":"tea","value":{"head":2,"events":[{"seq":1,"id":"018f3c1a-7b2c-7d3e-8f40-123456789abc"},{"seq":2,"id":"b"}]}}
{"index":8,"time":9,"process":0,"type":"invoke","f":"read-local","room":"tea","value":{"after":2}}
{"index":9,"time":9,"process":0,"type":"ok","f":"read-local","room":"tea","value":{"head":2,"events":[]}}
{"index":10,"time":9,"process":0,"type":"invoke","f":"subscribe","room":"tea","value":{"subscription":7}}
{"index":11,"time":9,"process":2,"type":"ok","f":"deliver","node":"n1","room":"tea","value":{"subscription":7,"seq":2,"id":"b"}}
{"index":12,"time":9,"process":0,"type":"ok","f":"subscribe","room":"tea","value":{"subscription":7,"after":1,"head":2}}
{"index":13,"time":9,"process":0,"type":"invoke","f":"unsubscribe","room":"tea","value":{"subscription":7}}
{"index":14,"time":9,"process":0,"type":"ok","f":"unsubscribe","room":"tea","value":{"subscription":7,"head":2}}
{"index":15,"time":9,"process":"nemesis","type":"info","f":"nemesis","value":{"fault":"kill","phase":"start","on":["n1"],"majority":true}}
{"index":16,"time":9,"process":"nemesis","type":"info","f":"nemesis","value":{"fault":"kill","phase":"stop"}}
{"index":17,"time":9,"process":0,"type":"invoke","f":"admin","node":"n1","room":"tea","value":{"what":"join","id":"j"}}
{"index":18,"time":10,"process":0,"type":"ok","f":"admin","node":"n1","room":"tea","value":{"what":"join","id":"j","seq":3}}
{"index":19,"time":10,"process":0,"type":"invoke","f":"admin","node":"n1","value":{"what":"drain"}}
{"index":20,"time":10,"process":0,"type":"ok","f":"admin","node":"n1","value":{"what":"drain"}}
{"index":21,"time":10,"process":0,"type":"invoke","f":"final-read","node":"n1","room":"tea","value":{"after":0}}
{"index":22,"time":10,"process":0,"type":"fail","f":"final-read","node":"n1","room":"tea","error":"unavailable"}
{"index":23,"time":10,"process":0,"type":"invoke","f":"chain","node":"n1","room":"tea"}
{"index":24,"time":10,"process":0,"type":"ok","f":"chain","node":"n1","room":"tea","value":{"seq":3,"chain":"00ff"}}
{"end":25}
"#;

fn problem(text: &str) -> String {
    match read(text.as_bytes()) {
        Ok(history) => panic!("read {} lines of\n{text}", history.len()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_history_is_written_as_it_was_read() {
    let history = read(ALL.as_bytes()).unwrap();
    let mut written = Vec::new();
    history.write(&mut written).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), ALL);
    for f in F::ALL {
        assert!(history.ops().iter().any(|op| op.f == f), "{f:?} is in no line");
    }
    assert_eq!(history.partner(0), Some(2));
    assert_eq!(history.partner(3), Some(1));
    assert_eq!(history.partner(11), None);
    assert_eq!(history.partner(99), None);
}

#[test]
fn neither_header_nor_end_are_needed_by_hand() {
    let lines: Vec<&str> = ALL.lines().collect();
    let bare = lines[1..lines.len() - 1].join("\r\n");
    assert_eq!(read(bare.as_bytes()).unwrap().len(), 25);
}

#[test]
fn a_file_that_was_cut_off_anywhere_is_no_history() {
    for length in 0..ALL.len() - 1 {
        let said = problem(&ALL[..length]);
        let lines = ALL[..length].split_inclusive('\n').count().max(1);
        assert!(said.starts_with(&format!("line {lines}: ")), "{length}: {said}");
        let cut = ["cut off", "empty", "not an operation"].iter().any(|word| said.contains(word));
        assert!(cut, "{length}: {said}");
    }
}

#[test]
fn a_line_that_is_missing_twice_or_elsewhere_is_found() {
    let lines: Vec<&str> = ALL.lines().collect();
    let text = |lines: &[&str]| lines.join("\n") + "\n";
    for at in 0..lines.len() {
        let mut fewer = lines.clone();
        fewer.remove(at);
        if at == 0 {
            // Without its header a history is one by hand, and those have no end.
            assert!(read(text(&fewer).as_bytes()).is_ok());
        } else {
            let said = problem(&text(&fewer));
            let due = ["was due", "has no end", "the end of a history of"];
            assert!(due.iter().any(|words| said.contains(words)), "{at}: {said}");
        }
        let mut twice = lines.clone();
        twice.insert(at, lines[at]);
        let said = problem(&text(&twice));
        let due = ["was due", "second history", "after its end"];
        assert!(due.iter().any(|words| said.contains(words)), "{at}: {said}");
        if at + 1 < lines.len() {
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            problem(&text(&swapped));
        }
    }
    let two = format!("{ALL}{ALL}");
    let said = problem(&two);
    assert_eq!(said, "line 28: goes on after its end: another history follows it");
    let mixed: Vec<&str> = lines[1..4].iter().flat_map(|line| [*line, *line]).collect();
    let said = problem(&text(&mixed));
    let due = "line 2: its index is 0; 1 was due: lines are missing, or two histories are mixed";
    assert_eq!(said, due);
}

/// Lines from their middles: process, type, f, value and room.
fn lines(middles: &[&str]) -> String {
    let line = |(index, middle): (usize, &&str)| {
        format!(
            "{{\"index\":{index},\"time\":{index},\"room\":\"tea\",\"node\":\"n1\",{middle}}}\n"
        )
    };
    middles.iter().enumerate().map(line).collect()
}

const SEND: &str = r#""process":0,"type":"invoke","f":"send","value":{"id":"a"}"#;
const SENT: &str = r#""process":0,"type":"ok","f":"send","value":{"id":"a","seq":1}"#;
const INFO: &str = r#""process":0,"type":"info","f":"send""#;
const CHAIN: &str = r#""process":0,"type":"invoke","f":"chain""#;
const FOLLOW: &str =
    r#""process":0,"type":"invoke","f":"subscribe","value":{"subscription":7,"after":0}"#;

#[test]
fn what_makes_no_sense_is_refused_with_its_line() {
    let cases: &[(&[&str], &str)] = &[
        (&[SENT], "line 1: process 0 completes a send that it never invoked"),
        (&[SEND, SENT, SENT], "line 3: process 0 completes a send that it never invoked"),
        (&[SEND, SEND], "line 2: process 0 begins a send while its send of operation 0 is open"),
        (
            &[SEND, INFO, SEND],
            "line 3: process 0 begins a send, but retired with the info of operation 1",
        ),
        (
            &[SEND, r#""process":0,"type":"ok","f":"read","value":{"head":0,"events":[]}"#],
            "line 2: process 0 completes a read, but its operation 0 is a send",
        ),
        (
            &[SEND, r#""process":0,"type":"ok","f":"send","value":{"id":"b","seq":1}"#],
            "line 2: process 0 completes a send with another value than its operation 0",
        ),
        (
            &[r#""process":0,"type":"done","f":"send""#],
            "line 1: unknown type \"done\"; there are invoke, ok, fail and info",
        ),
        (
            &[
                r#""process":0,"type":"ok","f":"deliver","value":{"subscription":7,"seq":1,"id":"a"}"#,
            ],
            "line 1: a delivery on subscription 7, which nobody subscribed",
        ),
        (
            &[
                FOLLOW,
                r#""process":0,"type":"info","f":"subscribe""#,
                r#""process":0,"type":"ok","f":"deliver","value":{"subscription":7,"seq":1,"id":"a"}"#,
            ],
            "line 3: process 0 has a delivery, but retired with the info of operation 1",
        ),
        (
            &[CHAIN, r#""process":0,"type":"ok","f":"chain","value":{"seq":3,"chain":""}"#],
            "line 2: the chain \"\" is not hex",
        ),
        (
            &[CHAIN, r#""process":0,"type":"ok","f":"chain","value":{"seq":3,"chain":"0x1"}"#],
            "line 2: the chain \"0x1\" is not hex",
        ),
        (
            &[
                FOLLOW,
                r#""process":1,"type":"invoke","f":"deliver","value":{"subscription":7,"seq":1,"id":"a"}"#,
            ],
            "line 2: a deliver is always of type ok, not invoke",
        ),
        (
            &[
                r#""process":"nemesis","type":"invoke","f":"nemesis","value":{"fault":"kill","phase":"start"}"#,
            ],
            "line 1: a nemesis is always of type info, not invoke",
        ),
        (
            &[
                r#""process":0,"type":"info","f":"nemesis","value":{"fault":"kill","phase":"start"}"#,
            ],
            "line 1: a nemesis is not of process 0",
        ),
        (
            &[r#""process":"nemesis","type":"invoke","f":"send","value":{"id":"a"}"#],
            "line 1: a send is not of process nemesis",
        ),
        (
            &[r#""process":0,"type":"invoke","f":"send""#],
            "line 1: the value of a send of type invoke has no id",
        ),
        (
            &[SEND, r#""process":0,"type":"ok","f":"send","value":{"id":"a"}"#],
            "line 2: the value is not that of a send of type ok",
        ),
        (
            &[r#""process":0,"type":"invoke","f":"send","value":{"id":"a","head":1}"#],
            "line 1: the value has fields that are not those of a send of type invoke",
        ),
        (
            &[r#""process":0,"type":"invoke","f":"read","value":{"limit":1}"#],
            "line 1: the value of a read of type invoke has no after",
        ),
    ];
    for (middles, expected) in cases {
        assert_eq!(problem(&lines(middles)), *expected);
    }
    let said = problem(&lines(&[r#""process":0,"type":"invoke","f":"pull""#]));
    assert!(said.starts_with("line 1: unknown f \"pull\"; there are send, resend, read"), "{said}");
}

#[test]
fn what_is_not_an_operation_is_refused_with_its_line() {
    let cases = [
        ("", "line 1: it is empty"),
        ("\n", "line 1: it is empty"),
        ("hello\n", "line 1: not an operation: it is no JSON object"),
        ("[]\n", "line 1: not an operation: it is no JSON object"),
        (
            "{\"format\":\"folkmoot-history-2\"}\n",
            "line 1: the format is \"folkmoot-history-2\"; this version knows \"folkmoot-history-1\"",
        ),
        ("{\"format\":\"folkmoot-history-1\"}\n", "line 1: cut off: the history has no end"),
        ("{\"end\":1}\n", "line 1: the end of a history of 1 operations, but there are 0"),
    ];
    for (text, expected) in cases {
        assert_eq!(problem(text), expected);
    }
    let replaced = |from: &str, to: &str| problem(&lines(&[SEND]).replace(from, to));
    for (from, to, expected) in [
        ("\"time\":0", "\"time\":-1", "invalid value: integer `-1`, expected u64"),
        ("\"time\":0", "\"time\":9223372036854775808", "is beyond 9223372036854775807"),
        ("\"time\":0,", "", "missing field `time`"),
        ("\"time\":0", "\"when\":0", "unknown field `when`"),
        ("\"time\":0", "\"time\":0,\"time\":0", "duplicate field `time`"),
        ("\"process\":0", "\"process\":\"x\"", "expected a process: a number"),
        ("\"process\":0", "\"process\":2147483648", "expected a process: a number below"),
        ("\"id\":\"a\"", "\"id\":7", "expected an id: a UUID, or a word"),
        ("\"id\":\"a\"", "\"id\":\"0123456789abcdef\"", "expected an id: a UUID, or a word"),
        ("\"room\":\"tea\",", "", "a send has a room"),
        ("}}", "}", "cut off"),
        ("\"tea\"", "\"\u{1}\"", "control character"),
    ] {
        let said = replaced(from, to);
        assert!(said.starts_with("line 1: ") && said.contains(expected), "{to}: {said}");
    }
    let long = std::io::BufReader::new(std::io::repeat(b'x'));
    assert_eq!(read(long).unwrap_err().to_string(), "line 1: it is longer than 67108864 bytes");
    let not_utf8 = [&b"{\"index\":0,\"f\":\""[..], b"\xff\"}\n"].concat();
    assert!(read(&not_utf8[..]).unwrap_err().to_string().starts_with("line 1: not an operation"));
}

#[test]
fn a_clock_that_goes_back_is_refused() {
    let text = lines(&[SEND, SENT]).replace("\"time\":0", "\"time\":9");
    assert_eq!(problem(&text), "line 2: the clock goes back: 1 ns after 9 ns");
}

#[test]
fn what_push_refuses_leaves_no_trace() {
    let mut history = History::new();
    let send = Op::invoke(5, Process(0), F::Send, Value::send(Id::from_u128(1))).room("tea");
    let follow = |room: &str| {
        Op::invoke(5, Process(1), F::Subscribe, Value::subscription(7, Some(0))).room(room)
    };
    history.push(send.clone()).unwrap();
    history.push(send.clone()).unwrap_err();
    history.push(send.ok(4, Value::sent(Id::from_u128(1), 1))).unwrap_err();
    history.push(send.ok(6, Value::None)).unwrap_err();
    history.push(follow("tea")).unwrap();
    history.push(follow("coffee")).unwrap_err();
    assert_eq!(history.len(), 2);
    assert_eq!(history.push(send.ok(6, Value::sent(Id::from_u128(1), 1))), Ok(2));
    assert_eq!((history.partner(0), history.partner(2)), (Some(2), Some(0)));
    let other = follow("coffee");
    let stray = Op { time: 6, process: Process(2), ..other };
    let said = history.push(stray).unwrap_err().to_string();
    assert_eq!(said, "subscription 7 is of room tea, not coffee");
}
