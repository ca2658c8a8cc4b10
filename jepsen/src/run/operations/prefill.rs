//! Messages that are there before an operation is measured: logs in IRC's form, imported by the
//! product's own command.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::cluster::Cluster;

/// Rooms that they are spread over.
const ROOMS: u64 = 32;
/// Minutes of the day that a log is of.
const MINUTES: u64 = 24 * 60;

/// Imports so many messages; the logs are made in a directory of their own, and removed.
///
/// # Errors
///
/// What could not be written, or what the command said.
pub fn fill(cluster: &Cluster, directory: &Path, messages: u64) -> Result<(), String> {
    if messages == 0 {
        return Ok(());
    }
    let logs = directory.join("prefill");
    let io = |error: std::io::Error| format!("{}: {error}", logs.display());
    fs::create_dir_all(&logs).map_err(io)?;
    let mut files = vec![];
    for room in 0..ROOMS {
        let lines = messages / ROOMS + u64::from(room < messages % ROOMS);
        let file = logs.join(format!("prefill{room}.txt"));
        fs::write(&file, log(room, lines)).map_err(io)?;
        files.push(file.display().to_string());
    }
    let servers: Vec<String> = cluster
        .present()
        .into_iter()
        .map(|place| format!("http://{}", cluster.nodes[place].client))
        .collect();
    let servers = servers.join(",");
    let mut arguments = vec!["import", "irc", "--json", "--timeout", "120s", "--server", &servers];
    arguments.extend(files.iter().map(String::as_str));
    let output = cluster.folkmoot(&arguments)?;
    fs::remove_dir_all(&logs).map_err(io)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// A day's talk of so many lines: as long as chat is, and as different from each other.
fn log(room: u64, lines: u64) -> String {
    let mut text = String::new();
    for n in 0..lines {
        let minute = n * MINUTES / lines;
        let number = (room << 40 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let _ = writeln!(
            text,
            "[{:02}:{:02}] <u{}> {n}: {number:x} is not {:x}, and {} said so",
            minute / 60,
            minute % 60,
            number % 20,
            number.rotate_left(17),
            number % 977
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_its_lines_and_ends_on_the_same_day() {
        let text = log(3, 5_000);
        assert_eq!(text.lines().count(), 5_000);
        assert!(
            text.starts_with("[00:00] <u") && text.lines().last().unwrap().starts_with("[23:59]")
        );
        assert_eq!(log(0, 0), "");
    }
}
