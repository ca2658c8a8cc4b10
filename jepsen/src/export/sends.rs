//! All tries with one id as one send, for checkers that do not know of retries. A later acknowledgement
//! that names another place than the first is no send of theirs: it shows what is there.

use std::collections::HashMap;

use crate::history::{Event, History, Id, Kind, Name};

/// The lines of one id's send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merged {
    /// The first invoke of a try that did not definitely fail; of any, if all failed.
    pub(super) call: usize,
    /// The first `ok`; the last `fail`, if all failed; `None`: its outcome is unknown.
    pub(super) ret: Option<usize>,
    /// How it ended.
    pub(super) kind: Kind,
    /// How many tries there were.
    pub(super) tries: usize,
}

/// The sends of a history, by room and id.
pub(super) fn merge(history: &History) -> HashMap<(&Name, Id), Merged> {
    let mut sends: HashMap<(&Name, Id), Merged> = HashMap::new();
    for (line, op) in history.ops().iter().enumerate() {
        if op.kind != Kind::Invoke {
            continue;
        }
        let (Some((id, _)), Some(room)) = (op.value.written(), &op.room) else { continue };
        let end = history.partner(line);
        let ended = end.map(|end| &history.ops()[end]);
        let kind = match ended.map(|end| (end.kind, end.value.written())) {
            // An admin operation that wrote nothing.
            Some((Kind::Ok, Some((_, None)))) => Kind::Fail,
            Some((kind, _)) => kind,
            None => Kind::Info,
        };
        let this = Merged { call: line, ret: end, kind, tries: 1 };
        sends.entry((room, id)).and_modify(|send| send.merge(this)).or_insert(this);
    }
    sends
}

/// What a line acknowledges, if it is a later acknowledgement of its id, and names another place than the
/// first.
pub(super) fn told_again<'h>(
    history: &'h History,
    sends: &HashMap<(&'h Name, Id), Merged>,
    line: usize,
) -> Option<Event> {
    let op = &history.ops()[line];
    let (id, seq) = op.value.written().filter(|_| op.kind == Kind::Ok)?;
    let (seq, room) = (seq?, op.room.as_ref()?);
    let first = sends.get(&(room, id))?.end().filter(|first| *first != line)?;
    let (_, told) = history.ops()[first].value.written()?;
    (told != Some(seq)).then_some(Event { seq, id })
}

impl Merged {
    /// Adds a later try.
    fn merge(&mut self, later: Merged) {
        let tries = self.tries + 1;
        *self = match (self.kind, later.kind) {
            (Kind::Fail, Kind::Fail) => Merged { ret: self.ret.max(later.ret), ..*self },
            (Kind::Fail, _) => later,
            (_, Kind::Fail) => *self,
            (Kind::Ok, Kind::Ok) => Merged { ret: self.ret.min(later.ret), ..*self },
            (_, Kind::Ok) => Merged { ret: later.ret, kind: Kind::Ok, ..*self },
            _ => *self,
        };
        self.tries = tries;
    }

    /// The line that has its seq, or that says that there is none.
    pub(super) fn end(&self) -> Option<usize> {
        self.ret.filter(|_| self.kind != Kind::Info)
    }
}
