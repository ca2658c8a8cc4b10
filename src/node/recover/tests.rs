//! Recoveries of made-up data directories: interrupted at every step, and refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::chat::command::{Actor, Command as ChatCommand, Request};
use crate::chat::state::{RoomKind, State as _};
use crate::chat::{apply, recover};
use crate::id::{Epoch, RequestId, RoomId, UserId};
use crate::shard::types::{Batch, Entry, LeaderId, Member, Membership as Voters};
use crate::shard::types::{Payload, Vote, log_id};
use crate::shard::wire;
use crate::store::log::Write;
use crate::store::state::Applied;

const CACHE: u64 = 1 << 20;

fn seed() -> pb::Seed {
    let node = |id: u64| pb::SeedNode {
        id,
        instance: format!("i{id}"),
        client_address: "127.0.0.1:1".into(),
        peer_address: format!("127.0.0.1:{id}"),
        ..Default::default()
    };
    pb::Seed { cluster_id: "old".into(), shards: 3, nodes: (1..=3).map(node).collect() }
}

fn form() -> Bytes {
    let node = |node: pb::SeedNode| pb::ClusterNode {
        id: node.id,
        client_address: node.client_address,
        peer_address: node.peer_address,
        instance: node.instance,
        ..Default::default()
    };
    let nodes = seed().nodes.into_iter().map(node).collect();
    let form = pb::FormCluster { cluster_id: "old".into(), shards: 3, nodes };
    let request = pb::Request { command: Some(Command::FormCluster(form)), ..Default::default() };
    request.encode_to_vec().into()
}

fn room(name: &str) -> Bytes {
    codec::encode_request(&Request {
        actor: Actor { user: UserId::parse("ann").unwrap(), admin: true },
        id: RequestId::mint(1000, [name.len() as u8; 10]),
        command: ChatCommand::CreateRoom {
            room: RoomId::parse(name).unwrap(),
            title: "Room".into(),
            kind: RoomKind::Public,
            epoch: Epoch::mint([1; 8]),
            salt: [1; 16],
        },
    })
}

fn append(shard: u16, first: u64, payloads: Vec<Payload>) -> Write {
    let entries = payloads.into_iter().zip(first..).map(|(payload, index)| {
        let entry = Entry { log_id: log_id(4, index), payload };
        (index, wire::encode_entry(&entry))
    });
    Write::Append { group: ShardId(shard), entries: entries.collect() }
}

fn batch(requests: &[Bytes]) -> Payload {
    Payload::Normal(Batch { stamp_ms: 1000, requests: requests.to_vec() })
}

fn three_voters() -> Payload {
    let ids = BTreeSet::from([1, 2, 3]);
    let members: BTreeMap<_, _> = ids.iter().map(|id| (*id, Member::new("x"))).collect();
    Payload::Membership(Voters::new(vec![ids], members).unwrap())
}

/// What node 1 of three has: the log of each group, the state of shard 1 up to entry 1, and shard 3
/// as its argument says.
fn data_dir(path: &Path, shard_3: &str) {
    let file = MembershipFile::new(DataDir::open(path, &Expected::default()).unwrap());
    let map = ClusterMap::of_seed(&seed());
    let membership =
        Membership { cluster_id: "old".into(), node_id: NodeId(1), map, seed: Some(seed()) };
    file.write(&membership).unwrap();
    let log = Log::open(LogOptions::new(path.join("log"))).unwrap();
    let vote = Vote { leader_id: LeaderId { term: 6, voted_for: 2 }, committed: false };
    log.write(&[
        append(0, 0, vec![three_voters(), batch(&[form()])]),
        append(1, 0, vec![three_voters(), batch(&[room("a")]), batch(&[room("bb")])]),
        append(2, 0, vec![three_voters(), batch(&[room("ccc")])]),
        append(3, 0, vec![three_voters(), batch(&[room("dddd")]), batch(&[room("eeeee")])]),
        Write::Vote { group: ShardId(1), vote: wire::encode_vote(&vote) },
    ])
    .unwrap();
    let options = SledOptions { cache_bytes: CACHE, ..SledOptions::default() };
    let base: Arc<dyn Base> = Arc::new(SledBase::open(&path.join("rooms"), &options).unwrap());
    let mut state = ShardState::open(base, ShardId(1), StateOptions::default()).unwrap();
    apply::apply_batch(&mut state, 1000, &[room("a")], |_, r| drop(r.unwrap()), &mut Vec::new());
    state.set_applied(Applied { log_id: Some((4, 1)), ..Applied::default() });
    state.begin_checkpoint().unwrap().write().unwrap();
    let (group, purged) = (ShardId(3), (1, wire::encode_log_id(&log_id(4, 1))));
    let write = match shard_3 {
        "here" => return,
        "forgotten" => Write::Forget { group, applied: Some(purged) },
        "without its state" => Write::Purge { group, upto: purged.0, log_id: purged.1 },
        "never here" => Write::Forget { group, applied: None },
        other => panic!("{other}"),
    };
    log.write(&[write]).unwrap();
}

fn open(path: &Path) -> Recovery {
    Recovery::open(path, CACHE).unwrap()
}

/// What a start would find: the new cluster's id.
fn check_recovered(path: &Path) -> String {
    check_finished(path).unwrap();
    let file = MembershipFile::new(DataDir::open(path, &Expected::default()).unwrap());
    let membership = file.read().unwrap().unwrap();
    drop(file);
    assert_ne!(membership.cluster_id, "old");
    assert!(membership.seed.is_none(), "it founds nothing");
    let recovery = open(path);
    assert_eq!(recovery.map, membership.map);
    assert_eq!(recovery.cluster_id(), membership.cluster_id);
    assert_eq!(recovery.others(), []);
    for part in recovery.parts() {
        assert!(part.whole, "{part:?}");
        assert_eq!((&part.holding.voters, &part.others), (&vec![NodeId(1)], &vec![]));
        assert_eq!(part.holding.committed, part.holding.last);
    }
    membership.cluster_id
}

/// The rooms of a shard once its log is applied, with their epochs.
fn rooms(path: &Path, shard: u16) -> Vec<(String, Epoch)> {
    let recovery = open(path);
    let mut state = recovery.state(ShardId(shard)).unwrap();
    replay(&recovery.log, &mut state).unwrap();
    let rooms = state.rooms(None, usize::MAX);
    rooms.iter().map(|room| (room.id.to_string(), room.epoch.clone())).collect()
}

#[test]
fn a_recovery_that_was_interrupted_at_any_step_is_finished_by_the_next() {
    for shard_3 in ["here", "forgotten", "without its state", "never here"] {
        for steps in 0..=6 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path();
            data_dir(path, shard_3);
            let mut first = open(path);
            assert_eq!(first.parts().len(), 4);
            assert_eq!(first.parts()[1].holding.last, Some((4, 2)));
            for _ in 0..steps {
                assert!(first.step().unwrap());
            }
            let begun = first.new_cluster_id().map(str::to_owned);
            drop(first);
            assert_eq!(check_finished(path).is_err(), (1..6).contains(&steps), "{steps} steps");
            if steps < 6 {
                let mut second = open(path);
                assert_eq!(second.is_decided(), steps >= 3);
                assert_eq!(second.cluster_id(), "old");
                second.carry_out(true).unwrap();
                assert!(!second.step().unwrap(), "nothing is left");
            }
            let cluster_id = check_recovered(path);
            if let Some(begun) = begun {
                assert_eq!(cluster_id, begun, "{shard_3}, {steps} steps");
            }
            let recovery = uuid::Uuid::try_parse(&cluster_id).unwrap().into_bytes();
            let expected = |names: &[&str]| -> Vec<(String, Epoch)> {
                let epoch = |name| recover::epoch_of(&recovery, &RoomId::parse(name).unwrap());
                names.iter().map(|name| ((*name).to_owned(), epoch(name))).collect()
            };
            assert_eq!(rooms(path, 1), expected(&["a", "bb"]));
            assert_eq!(rooms(path, 2), expected(&["ccc"]));
            let kept: &[&str] = match shard_3 {
                "here" => &["dddd", "eeeee"],
                // What the log still has.
                "without its state" => &["eeeee"],
                _ => &[],
            };
            assert_eq!(rooms(path, 3), expected(kept), "{shard_3}, {steps} steps");
        }
    }
}

#[test]
fn the_new_term_is_above_all_that_the_log_knows() {
    let directory = tempfile::tempdir().unwrap();
    data_dir(directory.path(), "here");
    open(directory.path()).carry_out(false).unwrap();
    let recovery = open(directory.path());
    let last: Vec<_> = recovery.parts().iter().map(|part| part.holding.last.unwrap()).collect();
    assert_eq!(last, [(5, 3), (7, 4), (5, 3), (5, 4)], "shard 1 had voted in term 6");
}

#[test]
fn shards_that_are_not_here_are_named_and_nothing_is_changed() {
    for shard_3 in ["forgotten", "without its state", "never here"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        data_dir(path, shard_3);
        let mut recovery = open(path);
        let refused = recovery.carry_out(false).unwrap_err().to_string();
        assert!(refused.contains("shard 3, which node 2 or 3 had"), "{refused}");
        assert!(!refused.contains("shard 2"), "{refused}");
        drop(recovery);
        check_finished(path).unwrap();
        let recovery = open(path);
        assert_eq!((recovery.cluster_id(), recovery.lost().len()), ("old", 1), "{shard_3}");
    }
}

#[test]
fn what_is_accepted_as_lost_stays_so_after_an_interruption() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    data_dir(path, "without its state");
    let mut first = open(path);
    for _ in 0..2 {
        first.step().unwrap();
    }
    drop(first);
    // The empty state looks like one that is whole.
    let mut second = open(path);
    assert_eq!(second.lost(), [(ShardId(3), vec![NodeId(2), NodeId(3)])]);
    assert!(second.carry_out(false).is_err());
    second.carry_out(true).unwrap();
}

#[test]
fn a_directory_that_is_no_survivors_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let refused = |path: &Path| Recovery::open(path, CACHE).err().unwrap().to_string();
    let nowhere = path.join("nowhere");
    assert!(refused(&nowhere).contains("is not the data directory"));
    assert!(!nowhere.exists());
    data_dir(path, "here");
    let running = DataDir::open(path, &Expected::default()).unwrap();
    assert!(refused(path).contains("another folkmoot process"));
    drop(running);
    std::fs::create_dir_all(path.join("repair-at-start")).unwrap();
    std::fs::write(path.join("repair-at-start/shard-2"), "").unwrap();
    assert!(refused(path).contains("remove repair-at-start/shard-2 first"));
    std::fs::remove_dir_all(path.join("repair-at-start")).unwrap();
    std::fs::write(path.join("recover.json"), "{}").unwrap();
    assert!(refused(path).contains("recover.json is damaged"));
    assert!(check_finished(path).is_err());
}

#[test]
fn a_node_that_was_removed_is_no_survivor() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    data_dir(path, "here");
    let log = Log::open(LogOptions::new(path.join("log"))).unwrap();
    let mut map = ClusterMap::of_seed(&seed());
    let gone = pb::RecoverCluster { cluster_id: "other".into(), node: 2, known_map: Bytes::new() };
    map.carry_out(Command::RecoverCluster(gone.clone())).unwrap();
    let request =
        pb::Request { command: Some(Command::RecoverCluster(gone)), ..Default::default() };
    log.write(&[append(0, 2, vec![batch(&[request.encode_to_vec().into()])])]).unwrap();
    drop(log);
    let refused = Recovery::open(path, CACHE).err().unwrap().to_string();
    assert!(refused.contains("node 1 was removed"), "{refused}");
}
