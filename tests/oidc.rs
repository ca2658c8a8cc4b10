//! Signing in by a real provider of OpenID Connect (npm `oidc-provider`): browsers over two nodes, the
//! command line, and the provider's own access tokens. What such a provider never does, a made-up one
//! does in src/gateway/tests/oidc.rs.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::browser::{Browser, program};
use crate::common::cluster::{Options, TestCluster, folkmoot, free_port};
use crate::common::http::Http;
use crate::common::sse::Sse;
use crate::common::{say, wait_for};

const SECRET: &str = "a secret that both have, and +%: too";

/// How soon something that was revoked does not work any more.
const SOON: Duration = Duration::from_secs(5);

/// Within which a node answers, whatever becomes of the provider.
const AT_ONCE: Duration = Duration::from_secs(6);

/// Where the provider's packages are, which are installed once; `None` where they cannot be.
fn installed() -> Option<&'static Path> {
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let install = || {
        program(&["node"], "nodejs")?;
        let version = Command::new("node").arg("--version").output().unwrap().stdout;
        let version = String::from_utf8_lossy(&version).trim().to_owned();
        let major = version.trim_start_matches('v').split('.').next()?.parse::<u32>().ok()?;
        if major < 20 {
            say!("SKIPPED: node {version}; oidc-provider needs 20 or later");
            return None;
        }
        let npm = program(&["npm"], "npm")?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc_provider");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oidc_provider");
        std::fs::create_dir_all(&directory).unwrap();
        let known = std::fs::read(directory.join("package-lock.json")).unwrap_or_default();
        for file in ["package.json", "package-lock.json", ".npmrc", "provider.js"] {
            std::fs::copy(source.join(file), directory.join(file)).unwrap();
        }
        let lock = std::fs::read(directory.join("package-lock.json")).unwrap();
        if known != lock || !directory.join("node_modules/oidc-provider").exists() {
            let mut ci = Command::new(npm);
            ci.args(["ci", "--no-audit", "--no-fund"]).current_dir(&directory);
            let output = ci.output().unwrap();
            if !output.status.success() {
                let _ = std::fs::remove_file(directory.join("package-lock.json"));
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                say!("SKIPPED: npm ci: {}", why.lines().next().unwrap_or_default());
                return None;
            }
        }
        Some(directory)
    };
    INSTALLED.get_or_init(install).as_deref()
}

/// A provider that runs; killed when it is gone.
struct Provider {
    issuer: String,
    child: Child,
    _stdin: ChildStdin,
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Provider {
    fn start(directory: &Path, port: u16, callback: &str) -> Provider {
        let device = "urn:ietf:params:oauth:grant-type:device_code";
        let config = json!({ "port": port, "clients": [{
            "client_id": "chat", "client_secret": SECRET, "redirect_uris": [callback],
            "grant_types": ["authorization_code", device], "response_types": ["code"],
        }] });
        let mut command = Command::new("node");
        command.arg("provider.js").arg(config.to_string()).current_dir(directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        while !line.contains("listening") {
            line.clear();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the provider does not start");
        }
        let stdin = child.stdin.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Provider { issuer: format!("http://127.0.0.1:{port}"), child, _stdin: stdin }
    }

    fn token(&self, subject: &str, audience: &str, seconds: u32) -> String {
        let path = format!("/tests/token?sub={subject}&aud={audience}&seconds={seconds}");
        let answer = Http::new(&self.issuer).get(&path).unwrap();
        assert_eq!(answer.status, 200);
        String::from_utf8(answer.body).unwrap()
    }
}

/// A cluster whose people sign in by a provider, which sends them to its second node.
pub struct World {
    /// Of three nodes.
    pub cluster: TestCluster,
    directory: &'static Path,
    callback: String,
    port: u16,
    provider: Option<Provider>,
    _files: tempfile::TempDir,
}

impl World {
    /// `None` where the provider cannot run.
    fn start() -> Option<World> {
        World::start_with(Options::default())
    }

    /// With what else the nodes are given.
    pub fn start_with(options: Options) -> Option<World> {
        let directory = installed()?;
        let port = free_port();
        let files = tempfile::tempdir().unwrap();
        let configs: Vec<_> = (0..3).map(|i| files.path().join(format!("{i}.toml"))).collect();
        configs.iter().for_each(|file| std::fs::write(file, "").unwrap());
        let init_arguments = vec!["--shards".into(), "2".into()];
        let configs_too = configs.clone();
        let options = Options { configs, init_arguments, ..options };
        let cluster = TestCluster::start_with(3, options);
        // Where the second node is, is known only now.
        let public_url = cluster.url(1);
        let text = format!(
            "[accounts]\npublic_url = \"{public_url}\"\n[oidc.test]\ntitle = \"<b>Test & Co</b>\"\n\
             issuer = \"http://127.0.0.1:{port}\"\nclient_id = \"chat\"\n\
             client_secret = \"{SECRET}\"\nscopes = [\"profile\", \"groups\"]\n\
             admin_group = \"ops\"\nbearer_audience = \"folkmoot\"\n"
        );
        for (i, file) in configs_too.iter().enumerate() {
            std::fs::write(file, &text).unwrap();
            cluster.signal(i, Signal::HUP);
        }
        for i in 0..3 {
            wait_for("the nodes to know the provider", Duration::from_secs(20), || {
                let page = cluster.http(i).get("/v1/oidc").map_err(|e| e.to_string())?.expect(200);
                if page["providers"][0]["name"] == "test" { Ok(()) } else { Err(page.to_string()) }
            });
        }
        let callback = format!("{public_url}/v1/oidc/test/callback");
        let provider = Some(Provider::start(directory, port, &callback));
        Some(World { cluster, directory, callback, port, provider, _files: files })
    }

    fn public_url(&self) -> String {
        self.callback.split("/v1/").next().unwrap().to_owned()
    }

    fn provider(&self) -> &Provider {
        self.provider.as_ref().unwrap()
    }

    /// The command line of somebody with a home of their own.
    fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = folkmoot();
        command.args(arguments).stdin(Stdio::null());
        command.env("FOLKMOOT_SERVER", self.public_url()).env("HOME", self.cluster.directory());
        command.env_remove("XDG_CONFIG_HOME");
        command
    }

    /// A line of JSON that a command says.
    fn said(&self, arguments: &[&str]) -> Value {
        let output = self.cli(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// `folkmoot login`, which waits for somebody to sign in.
struct Login {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Login {
    /// Begins one; also tells what it shows.
    fn begin(world: &World) -> (Login, Value) {
        let mut command = world.cli(&["login", "--json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut login = Login { child, lines };
        let shown = login.next();
        (login, shown)
    }

    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("it says something").unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn people_sign_in_with_browsers_over_two_nodes_and_with_the_command_line() {
    let Some(world) = World::start() else { return };
    let Some(browser) = Browser::find() else { return };
    world.cluster.user("ann");
    let (mut login, shown) = Login::begin(&world);
    let config = json!({
        "chromium": browser.chromium,
        "nodes": [world.cluster.url(0), world.public_url()],
        "device": shown["verification_uri_complete"],
        "picture": std::env::var("FOLKMOOT_PICTURE").ok(),
    });
    let mut script = browser.run("browser/oidc.js", &config);
    assert_eq!(script.next()["do"], "check");
    script.succeeds();
    // It asks every few seconds, and is made a user then.
    let kept = login.next();

    let users = world.cluster.admin(0).get("/v1/users?limit=100").unwrap().expect(200);
    let users: Vec<_> = users["users"].as_array().unwrap().iter().collect();
    let names: Vec<_> = users.iter().map(|user| user["user"].as_str().unwrap()).collect();
    assert_eq!(names, ["admin", "ann", "cid", "dan"], "rows of accounts are no users");
    assert_eq!(users[2]["display_name"], "CID", "from the user info, as the ID token is short");

    // The command line is signed in, by a file of its user's own; until it is not.
    assert_eq!(kept["user"], "dan");
    assert!(login.child.wait().unwrap().success());
    let file = world.cluster.directory().join(".config/folkmoot/credentials.json");
    assert_eq!(kept["credentials"], file.display().to_string());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let sessions = world.said(&["user", "sessions", "--json"]);
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1);
    let mut elsewhere = world.cli(&["user", "sessions", "--timeout", "1s"]);
    elsewhere.env("FOLKMOOT_SERVER", world.cluster.url(0));
    assert!(!elsewhere.output().unwrap().status.success(), "it is not shown to other servers");
    assert_eq!(world.said(&["logout", "--json"])["user"], "dan");
    assert!(!world.cli(&["user", "sessions"]).output().unwrap().status.success());
    assert!(!world.cli(&["logout"]).output().unwrap().status.success());
}

#[test]
fn access_tokens_of_the_provider_are_taken_until_they_end_or_their_user_does() {
    let Some(mut world) = World::start() else { return };
    let node = world.cluster.http(0);
    let me = |token: &str| node.with_token(token).get("/v1/me").unwrap();
    // A provider may be late to say what its keys are, and a shard may have no leader just then.
    let status = |token: &str| {
        wait_for("the token to be judged", Duration::from_secs(20), || match me(token) {
            late if late.status == 503 => Err(late.json().to_string()),
            answer => Ok(answer.status),
        })
    };
    let token = world.provider().token("sub-eve", "folkmoot", 300);
    assert_eq!(status(&token), 401, "nobody has signed in by it");
    let linked = json!({ "provider": "test", "subject": "sub-eve" });
    let admin = world.cluster.admin(0);
    world.cluster.user("eve");
    let body = linked.to_string();
    let json_type = [("content-type", "application/json")];
    let link = admin.send("PUT", "/v1/users/eve/link", &json_type, body.as_bytes()).unwrap();
    assert_eq!(link.status, 200);
    assert_eq!(me(&token).expect(200)["user"], "eve");
    assert_eq!(status(&world.provider().token("sub-eve", "other", 300)), 401);
    assert_eq!(status(&world.provider().token("sub-fay", "folkmoot", 300)), 401);
    // gRPC and event streams take it as REST does.
    let mut command = world.cli(&["user", "tokens", "eve", "--json"]);
    command.env("FOLKMOOT_TOKEN", &token);
    assert!(command.output().unwrap().status.success());
    world.cluster.room("tea");
    let ends = |mut stream: Sse| {
        let begin = Instant::now();
        while stream.next().is_ok() {}
        begin.elapsed()
    };
    let brief = world.provider().token("sub-eve", "folkmoot", 1);
    let patient = node.with_token(&brief).with_timeout(Duration::from_secs(60));
    let brief_begin = Instant::now();
    let brief = Sse::open(&patient, "tea", Some(0), None).unwrap();
    assert!(
        ends(brief) < Duration::from_secs(40),
        "a stream ends with its token, and half a minute"
    );
    assert!(brief_begin.elapsed() > Duration::from_secs(20), "it was open until then");
    // The provider goes; what it has issued stays good, and the node as quick as it was.
    world.provider = None;
    assert_eq!(me(&token).expect(200)["user"], "eve");
    let stream = Sse::open(&node.with_token(&token), "tea", Some(0), None).unwrap();
    let disable = br#"{"disabled":true}"#;
    let disabled = admin.send("PATCH", "/v1/users/eve", &json_type, disable).unwrap();
    assert_eq!(disabled.status, 200);
    assert!(ends(stream) < SOON, "a stream ends within a second of its user");
    assert_eq!(status(&token), 401);
}

#[test]
fn a_provider_that_is_down_keeps_nobody_else_waiting() {
    let Some(mut world) = World::start() else { return };
    world.provider = None;
    let node = world.cluster.http(0);
    for _ in 0..3 {
        let begin = Instant::now();
        let down = node.get("/v1/oidc/test/login").unwrap();
        let error = down.json();
        assert_eq!((down.status, &error["error"]["code"]), (503, &json!("unavailable")));
        assert!(begin.elapsed() < AT_ONCE);
        wait_for("the node to be ready still", Duration::from_secs(10), || {
            let begin = Instant::now();
            let ready = node.get("/health/ready").unwrap();
            assert!(begin.elapsed() < AT_ONCE);
            // It is not for as long as a shard has no leader.
            if ready.status == 200 { Ok(()) } else { Err(ready.json().to_string()) }
        });
        assert_eq!(world.cluster.admin(0).get("/v1/me").unwrap().status, 200);
    }
    let login = world.cli(&["login", "--timeout", "2s"]).output().unwrap();
    assert!(!login.status.success());
    let said = String::from_utf8_lossy(&login.stderr).into_owned();
    assert!(said.contains("cannot be reached"), "{said}");
    // It comes back, and so do people.
    world.provider = Some(Provider::start(world.directory, world.port, &world.callback));
    wait_for("the provider to be found again", Duration::from_secs(20), || {
        let sent = node.get("/v1/oidc/test/login").map_err(|e| e.to_string())?;
        if sent.status == 303 { Ok(()) } else { Err(format!("{}", sent.status)) }
    });
}
