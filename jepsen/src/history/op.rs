//! One line of a history: an operation begins, ends, or something was seen.

use serde::{Deserialize, Serialize};

use crate::history::id::{Id, Name, Process};

/// What a line says of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It begins. Recorded before the request is sent.
    Invoke,
    /// It took effect and was answered. Recorded after the answer has come.
    Ok,
    /// It certainly did not take effect (`may_have_applied: false`), nor will it.
    Fail,
    /// Nobody knows: it may take effect at any time from its invoke on, or never.
    Info,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum F {
    /// Posts a message.
    Send,
    /// Posts again under an id that was used before, perhaps through another node.
    Resend,
    /// Reads a page of a room; linearizable.
    Read,
    /// Reads a page of a room from one replica, as of some time in the past.
    ReadLocal,
    /// Reads a room to its end on one node, when all faults are over and it has caught up.
    FinalRead,
    /// An event came on a subscription. `ok`, without an invoke.
    Deliver,
    /// Follows a room; again under the same subscription to go on after the stream broke.
    Subscribe,
    /// Stops following.
    Unsubscribe,
    /// Asks a replica for its hash chain of a room.
    Chain,
    /// A fault starts or stops. `info`, without an invoke.
    Nemesis,
    /// Anything else that a client does: create a room, join, redact.
    Admin,
}

impl F {
    /// Every `f`.
    pub const ALL: [F; 11] = [
        F::Send,
        F::Resend,
        F::Read,
        F::ReadLocal,
        F::FinalRead,
        F::Deliver,
        F::Subscribe,
        F::Unsubscribe,
        F::Chain,
        F::Nemesis,
        F::Admin,
    ];

    /// As JSON has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            F::Send => "send",
            F::Resend => "resend",
            F::Read => "read",
            F::ReadLocal => "read-local",
            F::FinalRead => "final-read",
            F::Deliver => "deliver",
            F::Subscribe => "subscribe",
            F::Unsubscribe => "unsubscribe",
            F::Chain => "chain",
            F::Nemesis => "nemesis",
            F::Admin => "admin",
        }
    }

    /// Whether it is a read of any of the three sorts.
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, F::Read | F::ReadLocal | F::FinalRead)
    }
}

impl Kind {
    /// As JSON has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Invoke => "invoke",
            Kind::Ok => "ok",
            Kind::Fail => "fail",
            Kind::Info => "info",
        }
    }
}

/// An event as a read shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Its place in the room.
    pub seq: u64,
    /// The id under which it was sent.
    pub id: Id,
}

/// What an operation is about; which variant goes with which `f` is checked by
/// [`History::push`](crate::history::History::push).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing: a chain's invoke, or what failed or is unknown.
    None,
    /// A send or resend.
    Write {
        /// The `client_msg_id`.
        id: Id,
        /// The place that it was acknowledged with; in an `ok` only.
        seq: Option<u64>,
        /// A resend's text differs from that first sent under the id: it must be refused.
        other_body: bool,
    },
    /// What a read asks for.
    Range {
        /// The seq to read behind; 0 from the start.
        after: u64,
        /// At most so many events; `None`: the default.
        limit: Option<u64>,
    },
    /// What a read returned.
    Page {
        /// The room's head, whether or not the page reaches it; 0 when it is empty.
        head: u64,
        /// The events behind `after`, in order. May be fewer than the limit.
        events: Vec<Event>,
    },
    /// An event on a subscription.
    Delivery {
        /// The subscription.
        subscription: u64,
        /// The event's place.
        seq: u64,
        /// The event's id.
        id: Id,
    },
    /// A subscribe or unsubscribe.
    Subscription {
        /// A number of the subscription's own, the same across its reconnects.
        subscription: u64,
        /// Events are due from `after + 1`. `None` in a subscribe's invoke: from the head on,
        /// wherever that is; its `ok` then says where.
        after: Option<u64>,
        /// In a subscribe's `ok`: the room's head as the node noted it, held to real time as a
        /// read's is. In an unsubscribe's `ok`: the client has waited for events up to here.
        head: Option<u64>,
    },
    /// A replica's hash chain of a room.
    Chain {
        /// The seq it covers.
        seq: u64,
        /// In hex, small or capital.
        chain: Box<str>,
    },
    /// A fault.
    Fault(Box<Fault>),
    /// An administrative operation.
    Admin(Box<Admin>),
}

impl Value {
    /// A send's invoke.
    #[must_use]
    pub const fn send(id: Id) -> Value {
        Value::Write { id, seq: None, other_body: false }
    }

    /// A send's `ok`.
    #[must_use]
    pub const fn sent(id: Id, seq: u64) -> Value {
        Value::Write { id, seq: Some(seq), other_body: false }
    }

    /// A read's invoke.
    #[must_use]
    pub const fn range(after: u64, limit: Option<u64>) -> Value {
        Value::Range { after, limit }
    }

    /// A subscribe's invoke, or an unsubscribe's with `after: None`.
    #[must_use]
    pub const fn subscription(subscription: u64, after: Option<u64>) -> Value {
        Value::Subscription { subscription, after, head: None }
    }

    /// The id that this writes, if it writes an event, and the seq that it was told.
    #[must_use]
    pub fn written(&self) -> Option<(Id, Option<u64>)> {
        match self {
            Value::Write { id, seq, .. } => Some((*id, *seq)),
            Value::Admin(admin) => admin.id.map(|id| (id, admin.seq)),
            _ => None,
        }
    }
}

/// A fault starts or stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Its name: `partition`, `kill`. One of a name at a time.
    pub fault: Name,
    /// Whether it starts (recorded before it is injected) or stops (recorded after).
    pub phase: Phase,
    /// The nodes that it hits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<Name>,
    /// Whether from here on every shard has a majority of replicas that are up, whole and
    /// connected. `None`: while no fault is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub majority: Option<bool>,
}

/// The two ends of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It starts.
    Start,
    /// It stops.
    Stop,
}

/// An administrative operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Admin {
    /// What it does: `create-room`, `join`; or `gone` ([`Admin::gone`]).
    pub what: Name,
    /// The request's id, when it writes an event into its room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// In an `ok`: the event's seq. Absent when nothing was written, as in joining twice, where
    /// the ack's seq is only the room's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

impl Admin {
    /// What says of a node that it is gone for good: removed, or without what it had. Once it is `ok`, no
    /// final read of it is due.
    #[must_use]
    pub fn gone() -> Admin {
        Admin { what: "gone".into(), id: None, seq: None }
    }

    /// Whether it is that.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.what.as_str() == "gone"
    }
}

/// One line of a history. Its index is its place in the [`History`](crate::history::History).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Nanoseconds of one monotonic clock.
    pub time: u64,
    /// Who does it.
    pub process: Process,
    /// Begins or ends.
    pub kind: Kind,
    /// What it does.
    pub f: F,
    /// The node that is asked.
    pub node: Option<Name>,
    /// The room.
    pub room: Option<Name>,
    /// What it is about.
    pub value: Value,
    /// Why it failed, or is unknown: an error's code.
    pub error: Option<Box<str>>,
    /// How long ago it was due when it began, in nanoseconds, where that is known: whoever does it was held
    /// up by what it did before.
    pub late: u64,
}

impl Op {
    /// A line without node, room and error.
    #[must_use]
    pub const fn new(time: u64, process: Process, kind: Kind, f: F, value: Value) -> Op {
        Op { time, process, kind, f, node: None, room: None, value, error: None, late: 0 }
    }

    /// An operation begins.
    #[must_use]
    pub const fn invoke(time: u64, process: Process, f: F, value: Value) -> Op {
        Op::new(time, process, Kind::Invoke, f, value)
    }

    /// This operation, completed at `time`, with what it returned.
    #[must_use]
    pub fn ok(&self, time: u64, value: Value) -> Op {
        Op { time, kind: Kind::Ok, value, late: 0, ..self.clone() }
    }

    /// This operation, which certainly did not take effect.
    #[must_use]
    pub fn fail(&self, time: u64, error: &str) -> Op {
        let error = Some(error.into());
        Op { time, kind: Kind::Fail, value: Value::None, error, late: 0, ..self.clone() }
    }

    /// This operation, whose outcome is unknown.
    #[must_use]
    pub fn info(&self, time: u64, error: &str) -> Op {
        let error = Some(error.into());
        Op { time, kind: Kind::Info, value: Value::None, error, late: 0, ..self.clone() }
    }

    /// An event came on a subscription.
    #[must_use]
    pub const fn delivery(time: u64, process: Process, subscription: u64, event: Event) -> Op {
        let value = Value::Delivery { subscription, seq: event.seq, id: event.id };
        Op::new(time, process, Kind::Ok, F::Deliver, value)
    }

    /// A fault starts or stops.
    #[must_use]
    pub fn nemesis(time: u64, fault: Fault) -> Op {
        let value = Value::Fault(Box::new(fault));
        Op::new(time, Process::NEMESIS, Kind::Info, F::Nemesis, value)
    }

    /// Says which node is asked.
    #[must_use]
    pub fn node(mut self, node: impl Into<Name>) -> Op {
        self.node = Some(node.into());
        self
    }

    /// Says in which room.
    #[must_use]
    pub fn room(mut self, room: impl Into<Name>) -> Op {
        self.room = Some(room.into());
        self
    }

    /// The events that this shows, of a page.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        if let Value::Page { events, .. } = &self.value { events } else { &[] }
    }
}
