//! One configuration, a struct for each layer.
//!
//! Read by `cli` from a TOML file, then `FOLKMOOT_<SECTION>_<FIELD>` from the environment, then
//! flags; each wins over the one before. The table below is the one place where a setting has its
//! name, type, default and description: parsing, `config print` and the environment follow from
//! it. What [`Config::validate`] passes, the layers may rely on. `reload.rs` lists what changes
//! while a node runs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod file;
pub mod oidc;
mod reload;
mod setting;
mod validate;

pub use reload::Reload;
pub use setting::{LogFormat, Registration, Setting, Size};

/// As durations are written: a twelfth of 365.25 days, rounded.
const MONTH_SECONDS: u64 = 2_630_016;

/// What the names of all settings in the environment begin with.
pub const ENVIRONMENT_PREFIX: &str = "FOLKMOOT_";

macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])*
        $section:ident: $struct:ident {
            $($(#[doc = $doc:literal])* $field:ident: $type:ty = $default:expr;)*
        }
    )*) => {
        /// The whole configuration of a node.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct Config {
            $($(#[doc = $section_doc])* pub $section: $struct,)*
            /// Providers by which people sign in, by name.
            pub oidc: BTreeMap<String, oidc::Provider>,
        }

        $(
            $(#[doc = $section_doc])*
            #[derive(Debug, Clone, PartialEq)]
            pub struct $struct {
                $($(#[doc = $doc])*
                pub $field: $type,)*
            }

            impl Default for $struct {
                fn default() -> $struct {
                    $struct { $($field: $default,)* }
                }
            }
        )*

        impl Config {
            /// Names of the sections, and of the fields of each.
            const TABLE: &[(&str, &[&str])] =
                &[$((stringify!($section), &[$(stringify!($field),)*]),)*];

            /// One field as TOML. `None` when there is no such field.
            fn get(&self, section: &str, field: &str) -> Option<String> {
                match (section, field) {
                    $($((stringify!($section), stringify!($field)) => {
                        Some(self.$section.$field.to_toml())
                    })*)*
                    _ => None,
                }
            }

            /// Takes one field over from another configuration, if there is such a field.
            fn copy(&mut self, other: &Config, section: &str, field: &str) {
                match (section, field) {
                    $($((stringify!($section), stringify!($field)) => {
                        self.$section.$field = other.$section.$field.clone();
                    })*)*
                    _ => {}
                }
            }

            /// Sets one field from a TOML value. `None` when there is no such field.
            fn set_toml(
                &mut self,
                section: &str,
                field: &str,
                value: toml::Value,
            ) -> Option<Result<(), String>> {
                match (section, field) {
                    $($((stringify!($section), stringify!($field)) => {
                        let parsed = <$type as Setting>::from_toml(value);
                        Some(parsed.map(|value| self.$section.$field = value))
                    })*)*
                    _ => None,
                }
            }

            /// Sets one field from text. `None` when there is no such field.
            fn set(&mut self, section: &str, field: &str, text: &str) -> Option<Result<(), String>> {
                match (section, field) {
                    (oidc::SECTION, _) => {
                        let (name, field) = field.split_once('.')?;
                        self.oidc.entry(name.to_owned()).or_default().set(field, text)
                    }
                    $($((stringify!($section), stringify!($field)) => {
                        let parsed = <$type as Setting>::parse(text);
                        Some(parsed.map(|value| self.$section.$field = value))
                    })*)*
                    _ => None,
                }
            }

            /// The whole configuration as TOML, each field with its description and default.
            pub fn to_toml(&self) -> String {
                let default = Config::default();
                let mut out = String::new();
                $(
                    push_comment(&mut out, &[$($section_doc),*]);
                    out.push_str(concat!("[", stringify!($section), "]\n\n"));
                    $(
                        push_comment(&mut out, &[$($doc),*]);
                        out.push_str("# Default: ");
                        out.push_str(&default.$section.$field.to_toml());
                        if reload::RELOADED.contains(&(stringify!($section), stringify!($field))) {
                            out.push_str("; reloaded on SIGHUP");
                        }
                        out.push_str(concat!("\n", stringify!($field), " = "));
                        out.push_str(&self.$section.$field.to_toml());
                        out.push_str("\n\n");
                    )*
                )*
                oidc::push_toml(&mut out, &self.oidc);
                out.truncate(out.trim_end().len());
                out.push('\n');
                out
            }
        }
    };
}

settings! {
    /// This node: where it stores, listens, and finds the others.
    node: Node {
        /// Directory for everything that the node keeps. One node owns it at a time.
        data_dir: PathBuf = PathBuf::from("folkmoot-data");
        /// Address and port for clients: gRPC, REST, WebSocket, streams, health and
        /// metrics. Port 0 takes any free one.
        client_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7400));
        /// Address and port for the other nodes of the cluster. Never expose it to clients.
        peer_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7401));
        /// `host:port` that clients are told to reach this node at. Empty: `client_listen`.
        client_advertise: Option<String> = None;
        /// `host:port` at which the other nodes reach this one. Empty: `peer_listen`.
        peer_advertise: Option<String> = None;
        /// Peer addresses (`host:port`) of nodes to join; this node's own may be among them, so
        /// that all nodes can share one list. Empty on a cluster of one.
        join: Vec<String> = Vec::new();
        /// What lets a new node join a cluster that has been formed: made by `folkmoot node token`,
        /// good for one node. Not needed by the founders, nor once the node has joined.
        join_token: Option<String> = None;
        /// Whether this node is a gateway: it serves clients, is given no replicas, and is none of
        /// the founders of a cluster. A node that has replicas stays as it is until they have been
        /// moved to other nodes.
        gateway: bool = false;
        /// How long a stopping node may take to hand over leadership and finish requests.
        shutdown_timeout: Duration = Duration::from_secs(10);
        /// For how long a stopping node still takes requests, though `/health/ready` says no
        /// already. Behind a load balancer: longer than it takes to notice, 2s with the files in
        /// cluster/.
        drain_grace: Duration = Duration::from_millis(100);
    }

    /// What clients may ask for.
    limits: Limits {
        /// The longest message text, in bytes of UTF-8; at most 64KiB.
        text_bytes_max: Size = Size(64 * 1024);
        /// Client connections at a time; further ones are refused.
        connections_max: usize = 10_000;
        /// Live sessions, WebSockets, event streams and long polls at a time on this node; further
        /// ones are refused.
        sessions_max: usize = 20_000;
        /// Rooms followed at a time in one session, or over one WebSocket; further ones are refused.
        follows_per_session_max: usize = 1_000;
        /// Unacknowledged posts of one session; further ones wait in the connection.
        posts_in_flight_per_session_max: usize = 256;
        /// Requests a second that one user may make at this node, over all interfaces; five times as
        /// many at once. Further ones are answered `rate_limited`. Administrators are not limited. 0: no
        /// limit.
        user_requests_per_second: usize = 200;
        /// The same with one token, or in one of a user's sessions.
        token_requests_per_second: usize = 100;
        /// The same from one IPv4 address, or one /64 of IPv6, whoever asks; this machine's own is not
        /// limited, unless `accounts.behind_proxy` is set.
        address_requests_per_second: usize = 1_000;
        /// After how long a silence a WebSocket, or an HTTP/2 connection, is asked whether its
        /// client is there, and how long the answer may take. Shorter than any proxy between them
        /// waits. A WebSocket whose client takes nothing is closed after twice as long.
        keep_alive: Duration = Duration::from_secs(20);
        /// How long a request is retried inside the cluster before the client gets `timeout`.
        request_timeout: Duration = Duration::from_secs(10);
    }

    /// Who may have an account, and how people sign in.
    accounts: Accounts {
        /// Who may make an account: `closed`, nobody, administrators create users; `invite`,
        /// whoever has one, made by `folkmoot user invite`; `open`, everybody.
        registration: Registration = Registration::Closed;
        /// A session ends after so much time without use.
        session_idle: Duration = Duration::from_secs(30 * 24 * 3600);
        /// A session ends after so much time, however much it is used.
        session_max: Duration = Duration::from_secs(3 * MONTH_SECONDS);
        /// Whether all clients come through a proxy, whose word counts for where they are and
        /// whether they speak TLS: the last `X-Forwarded-For` and `X-Forwarded-Proto`. Anybody who
        /// reaches the node past the proxy can say what they like then.
        behind_proxy: bool = false;
        /// Where browsers find the cluster, like `https://chat.example.org`. Needed for sign-in by
        /// OpenID Connect: providers send people back there.
        public_url: Option<String> = None;
    }

    /// Consensus. Must be the same on all nodes.
    raft: Raft {
        /// How often a leader assures its followers that it is there.
        heartbeat_interval: Duration = Duration::from_millis(100);
        /// A follower that hears nothing from its leader for a random time between this and
        /// `election_timeout_max`, on top of the longest, stands for election.
        election_timeout_min: Duration = Duration::from_millis(300);
        /// See `election_timeout_min`.
        election_timeout_max: Duration = Duration::from_millis(500);
    }

    /// Where replicas live. Must be the same on all nodes.
    placement: Placement {
        /// How long a node may not answer until its replicas are moved to other nodes, and it is
        /// removed for good; `0s`: for ever. Only where there is another node for each of its
        /// replicas, and while most nodes answer; one node at a time; never one that is drained.
        /// Longer than any restart or repair takes.
        replace_after: Duration = Duration::ZERO;
    }

    /// The disk.
    store: Store {
        /// How often what was applied is written from memory into the base. Longer means less
        /// writing, and a longer replay after a crash.
        checkpoint_interval: Duration = Duration::from_secs(3);
        /// Memory for what was applied and is not in the base yet; a checkpoint begins early
        /// when it is used up.
        overlay_bytes: Size = Size(64 << 20);
        /// Memory for the base's cache.
        sled_cache: Size = Size(64 << 20);
        /// Size from which the base's files are rewritten without what is no longer needed, once
        /// that is two thirds of them. It needs as much free space as they take.
        compact_over: Size = Size(1 << 30);
        /// Size from which old files of the log are removed.
        log_purge_threshold: Size = Size(10 << 30);
        /// How fast this node sends the state of shards to nodes that are to have it, in bytes a
        /// second, all shards together; `0B`: as fast as it can. The default leaves two cores enough
        /// for 1,000 posts a second; larger machines bear more.
        snapshot_bytes_per_second: Size = Size(8 << 20);
        /// Posts are refused with `disk_full` while less than this is free; reads go on.
        min_free_disk: Size = Size(256 << 20);
        /// Space kept in a file that is given up when the disk is full all the same, so that
        /// votes and checkpoints go on.
        ballast: Size = Size(64 << 20);
    }

    /// The node's own log, on standard error.
    log: Log {
        /// `error`, `warn`, `info`, `debug` or `trace`, also by module: `info,folkmoot::shard=debug`.
        filter: String = "info,openraft=error,openraft::raft::stream_append=off,raft_engine=error".to_string();
        /// `text` for people, `json` for machines.
        format: LogFormat = LogFormat::Text;
    }
}

fn push_comment(out: &mut String, lines: &[&str]) {
    for line in lines {
        out.push('#');
        out.push_str(line);
        out.push('\n');
    }
}

/// Why a configuration is not usable. Each problem names the field and the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// One line or paragraph each.
    pub problems: Vec<String>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for Invalid {}

impl From<String> for Invalid {
    fn from(problem: String) -> Invalid {
        Invalid { problems: vec![problem] }
    }
}

/// One setting from a flag: section, field and text.
pub type Override<'a> = (&'a str, &'a str, String);

impl Config {
    /// Reads a file, if one is given, then the environment, then overrides; validates the result.
    ///
    /// # Errors
    /// Every problem found in the first source that has any.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[Override<'_>],
    ) -> Result<Config, Invalid> {
        let (mut config, mut lines) = (Config::default(), file::Lines::default());
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            lines = file::read(&text, &mut config).map_err(|problems| Invalid {
                problems: problems.iter().map(|problem| problem.in_file(path)).collect(),
            })?;
        }
        config.apply_environment(environment, &mut lines)?;
        for (section, field, text) in overrides {
            match config.set(section, field, text) {
                Some(Ok(())) => lines.forget(section, field),
                Some(Err(why)) => return Err(format!("{section}.{field}: {why}").into()),
                None => return Err(format!("there is no setting {section}.{field}").into()),
            }
        }
        let checked = config.read_secrets().and_then(|()| config.validate());
        match (checked, file) {
            (Ok(()), _) => Ok(config),
            (Err(invalid), None) => Err(invalid),
            (Err(Invalid { problems }), Some(path)) => {
                let blame = |problem| lines.blame(problem).in_file(path);
                Err(Invalid { problems: problems.into_iter().map(blame).collect() })
            }
        }
    }

    /// Parses TOML; does not validate relations.
    ///
    /// # Errors
    /// Everything that is wrong, with its line.
    pub fn parse(text: &str) -> Result<Config, Invalid> {
        let mut config = Config::default();
        let read = file::read(text, &mut config);
        read.map_err(|problems| Invalid {
            problems: problems.iter().map(|p| p.in_file(Path::new("line"))).collect(),
        })?;
        Ok(config)
    }

    /// Takes settings from `FOLKMOOT_<SECTION>_<FIELD>`. Other variables are not ours to judge,
    /// but a misspelt field of a known section is.
    fn apply_environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
        lines: &mut file::Lines,
    ) -> Result<(), Invalid> {
        let mut problems = Vec::new();
        for (name, text) in environment {
            let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let rest = rest.to_ascii_lowercase();
            let Some((section, field)) = rest.split_once('_') else { continue };
            if section == oidc::SECTION {
                problems.extend(self.provider_from_environment(&name, field, &text, lines));
                continue;
            }
            if !Config::TABLE.iter().any(|(known, _)| *known == section) {
                continue;
            }
            match self.set(section, field, &text) {
                Some(Ok(())) => lines.forget(section, field),
                Some(Err(why)) => problems.push(format!("{name}: {why}")),
                None => problems.push(format!(
                    "{name}: section {section} has no field {field}; see `folkmoot config print`"
                )),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Invalid { problems }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(env: &[(&str, &str)], overrides: &[Override<'_>]) -> Result<Config, Invalid> {
        let env = env.iter().map(|(name, text)| (name.to_string(), text.to_string()));
        Config::load(None, env, overrides)
    }

    #[test]
    fn the_defaults_are_valid_and_print_as_themselves() {
        let config = Config::default();
        config.validate().unwrap();
        let printed = config.to_toml();
        assert_eq!(Config::parse(&printed), Ok(config));
        assert!(
            printed.contains("# Default: \"100ms\"\nheartbeat_interval = \"100ms\""),
            "{printed}"
        );
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.toml");
        std::fs::write(&file, "[raft]\nheartbeat_interval = \"50ms\"\n[store]\nballast = 1048576")
            .unwrap();
        let env = [
            ("FOLKMOOT_RAFT_HEARTBEAT_INTERVAL".to_string(), "60ms".to_string()),
            ("FOLKMOOT_NODE_JOIN".to_string(), "a:1, b:2".to_string()),
            ("FOLKMOOT_TOKEN".to_string(), "secret".to_string()),
            ("FOLKMOOT_PORT_7400_TCP".to_string(), "tcp://1.2.3.4".to_string()),
        ];
        let overrides = [("log", "format", "json".to_string())];
        let config = Config::load(Some(&file), env.clone(), &overrides).unwrap();
        assert_eq!(config.raft.heartbeat_interval, Duration::from_millis(60));
        assert_eq!(config.node.join, ["a:1", "b:2"]);
        assert_eq!(config.store.ballast, Size(1 << 20));
        assert_eq!(config.log.format, LogFormat::Json);
        let overrides = [("raft", "heartbeat_interval", "70ms".to_string())];
        let config = Config::load(Some(&file), env, &overrides).unwrap();
        assert_eq!(config.raft.heartbeat_interval, Duration::from_millis(70));
    }

    #[test]
    fn errors_name_the_line_or_the_variable() {
        let error = Config::parse("[raft]\nheartbeat_interval = \"soon\"\n").unwrap_err();
        let expected = "line:2: raft.heartbeat_interval: expected a duration";
        assert!(error.to_string().starts_with(expected), "{error}");
        for name in ["FOLKMOOT_RAFT_HEARTBEAT", "FOLKMOOT_RAFT_HEARTBEAT_INTERVAL"] {
            let error = load(&[(name, "x")], &[]).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
        let error = load(&[], &[("raft", "heartbeat_interval", "x".into())]).unwrap_err();
        assert!(error.to_string().starts_with("raft.heartbeat_interval:"), "{error}");
    }

    #[test]
    fn a_contradiction_names_the_file_and_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.toml");
        std::fs::write(&file, "[log]\n[raft]\nelection_timeout_max = \"6s\"\n").unwrap();
        let error = Config::load(Some(&file), [], &[]).unwrap_err().to_string();
        let expected = format!("{}:3: limits.request_timeout: ", file.display());
        assert!(error.starts_with(&expected), "{error}");
        // It is not the file's fault where a flag says so.
        let flag = [("raft", "election_timeout_max", "7s".to_string())];
        let error = Config::load(Some(&file), [], &flag).unwrap_err().to_string();
        let expected = format!("{}: limits.request_timeout: ", file.display());
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn the_files_to_copy_are_complete_and_valid() {
        for node in 1..=3 {
            let file =
                Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("cluster/node{node}.toml"));
            let config = Config::load(Some(&file), [], &[]).unwrap();
            let text = std::fs::read_to_string(&file).unwrap();
            // What a node would print of it has every field; so must the file.
            for line in config.to_toml().lines().filter(|line| !line.trim().is_empty()) {
                assert!(text.contains(line), "{} lacks: {line}", file.display());
            }
            let host = format!("chat{node}.example.org");
            assert_eq!(config.node.client_advertise, Some(format!("{host}:7400")));
            assert_eq!(config.node.peer_advertise, Some(format!("{host}:7401")));
            assert_eq!(config.node.join.len(), 3);
        }
    }
}
