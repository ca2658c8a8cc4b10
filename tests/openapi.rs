//! openapi.json is what a node does: schemathesis makes requests of it, right and wrong ones, and compares
//! the answers. `OPENAPI_EXAMPLES=100` makes more of them for each operation.
//!
//! What a schema cannot say is in tests/openapi/: both of two cursors, the time in an id.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::cluster::TestCluster;

const VERSION: &str = "4.32.5";
/// Left out: what is no request and answer, what takes long, and what ends the session that asks.
const LEFT_OUT: [&str; 3] = ["/v1/ws", "/v1/node/compact", "/v1/logout"];

/// The program, installed if need be; why not, otherwise.
fn schemathesis() -> Result<PathBuf, String> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("schemathesis-{VERSION}"));
    let program = home.join("bin/schemathesis");
    if program.exists() {
        return Ok(program);
    }
    let run = |command: &mut Command| match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("{command:?}: {error}")),
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
    let wanted = format!("schemathesis=={VERSION}");
    run(Command::new(home.join("bin/pip")).args(["install", "--quiet", &wanted]))?;
    Ok(program)
}

#[test]
fn what_is_described_is_what_is_served() {
    let program = match schemathesis() {
        Ok(program) => program,
        Err(why) => {
            crate::common::say!("SKIPPED: schemathesis {VERSION} cannot be installed: {why}");
            return;
        }
    };
    let cluster = TestCluster::start(3);
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi");
    let examples = std::env::var("OPENAPI_EXAMPLES").unwrap_or_else(|_| "10".into());
    let mut command = Command::new(program);
    command.arg("--config-file").arg(here.join("schemathesis.toml"));
    command.arg("run").arg(format!("{}/v1/openapi.json", cluster.url(0)));
    command.args(["--header", &format!("Authorization: Bearer {}", cluster.admin_token())]);
    command.args(LEFT_OUT.iter().flat_map(|path| ["--exclude-path", path]));
    command.args(["--max-examples", &examples, "--workers", "1", "--continue-on-failure"]);
    command.args(["--seed", "1", "--no-color"]);
    command.env("SCHEMATHESIS_HOOKS", "hooks").env("PYTHONPATH", &here);
    command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(cluster.directory());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let summary = said.find("= SUMMARY =").map_or(&*said, |at| &said[at..]);
    crate::common::say!("{summary}");
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Tested: ") && said.contains(" generated"), "nothing was tested: {said}");
}
