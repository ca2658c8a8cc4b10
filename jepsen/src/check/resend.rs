//! Ids that were used again.
//!
//! A resend that names another seq than the first is a `duplicate`, found when the log is bound.
//! Here: a resend with another text must be refused. The log can hold one text; when both were
//! acknowledged, one of them is lost.

use crate::check::report::{Anomaly, Findings};
use crate::check::room::{NONE, Room};

/// Reports ids under which two texts were acknowledged.
pub(super) fn check(room: &Room, findings: &mut Findings) {
    for send in &room.sends {
        if send.ok_bodies.contains(&NONE) {
            continue;
        }
        let lines = send.ok_bodies.map(|line| line as usize);
        findings.add(Anomaly::LostWrite, Some(room.name), &lines, || {
            format!(
                "two texts were acknowledged under {}, and the log has one place for it",
                send.id
            )
        });
    }
}
