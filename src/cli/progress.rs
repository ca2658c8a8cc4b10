//! A progress bar on a terminal; elsewhere only what is worth a line.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// What [`Progress::share`] counts in.
const SHARES: u64 = 1000;

/// How far a long command has come. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    bar: ProgressBar,
    quiet: bool,
}

impl Progress {
    /// Begins something of `total` parts. `quiet`: show nothing.
    pub(super) fn start(what: &str, total: u64, quiet: bool) -> Progress {
        let template = "{prefix:9} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
        let progress = Progress::new(Some(total), template, quiet);
        progress.bar.set_prefix(what.to_string());
        progress
    }

    /// Waits for something that has no parts: says on a terminal what for, and for how long so far.
    pub(super) fn waiting(what: impl Into<String>, quiet: bool) -> Progress {
        let progress = Progress::new(None, "{spinner} {msg} {elapsed}", quiet);
        progress.bar.set_message(what.into());
        if progress.is_shown() {
            progress.bar.enable_steady_tick(Duration::from_millis(125));
        }
        progress
    }

    /// Begins something of which only the share that is done is known.
    pub(super) fn share(quiet: bool) -> Progress {
        let template = "{bar:30} {percent:>3}% {elapsed}  {wide_msg}";
        Progress::new(Some(SHARES), template, quiet)
    }

    /// A bar that goes away when nobody has it any more, however a command ends.
    fn new(total: Option<u64>, template: &str, quiet: bool) -> Progress {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let bar = bar.with_finish(ProgressFinish::AndClear);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if !quiet && std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
        }
        Progress { bar, quiet }
    }

    /// So much is done, of 1. It does not go back.
    pub(super) fn set(&self, share: f64) {
        let done = (share.clamp(0.0, 1.0) * SHARES as f64) as u64;
        self.bar.set_position(done.max(self.bar.position()));
    }

    /// What is at hand, beside the bar.
    pub(super) fn at(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// Whether there is a bar to be seen.
    pub(super) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Another `parts` are done.
    pub(super) fn add(&self, parts: u64) {
        self.bar.inc(parts);
    }

    /// Says something above the bar; on standard error where there is none.
    pub(super) fn note(&self, text: &str) {
        match (self.quiet, self.bar.is_hidden()) {
            (true, _) => {}
            (false, true) => eprintln!("{text}"),
            (false, false) => self.bar.println(text),
        }
    }

    /// All is done; the bar goes away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
