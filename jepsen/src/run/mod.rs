//! A run: real nodes, clients that chat, faults, and a verdict.
//!
//! ```text
//! workers ─────┐                         ┌─► history.jsonl ─► check ─► results.json, report.html
//! subscribers ─┼─► nodes, over REST,     │
//! nemesis ─────┘   gRPC, SSE and WebSocket; each try recorded as it happens
//!
//! make ─► form ─► rooms ─► load and attack ─► heal ─► load ─► converge ─► read all ─► verdict
//! ```
//!
//! Whatever is made on the machine is in a record (`cluster::made`) before it is there, and taken
//! away at the end, also when the run is interrupted; after a crash, by `folkmoot-jepsen cleanup`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::check;
use crate::cluster::interrupt::Interrupt;
use crate::cluster::made::Made;
use crate::cluster::{Admin, Cluster, Plan, find_bin};
use crate::report;

pub mod churn;
pub mod client;
pub mod finish;
pub mod nemesis;
pub mod operations;
pub mod options;
pub mod progress;
pub mod record;
pub mod roster;
pub mod setup;
pub mod status;
pub mod store;
pub mod timing;
pub mod verdict;
pub mod workload;

/// The public API, as it is on the wire.
#[allow(clippy::all, reason = "generated from proto/")]
mod proto {
    tonic::include_proto!("folkmoot.v1");
}

use churn::Churn;
use nemesis::Nemesis;
use nemesis::kind::Kind;
use operations::{Step, prefill};
use options::Options;
use progress::Progress;
use record::Recorder;
use roster::Roster;
use status::{Placement, Status};
use store::{Missing, Store, Test, TestNode};
use verdict::{Outside, Results};
use workload::chat::Chat;
use workload::rooms::Rooms;
use workload::worker::Worker;
use workload::{Mix, POSTS_PERCENT, World};

/// How long clients go on after the last fault.
const SETTLE: Duration = Duration::from_secs(5);
/// How long rooms may take to be created when no fault is active.
const ROOMS_WITHIN: Duration = Duration::from_secs(60);
/// How long what is under way may take to end when a run does: a frozen disk thaws by itself within
/// 30 s.
const TASKS_END_WITHIN: Duration = Duration::from_secs(45);
/// Posts after which a room makes way for a fresh one.
const POSTS_PER_ROOM: u64 = 300;

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Where everything is.
    pub store: PathBuf,
    /// The verdict and the numbers.
    pub results: Results,
}

/// Runs it all. SIGINT, SIGTERM and SIGHUP end it at any time.
///
/// # Errors
///
/// Why there is no verdict: something is missing or broken here, or somebody interrupted. What was
/// made is taken away all the same; of the store that is left which says what happened.
pub fn run(options: Options) -> Result<Outcome, String> {
    let interrupt = Interrupt::listen().map_err(|error| format!("signals: {error}"))?;
    let ran = prepare(&options, &interrupt).and_then(|ready| {
        let store = ready.store.clone();
        let ran = in_store(&options, ready, &interrupt);
        if !options.keep_data {
            store.remove_data();
        }
        let cut_short = interrupt.check().is_err();
        let nothing = || match store.history().exists() {
            true => false,
            false if cut_short => store.remove(),
            false => store.remove_if_empty(),
        };
        ran.map_err(|why| match nothing() {
            true => why,
            false => format!("{why}\nWhat there is of it is in {}", store.directory.display()),
        })
    });
    // Tools that a signal ended as well say other things.
    match (ran, interrupt.check()) {
        (Err(why), Err(interrupted)) if !why.contains(&interrupted) => {
            Err(format!("{interrupted}: {why}"))
        }
        (ran, _) => ran,
    }
}

/// What a run needs before it makes anything on the machine but its directory.
struct Ready {
    bin: PathBuf,
    named: Named,
    probed: setup::Probed,
    store: Store,
}

fn prepare(options: &Options, interrupt: &Interrupt) -> Result<Ready, String> {
    options.check()?;
    let bin = find_bin(options.bin.as_deref())?;
    let version = setup::version(&bin)?;
    setup::space(&options.store, options)?;
    let probed = setup::probe(options, interrupt)?;
    let (name, date) = (options.test_name(), setup::now());
    interrupt.check()?;
    let store = Store::create(&options.store, &name, &date.replace(':', ""))?;
    Ok(Ready { bin, named: Named { name, version, date }, probed, store })
}

/// Makes a cluster, attacks it, takes it away and judges.
fn in_store(options: &Options, ready: Ready, interrupt: &Interrupt) -> Result<Outcome, String> {
    let Ready { bin, named, probed, store } = ready;
    let made =
        Arc::new(Made::begin(interrupt.clone()).map_err(|error| {
            format!("{}: {error}", crate::cluster::made::directory().display())
        })?);
    let plan = Plan {
        bin,
        nodes: options.nodes,
        spares: options.spares,
        local: options.local,
        cuts: options.operations.is_none(),
        directory: store.directory.clone(),
        disk_bytes: setup::DISK_BYTES,
        settings: setup::settings(options),
        clocks: probed.kinds.contains(&Kind::Clock),
    };
    let cluster = match Cluster::make(&plan, made.clone()) {
        Ok(cluster) => Arc::new(cluster),
        Err(why) => return Err(also(why, made.undo())),
    };
    let test = describe(options, &cluster, named, probed.missing.clone());
    let ran = store.write("test.json", &test).and_then(|()| {
        let runtime = runtime(&cluster)?;
        let attacking = attack(
            options.clone(),
            probed.clone(),
            cluster.clone(),
            store.clone(),
            interrupt.clone(),
        );
        let ran = runtime.block_on(attacking);
        if ran.is_err() {
            // Whatever waits for a node need not wait any more, and starts none.
            cluster.close();
        }
        runtime.shutdown_timeout(TASKS_END_WITHIN);
        ran
    });
    let left = cluster.remove();
    let outside = match ran {
        Ok(mut outside) => {
            outside.problems.extend(left);
            outside
        }
        Err(why) => return Err(also(why, left)),
    };
    interrupt.check()?;
    let results = judge(&store, outside, &options.limits.of_checkers())?;
    interrupt.check()?;
    report::write(&store.directory, &store.directory.join("report.html"))
        .map_err(|error| error.to_string())?;
    Ok(Outcome { store: store.directory, results })
}

/// What is told of a test beside its options.
struct Named {
    name: String,
    version: String,
    date: String,
}

fn describe(options: &Options, cluster: &Cluster, named: Named, missing: Vec<Missing>) -> Test {
    let nodes = cluster.nodes.iter().map(|node| TestNode {
        name: node.name.clone(),
        client: node.client.to_string(),
        peer: node.peer.to_string(),
    });
    Test {
        name: named.name,
        command: options.command.clone(),
        version: named.version,
        commit: setup::commit(),
        date: named.date,
        seed: options.seed,
        nodes: nodes.collect(),
        mode: if options.local { "local".into() } else { "root".into() },
        options: json!({
            "time_s": options.time.as_secs_f64(), "rate": options.rate, "rooms": options.rooms,
            "workers": options.workers, "subscribers": options.subscribers,
            "spares": options.spares, "prefill": options.prefill(),
            "settings": setup::settings(options),
        }),
        nemeses: options.asked.kinds.iter().map(|kind| kind.name().to_owned()).collect(),
        missing,
    }
}

fn also(why: String, problems: Vec<String>) -> String {
    match problems.len() {
        0 => why,
        _ => format!(
            "{why}\nand could not be cleaned up: {}; try `folkmoot-jepsen cleanup`",
            problems.join("; ")
        ),
    }
}

/// Threads that are where the clients belong.
fn runtime(cluster: &Cluster) -> Result<tokio::runtime::Runtime, String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all();
    if let Some(clients) = cluster.clients.clone() {
        builder.on_thread_start(move || {
            clients.enter().expect("the clients' namespace was made by this very run");
        });
    }
    builder.build().map_err(|error| error.to_string())
}

/// Everything that takes place while nodes run, until somebody interrupts it.
async fn attack(
    options: Options,
    probed: setup::Probed,
    cluster: Arc<Cluster>,
    store: Store,
    interrupt: Interrupt,
) -> Result<Outside, String> {
    // On a worker thread, since this one is not where the clients belong.
    let attacking = tokio::spawn(async move {
        let formed = setup::form(&cluster).await?;
        play(options, probed, cluster, store, formed).await
    });
    tokio::select! {
        attacked = attacking => attacked.map_err(|error| error.to_string())?,
        signal = interrupt.wait() => Err(format!("interrupted by {signal}")),
    }
}

/// Chats and attacks.
async fn play(
    options: Options,
    probed: setup::Probed,
    cluster: Arc<Cluster>,
    store: Store,
    (admin, mut status, placement): (Admin, Status, Placement),
) -> Result<Outside, String> {
    let nodes: Vec<_> = cluster.nodes.iter().map(|node| (node.name.clone(), node.client)).collect();
    let users = setup::users(&nodes, &admin, options.workers + 1).await?;
    let recorder = Recorder::create(&store.history()).map_err(|error| error.to_string())?;
    fill(&options, &cluster, &store).await?;
    let world = Arc::new(world(&options, recorder, nodes));
    world.set_present(&cluster.present());
    let mut workers: Vec<Worker> =
        (0..options.workers).map(|n| Worker::new(&world, &users[n], n)).collect();
    for slot in 0..world.rooms.count() {
        let creator = slot % workers.len();
        workers[creator].create(slot, ROOMS_WITHIN).await?;
    }
    let progress = Progress::start(&world, options.time, options.quiet);
    let follower = users[options.workers].clone();
    let chat = Chat::begin(&world, workers, &follower, options.subscribers);
    let roster = Arc::new(Roster::new(placement));
    let Attacked { mut nemesis, mut churn, steps } =
        under_load(&options, &probed, &world, &cluster, &roster, &admin).await?;
    world.finish();
    let mut problems = std::mem::take(&mut nemesis.problems);
    problems.extend(options.asked.unshown(&probed.missing, &nemesis.kinds_struck));
    let (mut workers, subscribers) = chat.end(&mut problems).await?;
    progress.say("waiting for the nodes to agree");
    nemesis.look();
    let suspects = nemesis.suspects.keys().copied().collect();
    let placement = roster.placement();
    let converged =
        finish::converge(&cluster, &mut status, &placement, &nemesis.lost, &suspects).await;
    nemesis.findings.extend(converged.problems);
    if let Some(churn) = &mut churn {
        churn.verify().await;
        problems.extend(churn.problems());
        nemesis.findings.append(&mut churn.findings);
        nemesis.struck.append(&mut churn.struck);
    }
    for worker in &mut workers {
        problems.extend(worker.create_rest(ROOMS_WITHIN).await.err());
    }
    nemesis.lost.extend(converged.lost);
    for (place, node) in cluster.nodes.iter().enumerate() {
        if nemesis.lost.contains(&place) || !cluster.present().contains(&place) {
            world.recorder.gone(&node.name);
        }
    }
    progress.say("reading every room on every node");
    let heads = finish::read_all(&world, &follower, &converged.ready).await;
    finish::drain(subscribers, &heads).await;
    progress.end();
    world.recorder.finish().map_err(|error| format!("history.jsonl: {error}"))?;
    nemesis.conclude();
    Ok(Outside {
        nodes: setup::node_results(&cluster, &converged.ready, &nemesis.lost, &nemesis.excuses),
        findings: nemesis.findings,
        problems,
        attacks: nemesis.struck,
        missing: probed.missing,
        limits: options.limits,
        steps,
        session_posts: world.session_posts.load(Ordering::Relaxed),
        followed: world.followed(),
    })
}

/// What clients share.
fn world(options: &Options, recorder: Recorder, nodes: Vec<(String, SocketAddr)>) -> World {
    let (mix, rate, posts_per_room) = match options.operations {
        None => (Mix::All, f64::from(options.rate), POSTS_PER_ROOM),
        // The rate is of posts, and rooms stay.
        Some(_) => {
            (Mix::Posts, f64::from(options.rate) * 100.0 / f64::from(POSTS_PERCENT), u64::MAX)
        }
    };
    let rooms = Rooms::new(options.rooms, posts_per_room);
    let interval = Duration::from_secs_f64(options.workers as f64 / rate);
    let mut world = World::new(recorder, nodes, rooms, interval, options.seed);
    world.mix = mix;
    world.transports.clone_from(&options.transports);
    world
}

/// Puts messages there that clients know nothing of.
async fn fill(options: &Options, cluster: &Arc<Cluster>, store: &Store) -> Result<(), String> {
    let (cluster, directory, messages) =
        (cluster.clone(), store.directory.clone(), options.prefill());
    let filling =
        tokio::task::spawn_blocking(move || prefill::fill(&cluster, &directory, messages));
    filling.await.map_err(|error| error.to_string())?
}

/// Who attacked, when all is healed.
struct Attacked {
    nemesis: Nemesis,
    /// What an operator did who was measured.
    steps: Vec<Step>,
    /// The operator, where there is one.
    churn: Option<Churn>,
}

/// Attacks while clients chat, and lets them go on for a while when all is healed.
async fn under_load(
    options: &Options,
    probed: &setup::Probed,
    world: &Arc<World>,
    cluster: &Arc<Cluster>,
    roster: &Arc<Roster>,
    admin: &Admin,
) -> Result<Attacked, String> {
    let status = Status::new(&world.nodes, &admin.token);
    let (churns, kinds): (Vec<Kind>, Vec<Kind>) =
        probed.kinds.iter().partition(|kind| **kind == Kind::Churn);
    let nemesis = Nemesis::new(world.clone(), cluster.clone(), status, roster.clone(), kinds);
    if let Some(plan) = &options.operations {
        let (steps, problems) = operations::run(plan, world, cluster, roster).await;
        sleep(SETTLE).await;
        let mut churn = Churn::new(world, cluster, roster);
        churn.settle(options.settle_within).await;
        let mut nemesis = nemesis;
        nemesis.problems = problems;
        return Ok(Attacked { nemesis, churn: Some(churn), steps });
    }
    let until = Instant::now() + options.time;
    // A task of its own: what the one waits for must not keep the other.
    let churning =
        churns.first().map(|_| tokio::spawn(Churn::new(world, cluster, roster).run(until)));
    let mut nemesis = nemesis.run(until).await;
    let Some(churning) = churning else {
        sleep(SETTLE).await;
        return Ok(Attacked { nemesis, churn: None, steps: vec![] });
    };
    let mut churn = churning.await.map_err(|error| error.to_string())?;
    tokio::join!(sleep(SETTLE), churn.settle(options.settle_within));
    if churn.has_struck() {
        nemesis.kinds_struck.insert(Kind::Churn);
    }
    Ok(Attacked { nemesis, churn: Some(churn), steps: vec![] })
}

/// Judges the history of a run anew, and writes down the results; what happened to the nodes is as
/// the run saw it, and so are its limits, but for those that are given here.
///
/// # Errors
///
/// When the directory is not one of a run, or the results cannot be written.
pub fn judge_again(
    directory: &Path,
    options: &check::Options,
    recover_within: Option<Duration>,
) -> Result<Results, String> {
    let store = Store::open(directory);
    let path = directory.join("results.json");
    // A run that was cut short has none.
    let mut outside: Outside = match std::fs::read(&path) {
        Ok(text) => {
            serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Outside {
            problems: vec![format!("there is no {}: the run did not end", path.display())],
            ..Outside::default()
        },
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let mut options = options.clone();
    match recover_within {
        Some(recover) => {
            outside.limits.recover_ms = u64::try_from(recover.as_millis()).unwrap_or(u64::MAX);
        }
        None => options.recover_within = outside.limits.of_checkers().recover_within,
    }
    judge(&store, outside, &options)
}

/// What operations took in the run in this directory, as a Markdown table; and its verdict.
///
/// # Errors
///
/// When the directory is not one of a run.
pub fn operations_table(directory: &Path) -> Result<(String, check::Verdict, Vec<String>), String> {
    let store = Store::open(directory);
    let read = |path: PathBuf| {
        std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let test: Test = serde_json::from_slice(&read(directory.join("test.json"))?)
        .map_err(|error| format!("test.json: {error}"))?;
    let outside: Outside = serde_json::from_slice(&read(directory.join("results.json"))?)
        .map_err(|error| format!("results.json: {error}"))?;
    let history = store.read_history()?;
    let report = check::check(&history, &outside.limits.of_checkers());
    let results = Results::new(&history, report, outside);
    let (table, missed) = operations::table::markdown(&test, &history, &results);
    Ok((table, results.report.verdict, missed))
}

/// Judges what a store has, and writes down the results.
///
/// # Errors
///
/// When the history cannot be read, or the results cannot be written.
pub fn judge(store: &Store, outside: Outside, options: &check::Options) -> Result<Results, String> {
    let history = store.read_history()?;
    let report = check::check(&history, options);
    let results = Results::new(&history, report, outside);
    store.write("results.json", &results)?;
    Ok(results)
}
