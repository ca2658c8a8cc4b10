//! `cluster.bin`: round trips, pinned bytes, and damage.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::store::identity::Expected;
use crate::testing::{damaged, hex};

fn seed(id: u64, shards: u32) -> pb::Seed {
    let node = pb::SeedNode {
        id,
        instance: "i".into(),
        client_address: "c:1".into(),
        peer_address: "p:1".into(),
        ..Default::default()
    };
    pb::Seed { cluster_id: "c1".into(), shards, nodes: vec![node] }
}

fn founder() -> Membership {
    let seed = seed(2, 2);
    let map = ClusterMap::of_seed(&seed);
    Membership { cluster_id: "c1".into(), node_id: NodeId(2), map, seed: Some(seed) }
}

fn membership() -> impl Strategy<Value = Membership> {
    let node = (any::<u64>(), any::<[String; 4]>()).prop_map(|(id, texts)| {
        let [instance, client_address, peer_address, version] = texts;
        pb::SeedNode { id, instance, client_address, peer_address, version }
    });
    let seed = ("\\PC{1,20}", 1..9u32, vec(node, 0..6))
        .prop_map(|(cluster_id, shards, nodes)| pb::Seed { cluster_id, shards, nodes });
    (any::<u64>(), seed, any::<bool>()).prop_map(|(node_id, seed, founder)| Membership {
        cluster_id: seed.cluster_id.clone(),
        node_id: NodeId(node_id),
        map: ClusterMap::of_seed(&seed),
        seed: founder.then_some(seed),
    })
}

proptest! {
    #[test]
    fn memberships_round_trip(membership in membership()) {
        prop_assert_eq!(decode(&encode(&membership)), Some(membership));
    }

    #[test]
    fn arbitrary_bytes_are_no_membership(mut bytes in any::<Vec<u8>>()) {
        let _ = decode(&bytes);
        bytes.insert(0, VERSION);
        let _ = decode(&bytes);
    }

    #[test]
    fn damaged_bytes_do_not_panic(at in any::<Index>(), to in any::<u8>(), cut in any::<Index>()) {
        for bytes in damaged(&encode(&founder()), at, to, cut) {
            let _ = decode(&bytes);
        }
    }
}

/// A change here is a change of what is on disk: older files must still be read.
#[test]
fn the_file_is_pinned() {
    // The slots are half of shard 1, half of shard 2, in turn.
    let slots = "0102".repeat(512);
    assert_eq!(
        hex(&encode(&founder())),
        format!(
            "01080212af080a026331120f08021203633a311a03703a312a01691a031201021a0508\
             011201021a050802120102228008{slots}\
             280130021a170a02633110021a0f08021201691a03633a312203703a31"
        )
    );
}

fn open(directory: &Path) -> MembershipFile {
    MembershipFile::new(DataDir::open(directory, &Expected::default()).unwrap())
}

#[test]
fn a_membership_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(open(directory.path()).read().unwrap(), None);
    open(directory.path()).write(&founder()).unwrap();
    assert_eq!(open(directory.path()).read().unwrap(), Some(founder()));
}

#[test]
fn a_damaged_file_is_refused_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).write(&founder()).unwrap();
    let path = directory.path().join(FILE);
    let good = fs::read(&path).unwrap();
    let newer = [&[VERSION + 1][..], &good[1..]].concat();
    for bad in [&[][..], &[VERSION], &newer, &good[..good.len() / 2]] {
        fs::write(&path, bad).unwrap();
        let error = open(directory.path()).read().unwrap_err();
        assert!(matches!(error, MembershipError::Damaged(FILE)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bad);
    }
    fs::remove_file(&path).unwrap();
    let error = open(directory.path()).read().unwrap_err();
    assert!(matches!(error, MembershipError::Damaged(FILE)), "{error}");
}

#[test]
fn files_that_do_not_agree_are_named() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).write(&founder()).unwrap();
    let other = Membership { node_id: NodeId(3), ..founder() };
    fs::write(directory.path().join(FILE), encode(&other)).unwrap();
    let error = open(directory.path()).read().unwrap_err().to_string();
    let cluster = founder().cluster_id;
    let own = founder().node_id;
    assert!(
        error.contains(&format!("by its identity it is node {own} of cluster {cluster}")),
        "{error}"
    );
    assert!(error.contains(&format!("node 3 of cluster {cluster}. One of them")), "{error}");
}
