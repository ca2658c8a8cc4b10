//! What to run.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::run::client::session::Transport;
use crate::run::nemesis::kind::Kind;
use crate::run::operations;
use crate::run::store::Missing;
use crate::run::verdict::Limits;

/// Options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The product's program; `None`: beside this one.
    pub bin: Option<PathBuf>,
    /// How many nodes form the cluster: 3 or 5.
    pub nodes: usize,
    /// How many more there are that can join it.
    pub spares: usize,
    /// How long to attack.
    pub time: Duration,
    /// Operations a second that all workers together begin, at most.
    pub rate: u32,
    /// Rooms in use at a time.
    pub rooms: usize,
    /// Users who send and read.
    pub workers: usize,
    /// Users who follow.
    pub subscribers: usize,
    /// How they do.
    pub transports: Vec<Transport>,
    /// The attacks.
    pub asked: Asked,
    /// What an operator does, instead of attacks; for so long clients chat, whatever `time` says.
    pub operations: Option<operations::Plan>,
    /// How long clients may wait.
    pub limits: Limits,
    /// How long a group may be on its way to where it should be, with all faults over.
    pub settle_within: Duration,
    /// Decides everything random.
    pub seed: u64,
    /// The directory for results.
    pub store: PathBuf,
    /// The test's name; `None`: after its attacks.
    pub test: Option<String>,
    /// Neither root, nor namespaces, nor disks.
    pub local: bool,
    /// Further settings of the nodes.
    pub settings: Vec<String>,
    /// Keep the nodes' data.
    pub keep_data: bool,
    /// Say nothing while it runs.
    pub quiet: bool,
    /// The command line, to be told in the results.
    pub command: Vec<String>,
}

/// Spare nodes at most: each takes an address, and a disk.
const SPARES_MAX: usize = 4;

impl Options {
    /// Messages that are there before clients chat.
    #[must_use]
    pub fn prefill(&self) -> u64 {
        self.operations.as_ref().map_or(0, |plan| plan.prefill)
    }

    /// How many nodes there are at most.
    #[must_use]
    pub const fn nodes_max(&self) -> usize {
        self.nodes + self.spares
    }

    /// The name of the test.
    #[must_use]
    pub fn test_name(&self) -> String {
        if let Some(test) = &self.test {
            return test.clone();
        }
        if self.operations.is_some() {
            return format!("{}-nodes-operations", self.nodes);
        }
        let kinds: Vec<&str> = self.asked.kinds.iter().map(|kind| kind.name()).collect();
        let attacks = match kinds.len() {
            0 => "calm".into(),
            1..=3 => kinds.join("+"),
            _ => "mixed".into(),
        };
        format!("{}-nodes-{attacks}", self.nodes)
    }

    /// Checks what can be checked without touching anything.
    ///
    /// # Errors
    ///
    /// What is wrong and what would be right.
    pub fn check(&self) -> Result<(), String> {
        if ![3, 5].contains(&self.nodes) {
            return Err(format!("--nodes {}: a cluster has 3 or 5 nodes", self.nodes));
        }
        self.check_churn()?;
        for (name, value) in [
            ("rate", u64::from(self.rate)),
            ("rooms", self.rooms as u64),
            ("workers", self.workers as u64),
        ] {
            if value == 0 {
                return Err(format!("--{name} 0 would do nothing: use at least 1"));
            }
        }
        if self.time < Duration::from_secs(1) {
            return Err("--time is too short to see anything: use at least 1s".into());
        }
        let bad = |c: char| !(c.is_ascii_alphanumeric() || "-_+.".contains(c));
        if let Some(test) = &self.test
            && (test.is_empty() || test.starts_with('.') || test.contains(bad))
        {
            return Err(format!("--test {test:?}: use letters, digits, and - _ + . only"));
        }
        if !self.local && !rustix::process::geteuid().is_root() {
            return Err("network namespaces and disks of their own take root: run it as root, or \
                 with --local, which knows fewer faults"
                .into());
        }
        Ok(())
    }

    /// Spare nodes are for churn, and what hits nodes that may be gone by then is not.
    fn check_churn(&self) -> Result<(), String> {
        let kinds = &self.asked.kinds;
        if self.operations.is_some() {
            return match (2..=SPARES_MAX).contains(&self.spares) {
                true => Ok(()),
                false => Err(format!(
                    "--spares {}: operations take 2 to {SPARES_MAX} spare nodes",
                    self.spares
                )),
            };
        }
        if !kinds.contains(&Kind::Churn) {
            return match self.spares {
                0 => Ok(()),
                spares => Err(format!(
                    "--spares {spares}: only churn lets nodes join; add it to --nemesis"
                )),
            };
        }
        if !(1..=SPARES_MAX).contains(&self.spares) {
            return Err(format!(
                "--spares {}: churn takes 1 to {SPARES_MAX} spare nodes",
                self.spares
            ));
        }
        let apart: Vec<&str> =
            kinds.iter().filter(|kind| !kind.goes_with_churn()).map(|kind| kind.name()).collect();
        if apart.is_empty() {
            return Ok(());
        }
        Err(format!(
            "churn does not go with {}: these wait for a certain node, or count on replicas that \
             stay where they are",
            apart.join(", ")
        ))
    }
}

/// The attacks that are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// All of them, each once, in the order of kinds.
    pub kinds: Vec<Kind>,
    /// Those that were named, and not only meant by `all`: without one of these a run says nothing.
    pub named: Vec<Kind>,
    /// Those that `all` would mean if it were not for `--local`, as they take root.
    pub left_out: Vec<Kind>,
}

impl Asked {
    /// What a list on the command line asks for; `all` stands for all that there are in this mode.
    ///
    /// # Errors
    ///
    /// The name that there is not, and those that there are.
    pub fn parse(names: &str, local: bool) -> Result<Asked, String> {
        let mut asked = Asked::default();
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "none" {
                continue;
            }
            if name == "all" {
                let (here, root): (Vec<_>, Vec<_>) =
                    Kind::MIXED.iter().partition(|kind| !local || kind.is_local());
                asked.kinds.extend(here);
                asked.left_out = root;
                continue;
            }
            let known = || Kind::all().map(Kind::name).collect::<Vec<_>>().join(", ");
            let kind = Kind::parse(name).ok_or_else(|| {
                format!("there is no nemesis {name:?}; there are: {}, all, none", known())
            })?;
            if local && !kind.is_local() {
                return Err(format!("the nemesis {name} takes root: leave --local away"));
            }
            asked.kinds.push(kind);
            asked.named.push(kind);
        }
        for kinds in [&mut asked.kinds, &mut asked.named] {
            kinds.sort_unstable();
            kinds.dedup();
        }
        Ok(asked)
    }

    /// What is missing though nothing was tried.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        let why = "takes root, and was left out as of --local";
        let missing = |kind: &Kind| Missing { fault: kind.name().into(), why: why.into() };
        self.left_out.iter().map(missing).collect()
    }

    /// What a run does not show that it was asked to: attacks that could not be had, or that never
    /// struck. Of `all` only what could not be had is left out, as its order is random.
    #[must_use]
    pub fn unshown(&self, missing: &[Missing], struck: &BTreeSet<Kind>) -> Vec<String> {
        let unshown = |kind: &Kind| {
            if let Some(missing) = missing.iter().find(|missing| missing.fault == kind.name()) {
                return Some(format!(
                    "{} was asked for, and is missing: {}",
                    kind.name(),
                    missing.why
                ));
            }
            (!struck.contains(kind)).then(|| {
                format!(
                    "{} was asked for, and never struck: with a longer --time each has its turn",
                    kind.name()
                )
            })
        };
        self.named.iter().filter_map(unshown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_leaves_out_for_want_of_root_is_missing() {
        let asked = Asked::parse("all", true).unwrap();
        assert!(asked.kinds.contains(&Kind::Kill) && !asked.kinds.contains(&Kind::PowerCut));
        assert!(asked.named.is_empty());
        let missing = asked.missing();
        assert_eq!(missing.len() + asked.kinds.len(), Kind::MIXED.len());
        assert!(missing.iter().any(|m| m.fault == "power-cut" && m.why.contains("takes root")));
        assert_eq!(Asked::parse("all", false).unwrap().missing(), []);
    }

    #[test]
    fn what_is_named_must_be_had_and_strike() {
        let asked = Asked::parse("kill, pause,all,kill", false).unwrap();
        assert_eq!(asked.named, [Kind::Pause, Kind::Kill]);
        let missing = [Kind::Pause, Kind::Clock].map(|kind| Missing {
            fault: kind.name().into(),
            why: "no such thing; get one".into(),
        });
        let said = asked.unshown(&missing, &BTreeSet::new());
        assert_eq!(said.len(), 2, "the clock was not named: {said:?}");
        assert!(said[0].contains("pause") && said[0].contains("get one"), "{said:?}");
        assert!(said[1].contains("kill") && said[1].contains("never struck"), "{said:?}");
        assert_eq!(asked.unshown(&[], &[Kind::Kill, Kind::Pause].into()), Vec::<String>::new());
    }

    #[test]
    fn none_is_none() {
        assert_eq!(Asked::parse("none", true).unwrap(), Asked::default());
    }
}
