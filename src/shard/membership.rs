//! Changes who votes in a group, one step at a time, as its leader.
//!
//! ```text
//!  add learners ─► they catch up ─► joint membership ─► target ─► leftover learners go
//! ```
//!
//! Each step is decided anew from the group's own membership and the target, so that whoever leads
//! goes on with what it finds: also with a joint membership that another leader has left behind.
//! A leader that is not in the target hands over first, to one in it that neither drains nor leaves: any
//! other one hands the lead back. If only newcomers could lead, they vote beside the old ones first.

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

/// What a leader that is not to vote any more does before the others vote without it.
#[derive(Debug, PartialEq, Eq)]
enum Parting {
    /// It hands the lead to this voter.
    HandOver(NodeId),
    /// It lets these vote beside those that do, so that one of them can lead.
    Admit(BTreeSet<u64>),
    /// It leads until one that may is there.
    Stays,
    /// It goes, and those that are left elect one of them.
    Goes,
}

/// How a leader parts from its group. Of those that are `wanted`, `newcomers` answer and do not vote yet;
/// `best` is the one to lead of the voters that answer and meet a condition.
///
/// Whoever may not lead hands a lead on to somebody who may: between a leader that is to go and may lead, and
/// one that is to stay and may not, it would go to and fro for ever.
fn part(
    leader: NodeId,
    wanted: &BTreeSet<u64>,
    newcomers: BTreeSet<u64>,
    may_lead: &impl Fn(NodeId) -> bool,
    best: impl Fn(&dyn Fn(NodeId) -> bool) -> Option<NodeId>,
) -> Parting {
    if let Some(to) = best(&|node| wanted.contains(&node.0) && may_lead(node)) {
        return Parting::HandOver(to);
    }
    if newcomers.iter().any(|id| may_lead(NodeId(*id))) {
        return Parting::Admit(newcomers);
    }
    if !may_lead(leader) {
        let to = best(&|node| wanted.contains(&node.0));
        return to.map_or(Parting::Goes, Parting::HandOver);
    }
    match wanted.iter().any(|id| may_lead(NodeId(*id))) {
        true => Parting::Stays,
        false => Parting::Goes,
    }
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
    /// a replica that does not lead. `may_lead` is false of nodes that hand on every lead that they get.
    ///
    /// Returns once the step is committed, or has failed and is to be decided anew.
    pub async fn step_to(
        &self,
        target: &[(NodeId, String)],
        may_lead: &(impl Fn(NodeId) -> bool + Sync),
    ) -> Step {
        if !self.is_leader() {
            return Step::Waits("another replica leads".into());
        }
        if mutant!(ReportedTooSoon) {
            let step = R::timeout(STEP_TIMEOUT / 500, self.step(target, may_lead)).await;
            return step.unwrap_or(Step::Taken);
        }
        let step = R::timeout(STEP_TIMEOUT, self.step(target, may_lead)).await;
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

    async fn step(
        &self,
        target: &[(NodeId, String)],
        may_lead: &(impl Fn(NodeId) -> bool + Sync),
    ) -> Step {
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
        if !wanted.contains(&self.node.0) {
            match self.parting(&wanted, &now, may_lead) {
                Parting::HandOver(to) => {
                    self.hand_over_to(to).await;
                    return Step::Waits(format!("node {to} is to lead first"));
                }
                Parting::Admit(newcomers) => {
                    return self.change("add voters", ChangeMembers::AddVoterIds(newcomers)).await;
                }
                Parting::Stays => {
                    return Step::Waits("nobody that may lead can take over".into());
                }
                Parting::Goes => {}
            }
        }
        self.change("change the voters", ChangeMembers::ReplaceAllVoters(wanted)).await
    }

    fn parting(
        &self,
        wanted: &BTreeSet<u64>,
        now: &Now,
        may_lead: &impl Fn(NodeId) -> bool,
    ) -> Parting {
        let newcomers = wanted.difference(&now.voters).copied();
        let newcomers = newcomers.filter(|id| self.reaches(NodeId(*id))).collect();
        let best =
            |may: &dyn Fn(NodeId) -> bool| self.successor(|node| may(node) && self.reaches(node));
        part(self.node, wanted, newcomers, may_lead, best)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// How node 3 parts from the group of nodes 1, 2 and 3, which is to be on other ones.
    fn parts(wanted: &[u64], may_lead: &[u64], answer: &[u64]) -> Parting {
        parts_from(&[1, 2, 3], wanted, may_lead, answer)
    }

    fn parts_from(voters: &[u64], wanted: &[u64], may_lead: &[u64], answer: &[u64]) -> Parting {
        let comes = |id: &u64| !voters.contains(id) && answer.contains(id);
        let newcomers = wanted.iter().copied().filter(comes).collect();
        let best = |may: &dyn Fn(NodeId) -> bool| {
            let others = voters.iter().filter(|id| **id != 3 && answer.contains(id));
            others.copied().map(NodeId).find(|node| may(*node))
        };
        let wanted = wanted.iter().copied().collect();
        part(NodeId(3), &wanted, newcomers, &|node| may_lead.contains(&node.0), best)
    }

    #[test]
    fn a_leader_that_goes_hands_over_to_one_that_stays_and_may_lead() {
        assert_eq!(parts(&[1, 2, 4], &[1, 2, 3, 4], &[1, 2, 4]), Parting::HandOver(NodeId(1)));
        assert_eq!(parts(&[1, 2, 4], &[2, 3, 4], &[1, 2, 4]), Parting::HandOver(NodeId(2)));
        assert_eq!(parts(&[2, 4, 5], &[1, 2, 3, 4], &[1, 2, 4, 5]), Parting::HandOver(NodeId(2)));
    }

    #[test]
    fn a_newcomer_votes_first_where_all_that_stay_drain() {
        let admit = |ids: &[u64]| Parting::Admit(ids.iter().copied().collect());
        assert_eq!(parts(&[1, 2, 4], &[3, 4], &[1, 2, 4]), admit(&[4]));
        assert_eq!(parts(&[1, 2, 4], &[4], &[1, 2, 4]), admit(&[4]), "it leaves itself");
        assert_eq!(parts(&[1, 2, 4, 5, 6], &[3, 4], &[1, 2, 4, 5]), admit(&[4, 5]));
        let then = parts_from(&[1, 2, 3, 4], &[1, 2, 4], &[3, 4], &[1, 2, 4]);
        assert_eq!(then, Parting::HandOver(NodeId(4)));
    }

    #[test]
    fn a_leader_that_may_lead_hands_over_to_nobody_who_would_hand_back() {
        assert_eq!(parts(&[1, 2, 4], &[3, 4], &[1, 2]), Parting::Stays);
        let gone = parts_from(&[1, 2, 3, 4], &[1, 2, 4], &[3, 4], &[1, 2]);
        assert_eq!(gone, Parting::Stays);
        assert_eq!(
            parts(&[1, 2, 4], &[3], &[1, 2, 4]),
            Parting::Goes,
            "nobody is to be waited for"
        );
        // Nobody hands back to one that may not lead itself.
        assert_eq!(parts(&[1, 2, 4], &[], &[1, 2, 4]), Parting::HandOver(NodeId(1)));
        assert_eq!(parts(&[1, 2, 4], &[4], &[1, 2]), Parting::HandOver(NodeId(1)));
        assert_eq!(parts(&[1, 2, 4], &[], &[]), Parting::Goes);
    }
}
