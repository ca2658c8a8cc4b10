//! What the checkers found: a verdict, and for each anomaly a pair of operations to look at.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::check::witness;
use crate::history::{History, Name};

/// Whether the history is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing is wrong, and enough was done to say so.
    Valid,
    /// Something is wrong.
    Invalid,
    /// Nothing is wrong that could be seen, but too little was done or read.
    Unknown,
}

/// What can be wrong, by the names of `jepsen.tests.kafka` where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anomaly {
    /// An acknowledged message is gone, or another is in its place.
    LostWrite,
    /// An acknowledged message was never shown, though its room was read to the end.
    Unseen,
    /// One id at two places.
    Duplicate,
    /// Two ids at one place.
    InconsistentOffsets,
    /// A message was shown whose send was definitely refused.
    AbortedRead,
    /// A message was shown that nobody had sent.
    Phantom,
    /// Places without a message.
    Gap,
    /// A subscription passed over messages.
    PollSkip,
    /// A subscription went back.
    NonmonotonicPoll,
    /// A send came before one that had completed before it began.
    NonmonotonicSend,
    /// A read missed what was there before it began.
    StaleRead,
    /// Replicas differ.
    Diverged,
    /// The cluster did not serve again in time after the faults were over.
    Unavailable,
}

impl Anomaly {
    /// Every anomaly.
    pub const ALL: [Anomaly; 13] = [
        Anomaly::LostWrite,
        Anomaly::Unseen,
        Anomaly::Duplicate,
        Anomaly::InconsistentOffsets,
        Anomaly::AbortedRead,
        Anomaly::Phantom,
        Anomaly::Gap,
        Anomaly::PollSkip,
        Anomaly::NonmonotonicPoll,
        Anomaly::NonmonotonicSend,
        Anomaly::StaleRead,
        Anomaly::Diverged,
        Anomaly::Unavailable,
    ];

    /// The name that testers know.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Anomaly::LostWrite => "lost-write",
            Anomaly::Unseen => "unseen",
            Anomaly::Duplicate => "duplicate",
            Anomaly::InconsistentOffsets => "inconsistent-offsets",
            Anomaly::AbortedRead => "aborted-read",
            Anomaly::Phantom => "phantom",
            Anomaly::Gap => "gap",
            Anomaly::PollSkip => "poll-skip",
            Anomaly::NonmonotonicPoll => "nonmonotonic-poll",
            Anomaly::NonmonotonicSend => "nonmonotonic-send",
            Anomaly::StaleRead => "stale-read",
            Anomaly::Diverged => "diverged",
            Anomaly::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Anomaly {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// What sort of thing.
    pub anomaly: Anomaly,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<Name>,
    /// In a sentence.
    pub what: String,
    /// The operations that show it, the earlier one first: seldom more than two.
    pub witness: Vec<Witness>,
}

/// An operation, for a person.
#[derive(Clone, Debug, Serialize)]
pub struct Witness {
    /// The indices of its lines in the history.
    pub operations: Vec<usize>,
    /// Who did what, and when.
    pub text: String,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Lines of the history.
    pub lines: u64,
    /// Operations of clients: begun, whether or not they completed.
    pub operations: u64,
    /// Those that took effect.
    pub ok: u64,
    /// Those that certainly did not.
    pub fail: u64,
    /// Those of which nobody knows.
    pub info: u64,
    /// Events that came on subscriptions.
    pub deliveries: u64,
    /// Events that reads showed.
    pub events_read: u64,
    /// Rooms.
    pub rooms: u64,
}

/// How well the cluster served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Availability {
    /// Sends and reads that ran while a majority was healthy.
    pub healthy_operations: u64,
    /// Those of them that were ok.
    pub healthy_ok: u64,
    /// How often all faults ended.
    pub heals: u64,
    /// The longest time from there to the first ok in some room, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_max_ms: Option<f64>,
}

impl Availability {
    /// The share of ok while a majority was healthy.
    #[must_use]
    pub fn healthy_ok_share(&self) -> Option<f64> {
        (self.healthy_operations > 0)
            .then(|| self.healthy_ok as f64 / self.healthy_operations as f64)
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether the history is right.
    pub verdict: Verdict,
    /// How often each anomaly occurs.
    pub anomalies: BTreeMap<Anomaly, u64>,
    /// The first few of each anomaly.
    pub violations: Vec<Violation>,
    /// Why the verdict would be `unknown` if nothing were wrong.
    pub unknown: Vec<String>,
    /// What was done.
    pub counts: Counts,
    /// How well the cluster served.
    pub availability: Availability,
}

impl Report {
    /// Whether this anomaly occurs.
    #[must_use]
    pub fn has(&self, anomaly: Anomaly) -> bool {
        self.anomalies.contains_key(&anomaly)
    }
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        match self.verdict {
            Verdict::Valid => writeln!(f, "valid")?,
            Verdict::Unknown => {
                for reason in &self.unknown {
                    writeln!(f, "unknown: {reason}")?;
                }
            }
            Verdict::Invalid => {
                let found = self.anomalies.iter().map(|(anomaly, n)| format!("{n} {anomaly}"));
                writeln!(f, "invalid: {}", found.collect::<Vec<_>>().join(", "))?;
                for violation in &self.violations {
                    write!(f, "\n{violation}")?;
                }
                writeln!(f)?;
            }
        }
        writeln!(
            f,
            "{} operations, rooms: {}; {} ok, {} fail, {} of unknown outcome; {} deliveries",
            counts.operations, counts.rooms, counts.ok, counts.fail, counts.info, counts.deliveries
        )?;
        let available = &self.availability;
        if let Some(share) = available.healthy_ok_share() {
            write!(f, "{:.2} % ok while a majority was healthy", share * 100.0)?;
            match available.recovery_max_ms {
                Some(ms) => writeln!(
                    f,
                    "; {} heals, after the slowest {} until the first ok",
                    available.heals,
                    witness::duration(Duration::from_secs_f64(ms / 1e3))
                )?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.room {
            Some(room) => writeln!(f, "{} in room {room}: {}", self.anomaly, self.what)?,
            None => writeln!(f, "{}: {}", self.anomaly, self.what)?,
        }
        self.witness.iter().try_for_each(|witness| writeln!(f, "  {}", witness.text))
    }
}

/// Collects what checkers find; keeps the first few of each anomaly, and counts all.
pub(super) struct Findings<'h> {
    history: &'h History,
    witnesses_max: u64,
    anomalies: BTreeMap<Anomaly, u64>,
    violations: Vec<Violation>,
    unknown: Vec<String>,
}

impl<'h> Findings<'h> {
    pub(super) fn new(history: &'h History, witnesses_max: u64) -> Findings<'h> {
        Findings {
            history,
            witnesses_max,
            anomalies: BTreeMap::new(),
            violations: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// Something is wrong. `lines` are any lines of the operations that show it.
    pub(super) fn add(
        &mut self,
        anomaly: Anomaly,
        room: Option<&Name>,
        lines: &[usize],
        what: impl FnOnce() -> String,
    ) {
        let count = self.anomalies.entry(anomaly).or_default();
        *count += 1;
        if *count > self.witnesses_max {
            return;
        }
        let mut witness: Vec<Witness> =
            lines.iter().map(|line| witness::of(self.history, *line)).collect();
        witness.sort_by_key(|witness| witness.operations[0]);
        witness.dedup_by(|a, b| a.operations == b.operations);
        self.violations.push(Violation { anomaly, room: room.cloned(), what: what(), witness });
    }

    /// Whether the next one of this sort will be kept with its witness; where finding one takes
    /// long, it need not be looked for otherwise.
    pub(super) fn keeps(&self, anomaly: Anomaly) -> bool {
        self.anomalies.get(&anomaly).is_none_or(|count| *count < self.witnesses_max)
    }

    /// A reason not to call the history valid.
    pub(super) fn unknown(&mut self, reason: String) {
        self.unknown.push(reason);
    }

    pub(super) fn report(self, counts: Counts, availability: Availability) -> Report {
        let verdict = if !self.anomalies.is_empty() {
            Verdict::Invalid
        } else if !self.unknown.is_empty() {
            Verdict::Unknown
        } else {
            Verdict::Valid
        };
        let mut violations = self.violations;
        violations.sort_by_key(|violation| violation.anomaly);
        Report {
            verdict,
            anomalies: self.anomalies,
            violations,
            unknown: self.unknown,
            counts,
            availability,
        }
    }
}
