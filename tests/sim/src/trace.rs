//! What happened in a life, as one hash, and in words when somebody wants to read it.
//!
//! Two runs of one seed must have the same trace: every frame, every write to a file, sync, change of a
//! length or name, every operation of a client with all that it was shown, and every fault, each with its
//! virtual time, goes into the hash. Of a write to the base only the length does.

use std::fmt;
use std::sync::{Mutex, MutexGuard};

use folkmoot_jepsen::history::{Op, Value};

use crate::output;
use crate::runtime::elapsed;

/// A trace's hash so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceHash(pub u64);

impl fmt::Display for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Collects a life's trace.
#[derive(Debug)]
pub struct Trace {
    state: Mutex<State>,
    spoken: bool,
}

#[derive(Debug)]
struct State {
    hash: u64,
    steps: u64,
}

impl Trace {
    /// An empty trace; `spoken` prints what happens to standard error.
    pub fn new(spoken: bool) -> Trace {
        Trace { state: Mutex::new(State { hash: 0xcbf2_9ce4_8422_2325, steps: 0 }), spoken }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Takes a step into the hash: what it is, whom it concerns, and its bytes.
    pub fn note(&self, what: &str, head: &[u8], bytes: &[u8]) {
        let hash = self.note_silently(what, head, bytes);
        if self.spoken {
            let seconds = elapsed().as_secs_f64();
            let bytes = bytes.len();
            output::tell(format_args!("{seconds:>10.6} {hash} {what} {head:?} {bytes} bytes"));
        }
    }

    fn note_silently(&self, what: &str, head: &[u8], bytes: &[u8]) -> TraceHash {
        let now = elapsed();
        let state = &mut *self.lock();
        state.steps += 1;
        state.hash = mix(state.hash, &now.as_nanos().to_le_bytes());
        state.hash = mix(state.hash, what.as_bytes());
        state.hash = mix(state.hash, head);
        state.hash = mix(state.hash, bytes);
        TraceHash(state.hash)
    }

    /// Takes a line of the history into the hash.
    pub fn op(&self, head: &[u8], op: &Op) {
        let mut bytes = format!("{:?} {:?} {:?} {:?}", op.process, op.node, op.room, op.error);
        if let Value::Page { head, .. } = &op.value {
            bytes += &head.to_string();
        } else {
            bytes += &format!("{:?}", op.value);
        }
        let mut bytes = bytes.into_bytes();
        for event in op.events() {
            bytes.extend(event.seq.to_le_bytes());
            bytes.extend(event.id.as_u128().to_le_bytes());
        }
        let hash = self.note_silently("op", head, &bytes);
        if self.spoken {
            output::tell(format_args!("{:>10.6} {hash} {op:?}", elapsed().as_secs_f64()));
        }
    }

    /// Takes something that happened into the hash, and into the words.
    pub fn say(&self, what: fmt::Arguments<'_>) {
        let now = elapsed();
        let text = what.to_string();
        let state = &mut *self.lock();
        state.steps += 1;
        state.hash = mix(state.hash, &now.as_nanos().to_le_bytes());
        state.hash = mix(state.hash, text.as_bytes());
        if self.spoken {
            let (seconds, hash) = (now.as_secs_f64(), TraceHash(state.hash));
            output::tell(format_args!("{seconds:>10.6} {hash} {text}"));
        }
    }

    /// Says something that is no part of the hash: it may name places of this run.
    pub fn tell(&self, what: fmt::Arguments<'_>) {
        if self.spoken {
            output::tell(format_args!("{:>10.6} {what}", elapsed().as_secs_f64()));
        }
    }

    /// The hash so far.
    pub fn hash(&self) -> TraceHash {
        TraceHash(self.lock().hash)
    }

    /// How many steps there were.
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }
}

/// Takes bytes into a hash, eight at a time. It only has to tell runs apart.
fn mix(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    for byte in chunks.remainder() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash ^ bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use folkmoot_jepsen::history::{Event, F, Id, Process};

    use super::*;

    /// What a client was shown is in the hash, event by event.
    #[test]
    fn other_events_are_another_trace() {
        let hash = |id: u128| {
            let trace = Trace::new(false);
            let op = Op::invoke(0, Process(1), F::Read, Value::range(0, None)).room("tea");
            let events = vec![Event { seq: 1, id: Id::from_u128(id) }];
            trace.op(&[], &op.ok(1, Value::Page { head: 1, events }));
            trace.hash()
        };
        assert_eq!(hash(7), hash(7));
        assert_ne!(hash(7), hash(8));
    }
}
