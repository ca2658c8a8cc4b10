//! A real corpus of 198,061 messages goes through a cluster whose nodes are killed every few
//! seconds, and comes back byte for byte.
//!
//! The corpus (Kummerfeld et al., ACL 2019, CC BY 4.0) is not in the repository. The test looks for
//! its `irc/*.txt` in `FOLKMOOT_CORPUS`, or in `../shared/corpus`; without it, it is skipped.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::cluster::{TestCluster, succeed};

fn corpus() -> Option<Vec<PathBuf>> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    let directory = std::env::var_os("FOLKMOOT_CORPUS").map_or(default, PathBuf::from).join("irc");
    let entries = std::fs::read_dir(&directory).ok()?;
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "txt"));
    files.sort();
    (!files.is_empty()).then_some(files)
}

/// How long the import goes on undisturbed between two kills.
const BETWEEN_KILLS: Duration = Duration::from_secs(2);

/// Imports everything, over and over until it succeeds, while a node that leads a shard is killed
/// every few seconds. Returns how many were.
fn import(cluster: &mut TestCluster, files: &[PathBuf], kill: bool) -> usize {
    let begin = Instant::now();
    let mut kills = 0;
    loop {
        let mut command = cluster.cli(0, &["import", "irc"]);
        if kill {
            // Half a minute: else it would be over after a kill or two.
            command.args(["--rate", "6000"]);
        }
        let mut child = command.args(files).stdout(std::process::Stdio::null()).spawn().unwrap();
        let mut last_kill = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if kill && last_kill.elapsed() > BETWEEN_KILLS {
                let victim = cluster.a_leader(kills);
                cluster.kill(victim);
                cluster.restart(victim);
                cluster.wait_ready_node(victim);
                kills += 1;
                last_kill = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        if status.success() {
            return kills;
        }
        assert!(begin.elapsed() < Duration::from_secs(600), "the import never succeeds");
    }
}

fn heads(cluster: &TestCluster) -> Vec<(String, u64)> {
    let page = cluster.admin(0).get("/v1/rooms?limit=1000").unwrap().expect(200);
    let rooms = page["rooms"].as_array().unwrap();
    let head = |room: &serde_json::Value| {
        (room["room"].as_str().unwrap().to_owned(), room["head"].as_u64().unwrap())
    };
    rooms.iter().map(head).collect()
}

#[test]
fn the_corpus_comes_back_byte_for_byte() {
    let Some(files) = corpus() else {
        crate::common::say!(
            "SKIPPED: the corpus is not here; set FOLKMOOT_CORPUS to its directory"
        );
        return;
    };
    let mut cluster = TestCluster::start(3);
    let begin = Instant::now();
    let kills = import(&mut cluster, &files, true);
    crate::common::say!(
        "imported {} files in {:?}, {kills} leaders killed",
        files.len(),
        begin.elapsed()
    );
    assert!(kills >= 3, "the import was over after {kills} kills");
    cluster.wait_ready();
    let before = heads(&cluster);
    assert_eq!(before.len(), files.len(), "one room a file");
    for node in 0..3 {
        for file in &files {
            let room = file.file_stem().unwrap().to_string_lossy().to_lowercase();
            let arguments = ["export", &room, "--format", "irc"];
            let export = succeed(&mut cluster.cli(node, &arguments));
            assert!(export == std::fs::read(file).unwrap(), "{room} differs on node {node}");
        }
    }
    import(&mut cluster, &files, false);
    assert_eq!(heads(&cluster), before, "importing again adds nothing");
}
