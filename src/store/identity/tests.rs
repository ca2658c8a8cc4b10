//! What a data directory is used as, and what is refused.

use std::collections::BTreeMap;
use std::fs;

use bytes::Bytes;

use super::*;
use crate::id::ShardId;

fn open(path: &Path) -> Result<DataDir, Refusal> {
    DataDir::open(path, &Expected::default())
}

fn identity() -> Identity {
    Identity { cluster_id: "c1".into(), node_id: NodeId(2) }
}

/// A directory that has been in use.
fn used() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut data = open(dir.path()).unwrap();
    data.adopt(identity()).unwrap();
    let log = log::Log::open(log::LogOptions::new(data.log())).unwrap_or_else(|e| panic!("{e}"));
    log.write(&[log::Write::Vote { group: ShardId(1), vote: Bytes::from_static(b"v") }]).unwrap();
    dir
}

fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(content(&path)),
            false if path.ends_with(LOCK) => {}
            false => drop(files.insert(path.clone(), fs::read(path).unwrap())),
        }
    }
    files
}

/// Opens what must be refused, and holds that nothing was damaged.
fn refusal(dir: &Path, expected: &Expected) -> Refusal {
    let before = content(dir);
    let refusal = DataDir::open(dir, expected).unwrap_err();
    assert!(content(dir) == before, "{refusal}");
    refusal
}

#[test]
fn a_directory_is_made_and_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let mut data = open(&path).unwrap();
    assert_eq!(data.identity(), None);
    assert!(data.log().is_dir() && data.rooms().is_dir());
    drop(data);
    data = open(&path).unwrap();
    data.adopt(identity()).unwrap();
    data.adopt(identity()).unwrap();
    let other = Identity { node_id: NodeId(3), ..identity() };
    assert!(matches!(data.adopt(other), Err(Refusal::NotOurs { .. })));
    drop(data);
    assert_eq!(open(&path).unwrap().identity(), Some(&identity()));
}

#[test]
fn the_file_is_pinned() {
    let text = fs::read_to_string(used().path().join("log/identity.json")).unwrap();
    let expected = "{\n  \"version\": 1,\n  \"cluster_id\": \"c1\",\n  \"node_id\": 2\n}\n";
    assert_eq!(text, expected);
}

#[test]
fn one_process_at_a_time() {
    let dir = used();
    let data = open(dir.path()).unwrap();
    let refused = open(dir.path()).unwrap_err().to_string();
    let pid = format!("another folkmoot process (pid {}) uses", std::process::id());
    assert!(refused.starts_with(&pid), "{refused}");
    drop(data);
    open(dir.path()).unwrap();
}

#[test]
fn anothers_directory_is_refused() {
    let dir = used();
    let expected = |cluster: &str, node| Expected {
        cluster_id: Some(cluster.into()),
        node_id: Some(NodeId(node)),
    };
    DataDir::open(dir.path(), &expected("c1", 2)).unwrap();
    for wrong in [expected("c2", 2), expected("c1", 3)] {
        let refusal = refusal(dir.path(), &wrong);
        assert!(matches!(refusal, Refusal::NotOurs { .. }), "{refusal}");
        assert!(refusal.to_string().contains("node 2 of cluster c1, not to node"));
    }
}

#[test]
fn a_known_id_without_its_log_is_refused() {
    for keep in ["", "watermark", "0000000000000001.raftlog"] {
        let dir = used();
        for entry in fs::read_dir(dir.path().join("log")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name != IDENTITY && name != keep {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        let refusal = refusal(dir.path(), &Expected::default());
        assert!(matches!(refusal, Refusal::LogLost { .. }), "{keep}: {refusal}");
        assert!(refusal.to_string().contains("node 2 of cluster c1, but its Raft log is missing"));
    }
}

#[test]
fn data_without_an_identity_is_refused() {
    let dir = used();
    fs::remove_file(dir.path().join("log").join(IDENTITY)).unwrap();
    assert!(matches!(
        refusal(dir.path(), &Expected::default()),
        Refusal::IdentityLost { what: "log/", .. }
    ));
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    fs::write(dir.path().join("rooms/db"), "x").unwrap();
    assert!(matches!(
        refusal(dir.path(), &Expected::default()),
        Refusal::IdentityLost { what: "rooms/", .. }
    ));
}

#[test]
fn an_interrupted_adoption_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let data = open(dir.path()).unwrap();
    log::create(&data.log()).unwrap();
    fs::write(data.log().join("watermark"), [0; 8192]).unwrap();
    fs::write(data.log().join("identity.json.new"), "{").unwrap();
    drop(data);
    let mut data = open(dir.path()).unwrap();
    data.adopt(identity()).unwrap();
    drop(data);
    open(dir.path()).unwrap();
}

#[test]
fn unreadable_and_newer_identities_are_refused() {
    let dir = used();
    let path = dir.path().join("log").join(IDENTITY);
    let bad = [
        "",
        "{}",
        "nonsense",
        r#"{"version":1,"cluster_id":"c1"}"#,
        r#"{"version":1,"cluster_id":"c1","node_id":0}"#,
        r#"{"version":1,"cluster_id":"","node_id":2}"#,
        r#"{"version":0,"cluster_id":"c1","node_id":2}"#,
    ];
    for text in bad {
        fs::write(&path, text).unwrap();
        let refusal = refusal(dir.path(), &Expected::default());
        assert!(matches!(refusal, Refusal::Unreadable { .. }), "{text}: {refusal}");
    }
    fs::write(&path, r#"{"version":2,"what":"ever"}"#).unwrap();
    assert!(matches!(refusal(dir.path(), &Expected::default()), Refusal::Newer { found: 2, .. }));
}
