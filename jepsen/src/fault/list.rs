//! All faults, and whether they work on this machine.

use crate::fault::{Missing, clock, delay, files, fsync, full, network, power, signal, stall};

/// A fault, as the command line has it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    /// Tries it.
    pub probe: fn() -> Result<(), Missing>,
}

const fn entry(
    name: &'static str,
    about: &'static str,
    probe: fn() -> Result<(), Missing>,
) -> Entry {
    Entry { name, about, probe }
}

/// Every fault.
pub const FAULTS: &[Entry] = &[
    entry("partition", "cut a node off from other nodes", network::probe_drop),
    entry("oneway", "the same in one direction only", network::probe_drop),
    entry("clients", "cut a node off from its clients", network::probe_drop),
    entry("loss", "lose some of a node's packets", network::probe_loss),
    entry("reset", "break a node's connections", network::probe_reset),
    entry("delay", "let a node's packets wait, with jitter, out of order", delay::probe),
    entry("kill", "kill a node", signal::probe),
    entry("pause", "stop a node's process for a while", signal::probe),
    entry("powercut", "kill a node and lose what it had not synced", power::probe),
    entry("diskfull", "fill a node's disk", full::probe),
    entry("diskstall", "let a node's writes wait", stall::probe),
    entry("fsyncfail", "let a node's fsyncs fail", fsync::probe),
    entry("bitflip", "flip a bit in a file of a stopped node", files::probe),
    entry("truncate", "cut off the end of a file of a stopped node", files::probe),
    entry("rollback", "put a stopped node's files back to an earlier state", files::probe),
    entry("clock", "set a node's wall clock wrong", clock::probe),
];

/// The fault with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    FAULTS.iter().find(|entry| entry.name == name)
}
