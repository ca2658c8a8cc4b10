//! A node's files change behind its back, and it is started on what is left. It may go on, having
//! found nothing wrong or having made it good with its peers' help; or it may refuse, in which case
//! the files are put back when the attack is over.

use std::path::PathBuf;

use crate::cluster::Cluster;
use crate::cluster::made::wait;
use crate::fault::files::{self, What};
use crate::fault::{Active, signal};
use crate::run::nemesis::act::{FALL_BEHIND, READY_WITHIN, Undo, end, keep, start};

/// Damage to one node's files.
#[derive(Debug)]
pub struct Damage {
    /// Whose.
    pub node: usize,
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
}

impl Damage {
    /// Stops the node, does the damage, and starts it again.
    pub(super) fn inject(&self, cluster: &Cluster, undo: &mut Undo) -> Result<(), String> {
        let node = &cluster.nodes[self.node];
        let kill = || {
            end(cluster, &[self.node], |targets| {
                targets.iter().try_for_each(|target| keep(signal::kill(target)))
            })
        };
        undo.start.push(self.node);
        kill()?;
        let damage = match self.how {
            How::Flip => files::flip(&node.data_dir, self.what, self.seed),
            How::Truncate => files::truncate(&node.data_dir, self.what, self.seed),
            How::RollBack => {
                let copy = self.copy(cluster);
                let saved = files::save(&node.data_dir, &copy).and_then(keep);
                saved.map_err(|error| error.to_string())?;
                start(node)?;
                std::thread::sleep(FALL_BEHIND);
                kill()?;
                let plan = files::roll_back(&node.data_dir, self.what, &copy);
                let injected = plan.and_then(crate::fault::Plan::inject);
                // Copied from, and of no further use.
                let _ = std::fs::remove_dir_all(&copy);
                return self.see(cluster, injected.map_err(|error| error.to_string())?, undo);
            }
        };
        let injected = damage.and_then(crate::fault::Plan::inject);
        self.see(cluster, injected.map_err(|error| error.to_string())?, undo)
    }

    fn copy(&self, cluster: &Cluster) -> PathBuf {
        let node = &cluster.nodes[self.node];
        let above = node.data_dir.parent().and_then(std::path::Path::parent);
        above.unwrap_or(&node.data_dir).join(format!("{}-{:016x}", node.name, self.seed))
    }

    /// Whether the node has set its state aside; what it has is removed then, as it asks for.
    fn set_aside(&self, cluster: &Cluster) -> bool {
        let Ok(entries) = std::fs::read_dir(&cluster.nodes[self.node].data_dir) else {
            return false;
        };
        let aside = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("rooms.unreadable-"));
        aside.filter(|entry| std::fs::remove_dir_all(entry.path()).is_ok()).count() > 0
    }

    /// What the node makes of it.
    fn see(&self, cluster: &Cluster, damage: Active, undo: &mut Undo) -> Result<(), String> {
        let node = &cluster.nodes[self.node];
        node.start().map_err(|error| format!("{}: {error}", node.name))?;
        let over = wait(READY_WITHIN, || node.running().is_none() || node.is_ready());
        match (node.running().is_some(), over) {
            (false, _) => {
                undo.notes.push("refused".into());
                undo.damaged = Some((self.node, damage));
            }
            (true, true) => {
                undo.notes
                    .push(if self.set_aside(cluster) { "made anew" } else { "went on" }.into());
                damage.stay();
            }
            (true, false) => {
                undo.notes.push("neither ready nor stopped".into());
                undo.findings.push(format!(
                    "{} runs after damage ({:?} of {:?}), and is not ready within {READY_WITHIN:?}",
                    node.name, self.how, self.what
                ));
                damage.stay();
            }
        }
        Ok(())
    }
}
