//! Join tokens: what a node shows that joins a cluster which has been formed. Each admits one node,
//! within its time; only its hash is kept.
//!
//! Time is log time, so that every replica decides alike. What was used up or has expired is kept
//! for as long as there is room, to be told apart from what is not known at all.

use bytes::Bytes;
use prost::Message;

use crate::chat::command::{Done, Rejection, Reply};
use crate::id::Seq;
use crate::meta::Blobs;
use crate::proto::internal as pb;

/// The name under which the state keeps the tokens.
const BLOB: &str = "join-tokens";
/// Tokens that are kept at most.
const TOKENS_MAX: usize = 100;
/// For how long a token may be valid, in milliseconds: a second to thirty days.
pub const TTL_MS: std::ops::RangeInclusive<u64> = 1000..=30 * 86_400_000;
/// The same, for a person.
pub const TTL_RULE: &str =
    "a join token is valid for one second at least, and for thirty days at most";

/// What is kept of a token.
pub fn hash(token: &str) -> Bytes {
    Bytes::copy_from_slice(blake3::hash(token.as_bytes()).as_bytes())
}

/// The tokens of a state.
#[derive(Debug)]
pub(super) struct JoinTokens(pb::JoinTokens);

impl JoinTokens {
    pub(super) fn in_state(state: &impl Blobs) -> JoinTokens {
        let bytes = state.blob(BLOB).unwrap_or_default();
        let tokens = pb::JoinTokens::decode(bytes);
        JoinTokens(tokens.expect("this code encoded them, and rows have checksums"))
    }

    /// Takes a new token; a repeat changes nothing.
    pub(super) fn issue(
        mut self,
        state: &mut impl Blobs,
        token: pb::IssueJoinToken,
        log_time_ms: u64,
    ) -> Reply {
        if token.hash.len() != 32 {
            return Err(Rejection::Undecodable);
        }
        if !TTL_MS.contains(&token.ttl_ms) {
            return Err(Rejection::InvalidArgument(TTL_RULE.into()));
        }
        let tokens = &mut self.0.tokens;
        if tokens.iter().any(|known| known.hash == token.hash) {
            return Ok(done(0, true));
        }
        if tokens.len() >= TOKENS_MAX {
            let over = |t: &pb::JoinToken| t.used_by != 0 || t.expires_at_ms <= log_time_ms;
            let Some(at) = tokens.iter().position(over) else {
                return Err(Rejection::LimitReached(format!(
                    "{TOKENS_MAX} join tokens are valid and have not been used: use them, or wait \
                     until one expires"
                )));
            };
            tokens.remove(at);
        }
        let expires_at_ms = log_time_ms.saturating_add(token.ttl_ms);
        tokens.push(pb::JoinToken { hash: token.hash, expires_at_ms, used_by: 0 });
        state.put_blob(BLOB, self.0.encode_to_vec().into());
        Ok(done(0, false))
    }

    /// Uses a token up, by its hash, for a node.
    ///
    /// # Errors
    /// Why it admits nobody, and what to do.
    pub(super) fn redeem(
        mut self,
        state: &mut impl Blobs,
        hash: &Bytes,
        node: u64,
        log_time_ms: u64,
    ) -> Result<(), Rejection> {
        if mutant!(AnyTokenAdmits) {
            return Ok(());
        }
        let make_one = "make one with `folkmoot node token`, and start the node with it \
                        (--join-token, or node.join_token)";
        let refuse = |why: &str| Err(Rejection::Forbidden(format!("{why}: {make_one}")));
        if hash.is_empty() {
            return refuse("a new node needs a join token");
        }
        let Some(token) = self.0.tokens.iter_mut().find(|token| token.hash == *hash) else {
            return refuse("this join token is not one of this cluster's, or a very old one");
        };
        if token.used_by != 0 {
            return refuse(&format!(
                "this join token has admitted node {} already, and admits no other",
                token.used_by
            ));
        }
        if token.expires_at_ms <= log_time_ms {
            let seconds = (log_time_ms - token.expires_at_ms) / 1000;
            return refuse(&format!("this join token has expired {seconds} seconds ago"));
        }
        token.used_by = node;
        state.put_blob(BLOB, self.0.encode_to_vec().into());
        Ok(())
    }
}

fn done(id: u64, duplicate: bool) -> Done {
    Done { seq: Seq(id), epoch: None, at_ms: 0, duplicate, imported: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{NodeId, RequestId};
    use crate::meta::tests::Memory;
    use crate::proto::internal::request::Command;

    fn apply(state: &mut Memory, command: Command, log_time_ms: u64) -> Reply {
        let id = RequestId::mint(log_time_ms, Default::default()).as_bytes().to_vec();
        let request =
            pb::Request { request_id: id.into(), command: Some(command), ..Default::default() };
        state.apply(request, log_time_ms)
    }

    fn issue(state: &mut Memory, token: &str, ttl_ms: u64, log_time_ms: u64) -> Reply {
        let token = pb::IssueJoinToken { hash: hash(token), ttl_ms };
        apply(state, Command::IssueJoinToken(token), log_time_ms)
    }

    fn join(state: &mut Memory, name: &str, token: &str, log_time_ms: u64) -> Reply {
        let join_token = if token.is_empty() { Bytes::new() } else { hash(token) };
        let node = pb::RegisterNode {
            client_address: name.into(),
            peer_address: name.into(),
            instance: name.into(),
            join_token: Some(join_token),
            ..Default::default()
        };
        apply(state, Command::RegisterNode(node), log_time_ms)
    }

    fn refused(reply: Reply) -> String {
        reply.unwrap_err().to_string()
    }

    #[test]
    fn a_token_admits_one_node_and_that_one_again() {
        let mut state = Memory::formed();
        issue(&mut state, "t", 5000, 10_000).unwrap();
        let admitted = join(&mut state, "four", "t", 14_999).unwrap();
        assert_eq!(admitted.seq, Seq(4));
        // Its answer was lost. It needs nothing any more, whatever it shows.
        for token in ["t", "", "nonsense"] {
            let again = join(&mut state, "four", token, 99_000).unwrap();
            assert_eq!((again.seq, again.duplicate), (Seq(4), true));
        }
        let before = state.clone();
        let said = refused(join(&mut state, "five", "t", 14_999));
        assert!(said.contains("has admitted node 4 already"), "{said}");
        assert_eq!(state, before, "refused, and nothing changed");
    }

    #[test]
    fn what_admits_nobody_says_why_and_what_to_do() {
        let mut state = Memory::formed();
        issue(&mut state, "t", 5000, 10_000).unwrap();
        for (token, at, why) in [
            ("", 11_000, "needs a join token"),
            ("other", 11_000, "not one of this cluster's"),
            ("t", 15_000, "has expired 0 seconds ago"),
            ("t", 75_000, "has expired 60 seconds ago"),
        ] {
            let before = state.clone();
            let said = refused(join(&mut state, "four", token, at));
            assert!(said.contains(why) && said.contains("folkmoot node token"), "{said}");
            assert_eq!(state, before, "refused, and nothing changed");
        }
        // What is wrong with the node itself does not use a token up.
        assert!(join(&mut state, "p1", "t", 12_000).is_ok());
        issue(&mut state, "u", 5000, 10_000).unwrap();
        let node = pb::RegisterNode {
            client_address: "x".into(),
            peer_address: "p1".into(),
            instance: "another".into(),
            join_token: Some(hash("u")),
            ..Default::default()
        };
        assert!(apply(&mut state, Command::RegisterNode(node), 12_000).is_err());
        assert_eq!(join(&mut state, "five", "u", 12_000).unwrap().seq, Seq(5));
    }

    #[test]
    fn an_entry_of_before_there_were_tokens_admits_its_node() {
        let mut state = Memory::formed();
        let node = pb::RegisterNode {
            client_address: "x".into(),
            peer_address: "x".into(),
            instance: "x".into(),
            ..Default::default()
        };
        assert_eq!(apply(&mut state, Command::RegisterNode(node), 1).unwrap().seq, Seq(4));
        assert!(state.map().node(NodeId(4)).is_some());
    }

    #[test]
    fn tokens_are_bounded_and_the_oldest_that_are_over_go_first() {
        let mut state = Memory::formed();
        for i in 0..TOKENS_MAX {
            let ttl = if i == 7 { 1000 } else { 1_000_000 };
            issue(&mut state, &i.to_string(), ttl, 10_000).unwrap();
        }
        assert!(issue(&mut state, "0", 1000, 10_000).unwrap().duplicate, "a repeat");
        let said = refused(issue(&mut state, "more", 1_000_000, 10_999));
        assert!(said.contains("100 join tokens"), "{said}");
        issue(&mut state, "more", 1_000_000, 11_000).unwrap();
        assert!(refused(join(&mut state, "a", "7", 11_000)).contains("not one of"));
        join(&mut state, "a", "0", 11_000).unwrap();
        issue(&mut state, "and more", 1_000_000, 11_000).unwrap();
        assert!(refused(issue(&mut state, "too many", 1_000_000, 11_000)).contains("100"));
        join(&mut state, "b", "99", 11_000).unwrap();
    }

    #[test]
    fn odd_tokens_are_refused() {
        let mut state = Memory::formed();
        for (bytes, ttl_ms) in [(32, 0), (32, 999), (32, u64::MAX), (31, 5000), (0, 5000)] {
            let token = pb::IssueJoinToken { hash: vec![1; bytes].into(), ttl_ms };
            let before = state.clone();
            assert!(apply(&mut state, Command::IssueJoinToken(token), 1).is_err());
            assert_eq!(state, before);
        }
        let mut unformed = Memory::default();
        assert!(issue(&mut unformed, "t", 5000, 1).is_err());
    }
}
