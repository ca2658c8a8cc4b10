//! A life of a real log on a simulated disk, with a model beside it that knows what must be there.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use folkmoot::id::ShardId;
use folkmoot::store::log::{Log, LogOptions, OpenError, Write, is_no_space};

use super::*;

const GROUPS: [ShardId; 3] = [ShardId(0), ShardId(1), ShardId(2)];

/// What a group should be, the simple way.
#[derive(Debug, Clone, Default, PartialEq)]
struct Group {
    vote: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    entries: BTreeMap<u64, Bytes>,
}

type Model = BTreeMap<ShardId, Group>;

/// How the disk treats a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disks {
    /// Power cuts, kills, failing calls and a full disk.
    Rough,
    /// The same, and syncs lie.
    Lying,
    /// Only kills.
    Kind,
}

/// A log, and what it must hold.
pub(super) struct Life {
    pub disk: Disk,
    rng: SmallRng,
    log: Option<Log>,
    /// What was acknowledged.
    acknowledged: Model,
    /// That, and what a write that failed may have left.
    attempted: Model,
    kind: Disks,
    steps: u8,
}

/// A log of small files.
pub(super) fn options(directory: PathBuf) -> LogOptions {
    LogOptions {
        target_file_bytes: 4 << 10,
        purge_threshold_bytes: 16 << 10,
        recovery_threads: 1,
        ..LogOptions::new(directory)
    }
}

impl Life {
    pub fn new(seed: u64, kind: Disks) -> Life {
        let disk = Disk::new(seed);
        if kind == Disks::Lying {
            disk.arm(DiskFault::LyingSyncs);
        }
        Life {
            disk,
            rng: SmallRng::seed_from_u64(seed),
            log: None,
            acknowledged: Model::new(),
            attempted: Model::new(),
            kind,
            steps: 0,
        }
    }

    /// Lives for some steps, and ends with the log closed.
    ///
    /// # Errors
    /// What went wrong.
    pub fn live(&mut self, steps: u64) -> Result<(), String> {
        for _ in 0..steps {
            self.step()?;
        }
        self.close();
        Ok(())
    }

    /// One write, or something that happens to the node.
    fn step(&mut self) -> Result<(), String> {
        self.steps = self.steps.wrapping_add(1);
        if self.log.is_none() {
            self.open()?.map_err(|e| e.to_string())?;
        }
        let log = self.log.as_ref().expect("it was opened");
        match self.rng.random_range(0..100) {
            0..70 => return self.write(),
            70..78 => self.survive(|log| log.maintain().map(drop)),
            78..82 => self.survive(Log::sync_watermark),
            82..84 => self.close(),
            84..87 => self.die(Disk::stop_process),
            _ if self.kind == Disks::Kind => self.check(log)?,
            87..91 => self.die(Disk::crash),
            91..95 => self.arm(),
            95..97 => {
                let room = self.rng.random_range(0..2000);
                self.disk.capacity(Some(self.disk.used_bytes() + room));
            }
            97..98 => self.survive(Log::compact_fully),
            _ => self.disk.capacity(None),
        }
        Ok(())
    }

    fn arm(&mut self) {
        let nth = self.rng.random_range(1..8);
        self.disk.arm(match self.rng.random_range(0..10) {
            0..4 => DiskFault::PowerCutAtSync { nth },
            4..8 => DiskFault::PowerCutAtWrite { nth },
            8 => DiskFault::Syncs { nth },
            _ => DiskFault::Writes { nth },
        });
    }

    /// Opens the log, again if faults struck meanwhile, and checks what it holds. The inner error is
    /// the log's refusal.
    ///
    /// # Errors
    /// When something acknowledged is missing, or something is there that never was.
    pub fn open(&mut self) -> Result<Result<(), OpenError>, String> {
        loop {
            let incarnation = self.disk.boot();
            let options = options(incarnation.directory);
            let opening = catch_unwind(AssertUnwindSafe(|| {
                Log::open_with_file_system(options, incarnation.fs)
            }));
            match opening {
                Ok(Ok(log)) => {
                    self.check(&log)?;
                    self.acknowledged = read(&log)?;
                    self.attempted = self.acknowledged.clone();
                    self.log = Some(log);
                    return Ok(Ok(()));
                }
                Ok(Err(OpenError::Io { .. })) | Err(_) => {
                    self.heal();
                    self.disk.capacity(None);
                }
                Ok(Err(refusal)) => return Ok(Err(refusal)),
            }
        }
    }

    fn check(&self, log: &Log) -> Result<(), String> {
        let found = read(log)?;
        match found == self.acknowledged || found == self.attempted {
            true => Ok(()),
            false => {
                let [found, acknowledged] = [&found, &self.acknowledged].map(outline);
                Err(format!("found {found:?}, acknowledged {acknowledged:?}"))
            }
        }
    }

    fn write(&mut self) -> Result<(), String> {
        let mut writes = Vec::new();
        for _ in 0..self.rng.random_range(1..4) {
            let group = GROUPS[self.rng.random_range(0..GROUPS.len())];
            let model = self.attempted.entry(group).or_default();
            writes.push(model.step(group, self.steps, &mut self.rng));
        }
        self.attempted.retain(|_, group| *group != Group::default());
        let log = self.log.as_ref().expect("a step opens it");
        match catch_unwind(AssertUnwindSafe(|| log.write(&writes))) {
            Ok(Ok(_)) => {
                self.acknowledged = self.attempted.clone();
                self.check(log)?;
            }
            // Nothing was written, it says.
            Ok(Err(e)) if is_no_space(&e) => {
                self.attempted = self.acknowledged.clone();
                if self.rng.random() {
                    self.disk.capacity(None);
                }
            }
            // The process aborts.
            Ok(Err(_)) | Err(_) => self.die(Disk::stop_process),
        }
        Ok(())
    }

    /// Calls the log; what fails, as far as it is not for want of space, ends the process.
    fn survive(&mut self, call: impl FnOnce(&Log) -> io::Result<()>) {
        let log = self.log.as_ref().expect("a step opens it");
        match catch_unwind(AssertUnwindSafe(|| call(log))) {
            Ok(Ok(())) => {}
            Ok(Err(e)) if is_no_space(&e) => {}
            Ok(Err(_)) | Err(_) => self.die(Disk::stop_process),
        }
    }

    fn die(&mut self, how: impl FnOnce(&Disk)) {
        if self.disk.has_power() {
            how(&self.disk);
        }
        if self.rng.random() {
            self.heal();
        }
        self.close();
    }

    fn heal(&self) {
        self.disk.heal();
        if self.kind == Disks::Lying {
            self.disk.arm(DiskFault::LyingSyncs);
        }
    }

    /// Closes the log; a panic, as of raft-engine when the last sync fails, ends the process.
    fn close(&mut self) {
        let log = self.log.take();
        let closed = catch_unwind(AssertUnwindSafe(|| drop(log)));
        if closed.is_err() && self.disk.has_power() {
            self.disk.stop_process();
        }
    }
}

/// A model short enough to read.
fn outline(model: &Model) -> Vec<String> {
    let group = |(shard, group): (&ShardId, &Group)| {
        let tags = |(i, payload): (&u64, &Bytes)| format!("{i}:{}", payload[0]);
        let entries = Vec::from_iter(group.entries.iter().map(tags)).join(" ");
        format!("{shard}: {:?} {:?} {entries}", group.vote, group.purged)
    };
    model.iter().map(group).collect()
}

fn read(log: &Log) -> Result<Model, String> {
    let mut model = Model::new();
    for group in log.groups() {
        let state = log.group(group);
        let entries = log.entries(group, 0..u64::MAX, usize::MAX).map_err(|e| e.to_string())?;
        let ends = |entries: &[(u64, Bytes)]| Some((entries.first()?.0, entries.last()?.0));
        if ends(&entries) != state.first.zip(state.last) {
            return Err(format!("{state:?}, but entries {:?}", ends(&entries)));
        }
        let entries = entries.into_iter().collect();
        let group_model = Group { vote: state.vote, purged: state.purged, entries };
        if group_model != Group::default() {
            model.insert(group, group_model);
        }
    }
    Ok(model)
}

impl Group {
    /// A write that is possible now, and its effect.
    fn step(&mut self, group: ShardId, tag: u8, rng: &mut SmallRng) -> Write {
        let base = self.purged.as_ref().map_or(0, |(purged, _)| purged + 1);
        let next = self.entries.keys().next_back().map_or(base, |last| last + 1);
        let first = self.entries.keys().next().copied().unwrap_or(next);
        match rng.random_range(0..10) {
            0..6 => {
                // Mostly at the end, as Raft does.
                let from = match rng.random_range(0..4) {
                    0 => rng.random_range(first..=next),
                    _ => next,
                };
                self.entries.retain(|index, _| *index < from);
                let count = rng.random_range(1..10);
                let payload = |i: u64| Bytes::from(vec![tag; 10 + (i * 37 % 200) as usize]);
                let entries: Vec<_> = (from..from + count).map(|i| (i, payload(i))).collect();
                self.entries.extend(entries.iter().cloned());
                Write::Append { group, entries }
            }
            6 => {
                let kept = rng.random_range(base..=next).checked_sub(1);
                self.entries.retain(|index, _| Some(*index) <= kept);
                Write::TruncateAfter { group, kept }
            }
            7 => {
                let vote = Bytes::from(vec![tag; 5]);
                self.vote = Some(vote.clone());
                Write::Vote { group, vote }
            }
            _ => {
                let beyond = if rng.random_range(0..10) == 0 { 20 } else { 0 };
                let upto = rng.random_range(base.saturating_sub(1)..=next) + beyond;
                self.entries.retain(|index, _| *index > upto);
                let log_id = Bytes::from(format!("id{upto}"));
                self.purged = Some((upto, log_id.clone()));
                Write::Purge { group, upto, log_id }
            }
        }
    }
}
