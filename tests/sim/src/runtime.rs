//! The runtime of simulated nodes: openraft's deterministic one, divided into processes that can
//! be killed and paused.
//!
//! A task belongs to the process in which it was spawned. Killing a process drops its tasks where
//! they stand; pausing it leaves them unpolled, while time, timers and the network go on. The order
//! of tasks, first in, first out in openraft's runtime, is shuffled: now and then a task is put at
//! the end of the queue instead of being polled.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use folkmoot::shard::runtime::{AsyncRuntime, Runtime, Wake, Writing};
use openraft_rt_sim::{SimInstant, SimJoinError, SimRuntime, SimSleep, SimTimeout};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

use crate::output;

/// How the simulated machine behaves: what is random about its tasks and disks.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Of a thousand polls, how many are put off.
    pub put_off_per_mille: u32,
    /// How long a write with its fsync takes.
    pub fsync: (Duration, Duration),
    /// How long other work on the disk takes.
    pub blocking: (Duration, Duration),
}

struct Here {
    rng: SmallRng,
    machine: Machine,
    process: Option<Arc<Process>>,
    panics: Vec<Panic>,
    polls: u64,
}

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

fn here<T>(with: impl FnOnce(&mut Here) -> T) -> T {
    HERE.with_borrow_mut(|here| with(here.as_mut().expect("called inside a life")))
}

/// Runs a life on this thread.
pub fn run<T>(seed: u64, machine: Machine, life: impl Future<Output = T>) -> T {
    let rng = SmallRng::seed_from_u64(seed ^ 0x5eed);
    let here = Here { rng, machine, process: None, panics: vec![], polls: 0 };
    HERE.set(Some(here));
    let mut runtime = SimRuntime::with_seed(seed);
    let result = runtime.block_on(life);
    drop(runtime);
    HERE.set(None);
    result
}

/// Starts a task that belongs to no process, whoever starts it.
pub fn spawn_outside(task: impl Future<Output = ()> + Send + 'static) {
    let before = here(|here| here.process.take());
    drop(Sim::spawn(task));
    here(|here| here.process = before);
}

/// Panics of processes since the last call.
pub fn take_panics() -> Vec<Panic> {
    here(|here| std::mem::take(&mut here.panics))
}

/// How many times a process' tasks were polled.
pub fn polls() -> u64 {
    here(|here| here.polls)
}

/// A random time in a range.
pub fn between(range: (Duration, Duration)) -> Duration {
    here(|here| {
        let (from, to) = (range.0.as_nanos() as u64, range.1.as_nanos() as u64);
        Duration::from_nanos(here.rng.random_range(from..=to.max(from)))
    })
}

/// Changes how long writes take from now on.
pub fn set_fsync(fsync: (Duration, Duration)) {
    here(|here| here.machine.fsync = fsync);
}

/// Virtual time since the life began.
pub fn elapsed() -> Duration {
    SimInstant::try_now().map_or(Duration::ZERO, SimInstant::elapsed_since_start)
}

type BoxedTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A simulated process: the tasks that are killed and paused together.
pub struct Process {
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    tasks: BTreeMap<u64, Option<BoxedTask>>,
    dead: bool,
    paused: bool,
    /// Wakes what wanted to run while it was paused.
    held: Vec<Waker>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Process {
    /// A process without tasks.
    pub fn new(name: impl Into<String>) -> Arc<Process> {
        Arc::new(Process { name: name.into(), state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Does something as this process: tasks that it spawns belong to it.
    pub fn enter<T>(self: &Arc<Self>, act: impl FnOnce() -> T) -> T {
        let before = here(|here| here.process.replace(self.clone()));
        let result = catch_unwind(AssertUnwindSafe(act));
        here(|here| here.process = before);
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Starts a task of this process.
    pub fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.enter(|| Sim::spawn(task))
    }

    /// Whether it has ended.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// Lets it do nothing more. Its tasks are dropped by [`Process::bury`].
    pub fn kill(&self) {
        self.lock().dead = true;
    }

    /// Drops what a killed process left.
    pub fn bury(self: &Arc<Self>) {
        let (tasks, held) = {
            let mut state = self.lock();
            assert!(state.dead, "only the dead are buried");
            (std::mem::take(&mut state.tasks), std::mem::take(&mut state.held))
        };
        self.enter(|| drop(tasks));
        for waker in held {
            waker.wake();
        }
    }

    /// Stops and continues it, as SIGSTOP and SIGCONT do.
    pub fn pause(&self, paused: bool) {
        let held = {
            let mut state = self.lock();
            state.paused = paused;
            if paused { vec![] } else { std::mem::take(&mut state.held) }
        };
        for waker in held {
            waker.wake();
        }
    }

    /// Waits while it is paused.
    pub async fn resumed(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.lock();
            if state.paused && !state.dead {
                state.held.push(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    fn poll(self: &Arc<Self>, id: u64, cx: &mut Context<'_>) -> Poll<()> {
        let mut task = {
            let mut state = self.lock();
            if state.dead {
                return Poll::Ready(());
            }
            if state.paused {
                state.held.push(cx.waker().clone());
                return Poll::Pending;
            }
            match state.tasks.get_mut(&id).and_then(Option::take) {
                Some(task) => task,
                None => return Poll::Ready(()),
            }
        };
        let polled = catch_unwind(AssertUnwindSafe(|| self.enter(|| task.as_mut().poll(cx))));
        match polled {
            Ok(Poll::Pending) => {
                let mut state = self.lock();
                if let Some(slot) = state.tasks.get_mut(&id) {
                    *slot = Some(task);
                    return Poll::Pending;
                }
                drop(state);
            }
            Ok(Poll::Ready(())) => {
                self.lock().tasks.remove(&id);
            }
            Err(panic) => {
                if !panic.is::<Aborted>() {
                    let text = panic_text(&*panic);
                    let panic = Panic { process: self.name.clone(), at: PANICKED_AT.take(), text };
                    here(|here| here.panics.push(panic));
                }
                self.kill();
            }
        }
        self.enter(|| drop(task));
        Poll::Ready(())
    }
}

thread_local! {
    /// Where this thread panicked last.
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps panics inside lives quiet: they are reported with the life that they end.
pub fn quiet_panics() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let inside = HERE.try_with(|here| here.try_borrow().is_ok_and(|here| here.is_some()));
        if inside != Ok(true) {
            return loud(info);
        }
        if std::env::var_os("FOLKMOOT_SIM_PANICS").is_some() {
            output::tell(format_args!("{}", std::backtrace::Backtrace::force_capture()));
            loud(info);
        }
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        PANICKED_AT.set(at);
    }));
}

/// A process' end by a panic.
#[derive(Debug, Clone)]
pub struct Panic {
    process: String,
    at: String,
    /// What it said.
    pub text: String,
}

impl Panic {
    /// Whether a process whose name begins so panicked.
    pub fn is_of(&self, prefix: &str) -> bool {
        self.process.starts_with(prefix)
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} panicked at {}: {}", self.process, self.at, self.text)
    }
}

/// The payload of the unwinding that ends an aborted process.
struct Aborted;

/// How it reads: a node ends itself so when it cannot go on, mostly for its disk.
pub const ABORTED: &str = "the process aborted";

/// What a panic says, the end of an aborted process included.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    if panic.is::<Aborted>() {
        return ABORTED.into();
    }
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

/// A task as openraft's runtime sees it.
struct Scoped {
    process: Arc<Process>,
    id: u64,
}

impl Future for Scoped {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let put_off = here(|here| {
            here.polls += 1;
            here.rng.random_range(0..1000) < here.machine.put_off_per_mille
        });
        if put_off {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.process.poll(self.id, cx)
    }
}

/// Resolves to a task's output, or to an error when its process was killed.
pub struct JoinHandle<T>(oneshot::Receiver<T>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, SimJoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| SimJoinError::Cancelled)
    }
}

/// The runtime. Outside of any process, tasks belong to the simulation itself.
#[derive(Debug)]
pub struct Sim;

impl AsyncRuntime for Sim {
    type JoinError = SimJoinError;
    type JoinHandle<T: Send + 'static> = JoinHandle<T>;
    type Sleep = SimSleep;
    type Instant = SimInstant;
    type TimeoutError = <SimRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + Send> = SimTimeout<T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <SimRuntime as AsyncRuntime>::Mpsc;
    type Watch = <SimRuntime as AsyncRuntime>::Watch;
    type Oneshot = <SimRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: Send + 'static> = <SimRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        let (tx, rx) = oneshot::channel();
        let task = async move {
            // Nobody may wait for the result.
            let _: Result<(), T::Output> = tx.send(future.await);
        };
        match here(|here| here.process.clone()) {
            None => drop(SimRuntime::spawn(task)),
            Some(process) => {
                let id = {
                    let mut state = process.lock();
                    let id = state.next;
                    state.next += 1;
                    if !state.dead {
                        state.tasks.insert(id, Some(Box::pin(task)));
                    }
                    id
                };
                drop(SimRuntime::spawn(Scoped { process, id }));
            }
        }
        JoinHandle(rx)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        SimRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        SimRuntime::sleep_until(deadline)
    }

    fn timeout<R, F>(duration: Duration, future: F) -> Self::Timeout<R, F>
    where
        F: Future<Output = R> + Send,
    {
        SimRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F>
    where
        F: Future<Output = R> + Send,
    {
        SimRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        SimRuntime::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRuntime::thread_rng()
    }

    fn new(_threads: usize) -> Self {
        Sim
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, _future: F) -> T {
        panic!("a life is run by `runtime::run`")
    }
}

impl Runtime for Sim {
    async fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let takes = between(here(|here| here.machine.blocking));
        if !takes.is_zero() {
            Sim::sleep(takes).await;
        }
        Ok(work())
    }

    fn spawn_writer(mut writer: impl FnMut() -> Writing + Send + 'static, wake: Wake) {
        drop(Sim::spawn(async move {
            loop {
                match writer() {
                    Writing::Waits => {
                        wake.wait().await;
                        Sim::sleep(between(here(|here| here.machine.fsync))).await;
                    }
                    Writing::Again(after) => Sim::sleep(after).await,
                    Writing::Ended => return,
                }
            }
        }));
    }

    fn abort() -> ! {
        if let Some(process) = here(|here| here.process.clone()) {
            process.kill();
        }
        resume_unwind(Box::new(Aborted))
    }
}
