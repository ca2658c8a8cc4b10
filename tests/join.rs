//! A node joins a cluster that is there with a token, which is good for one node and for a time; what
//! administrators do is in the audit log, on every node, whatever dies.

use std::path::Path;
use std::time::Duration;

use folkmoot::chat::codec;
use folkmoot::proto::internal as pb;
use folkmoot::shard::transport::tcp::Tcp;
use prost::Message;
use rustix::process::Signal;
use serde_json::Value;

use crate::common::cluster::{TestCluster, free_ports, succeed};
use crate::common::wait_for;

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a node's log says something after its first `from` bytes.
fn wait_said(cluster: &TestCluster, node: usize, from: usize, what: &str) {
    wait_for(&format!("node {node} to say {what:?}"), PATIENCE, || {
        let log = cluster.log(node)[from..].to_owned();
        if log.contains(what) { Ok(()) } else { Err(log) }
    });
}

fn nodes(cluster: &TestCluster) -> usize {
    cluster.json(0, &["node", "list"])["nodes"].as_array().unwrap().len()
}

/// Files below a directory that have a text in them.
fn files_with(directory: &Path, text: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files_with(&path, text, found);
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(text.len()).any(|window| window == text.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
}

#[test]
fn a_new_node_needs_a_token_that_is_good() {
    let mut cluster = TestCluster::start(3);
    let node = cluster.add_node_of(&[]);
    wait_said(&cluster, node, 0, "a new node needs a join token");
    wait_said(&cluster, node, 0, "folkmoot node token");
    assert_eq!(nodes(&cluster), 3);

    let expired = cluster.join_token("1s");
    // Until its time is over: what the cluster goes by is the time of its log.
    std::thread::sleep(Duration::from_millis(1100));
    let unknown = format!("fmjoin_{}", "0".repeat(64));
    for (token, why) in [
        (unknown.as_str(), "this join token is not one of this cluster's"),
        (expired.as_str(), "this join token has expired"),
    ] {
        let from = cluster.log(node).len();
        cluster.kill(node);
        cluster.set_arguments(node, &["--join-token", token]);
        cluster.restart(node);
        wait_said(&cluster, node, from, why);
        wait_said(&cluster, node, from, "folkmoot node token");
        assert_eq!(nodes(&cluster), 3);
    }

    let good = cluster.join_token("10m");
    cluster.kill(node);
    cluster.set_arguments(node, &["--join-token", &good]);
    cluster.restart(node);
    cluster.wait_ready_node(node);
    assert_eq!(nodes(&cluster), 4);
    // It is of the cluster now: it comes again with what it has, or without.
    for arguments in [&["--join-token", good.as_str()][..], &[]] {
        cluster.kill(node);
        cluster.set_arguments(node, arguments);
        cluster.restart(node);
        cluster.wait_ready_node(node);
    }
    let other = cluster.add_node_of(&["--join-token", &good]);
    wait_said(&cluster, other, 0, "this join token has admitted node 4 already");
    assert_eq!(nodes(&cluster), 4);

    // Only hashes are kept, and nothing is logged.
    let mut found = vec![];
    [good, expired].iter().for_each(|token| files_with(cluster.directory(), token, &mut found));
    assert_eq!(found, Vec::<String>::new());
    let usage = cluster.cli(0, &["node", "token", "--ttl", "40d"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("thirty days"), "{usage:?}");
}

/// The shards that a node is to have a replica of, and does not vote in yet.
fn coming(cluster: &TestCluster, node: u64) -> Vec<u64> {
    let list = cluster.json(0, &["shard", "list"]);
    let shards = list["shards"].as_array().unwrap().iter();
    let comes = |shard: &&Value| {
        shard["coming"].as_array().unwrap().iter().any(|coming| coming["node"] == node)
    };
    shards.filter(comes).map(|shard| shard["shard"].as_u64().unwrap()).collect()
}

/// Whenever a join is interrupted, the next start finishes it, and it counts once; or an operator takes it
/// back.
#[test]
fn a_join_that_is_interrupted_is_finished_or_taken_back() {
    let mut cluster = TestCluster::start(3);
    let node = cluster.add_node();
    cluster.kill(node); // whether the others have heard of it or not
    cluster.restart(node);
    let listed = |cluster: &TestCluster, count| {
        wait_for(&format!("{count} nodes"), PATIENCE, || match nodes(cluster) {
            known if known == count => Ok(()),
            known => Err(format!("{known} nodes")),
        });
    };
    // Nothing can be finished of what is on its way to a node that is dead.
    let kill_halfway = |cluster: &mut TestCluster, node: usize, id: u64| {
        let is_coming = |cluster: &TestCluster| match coming(cluster, id)[..] {
            [] => Err("none is".to_owned()),
            _ => Ok(()),
        };
        wait_for("a shard to be on its way", PATIENCE, || {
            is_coming(cluster)?;
            cluster.signal(node, Signal::STOP);
            // Its last answer may have been under way. The node is asked for how it stands, in vain: the
            // second look is one at the map a second later.
            if let Err(none) = is_coming(cluster).and_then(|()| is_coming(cluster)) {
                cluster.signal(node, Signal::CONT);
                return Err(none);
            }
            cluster.kill(node);
            // A busy leader may have read that answer only now: the next shard is waited for then.
            is_coming(cluster).inspect_err(|_| cluster.restart(node))
        });
    };
    listed(&cluster, 4);
    kill_halfway(&mut cluster, node, 4);
    cluster.restart(node);
    cluster.wait_ready_node(node);
    cluster.json(0, &["shard", "rebalance"]);
    wait_for("the node to have its part", PATIENCE, || {
        let status = cluster.json(0, &["node", "status", "4"]);
        let replicas = status["replicas"].as_array().unwrap().len();
        // What comes is unknown where the meta group took its time to say so.
        let settled = status["up"] == true && status["incoming"] == serde_json::json!([]);
        if settled && replicas > 4 { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(nodes(&cluster), 4);

    // Taken back, while it is away.
    let other = cluster.add_node();
    listed(&cluster, 5);
    kill_halfway(&mut cluster, other, 5);
    cluster.json(0, &["node", "remove", "5", "--yes"]);
    assert_eq!((nodes(&cluster), coming(&cluster, 5)), (4, vec![]));
    let settled = cluster.json(0, &["shard", "list"]);
    let shards = settled["shards"].as_array().unwrap();
    assert!(shards.iter().all(|shard| shard["voters"] == shard["target"]), "{settled}");
}

/// Who did what, with what outcome.
fn actions(cluster: &TestCluster, via: usize) -> Vec<[String; 3]> {
    let audit = cluster.json(via, &["cluster", "audit", "--limit", "1000"]);
    let text = |action: &Value, key: &str| action[key].as_str().unwrap().to_owned();
    let action = |a: &Value| ["who", "action", "outcome"].map(|key| text(a, key));
    audit["actions"].as_array().unwrap().iter().map(action).collect()
}

#[test]
fn what_is_done_to_the_cluster_is_in_the_audit_log_on_every_node() {
    let mut cluster = TestCluster::start(3);
    cluster.json(0, &["node", "drain", "2", "--dry-run"]);
    cluster.json(1, &["node", "drain", "2"]);
    cluster.json(1, &["node", "drain", "2"]);
    cluster.json(2, &["node", "resume", "2"]);
    for refused in [["node", "drain", "9"].as_slice(), &["node", "remove", "1", "--yes"]] {
        assert!(!cluster.cli(0, refused).output().unwrap().status.success());
    }
    cluster.json(0, &["node", "compact"]);
    let done = actions(&cluster, 0);
    let said = |who: &str, action: &str, outcome: &str| {
        let found = |a: &&[String; 3]| a[0] == who && a[1] == action && a[2].starts_with(outcome);
        done.iter().filter(found).count()
    };
    assert_eq!(said("admin", "form the cluster, with administrator admin", "done"), 1, "{done:?}");
    assert_eq!(said("admin", "drain node 2", "done"), 1, "{done:?}");
    assert_eq!(said("admin", "drain node 2", "nothing to do"), 1, "{done:?}");
    assert_eq!(said("admin", "resume node 2", "done"), 1, "{done:?}");
    assert_eq!(said("admin", "drain node 9", "refused: there is no node 9"), 1, "{done:?}");
    assert_eq!(said("admin", "remove node 1", "refused: "), 1, "{done:?}");
    // The command asks again where the node has put it off.
    assert!(said("admin", "compact node 1", "begun") >= 1, "{done:?}");
    let spread =
        done.iter().filter(|a| a[0] == "the cluster" && a[1].starts_with("transfer the lead"));
    assert!(spread.count() >= 2, "node 2 leads again: {done:?}");

    // The same wherever it is asked for, and after everything was killed.
    (0..3).for_each(|node| cluster.kill(node));
    (0..3).for_each(|node| cluster.restart(node));
    cluster.wait_ready();
    let gateway = cluster.add_gateway();
    cluster.wait_ready_node(gateway);
    let more = actions(&cluster, gateway);
    assert_eq!(more[..done.len()], done[..]);
    let [token, joined] = &more[done.len()..] else { panic!("{more:?}") };
    assert_eq!(token[1], "make a join token that is valid for 1h");
    assert!(joined[0] == "the cluster" && joined[1].contains("join with its token"), "{joined:?}");
    let table = String::from_utf8(succeed(&mut cluster.cli(1, &["cluster", "audit"]))).unwrap();
    assert_eq!(table.lines().count(), more.len() + 1, "{table}");
    assert!(table.starts_with("TIME (UTC)") && table.contains("resume node 2"), "{table}");
}

#[test]
fn a_node_of_a_release_that_is_too_far_is_refused_and_a_neighbour_is_not() {
    let cluster = TestCluster::start(3);
    let token = cluster.join_token("10m");
    let (host, port) = ("127.0.0.1", free_ports(2));
    // What a node of that release asks: there is no program of it.
    let ask = |member: usize, version: &str| {
        let hello = pb::Hello {
            client_address: format!("{host}:{port}"),
            peer_address: format!("{host}:{}", port + 1),
            version: version.into(),
            instance: "07".repeat(16),
            join_token: token.clone(),
            ..Default::default()
        };
        let request = pb::Bootstrap { request: Some(pb::bootstrap::Request::Admit(hello)) };
        let address = cluster.peer(member).to_string();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // A node that is admitted twice is the same one.
        wait_for("an answer that is certain", PATIENCE, || {
            let answer = runtime.block_on(Tcp::ask(&address, &request));
            let answer = answer.map_err(|error| error.to_string())?;
            let reply = pb::AdmitReply::decode(answer).unwrap();
            if !reply.refused.is_empty() {
                let refused = codec::decode_error(&reply.refused[..]).unwrap();
                if refused.temporary() || refused.may_have_applied {
                    return Err(refused.to_string());
                }
            }
            Ok(reply)
        })
    };
    for (version, why) in [("0.3.0", "too new"), ("2.0.0", "too new"), ("new", "no version")] {
        for member in 0..3 {
            let refused = codec::decode_error(ask(member, version).refused).unwrap();
            assert!(refused.message.contains(why), "{version}: {refused:?}");
        }
        assert_eq!(nodes(&cluster), 3);
    }
    let said = codec::decode_error(ask(0, "0.3.0").refused).unwrap().message;
    assert!(said.contains("upgrade the other nodes first"), "{said}");
    // The token was not spent on them.
    let admitted = ask(1, "0.2.0");
    assert!(admitted.refused.is_empty(), "{admitted:?}");
    assert_eq!((admitted.node_id, nodes(&cluster)), (4, 4));
}

#[test]
fn an_emptied_directory_at_the_address_of_a_node_is_refused() {
    let mut cluster = TestCluster::start(3);
    cluster.room("general");
    let token = cluster.join_token("10m");
    cluster.stop(2);
    let aside = cluster.directory().join("aside");
    std::fs::rename(cluster.data_dir(2), &aside).unwrap();
    cluster.set_arguments(2, &["--join-token", &token]);
    let from = cluster.log(2).len();
    cluster.restart(2);
    // As a new node it would vote a second time, without what the old one has acknowledged.
    wait_said(&cluster, 2, from, "that of node 3");
    wait_said(&cluster, 2, from, "folkmoot node replace");
    assert_eq!(nodes(&cluster), 3);
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.data_dir(2)).unwrap();
    std::fs::rename(&aside, cluster.data_dir(2)).unwrap();
    cluster.set_arguments(2, &[]);
    cluster.restart(2);
    cluster.wait_ready();
    // It has spent no token either.
    let four = cluster.add_node_of(&["--join-token", &token]);
    cluster.wait_ready_node(four);
    assert_eq!(nodes(&cluster), 4);
}
