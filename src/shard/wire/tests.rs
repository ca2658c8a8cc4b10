//! Round trips, pinned bytes, and rubbish.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::shard::runtime::TokioRuntime;
use crate::shard::types::Members;
use crate::testing::{damaged, hex};

type Tokio = TokioRuntime;

fn any_log_id() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| log_id(term, index))
}

fn vote() -> impl Strategy<Value = Vote> {
    (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(term, voted_for, committed)| Vote {
        leader_id: LeaderId { term, voted_for },
        committed,
    })
}

/// Members of which some vote, in up to three sets, and the others learn.
fn membership() -> impl Strategy<Value = Membership> {
    let members = btree_map(any::<u64>(), any::<String>().prop_map(BasicNode::new), 0..6);
    (members, vec(any::<u8>(), 0..3)).prop_map(|(members, masks): (Members, Vec<u8>)| {
        let set = |mask: u8| -> BTreeSet<u64> {
            let ids = members.keys().copied().enumerate();
            ids.filter(|(n, _)| mask >> n & 1 == 1).map(|(_, id)| id).collect()
        };
        let configs: Vec<_> = masks.into_iter().map(set).filter(|set| !set.is_empty()).collect();
        Membership::new(configs, members).unwrap()
    })
}

fn stored_membership() -> impl Strategy<Value = StoredMembership> {
    (option::of(any_log_id()), membership())
        .prop_map(|(log_id, membership)| StoredMembership::new(log_id, membership))
}

fn entry() -> impl Strategy<Value = Entry> {
    let batch = (any::<u64>(), vec(any::<Vec<u8>>(), 0..5)).prop_map(|(stamp_ms, requests)| {
        let requests = requests.into_iter().map(Bytes::from).collect();
        Payload::Normal(Batch { stamp_ms, requests })
    });
    let payload =
        prop_oneof![Just(Payload::Blank), batch, membership().prop_map(Payload::Membership)];
    (any_log_id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
}

fn append_result() -> impl Strategy<Value = AppendResult<Tokio>> {
    prop_oneof![
        option::of(any_log_id()).prop_map(Ok),
        any_log_id().prop_map(|log_id| Err(StreamAppendError::Conflict(log_id))),
        vote().prop_map(|vote| Err(StreamAppendError::HigherVote(vote))),
    ]
}

/// Sends a message over the wire as bytes.
fn sent<M: Message + Default>(message: &M) -> M {
    M::decode(message.encode_to_vec().as_slice()).unwrap()
}

fn decode_everything(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let _ = decode_entry(bytes.clone());
    let _ = decode_vote(bytes.clone());
    let _ = decode_log_id(bytes.clone());
    let _ = decode_stored_membership(bytes.clone());
    let _ = pb::AppendEntriesRequest::decode(bytes.clone()).map(append_request_from::<Tokio>);
    let _ = pb::AppendEntriesResponse::decode(bytes.clone()).map(append_result_from::<Tokio>);
    let _ = pb::VoteRequest::decode(bytes.clone()).map(vote_request_from::<Tokio>);
    let _ = pb::VoteResponse::decode(bytes).map(vote_response_from::<Tokio>);
}

proptest! {
    #[test]
    fn what_the_log_keeps_round_trips(entry in entry(), vote in vote(), log_id in any_log_id()) {
        prop_assert_eq!(decode_entry(encode_entry(&entry)), Ok(entry));
        prop_assert_eq!(decode_vote(encode_vote(&vote)), Ok(vote));
        prop_assert_eq!(decode_log_id(encode_log_id(&log_id)), Ok(log_id));
    }

    #[test]
    fn stored_memberships_round_trip(stored in stored_membership()) {
        prop_assert_eq!(decode_stored_membership(encode_stored_membership(&stored)), Ok(stored));
    }

    #[test]
    fn append_requests_and_results_round_trip(
        vote in vote(),
        log_ids in (option::of(any_log_id()), option::of(any_log_id())),
        entries in vec(entry(), 0..4),
        result in append_result(),
    ) {
        let request = AppendEntriesRequest::<Types<Tokio>> {
            vote,
            prev_log_id: log_ids.0,
            entries: entries.clone(),
            leader_commit: log_ids.1,
        };
        let decoded: AppendEntriesRequest<Types<Tokio>> =
            append_request_from(sent(&append_request_to(&request))).unwrap();
        prop_assert_eq!(decoded.vote, vote);
        prop_assert_eq!(decoded.prev_log_id, log_ids.0);
        prop_assert_eq!(decoded.entries, entries);
        prop_assert_eq!(decoded.leader_commit, log_ids.1);
        prop_assert_eq!(append_result_from(sent(&append_result_to(&result))), Ok(result));
    }

    #[test]
    fn vote_requests_and_responses_round_trip(
        vote in vote(), last in option::of(any_log_id()), flags in any::<(bool, bool)>(),
    ) {
        let mut request = VoteRequest::<Types<Tokio>>::new(vote, last);
        request.leadership_transfer = flags.0;
        let wire = sent(&vote_request_to(&request, flags.1));
        prop_assert_eq!(wire.pre_vote, flags.1);
        prop_assert_eq!(vote_request_from(wire), Ok(request));
        let response = VoteResponse::<Types<Tokio>>::new(vote, last, flags.0);
        prop_assert_eq!(vote_response_from(sent(&vote_response_to(&response))), Ok(response));
    }

    #[test]
    fn rubbish_is_refused_without_panicking(mut bytes in any::<Vec<u8>>()) {
        decode_everything(&bytes);
        bytes.insert(0, VERSION);
        decode_everything(&bytes);
    }

    #[test]
    fn damaged_values_do_not_panic(
        entry in entry(), vote in vote(), stored in stored_membership(),
        at in any::<Index>(), to in any::<u8>(), cut in any::<Index>(),
    ) {
        for bytes in [encode_entry(&entry), encode_vote(&vote), encode_stored_membership(&stored)] {
            damaged(&bytes, at, to, cut).iter().for_each(|bytes| decode_everything(bytes));
        }
    }
}

fn some_membership() -> Membership {
    let node = |id: u64| (id, BasicNode::new(format!("h{id}:1")));
    let configs = vec![BTreeSet::from([1, 2]), BTreeSet::from([2])];
    Membership::new(configs, Members::from([node(1), node(2), node(300)])).unwrap()
}

/// A change here is a change of what is on disk: old logs and bases must still be read.
#[test]
fn formats_are_pinned() {
    let log_id = log_id(7, 300);
    let entry = |payload| hex(&encode_entry(&Entry { log_id, payload }));
    assert_eq!(hex(&encode_log_id(&log_id)), "01080710ac02");
    let vote = |committed| Vote { leader_id: LeaderId { term: 7, voted_for: 3 }, committed };
    assert_eq!(hex(&encode_vote(&vote(true))), "010a04080710031001");
    assert_eq!(hex(&encode_vote(&vote(false))), "010a0408071003");
    assert_eq!(entry(Payload::Blank), "010a05080710ac02");
    let requests = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    assert_eq!(
        entry(Payload::Normal(Batch { stamp_ms: 258, requests })),
        "010a05080710ac02120d08820212036f6e65120374776f"
    );
    let members = "0a040a0201020a030a010212080801120468313a31\
                   12080802120468323a31120b08ac021206683330303a31";
    assert_eq!(
        entry(Payload::Membership(some_membership())),
        format!("010a05080710ac021a2c{members}")
    );
    let stored = |log_id| StoredMembership::new(log_id, some_membership());
    assert_eq!(
        hex(&encode_stored_membership(&stored(Some(log_id)))),
        format!("010a05080710ac02122c{members}")
    );
    assert_eq!(hex(&encode_stored_membership(&stored(None))), format!("01122c{members}"));
    assert_eq!(hex(&encode_stored_membership(&StoredMembership::default())), "011200");
}

#[test]
fn what_is_not_valid_is_not_decoded() {
    let reopened = |message: &pb::StoredMembership| decode_stored_membership(sealed(message));
    assert_eq!(decode_stored_membership(Bytes::new()), Ok(StoredMembership::default()));
    let good = stored_membership_to(&StoredMembership::new(None, some_membership()));
    assert!(reopened(&good).is_ok());
    type Spoil = fn(&mut pb::Membership);
    let spoils: [Spoil; 2] = [
        |membership| membership.configs[1].nodes.clear(),
        |membership| membership.configs[0].nodes.push(4), // no such member
    ];
    for spoil in spoils {
        let mut bad = good.clone();
        spoil(bad.membership.as_mut().unwrap());
        assert_eq!(reopened(&bad), Err(Malformed("membership")));
    }
    for bytes in [vec![], vec![VERSION + 1], vec![VERSION]] {
        assert_eq!(decode_entry(bytes.clone().into()), Err(Malformed("entry")));
        assert_eq!(decode_vote(bytes.into()), Err(Malformed("vote")));
    }
}
