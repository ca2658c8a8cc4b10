//! Nodes' files change behind their backs, and they are started on what is left. A node may go on,
//! having found nothing wrong or having made it good with its peers' help; or it may refuse, in which
//! case the files are put back when the attack is over.

use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::cluster::made::wait;
use crate::fault::files::{self, What};
use crate::fault::{Active, FaultError, Plan, signal};
use crate::run::nemesis::act::{READY_WITHIN, Undo, end, keep, start};

/// How long a node runs on before its files are put back to before.
const RUNS_ON: Duration = Duration::from_millis(3_500);

/// Damage to the files of a few nodes.
#[derive(Debug)]
pub struct Damage {
    /// Whose: a minority, so that what they forget others remember.
    pub nodes: Vec<usize>,
    /// Which files.
    pub what: What,
    /// What happens to them.
    pub how: How,
    /// Says where.
    pub seed: u64,
}

/// What happens to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A bit changes.
    Flip,
    /// One ends earlier.
    Truncate,
    /// All are as they were some seconds before.
    RollBack,
    /// They are another node's.
    Foreign,
}

/// What a node made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// It stopped, and says why.
    Refused,
    /// It is ready.
    WentOn,
    /// It runs, and is not ready.
    Neither,
}

impl Damage {
    /// Stops each node, does the damage, and starts it again.
    pub(super) fn inject(&self, cluster: &Cluster, undo: &mut Undo) -> Result<(), String> {
        self.nodes.iter().try_for_each(|place| self.inject_one(cluster, *place, undo))
    }

    fn inject_one(&self, cluster: &Cluster, place: usize, undo: &mut Undo) -> Result<(), String> {
        let node = &cluster.nodes[place];
        let kill = || {
            end(cluster, &[place], |targets| {
                targets.iter().try_for_each(|target| keep(signal::kill(target)))
            })
        };
        let injected = |plan: Result<Plan, FaultError>| {
            plan.and_then(Plan::inject).map_err(|error| error.to_string())
        };
        undo.start.push(place);
        kill()?;
        let seed = self.seed ^ place as u64;
        let active = match self.how {
            How::Flip => injected(files::flip(&node.data_dir, self.what, seed))?,
            How::Truncate => injected(files::truncate(&node.data_dir, self.what, seed))?,
            How::Foreign => {
                let other = &cluster.nodes[(place + 1) % cluster.nodes.len()];
                injected(files::roll_back(&node.data_dir, self.what, &other.data_dir))?
            }
            How::RollBack => {
                let copy = self.copy(cluster, place);
                let saved = files::save(&node.data_dir, &copy).and_then(keep);
                saved.map_err(|error| error.to_string())?;
                start(node)?;
                std::thread::sleep(RUNS_ON);
                kill()?;
                let rolled = injected(files::roll_back(&node.data_dir, self.what, &copy));
                // Copied from, and of no further use.
                let _ = std::fs::remove_dir_all(&copy);
                rolled?
            }
        };
        self.see(cluster, place, active, undo)
    }

    fn copy(&self, cluster: &Cluster, place: usize) -> PathBuf {
        let node = &cluster.nodes[place];
        let above = node.data_dir.parent().and_then(std::path::Path::parent);
        above.unwrap_or(&node.data_dir).join(format!("{}-{:016x}", node.name, self.seed))
    }

    /// What the node makes of it.
    fn see(
        &self,
        cluster: &Cluster,
        place: usize,
        damage: Active,
        undo: &mut Undo,
    ) -> Result<(), String> {
        let node = &cluster.nodes[place];
        node.start().map_err(|error| format!("{}: {error}", node.name))?;
        let over = wait(READY_WITHIN, || node.running().is_none() || node.is_ready());
        let made = match (node.running().is_some(), over) {
            (false, _) => Made::Refused,
            (true, true) => Made::WentOn,
            (true, false) => Made::Neither,
        };
        undo.findings.extend(self.judge(made).map(|wrong| format!("{} {wrong}", node.name)));
        undo.notes.push(match made {
            Made::Refused => "refused".into(),
            Made::WentOn if set_aside(&node.data_dir) => "made anew".into(),
            Made::WentOn => "went on".into(),
            Made::Neither => "neither ready nor stopped".into(),
        });
        if made == Made::Refused || self.how == How::Foreign {
            undo.damaged.push((place, damage));
            if made != Made::Refused {
                // It is not to go on as somebody else; that it does is a finding already.
                node.kill();
            }
            return Ok(());
        }
        if self.what == What::Log {
            undo.suspects.push(place);
        }
        damage.stay();
        Ok(())
    }

    /// What a node should not have made of it.
    fn judge(&self, made: Made) -> Option<String> {
        let (how, what) = (self.how, self.what);
        match (made, how, what) {
            (Made::Neither, _, _) => Some(format!(
                "runs after damage ({how:?} of {what:?}), and is not ready within {READY_WITHIN:?}"
            )),
            (Made::WentOn, How::Foreign, _) => {
                Some(format!("goes on with the {what:?} of another node: it must refuse"))
            }
            // Who it is does not change, and a mark that is too low vouches for less.
            (Made::Refused, How::RollBack, What::Identity | What::Watermark) => {
                Some(format!("refuses its own earlier {what:?}, which is as good"))
            }
            _ => None,
        }
    }
}

/// Whether the node has set its state aside; what it has is removed then, as it asks for.
fn set_aside(data_dir: &std::path::Path) -> bool {
    let entries = std::fs::read_dir(data_dir).into_iter().flatten().flatten();
    let aside = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("rooms.unreadable-"));
    aside.filter(|entry| std::fs::remove_dir_all(entry.path()).is_ok()).count() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_told_by_what_it_makes_of_damage() {
        let judge = |how, what, made| {
            Damage { nodes: vec![0], what, how, seed: 1 }.judge(made).unwrap_or_default()
        };
        for made in [Made::Refused, Made::WentOn] {
            assert_eq!(judge(How::Flip, What::Log, made), "");
            assert_eq!(judge(How::RollBack, What::Log, made), "");
        }
        assert_eq!(judge(How::RollBack, What::Watermark, Made::WentOn), "");
        assert!(judge(How::RollBack, What::Watermark, Made::Refused).contains("as good"));
        assert!(judge(How::RollBack, What::Identity, Made::Refused).contains("as good"));
        assert_eq!(judge(How::Foreign, What::Identity, Made::Refused), "");
        assert!(judge(How::Foreign, What::Identity, Made::WentOn).contains("must refuse"));
        assert!(judge(How::Flip, What::Sled, Made::Neither).contains("not ready"));
    }

    #[test]
    fn a_state_that_was_set_aside_is_noticed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("rooms")).unwrap();
        assert!(!set_aside(directory.path()));
        std::fs::create_dir(directory.path().join("rooms.unreadable-1")).unwrap();
        assert!(set_aside(directory.path()) && !set_aside(directory.path()));
        assert!(directory.path().join("rooms").is_dir());
    }
}
