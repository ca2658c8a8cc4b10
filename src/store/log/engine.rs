//! raft-engine behind an object-safe trait, so that nothing above needs its file system's type; and
//! two of its habits, contained.
//!
//! It caches the last block that a *thread* read by position alone, without saying in which engine:
//! with two engines in one process (the simulator, a test, a log opened again), a thread could read,
//! and a purge even write on, another log's entries. [`Cached`] sees to it that one thread's cache
//! serves one engine, and has a thread for reads that come from where the cache is another's.
//!
//! Some of its failures are panics. While opening, nothing is at stake yet, and they are caught and
//! reported; later ones are the callers' affair (see [`super::Log::write`]).

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;

use protobuf::well_known_types::BytesValue;
use raft_engine::env::FileSystem;
use raft_engine::internals::LogQueue;
use raft_engine::{Config, LogBatch, ReadableSize, RecoveryMode};

use super::LogOptions;
use super::careful_fs::Careful;
use super::error::{Problem, from_engine, invalid};
use super::format::{self, Queue};
use super::state::Entry;

/// What the log needs of raft-engine.
pub(super) trait Engine: Send + Sync {
    fn write(&self, batch: &mut LogBatch) -> raft_engine::Result<usize>;
    /// All entries of a range, which must exist, as far as they fit; one at least.
    fn fetch(
        &self,
        group: u64,
        range: Range<u64>,
        max_bytes: usize,
    ) -> raft_engine::Result<Vec<BytesValue>>;
    fn span(&self, group: u64) -> Option<(u64, u64)>;
    fn get(&self, group: u64, key: &[u8]) -> Option<Vec<u8>>;
    fn groups(&self) -> Vec<u64>;
    fn purge(&self) -> raft_engine::Result<Vec<u64>>;
    /// Copies whatever is live into new files and drops the old ones.
    fn rewrite_everything(&self);
    /// Number of the append file in use.
    fn append_file(&self) -> u64;
    fn used_bytes(&self) -> usize;
    /// Deletes the files in the directory that are in no queue.
    fn delete_strays(&self) -> io::Result<()>;
}

struct Opened<F: FileSystem> {
    engine: raft_engine::Engine<F>,
    fs: Arc<F>,
    directory: PathBuf,
}

impl<F: FileSystem> Engine for Opened<F> {
    fn write(&self, batch: &mut LogBatch) -> raft_engine::Result<usize> {
        self.engine.write(batch, !mutant!(LogNotSynced))
    }

    fn fetch(
        &self,
        group: u64,
        range: Range<u64>,
        max_bytes: usize,
    ) -> raft_engine::Result<Vec<BytesValue>> {
        let mut entries = Vec::new();
        let (from, to) = (range.start, range.end);
        self.engine.fetch_entries_to::<Entry>(group, from, to, Some(max_bytes), &mut entries)?;
        Ok(entries)
    }

    fn span(&self, group: u64) -> Option<(u64, u64)> {
        self.engine.first_index(group).zip(self.engine.last_index(group))
    }

    fn get(&self, group: u64, key: &[u8]) -> Option<Vec<u8>> {
        self.engine.get(group, key)
    }

    fn groups(&self) -> Vec<u64> {
        self.engine.raft_groups()
    }

    fn purge(&self) -> raft_engine::Result<Vec<u64>> {
        self.engine.purge_expired_files()
    }

    fn rewrite_everything(&self) {
        let manager = self.engine.purge_manager();
        manager.must_rewrite_append_queue(None, None);
        manager.must_rewrite_rewrite_queue();
    }

    fn append_file(&self) -> u64 {
        self.engine.file_span(LogQueue::Append).1
    }

    fn used_bytes(&self) -> usize {
        self.engine.get_used_size()
    }

    fn delete_strays(&self) -> io::Result<()> {
        for (queue, theirs) in QUEUES {
            let (first, last) = self.engine.file_span(theirs);
            for (number, path) in format::list(&self.directory, queue)? {
                if !(first..=last).contains(&number) {
                    self.fs.delete(path)?;
                }
            }
        }
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(format::is_reserved) {
                self.fs.delete(entry.path())?;
            }
        }
        std::fs::File::open(&self.directory)?.sync_all()
    }
}

/// raft-engine's two queues, ours and theirs.
const QUEUES: [(Queue, LogQueue); 2] =
    [(Queue::Append, LogQueue::Append), (Queue::Rewrite, LogQueue::Rewrite)];

/// Opens raft-engine, which cuts off a torn end and deletes recycled files; but not when anything
/// fails to be read (`careful_fs.rs`).
///
/// raft-engine passes over a file that the system fails to tell it of; that is a failed read, too.
pub(super) fn open<F: FileSystem + 'static>(
    options: &LogOptions,
    fs: &Arc<F>,
) -> Result<Cached, Problem> {
    let directory = &options.directory;
    let config = config(options)?;
    let mut listed = Vec::new();
    for (queue, _) in QUEUES {
        let mut files = format::list(directory, queue)?;
        format::after_gap(&mut files);
        listed.push(files);
    }
    let paths = listed.iter().flatten().map(|(_, path)| path.clone());
    let fs = Arc::new(Careful::new(fs.clone(), paths.collect()));
    // A panic leaves no engine behind, and files on which the next attempt fails the same way.
    let engine = catch_unwind(AssertUnwindSafe(|| {
        let engine = raft_engine::Engine::open_with_file_system(config, fs.clone())?;
        for ((_, queue), files) in QUEUES.iter().zip(&listed) {
            let (first, last) = engine.file_span(*queue);
            let missing = files.iter().find(|(number, _)| !(first..=last).contains(number));
            missing
                .map_or(Ok(()), |(_, path)| fs.overlooked(path))
                .map_err(raft_engine::Error::Io)?;
        }
        // Closed in here, where its panics are caught, if it is not to be used.
        fs.opened().map(|()| engine).map_err(raft_engine::Error::Io)
    }));
    // Whatever raft-engine made of it.
    fs.opened().map_err(Problem::Io)?;
    let engine = match engine {
        Ok(result) => result.map_err(problem)?,
        Err(panic) => return Err(Problem::Damaged(panic_text(&*panic))),
    };
    // The names of the first files; those of later ones raft-engine syncs.
    std::fs::File::open(directory)?.sync_all()?;
    Ok(Cached::new(Arc::new(Opened { engine, fs, directory: directory.clone() })))
}

pub(super) fn config(options: &LogOptions) -> io::Result<Config> {
    let path = options.directory.to_str();
    Ok(Config {
        dir: path.ok_or_else(|| invalid("the path is not UTF-8".into()))?.to_owned(),
        recovery_mode: RecoveryMode::TolerateTailCorruption,
        target_file_size: ReadableSize(options.target_file_bytes),
        purge_threshold: ReadableSize(options.purge_threshold_bytes),
        recovery_threads: options.recovery_threads,
        ..Config::default()
    })
}

fn problem(error: raft_engine::Error) -> Problem {
    use raft_engine::Error;
    match error {
        Error::Codec(_) | Error::Protobuf(_) => Problem::Damaged(error.to_string()),
        // It wanted to cut off the end of a file that it had opened for reading.
        Error::Io(e) if e.kind() == io::ErrorKind::InvalidInput => Problem::Damaged(e.to_string()),
        error => from_engine(error).into(),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("raft-engine panicked").to_owned()
}

/// An engine, and the rule about caches.
pub(super) struct Cached {
    id: u64,
    /// Started when it is first needed. A node has one engine, and never comes to that. Dropped
    /// before the engine, which so closes on the thread that drops this.
    reader: OnceLock<Reader>,
    engine: Arc<dyn Engine>,
}

/// Engines opened by this process so far.
static OPENED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The engine whose blocks this thread's cache holds; 0 when it is empty.
    static OWNER: Cell<u64> = const { Cell::new(0) };
}

impl Cached {
    fn new(engine: Arc<dyn Engine>) -> Cached {
        let id = OPENED.fetch_add(1, Ordering::Relaxed) + 1;
        Cached { id, reader: OnceLock::new(), engine }
    }

    /// The engine, for anything that reads no entry.
    pub fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// Reads entries: on this thread if its cache is empty or this engine's, else on the engine's
    /// own.
    pub fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Engine) -> R + Send + 'static,
    ) -> R {
        match OWNER.get() {
            owner if owner == 0 || owner == self.id => {
                OWNER.set(self.id);
                read(&*self.engine)
            }
            _ => self.reader.get_or_init(|| Reader::start(self.engine.clone())).run(read),
        }
    }
}

/// A thread that reads from one engine only.
struct Reader {
    /// `None` once the thread is to end.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

type Job = Box<dyn FnOnce(&dyn Engine) + Send>;

impl Reader {
    fn start(engine: Arc<dyn Engine>) -> Reader {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::spawn(move || queue.into_iter().for_each(|job| job(&*engine)));
        Reader { jobs: Some(jobs), thread: Some(thread) }
    }

    /// Runs a job there, and waits for it.
    fn run<R: Send + 'static>(&self, job: impl FnOnce(&dyn Engine) -> R + Send + 'static) -> R {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move |engine| {
            let result = catch_unwind(AssertUnwindSafe(|| job(engine)));
            done.send(result).expect("who asked waits");
        });
        let jobs = self.jobs.as_ref().expect("the thread ends with the reader");
        jobs.send(job).expect("jobs catch their panics");
        let result = result.recv().expect("a job answers");
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Reader {
    /// Returns once the thread has let go of the engine.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("jobs catch their panics");
        }
    }
}
