//! Whether a base can be what the groups of a log go on from. Asked by `node/storage.rs` before any
//! group starts: a base that cannot is set aside as a whole, since who knows what else it lacks.

use std::io;

use crate::store::base::{self, Base};
use crate::store::log::Log;
use crate::store::recovery;

/// Reads what each group begins with.
///
/// # Errors
/// Damage ([`base::is_damage`]), also when a state ends before its log begins; or why it cannot be
/// read.
pub fn check(base: &dyn Base, log: &Log) -> io::Result<()> {
    for shard in log.groups() {
        // What is left of a replica that was removed goes before any group starts.
        if log.group(shard).forgotten {
            continue;
        }
        let row = recovery::look(base, shard)?.row;
        let purged = log.group(shard).purged.map_or(0, |(index, _)| index);
        // One that is gone altogether is taken from a peer by itself (`shard/rebuild.rs`).
        if row.term.is_some() && row.index < purged {
            return Err(base::damage(format!(
                "the state of shard {shard} ends at entry {}, and its log begins with entry {}",
                row.index,
                purged + 1
            )));
        }
    }
    Ok(())
}
