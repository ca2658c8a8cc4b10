//! What happened around a witness: the operations of its room that bear on it, as lanes of
//! processes, in the order of the history's lines.
//!
//! The lines are evenly spaced, since what matters is what came before what: two operations that
//! contradict each other may be a microseconds apart, or a minute.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::check::witness;
use crate::history::{Event, F, History, Id, Kind, Op, Phase, Value};
use crate::report::html;

/// Operations beside the witness that are about the same message or place.
const RELATED_MAX: usize = 6;
/// Operations just before and just after each end of the witness.
const NEIGHBOURS: usize = 2;
/// Events of a page that are about the same.
const SHOWN_MAX: usize = 3;
/// Faults that start or stop in between.
const FAULTS_MAX: usize = 8;

/// A violation, as `check --json` writes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Violation {
    pub anomaly: String,
    pub room: Option<String>,
    pub what: String,
    pub witness: Vec<Witness>,
}

/// An operation of a witness.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Witness {
    pub operations: Vec<usize>,
    pub text: String,
}

/// An operation in a timeline.
#[derive(Debug, Serialize)]
pub(super) struct Bar {
    /// A place in [`Timeline::lanes`].
    pub lane: usize,
    /// Places in [`Timeline::times_ms`]; `to` is absent when it never ended.
    pub from: usize,
    pub to: Option<usize>,
    pub outcome: &'static str,
    /// A few words.
    pub label: String,
    /// Everything.
    pub text: String,
    /// The letter of a witness.
    pub witness: Option<char>,
}

/// A fault starts or stops.
#[derive(Debug, Serialize)]
pub(super) struct Mark {
    pub at: usize,
    pub text: String,
    pub witness: Option<char>,
}

/// A picture of a witness.
#[derive(Debug, Default, Serialize)]
pub(super) struct Timeline {
    pub lanes: Vec<String>,
    /// The times of the lines that are shown, in milliseconds since the history began.
    pub times_ms: Vec<f64>,
    pub bars: Vec<Bar>,
    pub marks: Vec<Mark>,
    /// Faults that were active somewhere between the first and the last witness.
    pub active: Vec<String>,
}

/// The lines of rooms that have a violation.
pub(super) struct Rooms<'h> {
    history: &'h History,
    lines: HashMap<String, Vec<usize>>,
    faults: Vec<usize>,
}

/// What a witness is about.
#[derive(Default)]
struct About {
    ids: BTreeSet<Id>,
    seqs: BTreeSet<u64>,
}

impl<'h> Rooms<'h> {
    pub(super) fn of(history: &'h History, violations: &[Violation]) -> Rooms<'h> {
        let rooms = violations.iter().filter_map(|violation| violation.room.clone());
        let mut lines: HashMap<String, Vec<usize>> = rooms.map(|room| (room, vec![])).collect();
        let mut faults = Vec::new();
        for (line, op) in history.ops().iter().enumerate() {
            if op.f == F::Nemesis {
                faults.push(line);
            } else if let Some(room) = &op.room
                && !lines.is_empty()
                && let Some(lines) = lines.get_mut(room.as_str())
            {
                lines.push(line);
            }
        }
        Rooms { history, lines, faults }
    }

    fn begin(&self, line: usize) -> usize {
        self.history.partner(line).map_or(line, |other| other.min(line))
    }

    fn end(&self, begin: usize) -> Option<usize> {
        match self.history.ops()[begin].kind {
            Kind::Invoke => self.history.partner(begin),
            _ => Some(begin),
        }
    }

    /// The picture; empty when the witness is not in this history.
    pub(super) fn timeline(&self, violation: &Violation) -> Timeline {
        let known = |line: &usize| *line < self.history.len();
        let first = violation.witness.iter().map(|w| w.operations.first().copied().filter(known));
        // By the order of the witnesses; a letter each.
        let letters: BTreeMap<usize, char> =
            first.zip('A'..='Z').filter_map(|(line, c)| Some((self.begin(line?), c))).collect();
        if letters.is_empty() {
            return Timeline::default();
        }
        let about = self.about(letters.keys().copied());
        let begins = self.choose(violation, &letters, &about);
        let ends = begins.iter().filter_map(|line| self.end(*line));
        let mut lines: BTreeSet<usize> = begins.iter().copied().chain(ends).collect();
        let span = lines.first().copied().zip(lines.last().copied()).unwrap_or_default();
        let mut marks: Vec<usize> =
            self.faults.iter().copied().filter(|line| (span.0..=span.1).contains(line)).collect();
        marks.sort_by_key(|line| letters.keys().map(|witness| witness.abs_diff(*line)).min());
        marks.truncate(FAULTS_MAX);
        lines.extend(marks);
        self.draw(&lines, &letters, &about)
    }

    fn about(&self, witnesses: impl Iterator<Item = usize>) -> About {
        let mut about = About::default();
        let mut pages: Vec<&Op> = Vec::new();
        for begin in witnesses {
            let ends = self.end(begin).into_iter();
            for op in std::iter::once(begin).chain(ends).map(|line| &self.history.ops()[line]) {
                if let Some((id, seq)) = op.value.written() {
                    about.ids.insert(id);
                    about.seqs.extend(seq);
                }
                if let Value::Delivery { seq, id, .. } = op.value {
                    about.ids.insert(id);
                    about.seqs.insert(seq);
                }
                if matches!(op.value, Value::Page { .. }) {
                    pages.push(op);
                }
            }
        }
        // Two pages that differ are about the first place where they do.
        if let [first, .., last] = &pages[..] {
            let ids: HashMap<u64, Id> = first.events().iter().map(|e| (e.seq, e.id)).collect();
            let differs = |event: &&Event| ids.get(&event.seq).is_none_or(|id| *id != event.id);
            about.seqs.extend(last.events().iter().find(differs).map(|event| event.seq));
        }
        about
    }

    /// The first lines of the operations to show.
    fn choose(
        &self,
        violation: &Violation,
        letters: &BTreeMap<usize, char>,
        about: &About,
    ) -> BTreeSet<usize> {
        let mut chosen: BTreeSet<usize> = letters.keys().copied().collect();
        let room = violation.room.as_ref().and_then(|room| self.lines.get(room));
        let Some(room) = room else { return chosen };
        let distance = |line: &usize| letters.keys().map(|w| w.abs_diff(*line)).min();
        let mut related: Vec<usize> = room
            .iter()
            .filter(|line| about.concerns(&self.history.ops()[**line]))
            .map(|line| self.begin(*line))
            .collect();
        related.sort_by_key(|line| (distance(line), *line));
        related.dedup();
        chosen.extend(related.into_iter().take(RELATED_MAX));
        let edges = letters.keys().flat_map(|begin| [Some(*begin), self.end(*begin)]);
        for edge in edges.flatten() {
            let at = room.partition_point(|line| *line < edge);
            let before = room[..at].iter().rev().take(NEIGHBOURS);
            let after = room[at..].iter().filter(|line| **line != edge).take(NEIGHBOURS);
            chosen.extend(before.chain(after).map(|line| self.begin(*line)));
        }
        chosen
    }

    fn draw(
        &self,
        lines: &BTreeSet<usize>,
        letters: &BTreeMap<usize, char>,
        about: &About,
    ) -> Timeline {
        let ops = self.history.ops();
        let place: HashMap<usize, usize> = lines.iter().copied().zip(0..).collect();
        let since = |line: &usize| ((ops[*line].time - ops[0].time) as f64 / 1e3).round() / 1e3;
        let mut timeline =
            Timeline { times_ms: lines.iter().map(since).collect(), ..Timeline::default() };
        let mut lanes: HashMap<String, usize> = HashMap::new();
        for line in lines.iter().filter(|line| self.begin(**line) == **line) {
            let (op, text) = (&ops[*line], witness::of(self.history, *line).text);
            let witness = letters.get(line).copied();
            if op.f == F::Nemesis {
                let text = html::sentence(&text);
                timeline.marks.push(Mark { at: place[line], text, witness });
                continue;
            }
            let name = match &op.node {
                Some(node) => format!("process {} on {node}", op.process),
                None => format!("process {}", op.process),
            };
            let lane = *lanes.entry(name).or_insert_with_key(|name| {
                timeline.lanes.push(html::name(name));
                timeline.lanes.len() - 1
            });
            let end = self.end(*line);
            let mut label = label(op, end.map(|end| &ops[end]));
            for event in about.shown(end.map(|end| &ops[end])) {
                label.push_str(&format!(", {}: {}", event.seq, short(event.id)));
            }
            timeline.bars.push(Bar {
                lane,
                from: place[line],
                to: end.map(|end| place[&end]),
                outcome: end.map_or("info", |end| ops[end].kind.as_str()),
                label: html::name(&label),
                text: html::sentence(&(text + &about.shown_in_words(end.map(|end| &ops[end])))),
                witness,
            });
        }
        timeline.active = self.active(letters);
        timeline
    }

    /// The faults between the first and the last witness.
    fn active(&self, letters: &BTreeMap<usize, char>) -> Vec<String> {
        let Some((first, last)) = letters.keys().next().zip(letters.keys().last()) else {
            return vec![];
        };
        let last = self.end(*last).unwrap_or(*last);
        let (mut open, mut seen) = (BTreeSet::new(), BTreeSet::new());
        for line in self.faults.iter().take_while(|line| **line <= last) {
            let Value::Fault(fault) = &self.history.ops()[*line].value else { continue };
            let name = html::name(fault.fault.as_str());
            if fault.phase == Phase::Start {
                open.insert(name.clone());
                if line >= first {
                    seen.insert(name);
                }
            } else if fault.phase == Phase::Stop {
                open.remove(&name);
                if line >= first {
                    seen.insert(name);
                }
            }
        }
        open.into_iter().chain(seen).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

impl About {
    fn concerns(&self, op: &Op) -> bool {
        let place = |seq: &u64, id: &Id| self.seqs.contains(seq) || self.ids.contains(id);
        match &op.value {
            Value::Delivery { seq, id, .. } => place(seq, id),
            Value::Page { events, .. } => events.iter().any(|event| place(&event.seq, &event.id)),
            value => value.written().is_some_and(|(id, seq)| place(&seq.unwrap_or(0), &id)),
        }
    }

    /// What a page shows of what this is about.
    fn shown<'h>(&self, end: Option<&'h Op>) -> impl Iterator<Item = &'h Event> {
        let events = end.map_or(&[][..], Op::events).iter();
        let these = |e: &&Event| self.seqs.contains(&e.seq) || self.ids.contains(&e.id);
        events.filter(move |event| these(event)).take(SHOWN_MAX)
    }

    /// The same at the end of a sentence.
    fn shown_in_words(&self, end: Option<&Op>) -> String {
        let events: Vec<String> =
            self.shown(end).map(|event| format!("{} at seq {}", event.id, event.seq)).collect();
        if events.is_empty() { String::new() } else { format!("; shows {}", events.join(", ")) }
    }
}

fn short(id: Id) -> String {
    let text = id.to_string();
    let skipped = text.chars().count().saturating_sub(6);
    if skipped <= 2 { text } else { "…".chars().chain(text.chars().skip(skipped)).collect() }
}

fn label(begin: &Op, end: Option<&Op>) -> String {
    let asked = match &begin.value {
        Value::Write { id, other_body, .. } => {
            let other = if *other_body { ", other text" } else { "" };
            format!("{} {}{other}", begin.f.as_str(), short(*id))
        }
        Value::Delivery { seq, id, .. } => return format!("deliver {seq}: {}", short(*id)),
        Value::Admin(admin) => admin.what.to_string(),
        _ => begin.f.as_str().into(),
    };
    let answer = match end.map(|end| (end.kind, &end.value)) {
        None => Some("?".into()),
        Some((Kind::Fail, _)) => Some("failed".into()),
        Some((Kind::Info, _)) => Some("unknown".into()),
        Some((_, Value::Page { head, .. })) => Some(format!("head {head}")),
        Some((_, Value::Chain { seq, .. })) => Some(format!("seq {seq}")),
        Some((_, Value::Subscription { head: Some(head), .. })) => Some(format!("head {head}")),
        Some((_, value)) => {
            value.written().and_then(|(_, seq)| seq).map(|seq| format!("seq {seq}"))
        }
    };
    answer.map_or(asked.clone(), |answer| format!("{asked} → {answer}"))
}
