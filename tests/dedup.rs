//! A repeated `client_msg_id` has one effect: at once, on another node, after a failover, after a
//! restart; and with another body it is refused.

use std::time::Duration;

use crate::common::cluster::TestCluster;
use crate::common::{load, new_id, wait_for};
use serde_json::{Value, json};

/// How long a shard may be without a leader, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Message {
    room: String,
    id: String,
    text: String,
    seq: u64,
    epoch: Value,
    at: Value,
}

fn path(room: &str) -> String {
    format!("/v1/rooms/{room}/messages")
}

/// Repeats each message on a node: each gets its first answer. With another body: refused.
fn repeat_all(cluster: &TestCluster, node: usize, messages: &[Message]) {
    let admin = cluster.admin(node);
    for message in messages {
        let body = json!({ "client_msg_id": message.id, "text": message.text });
        let again = wait_for("an answer", PATIENCE, || {
            let answer = admin.post(&path(&message.room), &body).map_err(|e| e.to_string())?;
            if answer.status == 503 || answer.status == 504 {
                return Err(format!("{answer:?}"));
            }
            Ok(answer.expect(200))
        });
        assert_eq!(again["duplicate"], true, "node {node}");
        assert_eq!(again["seq"], message.seq);
        assert_eq!((&again["epoch"], &again["at"]), (&message.epoch, &message.at));
        let other = json!({ "client_msg_id": message.id, "text": "something else" });
        // A node that itself asked again, as the shard's leader changed, cannot tell for its first try.
        wait_for("a refusal that is certain", PATIENCE, || {
            let refused = admin.post(&path(&message.room), &other).map_err(|e| e.to_string())?;
            if refused.status == 503 || refused.status == 504 {
                return Err(format!("{refused:?}"));
            }
            let error = refused.expect_error(409, "id_reused");
            assert_eq!(error["temporary"], false, "{error}");
            if error["may_have_applied"] == true { Err(error.to_string()) } else { Ok(()) }
        });
    }
}

#[test]
fn a_repeat_gets_the_first_answer_everywhere_and_for_good() {
    let mut cluster = TestCluster::start(3);
    let rooms: Vec<_> = (0..8).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    let (mut messages, mut new) = (vec![], 0);
    for (i, room) in rooms.iter().cycle().take(24).enumerate() {
        let (id, text) = (new_id(), format!("message {i}"));
        let body = json!({ "client_msg_id": id, "text": text });
        let answer = cluster.admin(i % 3).post(&path(room), &body).unwrap().expect(200);
        // A node itself asks again, and says so, when the shard's leader changes meanwhile.
        new += usize::from(answer["duplicate"] == false);
        messages.push(Message {
            room: room.clone(),
            id,
            text,
            seq: answer["seq"].as_u64().unwrap(),
            epoch: answer["epoch"].clone(),
            at: answer["at"].clone(),
        });
    }
    assert!(new > 12, "{new} of 24 were new");
    let before: Vec<_> =
        rooms.iter().map(|r| load::read_room(&cluster.admin(0), r, "linearizable")).collect();
    for node in 0..3 {
        repeat_all(&cluster, node, &messages);
    }
    for victim in 0..3 {
        cluster.kill(victim);
        repeat_all(&cluster, (victim + 1) % 3, &messages);
        cluster.restart(victim);
        cluster.wait_ready();
    }
    for node in 0..3 {
        cluster.kill(node);
    }
    for node in 0..3 {
        cluster.restart(node);
    }
    cluster.wait_ready();
    repeat_all(&cluster, 0, &messages);
    let after: Vec<_> =
        rooms.iter().map(|r| load::read_room(&cluster.admin(0), r, "linearizable")).collect();
    assert_eq!(before, after, "repeats changed nothing");
}

#[test]
fn the_same_id_at_once_on_all_nodes_becomes_one_message() {
    let cluster = TestCluster::start(3);
    cluster.room("general");
    let mut new = 0;
    for _ in 0..20 {
        let body = json!({ "client_msg_id": new_id(), "text": "only once" });
        let posts = (0..6).map(|i| {
            let (http, body) = (cluster.admin(i % 3), body.clone());
            std::thread::spawn(move || http.post(&path("general"), &body).unwrap().expect(200))
        });
        let posts: Vec<_> = posts.collect();
        let answers: Vec<_> = posts.into_iter().map(|post| post.join().unwrap()).collect();
        // None, where a node itself asked again as the shard's leader changed.
        let first = answers.iter().filter(|answer| answer["duplicate"] == false).count();
        assert!(first <= 1, "{answers:?}");
        new += first;
        let log = load::read_room(&cluster.admin(0), "general", "linearizable");
        assert_eq!(log.iter().filter(|seen| body["client_msg_id"] == *seen.id).count(), 1);
        assert!(answers.iter().all(|answer| answer["seq"] == answers[0]["seq"]), "{answers:?}");
    }
    assert!(new > 10, "{new} of 20 were new");
}

#[test]
fn ids_of_different_senders_and_rooms_are_different_requests() {
    let cluster = TestCluster::start(1);
    cluster.room("general");
    cluster.room("random");
    let admin = cluster.admin(0);
    let alice = cluster.http(0).with_token(&cluster.user("alice"));
    alice.post("/v1/rooms/general/join", &json!({})).unwrap().expect(200);
    let body = json!({ "client_msg_id": new_id(), "text": "hello" });
    for (http, room) in [(&admin, "general"), (&alice, "general"), (&admin, "random")] {
        assert_eq!(http.post(&path(room), &body).unwrap().expect(200)["duplicate"], false);
        assert_eq!(http.post(&path(room), &body).unwrap().expect(200)["duplicate"], true);
    }
}
