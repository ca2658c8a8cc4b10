//! The config files in `cluster/` start a cluster as they are, but for addresses and directories.

use std::path::{Path, PathBuf};

use crate::common::cluster::{Options, TestCluster, folkmoot};
use crate::common::{load, new_id};

fn configs() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster");
    let entries = std::fs::read_dir(directory).expect("cluster/ is there");
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    paths.sort();
    paths
}

#[test]
fn there_is_one_file_a_machine_and_each_is_valid() {
    let configs = configs();
    assert_eq!(configs.len(), 3, "{configs:?}");
    for path in configs {
        let output = folkmoot().args(["config", "check"]).arg(&path).output().unwrap();
        assert!(output.status.success(), "{path:?}: {output:?}");
        let text = std::fs::read_to_string(&path).unwrap();
        let settings: toml::Table = text.parse().unwrap();
        assert!(!settings.is_empty());
        let comments = text.lines().filter(|line| line.trim_start().starts_with('#')).count();
        assert!(comments > settings.len(), "{path:?} explains itself");
    }
}

#[test]
fn the_files_start_a_cluster() {
    // The command line, which `TestCluster` uses for addresses and directories, goes before the
    // file.
    let options = Options { configs: configs(), ..Options::default() };
    let cluster = TestCluster::start_with(3, options);
    cluster.room("general");
    let urls = cluster.client_urls();
    let posted = load::post(&urls, cluster.admin_token(), "general", &new_id(), "hello");
    for i in 0..3 {
        let log = load::read_room(&cluster.admin(i), "general", "linearizable");
        assert!(log.iter().any(|seen| seen.id == posted.id && seen.seq == posted.seq));
    }
}

#[test]
fn a_bad_file_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.toml");
    for text in ["not toml at all [", "no_such_setting = 1\n"] {
        std::fs::write(&path, text).unwrap();
        let mut serve = folkmoot();
        serve.arg("serve").arg("--config").arg(&path);
        serve.arg("--data-dir").arg(directory.path().join("data"));
        let output = serve.output().unwrap();
        assert!(!output.status.success(), "{text:?} is accepted");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(message.contains("bad.toml"), "it names the file: {message}");
        assert!(!directory.path().join("data").exists(), "it touches no data directory");
    }
}
