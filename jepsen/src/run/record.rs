//! Writes the history while it happens: one lock, then the time, then the line.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::history::{Admin, F, Fault, Kind, Name, Op, Phase, Process, Value, Writer};
use crate::run::client::Outcome;

/// The history of a run, as it is written.
#[derive(Debug)]
pub struct Recorder {
    begin: Instant,
    state: Mutex<State>,
    processes: AtomicU32,
    subscriptions: AtomicU64,
    /// Sends and reads that were ok.
    ok: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// `None` once it is finished.
    writer: Option<Writer<BufWriter<File>>>,
    /// The first error of the file; nothing is written after it.
    error: Option<io::Error>,
    /// Time stamps never go back: the clock is read under the lock.
    faults: Vec<Name>,
    rooms: BTreeSet<Name>,
}

impl Recorder {
    /// Begins a history in a new file.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn create(path: &Path) -> io::Result<Recorder> {
        let writer = Writer::new(BufWriter::with_capacity(1 << 18, File::create_new(path)?))?;
        Ok(Recorder {
            begin: Instant::now(),
            state: Mutex::new(State {
                writer: Some(writer),
                error: None,
                faults: vec![],
                rooms: BTreeSet::new(),
            }),
            processes: AtomicU32::new(0),
            subscriptions: AtomicU64::new(0),
            ok: AtomicU64::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process that did nothing yet.
    pub fn process(&self) -> Process {
        Process(self.processes.fetch_add(1, Ordering::Relaxed))
    }

    /// A number for a subscription.
    pub fn subscription(&self) -> u64 {
        self.subscriptions.fetch_add(1, Ordering::Relaxed)
    }

    /// How many sends and reads were ok so far.
    pub fn ok_count(&self) -> u64 {
        self.ok.load(Ordering::Relaxed)
    }

    /// What a line that were written now would have as its time, in nanoseconds.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The faults that are active now.
    pub fn faults(&self) -> Vec<String> {
        self.state().faults.iter().map(ToString::to_string).collect()
    }

    /// Every room that something was asked about.
    pub fn rooms(&self) -> Vec<Name> {
        self.state().rooms.iter().cloned().collect()
    }

    /// Writes a line, with the time of now.
    pub fn push(&self, mut op: Op) {
        let mut state = self.state();
        op.time = self.now();
        if op.kind == Kind::Ok && matches!(op.f, F::Send | F::Resend | F::Read) {
            self.ok.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(room) = &op.room
            && !state.rooms.contains(room)
        {
            state.rooms.insert(room.clone());
        }
        if state.error.is_none()
            && let Some(writer) = &mut state.writer
            && let Err(error) = writer.write(&op)
        {
            state.error = Some(error);
        }
    }

    /// An operation begins; record its end with [`Recorder::end`].
    pub fn begin(&self, process: Process, f: F, node: &str, room: &Name, value: Value) -> Op {
        self.begin_late(process, f, node, room, value, Duration::ZERO)
    }

    /// An operation begins that was due so long ago.
    pub fn begin_late(
        &self,
        process: Process,
        f: F,
        node: &str,
        room: &Name,
        value: Value,
        late: Duration,
    ) -> Op {
        let mut op = Op::invoke(0, process, f, value).node(node).room(room);
        op.late = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
        self.push(op.clone());
        op
    }

    /// Records an operation's end; returns the process that goes on.
    pub fn end<T>(&self, op: &Op, outcome: &Outcome<T>, ok: impl FnOnce(&T) -> Value) -> Process {
        match outcome {
            Outcome::Ok(answer) => self.push(op.ok(0, ok(answer))),
            Outcome::Failed(why) => self.push(op.fail(0, why)),
            Outcome::Unknown(why) => {
                self.push(op.info(0, why));
                return self.process();
            }
        }
        op.process
    }

    /// A node is gone for good, and nothing is to be read on it.
    pub fn gone(&self, node: &str) {
        let op = Op::invoke(0, self.process(), F::Admin, Value::Admin(Box::new(Admin::gone())));
        let op = op.node(node);
        self.push(op.clone());
        self.push(op.ok(0, op.value.clone()));
    }

    /// A fault begins (before it is injected) or ends (after it is healed).
    pub fn fault(&self, fault: &str, phase: Phase, on: &[String], majority: Option<bool>) {
        let name = Name::from(fault);
        let on = on.iter().map(|node| Name::from(node.as_str())).collect();
        self.push(Op::nemesis(0, Fault { fault: name.clone(), phase, on, majority }));
        let mut state = self.state();
        match phase {
            Phase::Start => state.faults.push(name),
            Phase::Stop => state.faults.retain(|active| *active != name),
        }
    }

    /// Lets what was written so far reach the file.
    ///
    /// # Errors
    ///
    /// The first that the file ever had.
    pub fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        if let Some(error) = &state.error {
            return Err(io::Error::new(error.kind(), error.to_string()));
        }
        match &mut state.writer {
            Some(writer) => writer.flush(),
            None => Ok(()),
        }
    }

    /// Ends the file. Whatever is recorded afterwards is dropped.
    ///
    /// # Errors
    ///
    /// The first that the file ever had.
    pub fn finish(&self) -> io::Result<()> {
        self.flush()?;
        let writer = self.state().writer.take();
        match writer {
            Some(writer) => writer.finish()?.flush(),
            None => Ok(()),
        }
    }
}
