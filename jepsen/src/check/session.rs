//! Subscriptions: each goes on by ones from where it was resumed.
//!
//! That what it delivers is what the log has is seen when the log is bound (`log.rs`).

use std::collections::HashMap;

use crate::check::report::{Anomaly, Findings};
use crate::history::{F, History, Kind, Op, Value};

/// How far a subscription has come.
#[derive(Clone, Copy, Debug)]
struct Session {
    /// The last seq that was delivered, or the one that it was resumed behind. `None`: it begins
    /// at the head, and nobody knows yet where that is.
    at: Option<u64>,
    /// The line that says so.
    line: usize,
    /// Its first delivery, when that came before it was known where it begins.
    early: Option<(u64, usize)>,
}

/// Follows every subscription.
pub(super) fn check(history: &History, findings: &mut Findings) {
    let mut sessions: HashMap<u64, Session> = HashMap::new();
    for (line, op) in history.ops().iter().enumerate() {
        match (op.f, op.kind, &op.value) {
            (F::Subscribe, Kind::Invoke, Value::Subscription { subscription, after, .. }) => {
                sessions.insert(*subscription, Session { at: *after, line, early: None });
            }
            (F::Subscribe, Kind::Ok, Value::Subscription { subscription, after, head }) => {
                if let Some(session) = sessions.get_mut(subscription) {
                    session.begins(op, line, (*after, *head), findings);
                }
            }
            (F::Deliver, _, Value::Delivery { subscription, seq, .. }) => {
                if let Some(session) = sessions.get_mut(subscription) {
                    session.deliver(op, line, *seq, findings);
                }
            }
            (
                F::Unsubscribe,
                Kind::Ok,
                Value::Subscription { subscription, head: Some(head), .. },
            ) => {
                let Some(session) = sessions.get(subscription) else { continue };
                if session.at.is_some_and(|at| at < *head) {
                    findings.add(Anomaly::Unseen, op.room.as_ref(), &[session.line, line], || {
                        format!(
                            "subscription {subscription} was waited for up to seq {head}, and came \
                             no further than seq {}",
                            session.at.unwrap_or(0)
                        )
                    });
                }
            }
            _ => {}
        }
    }
}

impl Session {
    /// The node says where a subscription from the head on begins, and where the head is.
    fn begins(
        &mut self,
        op: &Op,
        line: usize,
        (after, head): (Option<u64>, Option<u64>),
        findings: &mut Findings,
    ) {
        let from_head = self.at.is_none() || self.early.is_some();
        if let (true, Some(after), Some(head)) = (from_head, after, head)
            && after != head
        {
            let anomaly = if after > head { Anomaly::PollSkip } else { Anomaly::NonmonotonicPoll };
            findings.add(anomaly, op.room.as_ref(), &[line], || {
                format!(
                    "a subscription was to begin at the head, which was {head}, and began after seq {after}"
                )
            });
        }
        match (self.early, after) {
            (Some((first, delivery)), Some(after)) => {
                if after.checked_add(1) != Some(first) {
                    step(op, &[delivery, line], after, first, findings);
                }
                self.early = None;
            }
            (None, Some(after)) if self.at.is_none() => {
                self.at = Some(after);
                self.line = line;
            }
            _ => {}
        }
    }

    fn deliver(&mut self, op: &Op, line: usize, seq: u64, findings: &mut Findings) {
        match self.at {
            Some(at) if at.checked_add(1) != Some(seq) => {
                step(op, &[self.line, line], at, seq, findings);
            }
            Some(_) => {}
            None => self.early = Some((seq, line)),
        }
        self.at = Some(seq);
        self.line = line;
    }
}

fn step(op: &Op, lines: &[usize], at: u64, seq: u64, findings: &mut Findings) {
    let (anomaly, how) = if seq > at {
        (Anomaly::PollSkip, "passed over messages")
    } else {
        (Anomaly::NonmonotonicPoll, "went back")
    };
    findings.add(anomaly, op.room.as_ref(), lines, || {
        format!("a subscription {how}: after seq {at} it delivered seq {seq}")
    });
}
