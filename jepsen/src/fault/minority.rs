//! Whether enough nodes are left when a fault hits some: a majority that runs and answers.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::fault::network::Namespace;
use crate::fault::{FaultError, Target};

/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// A node that is not to be hit.
#[derive(Clone, Debug)]
pub enum Other {
    /// On this machine.
    Process(Target),
    /// Anywhere, by its peer address.
    Peer(SocketAddr),
}

/// Refuses to hit so many nodes when fewer than a majority would be left. `from` is one of those
/// that are hit: peers are asked from where it is.
///
/// # Errors
///
/// Which of the others are down.
pub fn check(hit: usize, others: &[Other], from: Option<&Target>) -> Result<(), FaultError> {
    let mut down = vec![];
    for other in others {
        if let Err(why) = answers(other, from) {
            down.push(why);
        }
    }
    let (total, left) = (hit + others.len(), others.len() - down.len());
    if left * 2 > total {
        return Ok(());
    }
    let mut why = format!("{left} of {total} nodes would be left, which is no majority");
    if !down.is_empty() {
        why += &format!(" ({})", down.join("; "));
    }
    Err(FaultError::Refused(format!(
        "{why}. Name the other nodes with --others, or say --majority if that is what you want"
    )))
}

fn answers(other: &Other, from: Option<&Target>) -> Result<(), String> {
    match other {
        Other::Process(target) => {
            target.check().map_err(|error| error.to_string())?;
            match target.state() {
                Some('T' | 't') => Err(format!("{} is paused", target.name)),
                _ => Ok(()),
            }
        }
        Other::Peer(address) => {
            let connect = || {
                let connected = TcpStream::connect_timeout(address, ANSWER);
                connected.map(drop).map_err(FaultError::io(format!("{address}")))
            };
            // Without root there is one network namespace only, and we are in it.
            let connected = match from.map(Namespace::of) {
                Some(Ok(namespace)) => namespace.inside(connect),
                _ => connect(),
            };
            connected.map_err(|error| error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening() -> (std::net::TcpListener, Other) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, Other::Peer(address))
    }

    #[test]
    fn one_of_three_may_be_hit_and_two_may_not() {
        let (_a, a) = listening();
        let (_b, b) = listening();
        check(1, &[a.clone(), b.clone()], None).unwrap();
        let error = check(2, std::slice::from_ref(&a), None).unwrap_err().to_string();
        assert!(error.contains("1 of 3 nodes") && error.contains("--majority"), "{error}");
        check(1, &[], None).unwrap_err();
        check(2, &[a.clone(), b.clone(), a], None).unwrap();
    }

    #[test]
    fn one_of_three_may_not_be_hit_when_another_is_down() {
        let (_a, a) = listening();
        let (b, down) = listening();
        drop(b);
        let error = check(1, &[a, down], None).unwrap_err().to_string();
        assert!(error.contains("1 of 3 nodes") && error.contains("refused"), "{error}");
    }
}
