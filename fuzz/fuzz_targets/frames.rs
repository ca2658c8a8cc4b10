//! Fuzzes the WebSocket, over connections within the process.
//!
//! The runtime's time stands and leaps to the next timer when nothing else is to be done, so a server that
//! waits for its client takes no time.
#![no_main]

use std::sync::LazyLock;

use folkmoot_fuzz::frames::Frames;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
});
static FRAMES: LazyLock<Frames> = LazyLock::new(|| RUNTIME.block_on(Frames::new()));

fuzz_target!(|data: &[u8]| {
    FRAMES.reset();
    RUNTIME.block_on(async {
        FRAMES.run(data).await;
        FRAMES.settle().await;
    });
});
