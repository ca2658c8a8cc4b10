//! Changes who votes in a group, one step at a time, as its leader.
//!
//! ```text
//!  add learners ─► they catch up ─► joint membership ─► target ─► leftover learners go
//! ```
//!
//! Each step is decided anew from the group's own membership and the target, so that whoever leads
//! goes on with what it finds: also with a joint membership that another leader has left behind.
//! A leader that is not in the target hands over first, if somebody in it can take over.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;

use crate::id::NodeId;
use crate::limits::CAUGHT_UP_LAG_MAX;
use crate::shard::Shard;
use crate::shard::runtime::Runtime;
use crate::shard::types::{LogId, Member, log_id_parts};

/// How long a step may take until it is decided anew.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a group that leads is asked whether it still does, while it is handed over.
const HAND_OVER_LOOK: Duration = Duration::from_millis(5);
/// How long a handed over group may take to find its leader before the next attempt.
const HAND_OVER_PATIENCE: Duration = Duration::from_millis(500);

/// A membership that is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Who votes, ascending.
    pub voters: Vec<NodeId>,
    /// The entry that set it.
    pub log_index: u64,
    /// That entry's term.
    pub term: u64,
}

/// What a step has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The voters are those of the target, and nobody else is a member.
    Settled(Settled),
    /// Something was changed: there is more to do at once.
    Taken,
    /// Nothing can be done yet, for this reason.
    Waits(String),
}

/// The membership that a group has now, which need not be committed.
struct Now {
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
    joint: bool,
    settled: Option<Settled>,
}

impl<R: Runtime> Shard<R> {
    fn members_now(&self) -> Now {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let effective = &metrics.membership_config;
        let membership = effective.membership();
        let joint = membership.get_joint_config().len() > 1;
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let committed = metrics.committed_membership_config.log_id() == effective.log_id();
        let is_settled = (committed && !joint) || mutant!(ReportedTooSoon);
        let settled = effective.log_id().filter(|_| is_settled).map(|log_id: LogId| {
            let (term, log_index) = log_id_parts(&log_id);
            Settled { voters: voters.iter().copied().map(NodeId).collect(), log_index, term }
        });
        Now { learners: membership.learner_ids().collect(), voters, joint, settled }
    }

    /// The committed membership, as its leader knows it; `None` while another one is on its way or
    /// there are learners, and on other replicas.
    pub fn settled(&self) -> Option<Settled> {
        let now = self.members_now();
        now.settled.filter(|_| now.learners.is_empty() && self.is_leader())
    }

    /// Who votes by the committed membership, learners or not, as its leader knows it; `None` while
    /// another one is on its way, and on other replicas.
    pub fn voting(&self) -> Option<Settled> {
        self.members_now().settled.filter(|_| self.is_leader())
    }

    /// Whether this replica votes, as far as it knows.
    pub fn is_voter(&self) -> bool {
        self.has_voter(self.node)
    }

    /// Whether a node votes, as far as this replica knows.
    pub fn has_voter(&self, node: NodeId) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        membership.get_joint_config().iter().any(|voters| voters.contains(&node.0))
    }

    /// Hands the lead to a voter; false when it has not taken it within half a second. Does nothing
    /// on a replica that does not lead.
    pub async fn hand_over_to(&self, to: NodeId) -> bool {
        if !self.is_leader() {
            return true;
        }
        self.transfer_leader(to).await;
        let gone = async {
            while self.is_leader() {
                R::sleep(HAND_OVER_LOOK).await;
            }
        };
        let taken = R::timeout(HAND_OVER_PATIENCE, gone).await.is_ok();
        if !taken {
            tracing::warn!(shard = %self.id, %to, "leadership was not taken");
        }
        taken
    }

    /// Term and log index of the membership that this replica goes by, 0 when it has none.
    pub fn membership_at(&self) -> (u64, u64) {
        let metrics = self.raft.metrics();
        let log_id = *metrics.borrow_watched().membership_config.log_id();
        log_id.map_or((0, 0), |log_id| log_id_parts(&log_id))
    }

    /// Takes the group one step towards a set of voters, with their peer addresses. Does nothing on
    /// a replica that does not lead.
    ///
    /// Returns once the step is committed, or has failed and is to be decided anew.
    pub async fn step_to(&self, target: &[(NodeId, String)]) -> Step {
        if !self.is_leader() {
            return Step::Waits("another replica leads".into());
        }
        if mutant!(ReportedTooSoon) {
            let step = R::timeout(STEP_TIMEOUT / 500, self.step(target)).await;
            return step.unwrap_or(Step::Taken);
        }
        let step = R::timeout(STEP_TIMEOUT, self.step(target)).await;
        step.unwrap_or_else(|_| Step::Waits("a quorum does not answer in time".into()))
    }

    /// Sets the voters that there are once more, as a later entry. Does nothing while they change.
    pub async fn state_voters(&self) -> Step {
        let Some(settled) = self.settled() else {
            return Step::Waits("the membership is not committed yet".into());
        };
        let same = settled.voters.iter().map(|node| node.0).collect();
        let stating = self.change("state the voters", ChangeMembers::ReplaceAllVoters(same));
        let step = R::timeout(STEP_TIMEOUT, stating).await;
        step.unwrap_or_else(|_| Step::Waits("a quorum does not answer in time".into()))
    }

    async fn step(&self, target: &[(NodeId, String)]) -> Step {
        let now = self.members_now();
        let wanted: BTreeSet<u64> = target.iter().map(|(node, _)| node.0).collect();
        if mutant!(ReportedTooSoon)
            && let Some(settled) = now.settled.as_ref().filter(|_| now.joint)
        {
            let voters = target.iter().map(|(node, _)| *node).collect();
            return Step::Settled(Settled { voters, ..*settled });
        }
        if now.joint {
            // An empty addition leads from a joint membership to the one that it was on the way to.
            let finish = ChangeMembers::AddVoterIds(BTreeSet::new());
            return self.change("finish a joint membership", finish).await;
        }
        if now.voters == wanted {
            let left: BTreeSet<u64> = now.learners;
            return match now.settled {
                _ if !left.is_empty() => {
                    self.change("remove learners", ChangeMembers::RemoveNodes(left)).await
                }
                Some(settled) => Step::Settled(settled),
                None => Step::Waits("the membership is not committed yet".into()),
            };
        }
        let is_member = |id: &u64| now.voters.contains(id) || now.learners.contains(id);
        let missing = target.iter().filter(|(node, _)| !is_member(&node.0));
        let missing: std::collections::BTreeMap<u64, Member> =
            missing.map(|(node, address)| (node.0, Member::new(address))).collect();
        if mutant!(RemovedFirst) && !now.voters.is_subset(&wanted) {
            let stay = now.voters.intersection(&wanted).copied().collect();
            return self.change("remove voters", ChangeMembers::ReplaceAllVoters(stay)).await;
        }
        if !missing.is_empty() {
            return self.change("add learners", ChangeMembers::AddNodes(missing)).await;
        }
        if let Some(why) = wanted.difference(&now.voters).find_map(|id| self.trails(*id)) {
            return Step::Waits(why);
        }
        if !wanted.contains(&self.node.0)
            && let Some(to) = self.successor(|node| wanted.contains(&node.0) && self.reaches(node))
        {
            self.hand_over_to(to).await;
            return Step::Waits(format!("node {to} is to lead first"));
        }
        self.change("change the voters", ChangeMembers::ReplaceAllVoters(wanted)).await
    }

    /// Why a node may not vote yet, or lead, as far as its leader knows: it has not what the others have.
    pub fn trails(&self, node: u64) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref().and_then(|all| all.get(&node).copied());
        let matched = matched.flatten().map(|log_id| log_id.index());
        let last = metrics.last_log_index.unwrap_or(0);
        match matched {
            _ if mutant!(LearnerTrusted) => None,
            Some(matched) if matched + CAUGHT_UP_LAG_MAX >= last => None,
            Some(matched) => Some(format!("node {node} trails by {} entries", last - matched)),
            None => Some(format!("node {node} has not answered yet")),
        }
    }

    async fn change(&self, what: &str, change: ChangeMembers<u64, Member>) -> Step {
        tracing::info!(shard = %self.id, %change, "{what}");
        // Voters that are replaced are no members any more: they need nothing of what follows.
        match self.raft.change_membership(change, false).await {
            Ok(_) => Step::Taken,
            Err(error) => Step::Waits(format!("cannot {what}: {error}")),
        }
    }
}
