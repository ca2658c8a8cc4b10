//! The checkers, and what they make of a history.

use std::time::Duration;

mod availability;
mod heads;
mod log;
mod order;
mod presence;
mod replicas;
mod report;
mod resend;
mod room;
mod session;
pub(crate) mod witness;

pub use report::{Anomaly, Availability, Counts, Report, Verdict, Violation, Witness};

use crate::history::{F, History, Kind};
use heads::Heads;
use report::Findings;

/// What the caller asks of a history.
#[derive(Clone, Debug)]
pub struct Options {
    /// With fewer sends and reads that were ok, the verdict is `unknown` at best.
    pub min_ok: u64,
    /// How many violations of each anomaly are reported with their witness; all are counted.
    pub witnesses_max: u64,
    /// When all faults are over, each room has an ok within this time: else `unavailable`.
    pub recover_within: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { min_ok: 10, witnesses_max: 5, recover_within: Duration::from_secs(30) }
    }
}

/// Judges a history.
#[must_use]
pub fn check(history: &History, options: &Options) -> Report {
    let mut findings = Findings::new(history, options.witnesses_max);
    let mut rooms = room::split(history);
    let mut all_ends = Vec::with_capacity(rooms.len());
    for room in &mut rooms {
        let log = log::bind(room, &mut findings);
        order::check(room, &log, &mut findings);
        let (ends, heads) = (presence::ends(room), Heads::of(room));
        presence::check(room, &heads, &mut findings);
        replicas::final_reads(room, &log, (&ends, &heads), &mut findings);
        replicas::unverified(room, &ends, &mut findings);
        resend::check(room, &mut findings);
        all_ends.push((room.name, ends));
    }
    replicas::everywhere(history, &all_ends, &mut findings);
    replicas::chains(history, &mut findings);
    session::check(history, &mut findings);
    let availability = availability::check(history, options.recover_within, &mut findings);
    if !history.is_whole() {
        findings.unknown(format!(
            "the file has neither a header nor an end, so lines may be missing at its end: end it with \
             {{\"end\":{}}} if that is all",
            history.len()
        ));
    }
    let counts = count(history, rooms.len() as u64);
    enough(history, options, &mut findings);
    findings.report(counts, availability)
}

fn count(history: &History, rooms: u64) -> Counts {
    let mut counts = Counts { lines: history.len() as u64, rooms, ..Counts::default() };
    for op in history.ops() {
        counts.events_read += op.events().len() as u64;
        match (op.f, op.kind) {
            (F::Nemesis, _) => {}
            (F::Deliver, _) => counts.deliveries += 1,
            (_, Kind::Invoke) => counts.operations += 1,
            (_, Kind::Ok) => counts.ok += 1,
            (_, Kind::Fail) => counts.fail += 1,
            (_, Kind::Info) => {}
        }
    }
    counts.info = counts.operations - counts.ok - counts.fail;
    counts
}

/// Whether enough was done to call a history valid.
fn enough(history: &History, options: &Options, findings: &mut Findings) {
    let (mut sent, mut read, mut seen) = (0, 0, 0);
    for op in history.ops().iter().filter(|op| op.kind == Kind::Ok) {
        match op.f {
            F::Send | F::Resend => sent += 1,
            F::Read => read += 1,
            F::ReadLocal | F::FinalRead | F::Deliver => seen += 1,
            _ => {}
        }
    }
    if sent + read < options.min_ok {
        let (ok, least) = (sent + read, options.min_ok);
        findings.unknown(format!("{ok} sends and reads were ok; a verdict takes {least}"));
    }
    if sent == 0 {
        findings.unknown("no send was ok".into());
    }
    if read + seen == 0 {
        findings.unknown("nothing was read".into());
    }
}
