//! Faults planted on purpose, to see that the simulator finds each of them.
//!
//! `mutant!(Name)` is the constant `false`, and costs nothing, unless all is built with
//! `RUSTFLAGS="--cfg mutants"`. Then the simulator chooses one of `Mutant::ALL` before its nodes
//! start, and `scripts/mutants` runs every one. Never run such a build on data that matters.

/// Whether a planted fault, or one of several, is to show here: `false` in every normal build.
#[cfg(not(mutants))]
macro_rules! mutant {
    ($($name:ident),+) => {
        false
    };
}

/// Whether a planted fault, or one of several, is to show here.
#[cfg(mutants)]
macro_rules! mutant {
    ($($name:ident),+) => {
        [$($crate::mutants::is($crate::mutants::Mutant::$name)),+].contains(&true)
    };
}

#[cfg(mutants)]
pub use planted::{Mutant, choose, is};

#[cfg(mutants)]
mod planted {
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The number of the chosen one, counted from 1; 0 = none.
    static CHOSEN: AtomicUsize = AtomicUsize::new(0);

    macro_rules! mutants {
        ($($variant:ident $name:literal $place:literal $what:literal)*) => {
            /// A planted fault.
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum Mutant {
                $(#[doc = $what] $variant,)*
            }

            impl Mutant {
                /// Every planted fault.
                pub const ALL: &[Mutant] = &[$(Mutant::$variant,)*];

                /// Its name on the command line.
                pub fn name(self) -> &'static str {
                    match self {
                        $(Mutant::$variant => $name,)*
                    }
                }

                /// The part of the node that it is in.
                pub fn place(self) -> &'static str {
                    match self {
                        $(Mutant::$variant => $place,)*
                    }
                }

                /// What goes wrong, in a sentence.
                pub fn what(self) -> &'static str {
                    match self {
                        $(Mutant::$variant => $what,)*
                    }
                }
            }
        };
    }

    mutants! {
        AckBeforeFsync "ack-before-fsync" "log"
            "the log's writer completes callbacks, then writes"
        LogNotSynced "log-not-synced" "log"
            "the log is written and not synced"
        VoteInMemory "vote-in-memory" "log"
            "a vote is answered and never written"
        VoteNotAwaited "vote-not-awaited" "log"
            "a vote is answered once its write is queued"
        WatermarkIgnored "watermark-ignored" "log"
            "a log that ends before its watermark is opened"
        PurgedToCommit "purged-to-commit" "log"
            "the log is purged up to the commit index instead of the checkpoint"
        CheckpointNotFlushed "checkpoint-not-flushed" "checkpoint"
            "a checkpoint counts as durable without a flush of the base"
        HeadsBeforeBlocks "heads-before-blocks" "checkpoint"
            "a checkpoint writes rooms' heads, and flushes, before their events"
        CheckpointAhead "checkpoint-ahead" "checkpoint"
            "a checkpoint notes the entry after the last applied one"
        MembershipForgotten "membership-forgotten" "checkpoint"
            "a checkpoint leaves out the group's membership"
        SeqFromLeader "seq-from-leader" "apply"
            "the leader numbers what it acknowledges of one entry, from the first one's seq on"
        EventForgotten "event-forgotten" "apply"
            "one event in sixteen is counted by its room, and not kept"
        LogTimeForgotten "log-time-forgotten" "apply"
            "log time begins anew after a restart"
        ApplySeesCheckpoint "apply-sees-checkpoint" "apply"
            "an entry that is applied during a checkpoint gets another time"
        SnapshotWithoutDedup "snapshot-without-dedup" "snapshot"
            "a snapshot leaves out what is remembered of requests"
        SnapshotAhead "snapshot-ahead" "snapshot"
            "a snapshot of the last checkpoint says that it has what is applied"
        SnapshotKeepsDedup "snapshot-keeps-dedup" "snapshot"
            "the index of remembered requests outlives the installation of a snapshot"
        SnapshotWithoutTail "snapshot-without-tail" "snapshot"
            "a snapshot leaves out a room's last block of events, and nobody looks"
        SnapshotFallsBack "snapshot-falls-back" "snapshot"
            "an installed snapshot counts as the checkpoint before it"
        RepeatsApplied "repeats-applied" "dedup"
            "a repeated request is applied again"
        BodyNotCompared "body-not-compared" "dedup"
            "a request with a known id and another body gets the first one's answer"
        DedupForgotten "dedup-forgotten" "dedup"
            "requests from before a restart are not looked for in the base"
        ReadWithoutQuorum "read-without-quorum" "read path"
            "a leader answers a read without asking a quorum whether it still leads"
        ReadWithoutWait "read-without-wait" "read path"
            "a replica answers a read before it has applied up to the read index"
        ReadBeforeIndex "read-before-index" "read path"
            "a replica reads first, and asks for the read index afterwards"
        SkipsWhenSlow "skips-when-slow" "delivery"
            "a follower that fell behind the ring goes on with what the ring has"
        RepeatsAtHandOver "repeats-at-hand-over" "delivery"
            "the event at the cursor comes again with a page of history"
        ResumesTooLate "resumes-too-late" "delivery"
            "a subscription begins one event after where it was to"
        FoundersAlone "founders-alone" "membership"
            "each founder forms each group, of itself alone"
        VoteForShorterLog "vote-for-shorter-log" "membership"
            "a node votes for a candidate whatever its log has"
        LearnerTrusted "learner-trusted" "membership"
            "a learner is let vote that has not caught up"
        RemovedFirst "removed-first" "membership"
            "a voter is removed before the one that comes for it is there"
        JointForgotten "joint-forgotten" "membership"
            "of a joint membership only the voters that are to come are kept"
        RemovedTooSoon "removed-too-soon" "placement"
            "a node is removed from the cluster as soon as its groups are to be elsewhere"
        GivenUpForgotten "given-up-forgotten" "placement"
            "a node to which a move was taken back counts as without a replica at once"
        TwoOnOneNode "two-on-one-node" "placement"
            "a replica is given to a node that has one of the same group"
        DrainIgnored "drain-ignored" "placement"
            "a node that drains leads on"
        SlotNotOwned "slot-not-owned" "placement"
            "a room that is made later is kept in a shard that its slot is not of"
        AnyTokenAdmits "any-token-admits" "join"
            "a node is admitted whatever token it shows"
        RemovedAtOnce "removed-at-once" "placement"
            "a replica is removed as soon as the group is to be elsewhere"
        ReportedTooSoon "reported-too-soon" "placement"
            "a leader reports the voters that are wanted while the change to them is under way"
        StateKept "state-kept" "placement"
            "a replica is removed from the log, and its state stays"
        RetriesWithNewId "retries-with-new-id" "router"
            "a retry has another request id"
        TimeoutMeansRefused "timeout-means-refused" "router"
            "a request that timed out is said not to have been applied"
        RepliesInOrder "replies-in-order" "router"
            "a peer's replies are taken to come in the order of the requests"
    }

    /// Chooses what shows from here on, in the whole process.
    pub fn choose(mutant: Option<Mutant>) {
        let number = mutant.map_or(0, |mutant| mutant as usize + 1);
        CHOSEN.store(number, Ordering::SeqCst);
    }

    /// Whether this one was chosen.
    pub fn is(mutant: Mutant) -> bool {
        CHOSEN.load(Ordering::SeqCst) == mutant as usize + 1
    }
}
