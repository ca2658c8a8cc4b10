//! Mints request ids, with the clock corrected by what servers say of it.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock::{Clock, SystemClock};
use crate::id::RequestId;

/// Mints request ids.
#[derive(Debug, Default)]
pub(super) struct Mint {
    /// Milliseconds to add to this machine's clock; 0 until a server complains.
    offset_ms: AtomicI64,
}

impl Mint {
    /// A new id, with the corrected time.
    pub(super) fn next(&self) -> RequestId {
        let now = SystemClock.now_ms();
        let corrected = now.saturating_add_signed(self.offset_ms.load(Ordering::Relaxed));
        RequestId::mint(corrected, rand::random())
    }

    /// Takes a server's word for what time it is.
    pub(super) fn correct(&self, server_time_ms: u64) {
        let offset = server_time_ms as i64 - SystemClock.now_ms() as i64;
        self.offset_ms.store(offset, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_servers_time_once_it_is_known() {
        let mint = Mint::default();
        mint.correct(1_000_000_000_000);
        let at = mint.next().unix_ms();
        assert!((1_000_000_000_000..1_000_000_060_000).contains(&at), "{at}");
    }
}
