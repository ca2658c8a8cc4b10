//! Opens a page in Chromium without a window, where there is one.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Names that Chromium has.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// How long it may take, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Asserts that the page's script drew this (`"8 charts, 2 pictures"`) without an error, and that
/// no script of a history ran.
pub fn draws(page: &Path, drawn: &str) {
    let on_path = |name: &&&str| {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths).any(|directory| directory.join(name).is_file())
    };
    let Some(browser) = BROWSERS.iter().find(on_path) else {
        // Past the capture of output: a test that tests less says so.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: no Chromium to open {} (apt-get install chromium)",
            page.display()
        );
        return;
    };
    let profile = tempfile::tempdir().unwrap();
    let out = profile.path().join("dom.html");
    let mut child = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--virtual-time-budget=5000", "--window-size=1200,900"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", page.display()))
        .stdout(Stdio::from(File::create(&out).unwrap()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > DEADLINE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{browser} did not come to an end with {}", page.display());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let dom = std::fs::read_to_string(&out).unwrap();
    assert!(!dom.contains("data-hacked"), "a script of the history ran");
    let trouble = dom.split("id=\"trouble\"").nth(1).and_then(|rest| rest.split("</p>").next());
    assert!(trouble.is_some_and(|said| said.contains("hidden")), "{trouble:?}");
    let drew = dom.split("data-drawn=\"").nth(1).and_then(|rest| rest.split('"').next());
    assert_eq!(drew, Some(drawn), "{}", page.display());
}
