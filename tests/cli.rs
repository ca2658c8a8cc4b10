//! The command line against a real cluster: each command in both forms of output, its exit code,
//! and what it says when it fails.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::cluster::{TestCluster, folkmoot, free_ports};
use crate::common::lines::Lines;
use crate::common::load::{self, Load};
use crate::common::{new_id, wait_for};

const FAILED: i32 = 1;
const USAGE: i32 = 64;

/// What a command that has ended left.
#[derive(Debug)]
struct Ran {
    command: String,
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("the output is UTF-8");
    Ran {
        command: format!("{command:?}"),
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

impl Ran {
    /// The output of a command that must succeed, without the last line's end.
    fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}: {self:?}", self.command);
        assert!(self.out.ends_with('\n'), "{self:?}");
        self.out.trim_end().to_owned()
    }

    /// The same, of one line of JSON.
    fn json(self) -> Value {
        let out = self.ok();
        assert_eq!(out.lines().count(), 1, "{out}");
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
    }

    /// What a command that must fail says.
    fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}: {self:?}", self.command);
        assert!(!self.err.trim().is_empty(), "it says why: {self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
        self.err
    }
}

/// Someone who types commands.
struct User<'a> {
    cluster: &'a TestCluster,
    node: usize,
    token: String,
}

impl User<'_> {
    fn command(&self, line: &str) -> Command {
        let words: Vec<_> = line.split(' ').collect();
        let mut command = self.cluster.cli(self.node, &words);
        command.env("FOLKMOOT_TOKEN", &self.token);
        command
    }

    /// Words are separated by one space each.
    fn says(&self, line: &str) -> String {
        run(&mut self.command(line)).ok()
    }

    fn json(&self, line: &str) -> Value {
        run(self.command(line).arg("--json")).json()
    }

    /// The error's code is told in both forms.
    fn is_refused(&self, line: &str, code: &str) -> String {
        let said = run(&mut self.command(line)).fails(FAILED);
        assert!(said.starts_with("folkmoot: ") && said.contains(code), "{line}: {said}");
        let ran = run(self.command(line).arg("--json"));
        assert_eq!(ran.out, "", "{line}");
        let error: Value = serde_json::from_str(&ran.fails(FAILED)).unwrap();
        assert_eq!(error["error"]["code"], code, "{line}: {error}");
        assert!(error["error"]["temporary"].is_boolean(), "{line}: {error}");
        said
    }
}

/// Rows of a table, cell by cell, the headings first.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|row| row.split_whitespace().collect()).collect()
}

/// The `field` of each of the `list`'s objects.
fn each<'a>(value: &'a Value, list: &str, field: &str) -> Vec<&'a Value> {
    let list = value[list].as_array().unwrap_or_else(|| panic!("no {list} in {value}"));
    list.iter().map(|one| &one[field]).collect()
}

fn assert_numbers(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value[field].is_number(), "{field} in {value}");
    }
}

/// Every command's name and help, found through the help of those above it.
fn helps(name: &[String], out: &mut Vec<(String, String)>) {
    let help = run(folkmoot().args(name).arg("--help")).ok();
    let list = help.split("\nCommands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let entries = list.into_iter().flat_map(str::lines).filter_map(|l| l.strip_prefix("  "));
    let names = entries.filter(|entry| !entry.starts_with(' ')).map(|e| e.split(' ').next());
    for sub in names.flatten().filter(|sub| *sub != "help") {
        helps(&[name, &[sub.to_owned()]].concat(), out);
    }
    if list.is_none() {
        out.push((name.join(" "), help));
    }
}

#[test]
fn the_help_of_every_command_has_an_example() {
    let mut found = vec![];
    helps(&[], &mut found);
    assert!(found.len() >= 20, "{found:?}");
    for (name, help) in found {
        let examples = help.split("\nExample").nth(1).unwrap_or_default();
        assert!(examples.contains(&format!("  folkmoot {name}")), "{name}: {help}");
        let json = !["serve"].contains(&&*name);
        assert_eq!(help.contains("--json"), json, "{name}: {help}");
    }
}

#[test]
fn bad_usage_is_told_apart_from_failure() {
    for line in [
        "no-such-command",
        "post",
        "post UPPER hi",
        "post general hi --reply-to 0",
        "room create",
        "user add Alice",
        "history general --limit 0",
        "history general --after 1 --before 2",
        "tail general --after x",
        "cluster init --nodes 2",
        "node compact --server http://127.0.0.1:1,http://127.0.0.1:2",
        "room list --server ftp://nowhere",
        "config print --set log=json",
        "verify",
        "bench --clients 0",
        "bench --local 2",
        "demo --base-port 0",
    ] {
        let ran = run(folkmoot().args(line.split(' ')));
        assert_eq!(ran.out, "", "{line}");
        ran.fails(USAGE);
    }
    let version = run(folkmoot().arg("--version")).ok();
    assert_eq!(version, format!("folkmoot {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn configurations_are_checked_and_printed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.toml");
    let check = || {
        let mut command = folkmoot();
        command.args(["config", "check"]).arg(&path);
        command
    };
    let printed = run(folkmoot().args(["config", "print", "--set", "log.format=json"])).ok();
    let table: toml::Table = printed.parse().unwrap();
    assert_eq!(table["log"]["format"].as_str(), Some("json"));
    let json = run(folkmoot().args(["config", "print", "--set", "log.format=json", "--json"]));
    assert_eq!(json.json(), serde_json::to_value(&table).unwrap(), "both say the same");

    std::fs::write(&path, &printed).unwrap();
    assert!(run(&mut check()).ok().contains("node.toml is usable"));
    assert_eq!(run(check().arg("--json")).json()["ok"], true);
    let print = run(folkmoot().args(["config", "print", "--config"]).arg(&path)).ok();
    assert_eq!(print, printed, "what is printed is what is read");

    std::fs::write(&path, "[log]\nformat = \"papyrus\"\n").unwrap();
    let said = run(&mut check()).fails(FAILED);
    assert!(said.contains("node.toml") && said.contains("papyrus"), "{said}");
    let ran = run(check().arg("--json"));
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(answer["ok"], false);
    assert!(answer["problems"][0].as_str().is_some_and(|p| p.contains("papyrus")), "{answer}");
    ran.fails(FAILED);
}

fn users(admin: &User<'_>) {
    let token = admin.says("user add alice --name Al");
    let user = admin.json("user add bob");
    assert_eq!((&user["user"], &user["display_name"]), (&"bob".into(), &"bob".into()));
    assert_eq!(user["admin"], false);
    admin.is_refused("user add bob", "already_exists");
    let list = admin.says("user list");
    let list = rows(&list);
    assert_eq!(list[0], ["USER", "NAME", "ADMIN", "CREATED", "STATUS"]);
    assert_eq!(list[2][..3], ["alice", "Al", "no"]);
    assert_eq!(each(&admin.json("user list"), "users", "user"), ["admin", "alice", "bob"]);
    let further = admin.json("user token bob --label laptop");
    assert_eq!(further["user"], "bob");
    for token in [
        token,
        admin.says("user token alice"),
        user["token"].as_str().unwrap().to_owned(),
        further["token"].as_str().unwrap().to_owned(),
    ] {
        let user = User { token, ..*admin };
        assert_eq!(each(&user.json("room list"), "rooms", "room"), [] as [&Value; 0]);
        user.is_refused("user add carol", "forbidden");
    }
    admin.is_refused("user token nobody", "user_not_found");
}

fn rooms(admin: &User<'_>, alice: &User<'_>) {
    assert_eq!(admin.says("room create tea --title Tea"), "created tea");
    assert_eq!(admin.says("room create tea --title Tea"), "was there already: tea");
    admin.is_refused("room create tea --title Coffee", "already_exists");
    let room = admin.json("room create den --kind private");
    assert_eq!((&room["created"], &room["kind"]), (&true.into(), &"private".into()));
    let list = admin.says("room list");
    assert_eq!(rows(&list)[0], ["ROOM", "KIND", "HEAD", "PARTICIPANTS", "TITLE"]);
    assert_eq!(rows(&list)[2], ["tea", "public", "1", "1", "Tea"]);
    assert_eq!(each(&admin.json("room list"), "rooms", "room"), ["den", "tea"]);
    assert_eq!(each(&alice.json("room list"), "rooms", "room"), ["tea"]);

    alice.is_refused("room join den", "room_not_found");
    let hint = alice.is_refused("post tea hello", "not_participant");
    assert!(hint.contains("folkmoot room join"), "{hint}");
    assert_eq!(alice.says("room join tea"), "joined tea");
    assert_eq!(alice.says("room join tea"), "already in tea");
    let shown = alice.says("room show tea");
    assert!(rows(&shown).iter().any(|row| row.starts_with(&["alice", "member"])), "{shown}");
    assert_eq!(alice.says("room leave tea"), "left tea");
    alice.is_refused("room leave tea", "not_participant");
    let ack = alice.json("room join tea");
    assert_eq!((&ack["seq"], &ack["duplicate"]), (&4.into(), &false.into()));
    let room = alice.json("room show tea");
    assert_eq!((&room["head"], &room["participant_count"]), (&4.into(), &2.into()));
    assert_eq!(each(&room, "participants", "role"), ["owner", "member"]);
    assert_eq!(alice.json("room leave tea")["seq"], 5);
}

fn posts(admin: &User<'_>) {
    admin.says("room create log");
    let mut post = admin.command("post log");
    let mut post = post.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    post.stdin.take().unwrap().write_all(b"one\n\ntwo\n  \nthree\n").unwrap();
    let output = post.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"#2\n#3\n#4\n");
    let again = format!("post log four --id {}", new_id());
    assert_eq!(admin.says(&again), "#5");
    assert_eq!(admin.says(&again), "#5 (was there already)");
    let ack = admin.json("post log hums --action");
    assert_eq!((&ack["seq"], &ack["duplicate"]), (&6.into(), &false.into()));
    assert!(ack["epoch"].is_string() && ack["at"].is_string(), "{ack}");
    assert_eq!(admin.says("post log five --reply-to 5"), "#7");
}

fn history(admin: &User<'_>) {
    let page = admin.json("history log");
    assert_eq!((&page["head"], &page["first_seq"]), (&7.into(), &1.into()));
    assert_eq!(each(&page, "events", "seq"), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(each(&page, "events", "text")[1..], ["one", "two", "three", "four", "hums", "five"]);
    assert_eq!(page["events"][5]["kind"], "action");
    assert_eq!(page["events"][6]["target"], 5);
    let epoch = page["epoch"].as_str().unwrap();
    for (paging, seqs) in [
        ("--after 3 --limit 2", vec![4, 5]),
        ("--before 6 --limit 2", vec![4, 5]),
        (&format!("--after {epoch}:5"), vec![6, 7]),
        ("--after 0 --limit 1", vec![1]),
        ("--limit 3", vec![5, 6, 7]),
        ("--after 7", vec![]),
    ] {
        let line = format!("history log {paging}");
        assert_eq!(each(&admin.json(&line), "events", "seq"), seqs, "{paging}");
        let text = run(&mut admin.command(&line));
        assert_eq!((text.code, text.out.lines().count()), (Some(0), seqs.len()), "{text:?}");
        for (line, seq) in text.out.lines().zip(&seqs) {
            assert!(line.starts_with(&format!("#{seq} ")), "{text:?}");
        }
    }
    let text = admin.says("history log");
    assert!(text.contains("admin: three\n") && text.contains("* admin hums\n"), "{text}");
    assert!(text.ends_with("admin (to #5): five"), "{text}");
    wait_for("this node's replica to have it all", Duration::from_secs(10), || {
        let page = admin.json("history log --local");
        if page["head"] == 7 { Ok(()) } else { Err(page.to_string()) }
    });
    admin.is_refused("history log --after 99", "invalid_cursor");
}

/// The status tells of a node that does not answer, and is not stale for that.
fn a_node_is_down(cluster: &TestCluster, down: usize) {
    let status = |format: &str| {
        let mut command = cluster.cli(0, &["cluster", "status"]);
        run(command.args(Some(format).filter(|format| !format.is_empty()))).ok()
    };
    wait_for("each shard to have a leader again", Duration::from_secs(10), || {
        let status: Value = serde_json::from_str(&status("--json")).unwrap();
        let states = each(&status, "nodes", "state");
        let told = states.iter().filter(|state| **state == "down").count() == 1;
        if told && status["stale"] == false { Ok(()) } else { Err(status.to_string()) }
    });
    let silent = format!("no answer from node {}\n", cluster.node_id(0, down));
    wait_for("the text to say so", Duration::from_secs(10), || {
        let text = status("");
        if text.contains(&silent) && !text.contains("stale") { Ok(()) } else { Err(text) }
    });
}

fn status(admin: &User<'_>) {
    let status = wait_for("each shard to have its leader", Duration::from_secs(10), || {
        let status = admin.json("cluster status");
        let states = each(&status, "shards", "state");
        let leaders = states.iter().filter(|state| **state == "leader").count();
        if (leaders, states.len()) == (9, 27) { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!(each(&status, "nodes", "id"), [1, 2, 3]);
    for node in status["nodes"].as_array().unwrap() {
        assert_numbers(node, &["leaders", "replicas", "disk_bytes"]);
        assert!(node["client_address"].is_string() && node["state"].is_string(), "{node}");
        assert!(node["peer_address"].is_string() && node["version"].is_string(), "{node}");
    }
    let replicas = status["shards"].as_array().unwrap();
    assert_eq!(replicas.len(), 9 * 3, "each shard, and the one of the cluster, on each node");
    for replica in replicas {
        assert_numbers(replica, &["shard", "node", "leader", "term", "last_log", "commit"]);
        assert_numbers(replica, &["applied", "durable", "lag", "size_bytes"]);
        assert_eq!(replica["voters"], serde_json::json!([1, 2, 3]), "{replica}");
    }
    let text = wait_for("all nodes to answer", Duration::from_secs(10), || {
        let text = admin.says("cluster status");
        if text.contains("no answer from") { Err(text) } else { Ok(text) }
    });
    let tables: Vec<_> = text.split("\n\n").collect();
    assert!(tables[0].contains(status["cluster_id"].as_str().unwrap()), "{text}");
    let headings = "NODE STATE UP CLIENT PEER VERSION LEADS REPLICAS STREAMS LAG DISK";
    assert_eq!(rows(tables[1])[0].join(" "), headings);
    let headings = "SHARD NODE STATE LEADER TERM LAST LOG COMMIT APPLIED DURABLE TRAILS LEADER \
                    BY SIZE VOTERS LEARNERS";
    assert_eq!(rows(tables[2])[0].join(" "), headings);
    assert_eq!((rows(tables[1]).len(), rows(tables[2]).len()), (4, 28), "{text}");
}

fn upkeep(admin: &User<'_>) {
    let sizes = admin.json("node compact");
    assert_numbers(&sizes, &["bytes_before", "bytes_after"]);
    let said = admin.says("node compact");
    assert!(said.starts_with("compacted ") && said.contains(" to "), "{said}");

    let export = admin.says("export log");
    let path = admin.cluster.directory().join("log.jsonl");
    let verify = |text: &str, further: &[&str]| {
        std::fs::write(&path, text).unwrap();
        run(folkmoot().arg("verify").arg(&path).args(further))
    };
    let whole = verify(&export, &[]).ok();
    assert!(whole.starts_with("whole: log, 7 events up to #7, chain "), "{whole}");
    let whole = verify(&export, &["--json"]).json();
    assert_eq!((&whole["ok"], &whole["room"]), (&true.into(), &"log".into()));
    assert_eq!((&whole["events"], &whole["last_seq"]), (&7.into(), &7.into()));
    assert_eq!(whole["chain"], admin.json("room show log")["chain"]);
    let changed = export.replacen("three", "seven", 1);
    let said = verify(&changed, &[]).fails(FAILED);
    assert!(said.contains("log.jsonl: line 5: seq 4: "), "{said}");
    let ran = verify(&changed, &["--json"]);
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(answer["ok"], false);
    assert!(answer["problem"].as_str().is_some_and(|p| p.contains("line 5")), "{answer}");
    ran.fails(FAILED);
}

fn failures(admin: &User<'_>) {
    let stranger = User { token: "not-a-token".into(), ..*admin };
    let calls = ["user list", "room list", "node compact"];
    let of_rooms = ["room show", "room join", "room leave", "history", "tail", "export"];
    let of_rooms = of_rooms.map(|command| format!("{command} nowhere"));
    for line in calls.iter().copied().chain(of_rooms.iter().map(String::as_str)) {
        let hint = stranger.is_refused(line, "unauthenticated");
        assert!(hint.contains("--token"), "{hint}");
    }
    stranger.is_refused("post nowhere hello", "unauthenticated");
    for line in &of_rooms {
        admin.is_refused(line, "room_not_found");
    }
    admin.is_refused("post nowhere hello", "room_not_found");
    let nobody = format!("room list --timeout 1s --server http://127.0.0.1:{}", free_ports(1));
    let begin = Instant::now();
    let hint = admin.is_refused(&nobody, "unavailable");
    assert!(begin.elapsed() < Duration::from_secs(5), "a second each: {:?}", begin.elapsed());
    assert!(hint.contains("Is the node running"), "{hint}");
}

/// `tail` goes on when the node that it is connected to is killed.
fn tail(cluster: &mut TestCluster) {
    const COUNT: usize = 3000;
    cluster.room("river");
    let rooms = [String::from("river")];
    let mut servers = cluster.client_urls();
    servers.rotate_left(1);
    let mut command = cluster.cli(0, &["tail", "river", "--after", "0", "--json"]);
    command.args(["--count", &COUNT.to_string(), "--server", &servers.join(",")]);
    let mut tail = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = Lines::of(tail.stdout.take().unwrap());
    let load = |it: &TestCluster| Load::start(&it.client_urls(), it.admin_token(), &rooms, 4);
    let begun = load(cluster);
    let patience = Duration::from_secs(60);
    wait_for("a tenth of the events", patience, || match lines.len() {
        seen if seen >= COUNT / 10 => Ok(()),
        seen => Err(format!("{seen} lines")),
    });
    let mut acked = begun.finish();
    let sessions = cluster.http(1).metric("folkmoot_sessions");
    assert_eq!(sessions, 1.0, "it is connected to the node that is killed now");
    cluster.kill(1);
    assert!(lines.len() < COUNT, "it has not ended before");
    let rest = load(cluster);
    let status = wait_for("tail to end", patience, || {
        tail.try_wait().unwrap().ok_or_else(|| format!("{} lines", lines.len()))
    });
    assert_eq!(status.code(), Some(0));
    acked.extend(rest.finish());
    wait_for("the last lines", patience, || match lines.len() {
        COUNT => Ok(()),
        other => Err(format!("{other} lines")),
    });
    let log = load::read_room(&cluster.admin(0), "river", "linearizable");
    load::check_log(&log, &acked);
    for (line, seen) in lines.all().iter().zip(&log) {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&event["seq"], &event["text"]), (&seen.seq.into(), &(&*seen.text).into()));
        assert_eq!(event["client_msg_id"], *seen.id);
    }
    a_node_is_down(cluster, 1);
    cluster.restart(1);
    cluster.wait_ready();
    let last = run(&mut cluster.cli(1, &["tail", "river", "-n", "2", "--count", "2"])).ok();
    let last: Vec<_> = last.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(last, [format!("#{}", log.len() - 1), format!("#{}", log.len())]);
}

#[test]
fn commands_do_what_they_say() {
    let mut cluster = TestCluster::start(3);
    let admin = User { cluster: &cluster, node: 1, token: cluster.admin_token().into() };
    users(&admin);
    let token = admin.says("user token alice");
    let alice = User { cluster: &cluster, node: 2, token };
    rooms(&admin, &alice);
    posts(&admin);
    history(&admin);
    status(&admin);
    upkeep(&admin);
    failures(&admin);
    tail(&mut cluster);
}

#[test]
fn a_bench_reports_what_it_measured_and_that_nothing_was_lost() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = folkmoot();
    bench.args(["bench", "--local", "3", "--seconds", "2", "--warmup", "1", "--json"]);
    bench.args(["--clients", "8", "--connections", "4", "--max-wait", "1"]);
    bench.args(["--base-port", &free_ports(22).to_string(), "--dir"]).arg(directory.path());
    let report = run(&mut bench).json();
    let quantiles = ["ack_ms_p50", "ack_ms_p90", "ack_ms_p99", "ack_ms_p999"];
    assert_numbers(&report, &quantiles);
    assert_numbers(&report, &["deliver_ms_p50", "deliver_ms_p99", "du_bytes_per_msg"]);
    let number = |field: &str| report[field].as_f64().unwrap_or_else(|| panic!("{report}"));
    assert!(quantiles.map(number).is_sorted(), "{report}");
    for field in ["acked_per_s", "ack_ms_p50", "deliver_ms_p50", "server_cpu_s_per_1000"] {
        assert!(number(field) > 0.0, "{field}: {report}");
    }
    assert!(number("server_rss_mib") > 1.0, "{report}");
    assert_eq!(report["server_rss_mib_each"].as_array().map(Vec::len), Some(3), "{report}");
    assert_eq!((&report["clients"], &report["conns"]), (&8.into(), &4.into()));
    let verdict = &report["verdict"];
    crate::common::say!("{} acked/s", report["acked_per_s"]);
    assert_eq!((&verdict["ok"], &verdict["found"]), (&true.into(), &verdict["acked"]), "{report}");
    assert!(verdict["acked"].as_u64() >= report["acked"].as_u64(), "{report}");
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 0, "its nodes' data are gone");
}
