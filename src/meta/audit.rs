//! The audit log: the last administrative actions, in the meta group's state.
//!
//! Each record has a row of its own, so that one more does not rewrite all; the row of the oldest is
//! taken for the newest. A change of the map and its record are one entry of the log: neither is there
//! without the other.

use prost::Message;

use crate::meta::Blobs;
use crate::proto::internal as pb;

/// Records that are kept.
pub const RECORDS_MAX: u64 = 1000;
/// Who it is that does what nobody has ordered. No user can be called that.
pub const CLUSTER: &str = "the cluster";

const HEAD_BLOB: &str = "audit-head";
/// Among how many of the last records a request's own is looked for when it is repeated.
const REPEAT_WITHIN: u64 = 64;
/// A text is cut to so many bytes: a row stays one.
const TEXT_BYTES_MAX: usize = 1000;

fn row(number: u64) -> String {
    format!("audit-{:03}", number % RECORDS_MAX)
}

fn count(state: &impl Blobs) -> u64 {
    let head = state.blob(HEAD_BLOB).unwrap_or_default();
    pb::AuditHead::decode(head).expect("this code encoded it, and rows have checksums").count
}

fn read(state: &impl Blobs, number: u64) -> Option<pb::AuditRecord> {
    let row = state.blob(&row(number))?;
    Some(pb::AuditRecord::decode(row).expect("this code encoded it, and rows have checksums"))
}

/// The last records, at most so many, oldest first.
pub fn last(state: &impl Blobs, limit: u64) -> Vec<pb::AuditRecord> {
    let count = count(state);
    let first = count - count.min(limit).min(RECORDS_MAX);
    (first..count).filter_map(|number| read(state, number)).collect()
}

/// Makes a record, unless its request made one before.
pub(super) fn record(state: &mut impl Blobs, record: pb::AuditRecord) {
    let same = |known: pb::AuditRecord| {
        !record.request_id.is_empty() && known.request_id == record.request_id
    };
    if last(state, REPEAT_WITHIN).into_iter().any(same) {
        return;
    }
    let record =
        pb::AuditRecord { action: cut(record.action), outcome: cut(record.outcome), ..record };
    let number = count(state);
    state.put_blob(&row(number), record.encode_to_vec().into());
    state.put_blob(HEAD_BLOB, pb::AuditHead { count: number + 1 }.encode_to_vec().into());
}

fn cut(mut text: String) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::command::Reply;
    use crate::meta::tests::Memory;
    use crate::proto::internal::request::Command;

    fn apply(state: &mut Memory, id: u64, action: &str, command: Command) -> Reply {
        let audit = pb::Audit { who: "ann".into(), action: action.into() };
        let request_id = id.to_be_bytes().to_vec().into();
        let command = Some(command);
        state.apply(
            pb::Request { request_id, command, audit: Some(audit), ..Default::default() },
            id,
        )
    }

    fn drain() -> Command {
        Command::SetNodeState(pb::SetNodeState { node: 2, state: 1, successor: 0 })
    }

    fn note(outcome: &str) -> Command {
        Command::RecordAction(pb::RecordAction { outcome: outcome.into() })
    }

    fn texts(state: &Memory, limit: u64) -> Vec<(u64, String, String)> {
        let texts = |record: pb::AuditRecord| (record.at_ms, record.action, record.outcome);
        last(state, limit).into_iter().map(texts).collect()
    }

    #[test]
    fn an_action_is_recorded_with_what_it_did() {
        let mut state = Memory::formed();
        apply(&mut state, 5, "drain node 2", drain()).unwrap();
        // The same request again, and another one of the same content.
        assert!(apply(&mut state, 5, "drain node 2", drain()).unwrap().duplicate);
        assert!(apply(&mut state, 6, "drain node 2", drain()).unwrap().duplicate);
        // What is refused here is recorded by who has asked: see `RecordAction`.
        let before = state.clone();
        let refused = Command::RemoveNode(pb::RemoveNode { node: 9 });
        assert!(apply(&mut state, 7, "remove node 9", refused).is_err());
        assert_eq!(state, before);
        let version = state.map().version();
        apply(&mut state, 8, "remove node 9", note("refused: there is no node 9")).unwrap();
        apply(&mut state, 8, "remove node 9", note("refused: there is no node 9")).unwrap();
        assert_eq!(state.map().version(), version, "the map is as it was");
        let expected = [
            (5, "drain node 2", "done"),
            (6, "drain node 2", "nothing to do"),
            (8, "remove node 9", "refused: there is no node 9"),
        ];
        let expected = expected.map(|(at, action, outcome)| (at, action.into(), outcome.into()));
        assert_eq!(texts(&state, 100), expected);
        assert_eq!(texts(&state, 1), expected[2..]);
        assert_eq!(last(&state, 1)[0].who, "ann");
    }

    #[test]
    fn the_last_thousand_are_kept() {
        let mut state = Memory::formed();
        for id in 1..=2300 {
            apply(&mut state, id, "look", note("")).unwrap();
        }
        let kept: Vec<u64> = last(&state, u64::MAX).iter().map(|record| record.at_ms).collect();
        assert_eq!(kept, (1301..=2300).collect::<Vec<u64>>());
        let long = "ä".repeat(5000);
        apply(&mut state, 9000, &long, note(&long)).unwrap();
        assert!(last(&state, 1)[0].encode_to_vec().len() < 2100);
        assert_eq!(last(&Memory::formed(), 7), []);
    }
}
