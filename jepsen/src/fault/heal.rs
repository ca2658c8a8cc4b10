//! Undoes whatever was done to a node that runs, by whomever.

use rustix::process::Signal;

use crate::fault::disk::Disk;
use crate::fault::signal::Send;
use crate::fault::{FaultError, Plan, Target, clock, delay, full, network, stall, tool};

/// Heals everything: lets the process go on, thaws and frees its disk, removes the network faults,
/// sets its clock right. What cannot have been done to this node is left out.
///
/// # Errors
///
/// When the node is gone.
pub fn everything(target: &Target) -> Result<Plan, FaultError> {
    let mut plan = Plan::new("heal", &[target]);
    let mut and = |other: Plan| plan.inject.extend(other.inject);
    if rustix::process::geteuid().is_root() {
        if Disk::of(target).is_ok() {
            and(stall::release(target)?);
            and(full::free(target)?);
        }
        // Who has not the tool has not used it.
        if tool::is_there("nft") {
            and(network::heal(target)?);
        }
        if tool::is_there("iptables") {
            and(delay::heal(target)?);
        }
    }
    match clock::jump(target, 0.0) {
        Ok(right) => and(right),
        // It has the machine's clock.
        Err(FaultError::Missing(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(plan.inject_by(Send::new(target, Signal::CONT)))
}
