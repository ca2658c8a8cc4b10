//! Accounts on real nodes: signed in on one, known on all; signed out, on all within a second.

use std::io::{BufRead, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::cluster::{Options, TestCluster, succeed};
use crate::common::http::{Http, Response};
use crate::common::load;
use crate::common::sse::Sse;
use crate::common::{new_id, orders, settings, wait_for};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse";
/// What is revoked stops working within this.
const SOON: Duration = Duration::from_secs(1);
/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nodes with few shards, on which anybody may register.
fn cluster(nodes: usize, set: &[&str]) -> TestCluster {
    let arguments = settings(&[&["accounts.registration=open"], set].concat());
    let init_arguments = vec!["--shards".into(), "2".into()];
    let options = Options { arguments, init_arguments, ..Options::default() };
    TestCluster::start_with(nodes, options)
}

/// Makes an account; a first session of it.
fn register(http: &Http, user: &str) -> Http {
    let body = json!({ "user": user, "password": PASSWORD });
    let made = http.post("/v1/register", &body).unwrap().expect(201);
    http.with_token(made["token"].as_str().unwrap())
}

fn login(http: &Http, user: &str) -> Http {
    let body = json!({ "user": user, "password": PASSWORD });
    let begun = http.post("/v1/login", &body).unwrap().expect(200);
    http.with_token(begun["token"].as_str().unwrap())
}

/// The same caller, on another node.
fn on(cluster: &TestCluster, node: usize, caller: &Http) -> Http {
    cluster.http(node).with_token(caller.token.as_deref().unwrap())
}

fn me(http: &Http) -> Response {
    http.get("/v1/me").unwrap()
}

/// Waits until a caller is refused on a node; nobody lets them in who is asked later than soon.
fn wait_refused(cluster: &TestCluster, node: usize, caller: &Http, since: Instant) {
    let there = on(cluster, node, caller);
    wait_for("the caller to be refused", PATIENCE, || {
        let asked = since.elapsed();
        match me(&there).status {
            401 => Ok(()),
            status => {
                let known = status == 200 && asked >= SOON;
                assert!(!known, "node {node} still knows them when asked after {asked:?}");
                Err(status.to_string())
            }
        }
    });
}

/// Streams and long polls of one caller, one of each on every node.
struct Following {
    room: String,
    /// All that came over each of them, how it ended included, and when it did.
    ends: Vec<std::thread::JoinHandle<(String, Instant)>>,
}

impl Following {
    fn begin(cluster: &TestCluster, caller: &Http, room: &str) -> Following {
        let mut ends = Vec::new();
        for node in 0..cluster.len() {
            let there = on(cluster, node, caller).with_timeout(PATIENCE);
            let mut stream = Sse::open(&there, room, Some(0), None).unwrap();
            while !stream.next().unwrap().is_caught_up() {}
            ends.push(std::thread::spawn(move || {
                let mut said = String::new();
                loop {
                    match stream.next() {
                        Ok(event) => said.push_str(&event.data),
                        Err(end) => return (said + &end.to_string(), Instant::now()),
                    }
                }
            }));
            let head = there.get(&format!("/v1/rooms/{room}")).unwrap().expect(200)["head"].clone();
            let path = format!("/v1/rooms/{room}/events?after={head}&wait=60s");
            ends.push(std::thread::spawn(move || {
                let answer = there.get(&path).unwrap();
                (String::from_utf8_lossy(&answer.body).into_owned(), Instant::now())
            }));
        }
        // The polls have been sent; nobody says when a node has begun to wait.
        std::thread::sleep(Duration::from_millis(500));
        Following { room: room.to_owned(), ends }
    }

    /// All end as not signed in any more, and none of them gets what is posted later than soon. Returns
    /// after how long all had ended: that waits for the account's shard to have a leader.
    fn end(self, cluster: &TestCluster, since: Instant) -> Duration {
        std::thread::sleep((since + SOON).saturating_duration_since(Instant::now()));
        let (urls, token) = (cluster.client_urls(), cluster.admin_token());
        let later = load::post(&urls, token, &self.room, &new_id(), "not for them any more");
        let mut slowest = Duration::ZERO;
        for end in self.ends {
            wait_for("a stream or long poll to end", PATIENCE, || {
                if end.is_finished() { Ok(()) } else { Err("it goes on".into()) }
            });
            let (said, at) = end.join().unwrap();
            assert!(said.contains("unauthenticated") && !said.contains(&later.id), "{said}");
            slowest = slowest.max(at.saturating_duration_since(since));
        }
        crate::common::say!("streams and long polls had ended after {slowest:?}");
        slowest
    }
}

#[test]
fn who_signs_in_on_one_node_is_known_on_all_and_who_signs_out_on_none() {
    let cluster = cluster(3, &[]);
    cluster.room("general");
    let ann = register(&cluster.http(0), "ann");
    for node in 0..3 {
        let answer = me(&on(&cluster, node, &ann)).expect(200);
        assert_eq!(answer["user"], "ann");
    }
    let second = login(&cluster.http(1), "ann");
    let sessions = on(&cluster, 2, &second).get("/v1/sessions").unwrap().expect(200);
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 2);
    assert_eq!(sessions["sessions"][1]["current"], true);

    let following = Following::begin(&cluster, &second, "general");
    on(&cluster, 0, &second).post("/v1/logout", &json!({})).unwrap().expect_status(204);
    let since = Instant::now();
    following.end(&cluster, since);
    (0..3).for_each(|node| wait_refused(&cluster, node, &second, since));
    me(&ann).expect(200);
}

#[test]
fn revoked_tokens_changed_passwords_and_disabled_users_are_out_everywhere() {
    let cluster = cluster(3, &[]);
    cluster.room("general");
    let ann = register(&cluster.http(0), "ann");
    let admin = cluster.admin(2);

    let body = json!({ "label": "bot", "scopes": ["read"] });
    let token = ann.post("/v1/users/ann/tokens", &body).unwrap().expect(201);
    let bot = cluster.http(1).with_token(token["token"].as_str().unwrap());
    let refused = bot.post("/v1/rooms/general/join", &json!({})).unwrap();
    refused.expect_error(403, "forbidden");
    let following = Following::begin(&cluster, &bot, "general");
    let tokens = ann.get("/v1/users/ann/tokens").unwrap().expect(200);
    let id = tokens["tokens"][0]["id"].as_str().unwrap();
    ann.send("DELETE", &format!("/v1/users/ann/tokens/{id}"), &[], b"").unwrap().expect_status(204);
    let mut ended = vec![following.end(&cluster, Instant::now())];

    let other = login(&cluster.http(1), "ann");
    let following = Following::begin(&cluster, &other, "general");
    let body = json!({ "password": "another horse", "old_password": PASSWORD }).to_string();
    let json_type = [("content-type", "application/json")];
    let path = "/v1/users/ann/password";
    ann.send("PUT", path, &json_type, body.as_bytes()).unwrap().expect(200);
    ended.push(following.end(&cluster, Instant::now()));
    me(&ann).expect(200);

    let following = Following::begin(&cluster, &ann, "general");
    let body = br#"{"disabled":true}"#;
    admin.send("PATCH", "/v1/users/ann", &json_type, body).unwrap().expect(200);
    let since = Instant::now();
    ended.push(following.end(&cluster, since));
    (0..3).for_each(|node| wait_refused(&cluster, node, &ann, since));
    // An election may hold up one of them.
    ended.sort_unstable();
    assert!(ended[1] < SOON, "{ended:?}");
    let body = json!({ "user": "ann", "password": "another horse" });
    cluster.http(1).post("/v1/login", &body).unwrap().expect_error(401, "unauthenticated");
}

#[test]
fn sessions_end_by_themselves_and_streams_with_them() {
    let cluster = cluster(1, &["accounts.session_max=1m", "accounts.session_idle=1m"]);
    cluster.room("general");
    let ann = register(&cluster.http(0), "ann");
    let body = json!({ "ttl": "3s" });
    let asked = Instant::now();
    let token = ann.post("/v1/users/ann/tokens", &body).unwrap().expect(201);
    let issued = Instant::now();
    let bot = cluster.http(0).with_token(token["token"].as_str().unwrap());
    let mut stream = Sse::open(&bot.with_timeout(PATIENCE), "general", Some(0), None).unwrap();
    while !stream.next().unwrap().is_caught_up() {}
    let end = loop {
        if let Err(end) = stream.next() {
            break end.to_string();
        }
    };
    assert!(end.contains("unauthenticated"), "{end}");
    // It ends three seconds after some moment between the two, and says so when the disk lets it.
    let (least, most) = (issued.elapsed(), asked.elapsed());
    assert!(most >= Duration::from_millis(2900) && least < Duration::from_secs(8), "{most:?}");
    me(&bot).expect_error(401, "unauthenticated");
    let listed = ann.get("/v1/users/ann/tokens").unwrap().expect(200);
    assert_eq!(listed["tokens"], json!([]));
    let ends = me(&ann).expect(200)["expires_at"].clone();
    assert!(ends.is_string(), "{ends}");
}

#[test]
fn accounts_outlive_the_death_of_all_nodes() {
    let mut cluster = cluster(3, &["store.checkpoint_interval=200ms"]);
    let ann = register(&cluster.http(0), "ann");
    let gone = login(&cluster.http(1), "ann");
    gone.post("/v1/logout", &json!({})).unwrap().expect_status(204);
    let admin = cluster.admin(1);
    let profile = json!({ "status": "at lunch" }).to_string();
    let json_type = [("content-type", "application/json")];
    ann.send("PATCH", "/v1/users/ann", &json_type, profile.as_bytes()).unwrap().expect(200);
    cluster.user("bob");
    let disabled = br#"{"disabled":true}"#;
    admin.send("PATCH", "/v1/users/bob", &json_type, disabled).unwrap().expect(200);
    (0..3).for_each(|node| cluster.kill(node));
    (0..3).for_each(|node| cluster.restart(node));
    cluster.wait_ready();
    for node in 0..3 {
        let user = me(&on(&cluster, node, &ann)).expect(200);
        assert_eq!(user["status"], "at lunch");
        me(&on(&cluster, node, &gone)).expect_error(401, "unauthenticated");
        let bob = cluster.admin(node).get("/v1/users/bob").unwrap().expect(200);
        assert_eq!(bob["disabled"], true);
        login(&cluster.http(node), "ann");
    }
}

#[test]
fn a_node_that_is_cut_off_lets_nobody_in_but_to_what_is_old() {
    let mut cluster = cluster(3, &[]);
    cluster.room("general");
    let ann = register(&cluster.http(2), "ann").with_timeout(PATIENCE);
    ann.get("/v1/rooms/general").unwrap().expect(200);
    // Two of three have the room and the account: the third may yet have to apply either.
    orders::wait_level(&cluster, 2);
    let mut stream = Sse::open(&ann, "general", Some(0), None).unwrap();
    while !stream.next().unwrap().is_caught_up() {}
    cluster.kill(0);
    cluster.kill(1);
    let ended = stream.next().unwrap_err().to_string();
    assert!(ended.contains("unavailable"), "{ended}");
    me(&ann).expect_error(503, "unavailable");
    ann.get("/v1/rooms/general?consistency=local").unwrap().expect(200);
    cluster.restart(0);
    cluster.restart(1);
    cluster.wait_ready();
    wait_for("the third node to know them again", PATIENCE, || match me(&ann).status {
        200 => Ok(()),
        status => Err(status.to_string()),
    });
}

/// Runs a command that reads standard input.
fn with_input(mut command: std::process::Command, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_command_line_sets_passwords_and_signs_in() {
    let cluster = cluster(1, &[]);
    // The first administrator has a token only.
    with_input(cluster.cli(0, &["user", "password", "--stdin"]), "admin's own password\n");
    let login = cluster.cli(0, &["user", "login", "admin", "--stdin"]);
    let token = with_input(login, "admin's own password\n");
    let admin = cluster.http(0).with_token(&token);
    assert_eq!(me(&admin).expect(200)["admin"], true);
    let old_and_new = "admin's own password\nanother password\n";
    with_input(cluster.cli(0, &["user", "password", "--stdin"]), old_and_new);
    me(&admin).expect_error(401, "unauthenticated");

    let says = |arguments: &[&str]| {
        let out = succeed(&mut cluster.cli(0, arguments));
        out.lines().map(|line| line.unwrap()).collect::<Vec<_>>()
    };
    says(&["user", "add", "bob"]);
    let chosen = says(&["user", "password", "bob"]).remove(0);
    let login = cluster.cli(0, &["user", "login", "bob", "--stdin"]);
    let bob = with_input(login, &format!("{chosen}\n"));
    me(&cluster.http(0).with_token(&bob)).expect(200);
    let body = json!({ "user": "bob", "password": chosen });
    cluster.http(0).post("/v1/login", &body).unwrap().expect(200);

    let token = says(&["user", "token", "bob", "--scope", "read", "--ttl", "1h"]).remove(0);
    let scopes = me(&cluster.http(0).with_token(&token)).expect(200)["scopes"].clone();
    assert_eq!(scopes, json!(["read"]));
    let tokens: Value = cluster.json(0, &["user", "tokens", "bob"]);
    let id = tokens["tokens"][1]["id"].as_str().unwrap().to_owned();
    says(&["user", "revoke-token", "bob", &id]);
    me(&cluster.http(0).with_token(&token)).expect_error(401, "unauthenticated");
    says(&["user", "set", "bob", "--name", "Bob B.", "--status", "here"]);
    let list = says(&["user", "list"]);
    assert!(list[2].contains("Bob B.") && list[2].contains("here"), "{list:?}");
    says(&["user", "disable", "bob"]);
    cluster.http(0).post("/v1/login", &body).unwrap().expect_error(401, "unauthenticated");
    says(&["user", "enable", "bob"]);
    let invite = says(&["user", "invite", "--uses", "2", "--ttl", "1d"]).remove(0);
    assert!(invite.starts_with("fmi_admin_"));
    let invites = cluster.json(0, &["user", "invites"]);
    assert_eq!(invites["invites"][0]["uses"], 2);
    says(&["user", "drop-invite", invites["invites"][0]["id"].as_str().unwrap()]);
    assert_eq!(cluster.json(0, &["user", "invites"])["invites"], json!([]));
    let sessions = cluster.json(0, &["user", "sessions"]);
    assert_eq!(sessions["sessions"], json!([]), "all have ended with the old password");

    // What was done to others, and what lets others in, is in the audit log.
    let audit = cluster.json(0, &["cluster", "audit"])["actions"].clone();
    let done: Vec<(&str, &str)> = (audit.as_array().unwrap().iter())
        .map(|a| (a["action"].as_str().unwrap(), a["outcome"].as_str().unwrap()))
        .collect();
    let take_back = format!("take back invite {}", invites["invites"][0]["id"].as_str().unwrap());
    for action in [
        "set the password of bob",
        "issue a token for bob",
        "revoke a token of bob",
        "disable bob",
        "enable bob",
        "make an invite for 2 people",
        &take_back,
    ] {
        for outcome in ["begun", "done"] {
            assert!(done.contains(&(action, outcome)), "{action}, {outcome}: {done:?}");
        }
    }
    assert!(!done.iter().any(|(action, _)| action.ends_with("of admin")), "{done:?}");
}

#[test]
fn registration_is_opened_by_a_reload_and_by_invites() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("node.toml");
    std::fs::write(&config, "[accounts]\nregistration = \"closed\"\n").unwrap();
    let options = Options { configs: vec![config.clone()], ..Options::default() };
    let cluster = TestCluster::start_with(1, options);
    let register = |user: &str, invite: Option<&str>| {
        let body = json!({ "user": user, "password": PASSWORD, "invite": invite });
        cluster.http(0).post("/v1/register", &body).unwrap()
    };
    register("ann", None).expect_error(403, "forbidden");
    std::fs::write(&config, "[accounts]\nregistration = \"invite\"\n").unwrap();
    let pid = rustix::process::Pid::from_raw(cluster.pid(0) as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let made = cluster.admin(0).post("/v1/invites", &json!({})).unwrap().expect(201);
    let invite = made["invite"].as_str().unwrap();
    wait_for("the reload", PATIENCE, || match register("ann", Some(invite)).status {
        201 => Ok(()),
        status => Err(status.to_string()),
    });
    register("bob", None).expect_error(403, "forbidden");
    register("bob", Some(invite)).expect_error(403, "forbidden");
}
