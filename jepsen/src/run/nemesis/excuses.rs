//! Which nodes have an excuse to end or to panic, and since when: a failing or a forgetful disk is
//! one, from just before it is until the node is well again. Whatever ends at any other time, or on
//! another node, is a finding.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::cluster::Cluster;
use crate::cluster::node::{Exit, Node};

/// How long an excuse holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lasting {
    /// Until the node is well again.
    UntilWell,
    /// For good: what was done to its log may show at any time that it reads it.
    ForGood,
}

/// What is known of one node.
#[derive(Debug, Default)]
struct Account {
    excused: Option<Lasting>,
    /// Exits that were looked at.
    exits: usize,
    /// Every line of its log that should not be there.
    panics: Vec<String>,
}

/// All nodes.
#[derive(Debug)]
pub struct Excuses {
    cluster: Arc<Cluster>,
    begin: Instant,
    accounts: Vec<Account>,
    /// What happened without an excuse.
    pub findings: Vec<String>,
}

impl Excuses {
    /// Nobody has an excuse.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>) -> Excuses {
        let accounts = cluster.nodes.iter().map(|_| Account::default()).collect();
        Excuses { cluster, begin: Instant::now(), accounts, findings: vec![] }
    }

    /// Looks at what has happened to a node, and judges it by the excuse that it has now; whether it
    /// has said since the last look that its log has lost something.
    pub fn look(&mut self, place: usize) -> bool {
        let node: &Node = &self.cluster.nodes[place];
        // The exit first: what it printed last is in its log by then.
        let exits = node.exits();
        let panics = node.new_panics();
        let account = &mut self.accounts[place];
        let new = exits.get(account.exits..).unwrap_or_default();
        self.findings.extend(account.judge(&node.name, self.begin, new, &panics));
        account.exits = exits.len();
        account.panics.extend(panics);
        new.iter().any(|exit| exit.lost)
    }

    /// A fault is about to hit nodes that may end them; what happened to them before is judged.
    pub fn excuse(&mut self, places: &[usize]) {
        for place in places {
            self.look(*place);
            let excused = &mut self.accounts[*place].excused;
            *excused = (*excused).max(Some(Lasting::UntilWell));
        }
    }

    /// A node goes on with a damaged log.
    pub fn excuse_for_good(&mut self, place: usize) {
        self.accounts[place].excused = Some(Lasting::ForGood);
    }

    /// Nodes whose excuse ends once they are well.
    #[must_use]
    pub fn waiting(&self) -> BTreeSet<usize> {
        let accounts = self.accounts.iter().enumerate();
        let waiting = accounts.filter(|(_, account)| account.excused == Some(Lasting::UntilWell));
        waiting.map(|(place, _)| place).collect()
    }

    /// A node is well again: from here on it has no excuse.
    pub fn well(&mut self, place: usize) {
        self.look(place);
        self.accounts[place].excused = None;
    }

    /// All panics of a node so far.
    #[must_use]
    pub fn panics(&self, place: usize) -> Vec<String> {
        self.accounts[place].panics.clone()
    }
}

impl Account {
    /// What is wrong with ends and panics that were noticed just now.
    fn judge(&self, name: &str, begin: Instant, exits: &[Exit], panics: &[String]) -> Vec<String> {
        if self.excused.is_some() {
            return vec![];
        }
        let ended = exits.iter().map(|exit| {
            let at = exit.at.saturating_duration_since(begin).as_secs_f64();
            let (status, said) = (&exit.status, &exit.said);
            format!(
                "{name} ended ({status}) {at:.1} s after the begin, and nothing was wrong with \
                 its disk: {said}"
            )
        });
        let panicked = panics
            .iter()
            .map(|line| format!("{name} panicked, and nothing was wrong with its disk: {line}"));
        ended.chain(panicked).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_an_excuse_may_end_and_nobody_else() {
        let begin = Instant::now();
        let exit =
            Exit { at: begin, status: "exit status: 1".into(), said: "x".into(), lost: true };
        let (exits, panics) = ([exit], ["thread 'a' panicked at b".to_owned()]);
        let mut account = Account::default();
        let wrong = account.judge("n1", begin, &exits, &panics);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].contains("n1 ended (exit status: 1) 0.0 s") && wrong[0].ends_with(": x"));
        assert!(wrong[1].contains("panicked at b"), "{wrong:?}");
        for excuse in [Lasting::UntilWell, Lasting::ForGood] {
            account.excused = Some(excuse);
            assert_eq!(account.judge("n1", begin, &exits, &panics), Vec::<String>::new());
        }
        assert!(Lasting::ForGood > Lasting::UntilWell, "one for good is not cut short");
    }
}
