//! What to run.

use std::path::PathBuf;
use std::time::Duration;

use crate::run::nemesis::kind::Kind;

/// Options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The product's program; `None`: beside this one.
    pub bin: Option<PathBuf>,
    /// How many nodes: 3 or 5.
    pub nodes: usize,
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
    /// The kinds of attack.
    pub nemeses: Vec<Kind>,
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

impl Options {
    /// The name of the test.
    #[must_use]
    pub fn test_name(&self) -> String {
        if let Some(test) = &self.test {
            return test.clone();
        }
        let kinds: Vec<&str> = self.nemeses.iter().map(|kind| kind.name()).collect();
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
}

/// The kinds that a list on the command line names; `all` stands for all that work here.
///
/// # Errors
///
/// The name that there is not, and those that there are.
pub fn nemeses(names: &str, local: bool) -> Result<Vec<Kind>, String> {
    let all = || Kind::MIXED.iter().copied().filter(|kind| !local || kind.is_local());
    let mut kinds = vec![];
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if name == "none" {
            continue;
        }
        if name == "all" {
            kinds.extend(all());
            continue;
        }
        let known = || Kind::all().map(Kind::name).collect::<Vec<_>>().join(", ");
        let kind = Kind::parse(name).ok_or_else(|| {
            format!("there is no nemesis {name:?}; there are: {}, all, none", known())
        })?;
        if local && !kind.is_local() {
            return Err(format!("the nemesis {name} takes root: leave --local away"));
        }
        kinds.push(kind);
    }
    kinds.sort_unstable();
    kinds.dedup();
    Ok(kinds)
}
