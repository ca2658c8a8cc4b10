//! A history as operations with a beginning and an end, for whatever is measured and drawn.

use std::collections::HashMap;

use crate::history::{F, History, Kind, Name, Op, Value};

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Ok,
    Fail,
    Info,
}

/// One operation of a client, or a delivery. Times are nanoseconds since the history began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    /// The line that begins it.
    pub line: u32,
    /// The line that ends it, if any does.
    pub end_line: Option<u32>,
    /// Its place in [`Operations::kinds`].
    pub kind: u16,
    /// Its place in [`Operations::nodes`].
    pub node: u16,
    /// Its place in [`Operations::rooms`].
    pub room: u32,
    pub begin_ns: u64,
    /// The end of the history, when the operation has none.
    pub end_ns: u64,
    pub outcome: Outcome,
}

impl Operation {
    pub(super) fn latency_ns(&self) -> u64 {
        self.end_ns - self.begin_ns
    }
}

/// All operations of a history, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Operations {
    /// What clients do, in the order of [`F::ALL`]; only what occurs.
    pub kinds: Vec<&'static str>,
    /// Sorted by name.
    pub nodes: Vec<String>,
    /// In the order in which they occur.
    pub rooms: Vec<String>,
    pub list: Vec<Operation>,
    /// When each delivery came, and from which node.
    pub deliveries: Vec<(u64, u16)>,
    /// How long the history is.
    pub span_ns: u64,
}

/// What has no node or room.
const NOWHERE: &str = "none";

/// A resend with another text is a kind of its own: it is meant to be refused, and its failures
/// are no trouble.
pub(super) const OTHER_TEXT: &str = "resend, other text";

fn kind(op: &Op) -> &'static str {
    match &op.value {
        Value::Write { other_body: true, .. } => OTHER_TEXT,
        _ => op.f.as_str(),
    }
}

/// Numbers for names, in the order in which they come.
#[derive(Default)]
struct Numbers {
    numbers: HashMap<Option<Name>, u32>,
    names: Vec<String>,
}

impl Numbers {
    fn of(&mut self, name: Option<&Name>) -> u32 {
        // Most lines have a name that is known.
        if let Some(number) = self.numbers.get(&name.cloned()) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.numbers.insert(name.cloned(), number);
        self.names.push(name.map_or(NOWHERE, Name::as_str).into());
        number
    }
}

impl Operations {
    pub(super) fn of(history: &History) -> Operations {
        let ops = history.ops();
        let Some((first, last)) = ops.first().zip(ops.last()) else { return Operations::default() };
        let span_ns = last.time - first.time;
        let (mut nodes, mut rooms) = (Numbers::default(), Numbers::default());
        let mut all = Operations { span_ns, ..Operations::default() };
        all.list.reserve(ops.len() / 2);
        let kinds: Vec<&'static str> = F::ALL
            .into_iter()
            .flat_map(|f| [Some(f.as_str()), (f == F::Resend).then_some(OTHER_TEXT)])
            .flatten()
            .collect();
        let mut used = vec![false; kinds.len()];
        for (line, op) in ops.iter().enumerate() {
            if op.f == F::Nemesis || (op.kind != Kind::Invoke && op.f != F::Deliver) {
                continue;
            }
            let node = nodes.of(op.node.as_ref()) as u16;
            let begin_ns = op.time - first.time;
            if op.f == F::Deliver {
                all.deliveries.push((begin_ns, node));
                continue;
            }
            let end = history.partner(line);
            let kind = kinds.iter().position(|name| *name == kind(op)).unwrap_or_default();
            used[kind] = true;
            all.list.push(Operation {
                line: line as u32,
                end_line: end.map(|end| end as u32),
                kind: kind as u16,
                node,
                room: rooms.of(op.room.as_ref()),
                begin_ns,
                end_ns: end.map_or(span_ns, |end| ops[end].time - first.time),
                outcome: match end.map(|end| ops[end].kind) {
                    Some(Kind::Ok) => Outcome::Ok,
                    Some(Kind::Fail) => Outcome::Fail,
                    _ => Outcome::Info,
                },
            });
        }
        all.rooms = rooms.names;
        all.keep_kinds(&kinds, &used);
        all.sort_nodes(nodes.names);
        all
    }

    fn keep_kinds(&mut self, kinds: &[&'static str], used: &[bool]) {
        let mut place = vec![0; kinds.len()];
        for (kind, name) in kinds.iter().enumerate().filter(|(kind, _)| used[*kind]) {
            place[kind] = self.kinds.len() as u16;
            self.kinds.push(name);
        }
        self.list.iter_mut().for_each(|op| op.kind = place[op.kind as usize]);
    }

    fn sort_nodes(&mut self, names: Vec<String>) {
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by_key(|node| &names[*node]);
        let mut place = vec![0; names.len()];
        for (new, old) in order.iter().enumerate() {
            place[*old] = new as u16;
        }
        self.nodes = order.iter().map(|old| names[*old].clone()).collect();
        self.list.iter_mut().for_each(|op| op.node = place[op.node as usize]);
        self.deliveries.iter_mut().for_each(|(_, node)| *node = place[*node as usize]);
    }

    /// Whether clients that do this show how well a cluster serves. A resend with another text is
    /// meant to be refused, and a final read waits for its node.
    pub(super) fn serves(&self, op: &Operation) -> bool {
        ["send", "resend", "read"].contains(&self.kinds[op.kind as usize])
    }
}
