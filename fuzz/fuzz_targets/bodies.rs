//! Fuzzes the REST interface.
//!
//! The runtime's time stands and leaps to the next timer when nothing else is to be done, so a long poll of a
//! minute takes none.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use folkmoot_fuzz::bodies::Bodies;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
});
static BODIES: LazyLock<Bodies> = LazyLock::new(|| Bodies::new(Duration::from_secs(70)));

fuzz_target!(|data: &[u8]| RUNTIME.block_on(BODIES.run(data)));
