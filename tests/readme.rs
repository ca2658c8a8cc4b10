//! What README.md says to type for chatting works as it is written, line by line.

use std::process::{Command, Stdio};

use crate::common::cluster::TestCluster;

const README: &str = include_str!("../README.md");

/// The shell's blocks of a section.
fn blocks(section: &str) -> Vec<&'static str> {
    let text = README.split("\n## ").find(|text| text.starts_with(section)).expect("the section");
    let parts = text.split("```sh\n").skip(1);
    parts.map(|part| part.split("```").next().expect("the block's end")).collect()
}

/// The line, so that it ends by itself and fails when it did not do what it is for.
fn finite(line: &str) -> String {
    if line.starts_with("folkmoot tail") {
        return line.replace("tail tea", "tail tea --count 1");
    }
    if let Some(rest) = line.strip_prefix("curl -N") {
        // It streams until it is interrupted; it is listened to until it has sent all there is.
        return format!("grep -q caught_up < <(curl -N --max-time 30 {rest} 2>&1)");
    }
    line.replace("curl ", "curl --fail-with-body ")
}

#[test]
fn the_readme_chats() {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        crate::common::say!("SKIPPED: curl is not installed");
        return;
    }
    let cluster = TestCluster::start(1);
    let lines: Vec<&str> = blocks("Chat").into_iter().flat_map(str::lines).collect();
    let typed = lines.iter().filter(|line| line.starts_with("folkmoot ") || line.contains("curl "));
    assert!(typed.count() >= 9, "not found: {lines:?}");
    let mut script = String::from("set -eux\nfolkmoot() { command \"$FOLKMOOT\" \"$@\"; }\n");
    for line in lines.iter().filter(|line| !line.starts_with("export ")) {
        script.push_str(&finite(line));
        script.push('\n');
    }
    let output = Command::new("bash")
        .args(["-c", &script])
        .env("FOLKMOOT", env!("CARGO_BIN_EXE_folkmoot"))
        .env("FOLKMOOT_SERVER", &cluster.client_urls()[0])
        .env("FOLKMOOT_TOKEN", cluster.admin_token())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", String::from_utf8_lossy(&output.stdout));
}
