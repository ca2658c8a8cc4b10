//! A rolling restart with the script that operators have, which is told to restart a node by asking here.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::run::churn::operator::Operator;

/// The script.
const SCRIPT: &str = include_str!("../../../../scripts/rolling-restart");
/// How often to look whether it asks for something.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Operator {
    /// Runs the script. It asks for the restart of a node by a file that is named after it, and waits
    /// for as long as the file is there.
    ///
    /// # Errors
    ///
    /// What could not be done.
    pub(super) async fn rolling_restart(&mut self) -> Result<(), String> {
        let asked = tempfile::tempdir().map_err(|error| error.to_string())?;
        let file = format!("{}/{{id}}", asked.path().display());
        let ask = format!("touch {file}; while [ -e {file} ]; do sleep 0.02; done");
        let servers = self.urls();
        let cluster = self.cluster.clone();
        let script = spawn_blocking(move || {
            let mut command = Command::new("bash");
            command.args(["-c", SCRIPT, "rolling-restart", "--server", &servers]);
            command.args(["--restart-command", &ask, "--folkmoot"]).arg(cluster.bin());
            cluster.run(command)
        });
        let mut failed = None;
        while !script.is_finished() {
            // Where nobody answers, the script finds out as well, and gives up.
            let nodes = self.look().await.map_or_else(Vec::new, |view| view.nodes);
            for node in nodes {
                let file = asked.path().join(node.id.to_string());
                if file.exists() {
                    failed = failed.or(self.restart(node.place, &file).await.err());
                }
            }
            sleep(LOOK_EVERY).await;
        }
        let said = script.await.map_err(|error| error.to_string())??;
        match (failed, said.status.success()) {
            (Some(why), _) => Err(why),
            (None, true) => Ok(()),
            (None, false) => Err(String::from_utf8_lossy(&said.stderr).trim().to_owned()),
        }
    }

    /// Stops and starts a node, and takes its file away.
    async fn restart(&mut self, place: usize, file: &Path) -> Result<(), String> {
        let node = self.cluster.nodes[place].clone();
        let restarted = self
            .blocking(move || {
                node.stop()?;
                node.start().map_err(|error| format!("{}: {error}", node.name))
            })
            .await;
        std::fs::remove_file(file).map_err(|error| error.to_string())?;
        restarted.ok_or("a thread panicked")?
    }
}
