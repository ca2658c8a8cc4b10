//! What docs/guide-operators.md says to type takes a cluster from one node to three, to five and back
//! while somebody posts, as it is written.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/guide");

#[test]
fn the_operators_guide_works_as_it_is_written() {
    for program in ["bash", "curl", "jq"] {
        if Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err() {
            crate::common::say!("SKIPPED: {program} is not installed");
            return;
        }
    }
    let output =
        Command::new(GUIDE).args(["--folkmoot", env!("CARGO_BIN_EXE_folkmoot")]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{wrong}");
    // It came to the end, and what must be refused was refused.
    let refused = "no other node to take the place of node 3";
    for part in [refused, "all restarted: 1 2 3 4 5", "all replicas are the same"] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    let transcript = read("guide-operators.transcript.txt");
    assert_eq!(headings(&said), headings(&transcript), "run scripts/guide --write");
}

fn read(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    std::fs::read_to_string(docs.join(name)).unwrap()
}

/// The headings of the tables that were printed: what else is in them differs each time.
fn headings(said: &str) -> BTreeSet<Vec<&str>> {
    let is_heading = |line: &&str| {
        let words = line.chars().all(|c| c.is_ascii_uppercase() || "() ".contains(c));
        words && line.split("  ").count() > 2
    };
    said.lines().filter(is_heading).map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn the_guides_transcript_is_of_the_page_as_it_is() {
    let (page, transcript) = (read("guide-operators.md"), read("guide-operators.transcript.txt"));
    let blocks = page.split("```sh\n").skip(1).map(|part| part.split("```").next().unwrap());
    let mut rest = transcript.as_str();
    for line in blocks.flat_map(str::lines) {
        let at = rest.find(line).unwrap_or_else(|| {
            panic!("{line:?} is not in the transcript: run scripts/guide --write")
        });
        rest = &rest[at + line.len()..];
    }
}
