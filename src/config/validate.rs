//! Relations between settings that types cannot express.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{Config, Invalid, Size, oidc};
use crate::id::JOIN_TOKEN_PREFIX;
use crate::limits;

/// Shorter would ping all the time.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(1);
/// Longer would find nobody gone before TCP does.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(600);

impl Config {
    /// Checks ranges and relations.
    ///
    /// # Errors
    /// Every problem found, each with the field and the fix.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut problems = Vec::new();
        self.validate_node(&mut problems);
        self.validate_limits(&mut problems);
        self.validate_accounts(&mut problems);
        self.validate_raft(&mut problems);
        self.validate_store(&mut problems);
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log.filter) {
            problems.push(format!("log.filter: {error}; use a level such as \"info\""));
        }
        if problems.is_empty() { Ok(()) } else { Err(Invalid { problems }) }
    }

    fn validate_node(&self, problems: &mut Vec<String>) {
        let node = &self.node;
        if node.client_listen == node.peer_listen && node.client_listen.port() != 0 {
            problems.push(format!(
                "node.peer_listen: {} is node.client_listen too; give each its own port",
                node.peer_listen
            ));
        }
        let (client, peer) = (node.client_listen, node.peer_listen);
        let overlap = client.ip().is_unspecified() || peer.ip().is_unspecified();
        if client != peer && overlap && client.port() == peer.port() && client.port() != 0 {
            problems.push(format!(
                "node.peer_listen: {peer} and node.client_listen ({client}) take the same port; \
                 give each its own"
            ));
        }
        if node.client_advertise.is_some() && node.client_advertise == node.peer_advertise {
            problems.push(
                "node.peer_advertise: is node.client_advertise too; clients and nodes reach this \
                 one at different ports"
                    .into(),
            );
        }
        let addresses = [
            ("client", node.client_listen, &node.client_advertise),
            ("peer", node.peer_listen, &node.peer_advertise),
        ];
        for (name, listen, advertise) in addresses {
            match advertise {
                None if listen.ip().is_unspecified() => problems.push(format!(
                    "node.{name}_advertise: needed when node.{name}_listen is {}; set it to the \
                     host:port that others reach this node at",
                    listen.ip()
                )),
                Some(address) if !is_host_and_port(address) => problems.push(format!(
                    "node.{name}_advertise: {address:?} is not host:port, like \"chat1.example.org:{}\"",
                    listen.port()
                )),
                _ => {}
            }
        }
        for address in node.join.iter().filter(|address| !is_host_and_port(address)) {
            problems.push(format!(
                "node.join: {address:?} is not host:port, like \"chat1.example.org:7401\""
            ));
        }
        if let Some(token) = &node.join_token
            && !token.starts_with(JOIN_TOKEN_PREFIX)
        {
            problems.push(format!(
                "node.join_token: it is none, for those begin with {}; make one with `folkmoot node token`",
                JOIN_TOKEN_PREFIX
            ));
        }
        let shutdown = node.shutdown_timeout;
        at_least(problems, "node.shutdown_timeout", shutdown, Duration::from_secs(1));
        if node.drain_grace >= shutdown {
            problems.push(format!(
                "node.drain_grace: {} leaves nothing of node.shutdown_timeout ({}) for requests to \
                 finish; use a shorter one, or a longer node.shutdown_timeout",
                humantime::format_duration(node.drain_grace),
                humantime::format_duration(shutdown)
            ));
        }
    }

    fn validate_limits(&self, problems: &mut Vec<String>) {
        let limits = &self.limits;
        let text_max = limits::TEXT_BYTES_MAX as u64;
        if !(1..=text_max).contains(&limits.text_bytes_max.0) {
            problems.push(format!(
                "limits.text_bytes_max: {} is out of range; use 1B to {}",
                limits.text_bytes_max,
                Size(text_max)
            ));
        }
        for (field, value) in [
            ("connections_max", limits.connections_max),
            ("sessions_max", limits.sessions_max),
            ("follows_per_session_max", limits.follows_per_session_max),
            ("posts_in_flight_per_session_max", limits.posts_in_flight_per_session_max),
        ] {
            if value == 0 {
                problems.push(format!("limits.{field}: 0 lets nobody in; use at least 1"));
            }
        }
        let keep_alive = limits.keep_alive;
        if !(KEEP_ALIVE_MIN..=KEEP_ALIVE_MAX).contains(&keep_alive) {
            problems.push(format!(
                "limits.keep_alive: {} is out of range; use {} to {}",
                humantime::format_duration(keep_alive),
                humantime::format_duration(KEEP_ALIVE_MIN),
                humantime::format_duration(KEEP_ALIVE_MAX)
            ));
        }
        let failover = self.raft.election_timeout_max * 2;
        if limits.request_timeout < failover {
            problems.push(format!(
                "limits.request_timeout: {} is shorter than a failover takes; use at least {} \
                 (twice raft.election_timeout_max)",
                humantime::format_duration(limits.request_timeout),
                humantime::format_duration(failover)
            ));
        }
    }

    fn validate_accounts(&self, problems: &mut Vec<String>) {
        let accounts = &self.accounts;
        let least = Duration::from_secs(60);
        at_least(problems, "accounts.session_idle", accounts.session_idle, least);
        at_least(problems, "accounts.session_max", accounts.session_max, least);
        let longest = Duration::from_millis(limits::TTL_MS_MAX);
        for (field, value) in
            [("session_idle", accounts.session_idle), ("session_max", accounts.session_max)]
        {
            if value > longest {
                problems.push(format!("accounts.{field}: use at most ten years"));
            }
        }
        oidc::validate(&self.oidc, accounts.public_url.as_deref(), problems);
    }

    fn validate_raft(&self, problems: &mut Vec<String>) {
        let raft = &self.raft;
        at_least(problems, "raft.heartbeat_interval", raft.heartbeat_interval, MILLISECOND * 10);
        if raft.election_timeout_min < raft.heartbeat_interval * 2 {
            problems.push(format!(
                "raft.election_timeout_min: {} is under two heartbeats, so one lost heartbeat \
                 would cost the leader its office; use at least {}",
                humantime::format_duration(raft.election_timeout_min),
                humantime::format_duration(raft.heartbeat_interval * 2)
            ));
        }
        if raft.election_timeout_max <= raft.election_timeout_min {
            problems.push(format!(
                "raft.election_timeout_max: {} is not above raft.election_timeout_min; candidates \
                 would tie; use at least {}",
                humantime::format_duration(raft.election_timeout_max),
                humantime::format_duration(raft.election_timeout_min * 3 / 2)
            ));
        }
    }

    fn validate_store(&self, problems: &mut Vec<String>) {
        let replace_after = self.placement.replace_after;
        if !replace_after.is_zero() {
            let least = Duration::from_secs(1);
            at_least(problems, "placement.replace_after", replace_after, least);
        }
        let store = &self.store;
        let interval = store.checkpoint_interval;
        at_least(problems, "store.checkpoint_interval", interval, MILLISECOND * 100);
        for (field, value, min) in [
            ("overlay_bytes", store.overlay_bytes, Size(1 << 20)),
            ("sled_cache", store.sled_cache, Size(1 << 20)),
            ("log_purge_threshold", store.log_purge_threshold, Size(256 << 20)),
            ("ballast", store.ballast, Size(1 << 20)),
        ] {
            if value < min {
                problems.push(format!("store.{field}: {value} is too little; use at least {min}"));
            }
        }
        if store.min_free_disk < store.ballast {
            problems.push(format!(
                "store.min_free_disk: {} is less than store.ballast ({}), so posts would eat what \
                 the ballast frees; use at least that",
                store.min_free_disk, store.ballast
            ));
        }
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);

fn at_least(problems: &mut Vec<String>, field: &str, value: Duration, min: Duration) {
    if value < min {
        let (value, min) = (humantime::format_duration(value), humantime::format_duration(min));
        problems.push(format!("{field}: {value} is too short; use at least {min}"));
    }
}

fn is_host_and_port(address: &str) -> bool {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return address.port() != 0 && !address.ip().is_unspecified();
    }
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_';
    !host.is_empty() && host.bytes().all(is_name) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        config.validate().err().map(|invalid| invalid.problems).unwrap_or_default()
    }

    #[test]
    fn each_problem_names_its_field() {
        let check = |change: fn(&mut Config), field: &str| {
            let found = problems(change);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(field), "{found:?}");
        };
        check(|c| c.node.peer_listen = c.node.client_listen, "node.peer_listen:");
        check(|c| c.node.client_listen.set_ip([0, 0, 0, 0].into()), "node.client_advertise:");
        check(
            |c| {
                c.node.client_listen.set_ip([0, 0, 0, 0].into());
                c.node.client_advertise = Some("chat1.example.org:7400".into());
                c.node.peer_listen.set_port(7400);
            },
            "node.peer_listen:",
        );
        check(
            |c| {
                c.node.client_advertise = Some("chat1.example.org:7400".into());
                c.node.peer_advertise = c.node.client_advertise.clone();
            },
            "node.peer_advertise:",
        );
        check(|c| c.node.peer_advertise = Some("http://a:1".into()), "node.peer_advertise:");
        check(|c| c.node.join = vec!["a".into()], "node.join:");
        check(|c| c.node.join_token = Some("fm_ann_00".into()), "node.join_token:");
        check(|c| c.node.drain_grace = c.node.shutdown_timeout, "node.drain_grace:");
        check(|c| c.limits.text_bytes_max = Size(65 * 1024), "limits.text_bytes_max:");
        check(|c| c.limits.connections_max = 0, "limits.connections_max:");
        check(|c| c.limits.keep_alive = MILLISECOND * 999, "limits.keep_alive:");
        check(|c| c.limits.keep_alive = Duration::MAX, "limits.keep_alive:");
        check(|c| c.limits.request_timeout = MILLISECOND * 500, "limits.request_timeout:");
        check(|c| c.accounts.session_idle = MILLISECOND, "accounts.session_idle:");
        check(|c| c.accounts.session_max = MILLISECOND * u32::MAX * 100, "accounts.session_max:");
        check(|c| c.raft.election_timeout_min = MILLISECOND * 150, "raft.election_timeout_min:");
        check(|c| c.raft.election_timeout_max = MILLISECOND * 300, "raft.election_timeout_max:");
        check(|c| c.placement.replace_after = MILLISECOND * 999, "placement.replace_after:");
        check(|c| c.store.checkpoint_interval = MILLISECOND, "store.checkpoint_interval:");
        check(|c| c.store.min_free_disk = Size(0), "store.min_free_disk:");
        check(|c| c.log.filter = "folkmoot=loud".into(), "log.filter:");
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let found = problems(|c| {
            c.raft.heartbeat_interval = Duration::from_secs(1);
            c.limits.sessions_max = 0;
        });
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
