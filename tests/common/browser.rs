//! Browsers, which a script of web/test drives, and what else of this machine's programs a test needs.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use super::say;

/// How long the browsers may take for anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A program on this machine; says so where there is none.
pub fn program(names: &[&str], package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .flat_map(|directory| names.iter().map(move |name| directory.join(name)))
        .find(|program| program.is_file());
    if found.is_none() {
        say!("SKIPPED: no {}; apt-get install {package}", names[0]);
    }
    found
}

/// What drives browsers, and Debian's browser; says so where one of them is missing.
pub struct Browser {
    node: PathBuf,
    pub chromium: PathBuf,
}

impl Browser {
    pub fn find() -> Option<Browser> {
        let node = program(&["node"], "nodejs")?;
        let chromium = program(&["chromium", "chromium-browser"], "chromium")?;
        if !web_tests().with_file_name("node_modules/@playwright/test").is_dir() {
            say!("SKIPPED: no Playwright; run `npm ci` in web/, as scripts/test does");
            return None;
        }
        Some(Browser { node, chromium })
    }

    /// Runs a file of web/test, and tells it this.
    pub fn run(&self, file: &str, config: &Value) -> Script {
        let mut command = Command::new(&self.node);
        command.arg(web_tests().join(file));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut script = Script { child, lines };
        script.tell(config);
        script
    }
}

/// Where the scripts are.
pub fn web_tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("web/test")
}

/// The script that has the browsers; killed when it is gone, however that happens.
pub struct Script {
    child: Child,
    lines: Receiver<String>,
}

impl Script {
    /// Tells it something.
    pub fn tell(&mut self, value: &Value) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{value}").unwrap();
    }

    /// What it wants done next.
    pub fn next(&mut self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|error| panic!("the browsers' script: {error}; see above"));
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }

    /// Waits for its end, which must be a good one.
    pub fn succeeds(&mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Its end closes the pipes by which Chromium is driven, which ends that too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
