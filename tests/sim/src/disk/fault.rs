//! What goes wrong with a disk, and when.

/// Something that is to go wrong. `nth` counts from when it is armed, files and base together;
/// 1 is the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// Reads fail with `EIO`, from the `nth` on, until healed.
    Reads {
        /// The first that fails.
        nth: u64,
    },
    /// Writes fail with `EIO`, from the `nth` on, until healed. A part may have been written.
    Writes {
        /// The first that fails.
        nth: u64,
    },
    /// Syncs fail with `EIO`, from the `nth` on, until healed. What they were for stays unsynced.
    Syncs {
        /// The first that fails.
        nth: u64,
    },
    /// The power fails in the middle of a write.
    PowerCutAtWrite {
        /// That write.
        nth: u64,
    },
    /// The power fails in the middle of a sync: a part is on disk, and the call fails.
    PowerCutAtSync {
        /// That sync.
        nth: u64,
    },
    /// Syncs of files succeed and do nothing, until healed. No disk that Folkmoot can be used on
    /// does so: this is for testing the tests.
    LyingSyncs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Read,
    Write,
    Sync,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Error,
    PowerCut,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    armed: Vec<Armed>,
    /// Whether syncs do nothing.
    pub lying: bool,
}

#[derive(Debug)]
struct Armed {
    operation: Operation,
    effect: Effect,
    /// Operations until it strikes; 0 = it strikes each.
    left: u64,
}

impl Faults {
    pub fn arm(&mut self, fault: DiskFault) {
        let (operation, effect, nth) = match fault {
            DiskFault::Reads { nth } => (Operation::Read, Effect::Error, nth),
            DiskFault::Writes { nth } => (Operation::Write, Effect::Error, nth),
            DiskFault::Syncs { nth } => (Operation::Sync, Effect::Error, nth),
            DiskFault::PowerCutAtWrite { nth } => (Operation::Write, Effect::PowerCut, nth),
            DiskFault::PowerCutAtSync { nth } => (Operation::Sync, Effect::PowerCut, nth),
            DiskFault::LyingSyncs => {
                self.lying = true;
                return;
            }
        };
        self.armed.push(Armed { operation, effect, left: nth.saturating_sub(1) });
    }

    /// What strikes an operation; a power cut before an error, and once.
    pub fn strike(&mut self, operation: Operation) -> Option<Effect> {
        let mut effect = None;
        self.armed.retain_mut(|armed| {
            if armed.operation != operation {
                return true;
            }
            if armed.left > 0 {
                armed.left -= 1;
                return true;
            }
            if effect != Some(Effect::PowerCut) {
                effect = Some(armed.effect);
            }
            armed.effect == Effect::Error
        });
        effect
    }
}
