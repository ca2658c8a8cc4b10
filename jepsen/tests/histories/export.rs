//! What other checkers are given, to the byte.

use std::io;

use crate::story::{Story, events, id};
use folkmoot_jepsen::export;
use folkmoot_jepsen::history::{F, History, Phase, Value};

/// A send that is tried twice, one that fails, one without an answer; a read, a subscription with
/// two streams, a fault.
fn story() -> Story {
    let mut s = Story::new();
    let op = s.begin(F::Send, Value::send(id("a")));
    s.info(&op);
    s.fault("kill", Phase::Start, None);
    let op = s.begin_on("n2", F::Resend, Value::send(id("a")));
    s.ok(&op, Value::sent(id("a"), 1));
    let op = s.begin(F::Send, Value::send(id("b")));
    s.fail(&op);
    s.send("c", 2);
    s.send_unanswered("d");
    s.read(0, "a c");
    s.subscribe(7, 1);
    s.deliver(7, 2, "c");
    s.subscribe(7, 1);
    s.deliver(7, 2, "c");
    s.read_page(2, 2, events(1, ""));
    s
}

fn exported(export: impl Fn(&History, &mut Vec<u8>) -> io::Result<()>) -> Vec<String> {
    exported_of(&story(), export)
}

fn exported_of(
    story: &Story,
    export: impl Fn(&History, &mut Vec<u8>) -> io::Result<()>,
) -> Vec<String> {
    let mut text = Vec::new();
    export(&story.history, &mut text).unwrap();
    String::from_utf8(text).unwrap().lines().map(String::from).collect()
}

#[test]
fn jepsen_op_maps() {
    let lines = exported(|history, out| export::edn(history, out));
    assert_eq!(lines, EDN.lines().collect::<Vec<_>>(), "\n{}", lines.join("\n"));
}

#[test]
fn kafka_micro_operations() {
    let lines = exported(|history, out| export::kafka(history, out));
    assert_eq!(lines, KAFKA.lines().collect::<Vec<_>>(), "\n{}", lines.join("\n"));
}

#[test]
fn porcupine_operations() {
    let lines = exported(|history, out| export::porcupine(history, out));
    assert_eq!(lines, PORCUPINE.lines().collect::<Vec<_>>(), "\n{}", lines.join("\n"));
}

/// An id that is acknowledged at two places is so for other checkers, too.
#[test]
fn a_later_acknowledgement_of_another_place_is_exported() {
    let mut story = Story::new();
    story.send("a", 1);
    story.resend("a", 2);
    story.resend("a", 1);
    let lines = exported_of(&story, |history, out| export::porcupine(history, out));
    let expected = [
        r#"{"ClientId":0,"Input":{"id":"a","op":"send","room":"tea"},"Call":1000000,"Output":{"seq":1},"Return":2000000}"#,
        r#"{"ClientId":1,"Input":{"id":"a","op":"deliver","room":"tea","seq":2},"Call":0,"Output":{},"Return":4000000}"#,
    ];
    assert_eq!(lines, expected, "\n{}", lines.join("\n"));
    let lines = exported_of(&story, |history, out| export::kafka(history, out));
    let expected = [
        r#"; key 0: room "tea""#,
        r#"; value 0: "a""#,
        "{:index 0, :time 1000000, :process 3, :type :invoke, :f :send, :value [[:send 0 0]]}",
        "{:index 1, :time 2000000, :process 3, :type :ok, :f :send, :value [[:send 0 [1 0]]]}",
        "{:index 2, :time 4000000, :process 4, :type :invoke, :f :poll, :value [[:poll]]}",
        "{:index 3, :time 4000000, :process 4, :type :ok, :f :poll, :value [[:poll {0 [[2 0]]}]]}",
    ];
    assert_eq!(lines, expected, "\n{}", lines.join("\n"));
}

/// The head that a subscribe's answer tells is a read's, also where a new one says only where it begins.
#[test]
fn porcupine_is_told_the_heads_of_subscriptions() {
    let mut story = Story::new();
    story.send("a", 1);
    story.subscribe_at_head(7, 1, Some(1));
    story.subscribe_at_head(8, 1, None);
    story.subscribe(9, 0);
    let lines = exported_of(&story, |history, out| export::porcupine(history, out));
    let expected = [
        r#"{"ClientId":0,"Input":{"id":"a","op":"send","room":"tea"},"Call":1000000,"Output":{"seq":1},"Return":2000000}"#,
        r#"{"ClientId":1,"Input":{"after":1,"limit":0,"op":"read","room":"tea"},"Call":3000000,"Output":{"events":[],"head":1},"Return":4000000}"#,
        r#"{"ClientId":2,"Input":{"after":1,"limit":0,"op":"read","room":"tea"},"Call":5000000,"Output":{"events":[],"head":1},"Return":6000000}"#,
    ];
    assert_eq!(lines, expected, "\n{}", lines.join("\n"));
}

#[test]
fn porcupine_is_told_the_order_of_what_has_the_same_time() {
    let mut text = Vec::new();
    for line in ["send", "read"] {
        let value = [r#"{"id":"a"}"#, r#"{"after":0}"#][usize::from(line == "read")];
        let done = [r#"{"id":"a","seq":1}"#, r#"{"head":0,"events":[]}"#];
        let done = done[usize::from(line == "read")];
        for (kind, value) in [("invoke", value), ("ok", done)] {
            let index = text.len();
            text.push(format!(
                "{{\"index\":{index},\"time\":5,\"process\":0,\"type\":\"{kind}\",\"f\":\"{line}\",\
                 \"room\":\"tea\",\"value\":{value}}}\n"
            ));
        }
    }
    let history = folkmoot_jepsen::history::read(text.concat().as_bytes()).unwrap();
    let mut out = Vec::new();
    export::porcupine(&history, &mut out).unwrap();
    let times: Vec<(u64, u64)> = String::from_utf8(out)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|op| (op["Call"].as_u64().unwrap(), op["Return"].as_u64().unwrap()))
        .collect();
    assert_eq!(times, [(5, 6), (7, 8)]);
}

const EDN: &str = include_str!("export/history.edn");

const KAFKA: &str = include_str!("export/kafka.edn");

const PORCUPINE: &str = include_str!("export/porcupine.jsonl");
