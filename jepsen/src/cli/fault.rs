//! `folkmoot-jepsen fault`: one fault against running nodes, or a list of all.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use folkmoot_jepsen::fault::minority::{self, Other};
use folkmoot_jepsen::fault::target::Described;
use folkmoot_jepsen::fault::{
    Active, FaultError, Plan, Target, clock, delay, files, fsync, full, heal, list, network, power,
    signal, stall,
};
use network::{Direction, Links};
use serde_json::{Value, json};

mod options;

pub(super) use options::Command;
use options::{How, Lines, List, Node, Partition, Way};

/// A fault that needs somebody to keep it going lasts no longer than this, whatever happens.
const LONGEST: Duration = Duration::from_secs(3600);

/// Runs the command; its exit code.
pub(super) fn run(command: &Command) -> u8 {
    let (json, outcome) = match command {
        Command::List(args) => (args.json, show_list(args)),
        command => {
            let how = how(command);
            (how.json, plans(command).and_then(|plans| carry_out(plans, how)))
        }
    };
    let Err(error) = outcome else { return 0 };
    match json {
        true => eprintln!("{}", json!({ "error": { "message": error.to_string() } })),
        false => eprintln!("folkmoot-jepsen: {}", super::printable(&error.to_string())),
    }
    super::EXIT_ERROR
}

fn show_list(args: &List) -> Result<(), FaultError> {
    if let Some(name) = args.need.iter().find(|name| list::find(name).is_none()) {
        let known: Vec<_> = list::FAULTS.iter().map(|entry| entry.name).collect();
        let why = format!("there is no fault {name:?}; there are: {}", known.join(", "));
        return Err(FaultError::Refused(why));
    }
    let wanted = |entry: &&list::Entry| {
        args.need.is_empty() || args.need.iter().any(|name| name == entry.name)
    };
    let entries = list::FAULTS.iter().filter(wanted);
    let rows: Vec<_> = entries.map(|entry| (entry, (entry.probe)().err())).collect();
    write_list(&rows, args.json)?;
    match rows.into_iter().find_map(|(_, missing)| missing) {
        Some(missing) if !args.need.is_empty() => Err(missing.into()),
        _ => Ok(()),
    }
}

fn write_list(
    rows: &[(&list::Entry, Option<folkmoot_jepsen::fault::Missing>)],
    json: bool,
) -> Result<(), FaultError> {
    if json {
        let row = |(entry, missing): &(&list::Entry, _)| {
            let missing: &Option<folkmoot_jepsen::fault::Missing> = missing;
            let missing = missing.as_ref().map(|m| json!({ "what": m.what, "how": m.how }));
            json!({ "fault": entry.name, "about": entry.about, "missing": missing })
        };
        return print(&Value::from_iter(rows.iter().map(row)).to_string());
    }
    let line = |(entry, missing): &(&list::Entry, Option<folkmoot_jepsen::fault::Missing>)| {
        let works = match missing {
            None => "works".to_owned(),
            Some(missing) => format!("MISSING: {missing}"),
        };
        format!("{:10} {:48} {works}", entry.name, entry.about)
    };
    print(&rows.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn print(text: &str) -> Result<(), FaultError> {
    match writeln!(io::stdout(), "{}", super::printable(text)) {
        // Nobody is left to read it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| FaultError::Io { what: "output".into(), error }),
    }
}

fn how(command: &Command) -> &How {
    match command {
        Command::Partition(args) => &args.node.how,
        Command::Oneway(args) => &args.partition.node.how,
        Command::Loss(args) | Command::Reset(args) => &args.lines.partition.node.how,
        Command::Delay(args) => &args.lines.partition.node.how,
        Command::Diskfull(args) => &args.node.how,
        Command::Fsyncfail(args) => &args.node.how,
        Command::Clock(args) => &args.node.how,
        Command::Clients(args)
        | Command::Kill(args)
        | Command::Pause(args)
        | Command::Resume(args)
        | Command::Powercut(args)
        | Command::Diskstall(args)
        | Command::Heal(args) => &args.how,
        Command::Bitflip(args) | Command::Truncate(args) => &args.directory.how,
        Command::Save(args) => &args.directory.how,
        Command::Rollback(args) => &args.copy.directory.how,
        Command::Restore(args) => &args.how,
        Command::List(_) => unreachable!("a list hits nobody"),
    }
}

/// What a command would do.
fn plans(command: &Command) -> Result<Vec<Plan>, FaultError> {
    match command {
        Command::List(_) => Ok(vec![]),
        Command::Partition(args) => cut(args, Direction::Both),
        Command::Oneway(args) => cut(
            &args.partition,
            match args.direction {
                Way::In => Direction::In,
                Way::Out => Direction::Out,
            },
        ),
        Command::Clients(node) => each(node, |node| network::clients(&node.target)),
        Command::Loss(args) => {
            on_links(&args.lines, |target, links| network::loss(target, links, args.percent))
        }
        Command::Reset(args) => {
            on_links(&args.lines, |target, links| network::reset(target, links, args.percent))
        }
        Command::Delay(args) => on_links(&args.lines, |target, links| {
            let (base, jitter, reorder_percent) = (args.delay, args.jitter, args.reorder);
            delay::delay(target, links, delay::Delay { base, jitter, reorder_percent })
        }),
        Command::Kill(node) => each(node, |node| Ok(signal::kill(&node.target))),
        Command::Pause(node) => each(node, |node| Ok(signal::pause(&node.target))),
        Command::Resume(node) => those(node, |node| Ok(signal::resume(&node.target))),
        Command::Heal(node) => those(node, |node| heal::everything(&node.target)),
        Command::Powercut(node) => {
            let nodes = aim(node)?;
            let targets: Vec<_> = nodes.iter().map(|node| &node.target).collect();
            Ok(vec![power::cut(&targets)?])
        }
        Command::Diskfull(args) => each(&args.node, |node| full::fill(&node.target, args.leave)),
        Command::Diskstall(node) => each(node, |of| stall::stall(&of.target, limit(&node.how))),
        Command::Fsyncfail(args) => {
            each(&args.node, |node| Ok(fsync::fail(&node.target, args.nth, limit(&args.node.how))))
        }
        Command::Clock(args) => each(&args.node, |node| match args.strobe {
            None => clock::jump(&node.target, args.offset),
            Some(every) => clock::strobe(&node.target, args.offset, every),
        }),
        command => damage(command).map(|plan| vec![plan]),
    }
}

/// What is done to the files of nodes that do not run.
fn damage(command: &Command) -> Result<Plan, FaultError> {
    let others_of = |how: &How| leaves_enough(1, how, &[], None);
    let stopped = |path: &Path| path.to_path_buf();
    match command {
        Command::Bitflip(args) => {
            others_of(&args.directory.how)?;
            files::flip(&args.directory.data_dir, args.what, args.seed)
        }
        Command::Truncate(args) => {
            others_of(&args.directory.how)?;
            files::truncate(&args.directory.data_dir, args.what, args.seed)
        }
        Command::Rollback(args) => {
            others_of(&args.copy.directory.how)?;
            files::roll_back(&args.copy.directory.data_dir, args.what, &args.copy.copy)
        }
        Command::Save(args) => files::save(&args.directory.data_dir, &stopped(&args.copy)),
        Command::Restore(args) => files::restore(&args.data_dir),
        _ => unreachable!("the others hit nodes that run"),
    }
}

fn cut(args: &Partition, direction: Direction) -> Result<Vec<Plan>, FaultError> {
    each(&args.node, |node| {
        let peers = if args.peers.is_empty() { &node.others } else { &args.peers };
        network::partition(&node.target, peers, direction)
    })
}

fn on_links(
    lines: &Lines,
    plan: impl Fn(&Target, &Links) -> Result<Plan, FaultError>,
) -> Result<Vec<Plan>, FaultError> {
    each(&lines.partition.node, |node| {
        let peers = match lines.partition.peers.is_empty() {
            true => node.others.clone(),
            false => lines.partition.peers.clone(),
        };
        plan(&node.target, &Links { peers, clients: lines.clients })
    })
}

/// Plans for nodes that are to be hit, if enough others are left.
fn each(
    node: &Node,
    plan: impl Fn(&Described) -> Result<Plan, FaultError>,
) -> Result<Vec<Plan>, FaultError> {
    aim(node)?.iter().map(plan).collect()
}

/// Plans that do no harm.
fn those(
    node: &Node,
    plan: impl Fn(&Described) -> Result<Plan, FaultError>,
) -> Result<Vec<Plan>, FaultError> {
    node.pid.iter().map(|pid| plan(&Target::describe(*pid)?)).collect()
}

fn aim(node: &Node) -> Result<Vec<Described>, FaultError> {
    let nodes: Vec<_> =
        node.pid.iter().map(|pid| Target::describe(*pid)).collect::<Result<_, _>>()?;
    let hit: Vec<_> = nodes.iter().map(|node| node.target.peer).collect();
    let is_hit = |other: &&String| {
        let (pids, peers) = (&node.pid, &hit);
        pids.iter().any(|pid| pid.to_string() == **other)
            || peers.iter().any(|peer| peer.to_string() == **other)
    };
    if let Some(other) = node.how.others.iter().find(is_hit) {
        let why = format!("--others has {other}, which is to be hit");
        return Err(FaultError::Refused(why));
    }
    let mut known: Vec<_> = nodes.iter().flat_map(|node| node.others.clone()).collect();
    known.retain(|other| !hit.contains(other));
    known.sort();
    known.dedup();
    let known: Vec<_> = known.into_iter().map(Other::Peer).collect();
    leaves_enough(nodes.len(), &node.how, &known, nodes.first().map(|node| &node.target))?;
    Ok(nodes)
}

fn leaves_enough(
    hit: usize,
    how: &How,
    known: &[Other],
    from: Option<&Target>,
) -> Result<(), FaultError> {
    if how.majority {
        return Ok(());
    }
    let named: Vec<_> = how.others.iter().map(|other| named(other)).collect::<Result<_, _>>()?;
    minority::check(hit, if named.is_empty() { known } else { &named }, from)
}

fn named(text: &str) -> Result<Other, FaultError> {
    if let Ok(pid) = text.parse() {
        return Target::of_pid(pid).map(Other::Process);
    }
    let found = std::net::ToSocketAddrs::to_socket_addrs(text).ok();
    let found = found.and_then(|mut found| found.next()).map(Other::Peer);
    found.ok_or_else(|| FaultError::Refused(format!("--others {text}: no pid, no host:port")))
}

fn limit(how: &How) -> Duration {
    // A little longer than we heal it ourselves.
    how.how_long.map_or(LONGEST, |how_long| how_long + Duration::from_secs(5))
}

fn carry_out(plans: Vec<Plan>, how: &How) -> Result<(), FaultError> {
    let told = json!({
        "fault": plans.first().map(|plan| plan.fault),
        "nodes": plans.iter().flat_map(|plan| &plan.targets)
            .map(|target| json!({ "name": target.name, "pid": target.pid })).collect::<Vec<_>>(),
        "inject": steps(&plans, |plan| &plan.inject),
        "heal": steps(&plans, |plan| &plan.heal),
        "dry_run": how.dry_run,
    });
    if how.dry_run {
        return if how.json { print(&told.to_string()) } else { print(&shown(&plans, how)) };
    }
    if let Some(plan) = plans.iter().find(|plan| plan.needs_us)
        && how.how_long.is_none()
    {
        let why = format!(
            "{} lasts as long as this program runs: say how long, like --for 30s",
            plan.fault
        );
        return Err(FaultError::Refused(why));
    }
    let what = || shown(&plans, how);
    if !how.json {
        print(&what())?;
    }
    let healed = last(plans, how.how_long)?;
    let mut told = told;
    told["healed"] = healed.into();
    match (how.json, healed) {
        (true, _) => print(&told.to_string()),
        (false, true) => print("# healed"),
        (false, false) => Ok(()),
    }
}

fn steps(
    plans: &[Plan],
    of: impl Fn(&Plan) -> &Vec<Box<dyn folkmoot_jepsen::fault::Step>>,
) -> Vec<String> {
    plans.iter().flat_map(|plan| of(plan).iter().map(ToString::to_string)).collect()
}

/// The steps as a script, more or less.
fn shown(plans: &[Plan], how: &How) -> String {
    let mut lines = steps(plans, |plan| &plan.inject);
    let heal = steps(plans, |plan| &plan.heal);
    if let Some(how_long) = how.how_long {
        lines.push(format!("# for {}, then:", humantime::format_duration(how_long)));
    } else if !heal.is_empty() {
        lines.push("# stays; this heals it:".to_owned());
    }
    lines.extend(heal);
    lines.join("\n")
}

/// Injects them, and heals them in time or when this program is told to stop. Whether they were
/// healed.
fn last(plans: Vec<Plan>, how_long: Option<Duration>) -> Result<bool, FaultError> {
    let io = |error| FaultError::Io { what: "waiting".into(), error };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
    let _inside = runtime.enter();
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [a, b, c] = kinds.map(signal);
    let (mut interrupt, mut terminate, mut hangup) =
        (a.map_err(io)?, b.map_err(io)?, c.map_err(io)?);
    // Should one fail, those before it are healed.
    let active: Vec<Active> = plans.into_iter().map(Plan::inject).collect::<Result<_, _>>()?;
    let Some(how_long) = how_long else {
        active.into_iter().for_each(Active::stay);
        return Ok(false);
    };
    runtime.block_on(async {
        tokio::select! {
            () = tokio::time::sleep(how_long) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    });
    active.into_iter().map(Active::heal).fold(Ok(()), Result::and)?;
    Ok(true)
}
