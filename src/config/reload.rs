//! What a running node takes over from a configuration that was changed (SIGHUP).

use std::collections::BTreeSet;

use crate::config::Config;
use crate::config::oidc::{Provider, SECTION};

/// The settings that take effect while a node runs, as `section` and `field`. All others need a
/// restart.
pub(super) const RELOADED: &[(&str, &str)] = &[
    ("node", "shutdown_timeout"),
    ("node", "drain_grace"),
    ("limits", "text_bytes_max"),
    ("limits", "connections_max"),
    ("limits", "sessions_max"),
    ("limits", "follows_per_session_max"),
    ("limits", "posts_in_flight_per_session_max"),
    ("limits", "user_requests_per_second"),
    ("limits", "token_requests_per_second"),
    ("limits", "address_requests_per_second"),
    ("limits", "keep_alive"),
    ("accounts", "registration"),
    ("accounts", "session_idle"),
    ("accounts", "session_max"),
    ("accounts", "behind_proxy"),
    ("accounts", "public_url"),
    ("placement", "replace_after"),
    ("store", "snapshot_bytes_per_second"),
    ("log", "filter"),
];

/// What comes of a changed configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Reload {
    /// The configuration from now on: the old one, but for what may change.
    pub config: Config,
    /// Names of settings that changed.
    pub changed: Vec<String>,
    /// Names of settings that differ, and need a restart to change.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// What a node that runs with this configuration makes of a newer one, which is valid.
    pub fn reload(&self, newer: &Config) -> Reload {
        let mut reload =
            Reload { config: self.clone(), changed: Vec::new(), needs_restart: Vec::new() };
        for (section, fields) in Config::TABLE {
            for field in *fields {
                if self.get(section, field) == newer.get(section, field) {
                    continue;
                }
                let name = format!("{section}.{field}");
                if RELOADED.contains(&(section, field)) {
                    reload.config.copy(newer, section, field);
                    reload.changed.push(name);
                } else {
                    reload.needs_restart.push(name);
                }
            }
        }
        self.reload_providers(newer, &mut reload);
        reload
    }

    /// All about providers may change.
    fn reload_providers(&self, newer: &Config, reload: &mut Reload) {
        let names: BTreeSet<&String> = self.oidc.keys().chain(newer.oidc.keys()).collect();
        for name in names {
            let (old, new) = (self.oidc.get(name), newer.oidc.get(name));
            if old == new {
                continue;
            }
            let (Some(old), Some(new)) = (old, new) else {
                reload.changed.push(format!("{SECTION}.{name}"));
                continue;
            };
            let mut changed: Vec<_> =
                Provider::FIELDS.iter().filter(|field| old.get(field) != new.get(field)).collect();
            if changed.is_empty() {
                changed.push(&"client_secret_file"); // what is in it
            }
            reload.changed.extend(changed.iter().map(|field| format!("{SECTION}.{name}.{field}")));
        }
        reload.config.oidc = newer.oidc.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_change_does_and_the_rest_stays() {
        let old = Config::default();
        let mut newer = old.clone();
        newer.limits.sessions_max = 7;
        newer.log.filter = "debug".into();
        newer.oidc.insert("kc".into(), Provider::default());
        newer.raft.heartbeat_interval *= 2;
        let reload = old.reload(&newer);
        assert_eq!(reload.changed, ["limits.sessions_max", "log.filter", "oidc.kc"]);
        assert_eq!(reload.needs_restart, ["raft.heartbeat_interval"]);
        assert_eq!(reload.config.limits.sessions_max, 7);
        assert_eq!(reload.config.raft, old.raft);
        let again = reload.config.reload(&newer);
        assert_eq!((again.changed.len(), again.needs_restart.len()), (0, 1));
        let mut newest = newer.clone();
        newest.oidc.entry("kc".into()).or_default().admin_group = Some("ops".into());
        assert_eq!(newer.reload(&newest).changed, ["oidc.kc.admin_group"]);
    }

    #[test]
    fn every_setting_that_may_change_exists() {
        for (section, field) in RELOADED {
            assert!(Config::default().get(section, field).is_some(), "{section}.{field}");
        }
    }
}
