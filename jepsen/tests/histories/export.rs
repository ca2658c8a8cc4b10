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
    let mut text = Vec::new();
    export(&story().history, &mut text).unwrap();
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
