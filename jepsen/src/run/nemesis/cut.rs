//! A power cut, at any moment or at one that is aimed at.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::cluster::node::Node;
use crate::fault;
use crate::run::nemesis::act::{Undo, end, keep};
use crate::run::nemesis::storm::fall_behind;

/// How long to wait for a moment to hit.
const AIM_WITHIN: Duration = Duration::from_secs(5);
/// How long for a node that was just started to be sent a snapshot.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(20);
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// What a node says when it begins to take a snapshot.
const RECEIVING: &str = "receiving a snapshot";

/// A power cut.
#[derive(Debug)]
pub struct Cut {
    /// Whose.
    pub nodes: Vec<usize>,
    /// The moment to hit, of the first of them; `None`: any.
    pub aim: Option<Aim>,
}

/// A moment of a node's that a power cut is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// The state is being written to the base.
    Checkpoint,
    /// Entries of the log that are no longer needed are being dropped.
    Purge,
    /// A node that fell behind is taking a snapshot.
    Snapshot,
}

impl Cut {
    /// Cuts the power, and turns it on again; the nodes are started when this is undone.
    pub(super) fn inject(&self, cluster: &Cluster, undo: &mut Undo) -> Result<(), String> {
        undo.start.extend(&self.nodes);
        if let (Some(aim), Some(place)) = (self.aim, self.nodes.first()) {
            let came = match aim {
                Aim::Checkpoint => {
                    let node = &cluster.nodes[*place];
                    await_change(&node.data_dir.join("rooms/db"), AIM_WITHIN)
                }
                Aim::Purge => await_purge(&cluster.nodes[*place].data_dir),
                Aim::Snapshot => await_snapshot(cluster, *place)?,
            };
            if !came {
                undo.notes.push("aim missed".into());
            }
        }
        off(cluster, &self.nodes)
    }
}

/// Turns nodes off and their disks on again.
pub(super) fn off(cluster: &Cluster, places: &[usize]) -> Result<(), String> {
    end(cluster, places, |targets| {
        let targets: Vec<&fault::Target> = targets.iter().collect();
        if targets.is_empty() { Ok(()) } else { keep(fault::power::cut(&targets)?) }
    })
}

/// Lets a node need a snapshot, and waits until it is being sent one; whether it was.
fn await_snapshot(cluster: &Cluster, place: usize) -> Result<bool, String> {
    let node: &Node = &cluster.nodes[place];
    let behind = fall_behind(cluster, place);
    let from = node.log_length();
    node.start().map_err(|error| format!("{}: {error}", node.name))?;
    let begin = Instant::now();
    while begin.elapsed() < SNAPSHOT_WITHIN && node.running().is_some() {
        if node.said_since(from, RECEIVING) > 0 {
            return Ok(true);
        }
        // It would have to be far behind for that.
        if !behind && node.is_ready() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(false)
}

/// Waits until a checkpoint was taken, and then something was written to the log: openraft drops
/// what the checkpoint has, as soon as it is durable, by an entry in the log's newest file.
fn await_purge(data_dir: &Path) -> bool {
    if !await_change(&data_dir.join("rooms/db"), AIM_WITHIN) {
        return false;
    }
    newest_log(&data_dir.join("log")).is_some_and(|file| await_change(&file, AIM_WITHIN))
}

fn newest_log(directory: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|end| end == "raftlog"));
    // Names are numbers of one width.
    files.max()
}

/// Waits until a file was written to; whether it was in time.
fn await_change(path: &Path, within: Duration) -> bool {
    let state = || {
        let meta = fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    let (before, begin) = (state(), Instant::now());
    while begin.elapsed() < within {
        if state() != before {
            return true;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_is_a_write_to_the_newest_log_after_one_to_the_base() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["rooms", "log"] {
            fs::create_dir(at(name)).unwrap();
        }
        for name in ["rooms/db", "log/0000000000000001.raftlog", "log/0000000000000002.raftlog"] {
            fs::write(at(name), "").unwrap();
        }
        assert_eq!(newest_log(&at("log")), Some(at("log/0000000000000002.raftlog")));
        let path = directory.path().to_owned();
        let waiting = std::thread::spawn(move || await_purge(&path));
        // The old file says nothing, nor does the new one before the base was written.
        fs::write(at("log/0000000000000001.raftlog"), "x").unwrap();
        fs::write(at("log/0000000000000002.raftlog"), "x").unwrap();
        let mut written = 0;
        while !waiting.is_finished() {
            written += 1;
            fs::write(at("rooms/db"), vec![0; written]).unwrap();
            std::thread::sleep(Duration::from_millis(5));
            if written >= 20 {
                fs::write(at("log/0000000000000002.raftlog"), vec![1; written]).unwrap();
            }
        }
        assert!(waiting.join().unwrap());
        assert!(written >= 20, "it did not wait for the log: {written}");
    }

    #[test]
    fn what_does_not_change_is_not_waited_for_long() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!await_change(directory.path(), Duration::from_millis(5)));
        assert!(!await_change(&directory.path().join("none"), Duration::from_millis(5)));
    }
}
