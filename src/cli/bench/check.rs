//! After a run: is every acknowledged message in history exactly once, where its ack said, and
//! in the order in which its client sent it?

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::cli::bench::BenchRoom;
use crate::cli::bench::body::{self, Mark};
use crate::cli::bench::load::Acked;
use crate::cli::failure::{Failure, Outcome};
use crate::client::Client;
use crate::proto::v1 as pb;

/// What the check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Acknowledged messages.
    pub acked: u64,
    /// Of these, in history where their acks said.
    pub found: u64,
    /// Acknowledged, and not at the seq of the ack.
    pub lost: u64,
    /// In history more than once.
    pub duplicated: u64,
    /// Acknowledged before a message that its client sent earlier to the same room.
    pub out_of_order: u64,
    /// Places where seq is not one above the last.
    pub gaps: u64,
    /// In history without an ack: allowed, their fate was unknown.
    pub unacked: u64,
}

impl Verdict {
    /// Whether all is as promised.
    pub(super) fn ok(&self) -> bool {
        self.found == self.acked && self.lost + self.duplicated + self.out_of_order + self.gaps == 0
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        format!(
            "{} acked, {} found, {} lost, {} duplicated, {} out of order, {} gaps, {} unacked",
            self.acked,
            self.found,
            self.lost,
            self.duplicated,
            self.out_of_order,
            self.gaps,
            self.unacked
        )
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "ok": self.ok(), "acked": self.acked, "found": self.found, "lost": self.lost,
            "duplicated": self.duplicated, "out_of_order": self.out_of_order, "gaps": self.gaps,
            "unacked": self.unacked,
        })
    }
}

/// One room's check, fed with its history in order.
#[derive(Debug)]
struct RoomCheck {
    expected: HashMap<u64, Mark>,
    seen: HashSet<Mark>,
    /// The last acked number of each client.
    last: HashMap<usize, u64>,
    last_seq: u64,
}

impl RoomCheck {
    fn new(start: u64, acked: impl Iterator<Item = Acked>, verdict: &mut Verdict) -> RoomCheck {
        let mut expected = HashMap::new();
        for one in acked {
            verdict.acked += 1;
            if expected.insert(one.seq, one.mark).is_some() {
                verdict.lost += 1; // two acks with one seq: one of them is wrong
            }
        }
        RoomCheck { expected, seen: HashSet::new(), last: HashMap::new(), last_seq: start }
    }

    fn take(&mut self, seq: u64, text: &str, verdict: &mut Verdict) {
        verdict.gaps += u64::from(seq != self.last_seq + 1);
        self.last_seq = seq;
        let mark = body::read(text).map(|(_, mark)| mark);
        if let Some(mark) = mark
            && !self.seen.insert(mark)
        {
            verdict.duplicated += 1;
        }
        match (self.expected.remove(&seq), mark) {
            (Some(expected), Some(mark)) if expected == mark => {
                verdict.found += 1;
                let last = self.last.insert(mark.client, mark.number);
                verdict.out_of_order += u64::from(last.is_some_and(|last| last > mark.number));
            }
            (Some(_), _) => verdict.lost += 1,
            (None, _) => verdict.unacked += 1,
        }
    }

    fn end(self, verdict: &mut Verdict) {
        verdict.lost += self.expected.len() as u64;
    }
}

/// Reads every room back and checks it.
pub(super) async fn history(
    client: &Client,
    rooms: &[BenchRoom],
    acked: &[Acked],
) -> Outcome<Verdict> {
    let mut verdict = Verdict::default();
    for (index, room) in rooms.iter().enumerate() {
        let acked = acked.iter().copied().filter(|one| one.room == index);
        let mut check = RoomCheck::new(room.start, acked, &mut verdict);
        loop {
            let request = pb::EventsRequest {
                room: room.id.to_string(),
                after: Some(pb::Cursor { epoch: String::new(), seq: check.last_seq }),
                limit: 1000,
                ..pb::EventsRequest::default()
            };
            let page = client.events(&request).await?;
            if !page.recovered {
                return Err(Failure::failed(format!("history of room {} was lost", room.id)));
            }
            if page.events.is_empty() {
                break;
            }
            for event in &page.events {
                check.take(event.seq, &event.text, &mut verdict);
            }
        }
        check.end(&mut verdict);
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Client, number and the seq that its ack said, in room 0, whose history these texts are.
    fn verdict(acked: &[(usize, u64, u64)], history: &[(usize, u64)]) -> Verdict {
        let acked = acked.iter().map(|(client, number, seq)| Acked {
            room: 0,
            seq: *seq,
            mark: Mark { client: *client, number: *number },
        });
        let mut verdict = Verdict::default();
        let mut check = RoomCheck::new(1, acked, &mut verdict);
        for (seq, (client, number)) in (2..).zip(history) {
            let mark = Mark { client: *client, number: *number };
            check.take(seq, &body::write(0, mark, 30), &mut verdict);
        }
        check.end(&mut verdict);
        verdict
    }

    #[test]
    fn what_is_promised_is_told_from_what_is_not() {
        let good = verdict(&[(1, 0, 2), (2, 0, 3), (1, 2, 5)], &[(1, 0), (2, 0), (1, 1), (1, 2)]);
        assert!(good.ok(), "{good:?}");
        assert_eq!((good.acked, good.found, good.unacked), (3, 3, 1));
        assert_eq!(verdict(&[(1, 0, 2)], &[]).lost, 1);
        assert_eq!(verdict(&[(1, 0, 2)], &[(2, 0), (1, 0)]).lost, 1);
        assert_eq!(verdict(&[(1, 0, 2), (2, 0, 2)], &[(1, 0)]).lost, 2);
        assert_eq!(verdict(&[(1, 0, 2)], &[(1, 0), (1, 0)]).duplicated, 1);
        assert_eq!(verdict(&[(1, 0, 3), (1, 1, 2)], &[(1, 1), (1, 0)]).out_of_order, 1);
    }
}
