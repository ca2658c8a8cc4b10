//! The inputs that fuzzing has kept (`fuzz/corpus/`), once more each, in some seconds and without a fuzzer.
//! `fuzz/README.md` says what the targets are.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::runtime::{Builder, Runtime};

use targets::bodies::Bodies;
use targets::frames::Frames;
use targets::stored;

/// Connections at once: one that a client has broken is waited for for two seconds.
const CONNECTIONS: usize = 64;
/// What takes longer is cut off: long polls, streams.
const PATIENCE: Duration = Duration::from_millis(50);

/// Says which input it was, when a panic goes by.
struct Naming<'a>(&'a str, &'a str);

impl Drop for Naming<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it was the input fuzz/corpus/{}/{}", self.0, self.1);
        }
    }
}

/// Names and bytes of the inputs for a target, in order of name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap());
    let mut inputs: Vec<_> = files
        .map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()))
        .collect();
    inputs.sort();
    assert!(inputs.len() > 20, "the corpus of {target} is gone");
    inputs
}

/// Panics so far, those in tasks of a runtime included, which nobody else would hear of.
fn panics() -> usize {
    static HOOK: Once = Once::new();
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            usual(panic);
        }));
    });
    PANICS.load(Ordering::SeqCst)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn kept_inputs_of_what_is_stored_do_no_harm() {
    for (name, bytes) in corpus("stored") {
        let _naming = Naming("stored", &name);
        stored::run(&bytes);
    }
}

#[test]
fn kept_inputs_of_bodies_do_no_harm() {
    let before = panics();
    runtime().block_on(async {
        let bodies = Bodies::new(PATIENCE);
        for (name, bytes) in corpus("bodies") {
            let _naming = Naming("bodies", &name);
            bodies.run(&bytes).await;
            assert_eq!(panics(), before, "a task has panicked");
        }
    });
}

#[test]
fn kept_inputs_of_frames_do_no_harm() {
    let before = panics();
    runtime().block_on(async {
        let frames = Frames::new().await;
        frames.reset();
        stream::iter(corpus("frames"))
            .for_each_concurrent(CONNECTIONS, |(name, bytes)| {
                let frames = &frames;
                async move {
                    let _naming = Naming("frames", &name);
                    frames.run(&bytes).await;
                }
            })
            .await;
        frames.settle().await;
    });
    assert_eq!(panics(), before, "a task has panicked");
}
