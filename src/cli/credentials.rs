//! The sessions that `folkmoot login` has begun: a file that other commands take their token from.
//!
//! A token is used for those servers only that were given when it was made: it is shown to nobody
//! else. The file is the user's own (mode 0600), and is replaced as a whole.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::failure::{Failure, Outcome};

/// Names another file.
const VARIABLE: &str = "FOLKMOOT_CREDENTIALS";

/// A session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Login {
    /// The nodes of which it is.
    pub servers: Vec<String>,
    /// Whose.
    pub user: String,
    /// Its token.
    pub token: String,
    /// When it ends at the latest, milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("servers", &self.servers).finish_non_exhaustive()
    }
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Credentials {
    logins: Vec<Login>,
}

/// Where the file is; `None` when this user has no home.
fn path_in(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = || set("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    set(VARIABLE).or_else(|| {
        let directory = config().or_else(|| Some(set("HOME")?.join(".config")))?;
        Some(directory.join("folkmoot").join("credentials.json"))
    })
}

fn path() -> Outcome<PathBuf> {
    path_in(|name| std::env::var_os(name)).ok_or_else(|| {
        Failure::failed(format!("there is no home directory: set {VARIABLE} to a file"))
    })
}

/// The token for these servers, if somebody has logged in there.
pub(super) fn token(servers: &[String]) -> Outcome<Option<String>> {
    let Ok(path) = path() else { return Ok(None) };
    Ok(Credentials::read(&path)?.find(servers).map(|login| login.token.clone()))
}

/// The session at these servers.
pub(super) fn login(servers: &[String]) -> Outcome<Option<Login>> {
    Ok(Credentials::read(&path()?)?.find(servers).cloned())
}

/// Keeps a session, in place of another one at the same servers; says where.
pub(super) fn keep(login: Login) -> Outcome<PathBuf> {
    let path = path()?;
    let mut credentials = Credentials::read(&path)?;
    credentials.forget(&login.servers);
    credentials.logins.push(login);
    credentials.write(&path)?;
    Ok(path)
}

/// Forgets the session at these servers.
pub(super) fn forget(servers: &[String]) -> Outcome {
    let path = path()?;
    let mut credentials = Credentials::read(&path)?;
    credentials.forget(servers);
    credentials.write(&path)
}

impl Credentials {
    fn read(path: &Path) -> Outcome<Credentials> {
        let odd = |why: String| {
            let path = path.display();
            Failure::failed(format!("cannot read {path}: {why}; remove it, and log in again"))
        };
        match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| odd(error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Credentials::default()),
            Err(error) => Err(odd(error.to_string())),
        }
    }

    fn find(&self, servers: &[String]) -> Option<&Login> {
        let is_of = |login: &&Login| servers.iter().all(|server| login.servers.contains(server));
        self.logins.iter().filter(|_| !servers.is_empty()).find(is_of)
    }

    fn forget(&mut self, servers: &[String]) {
        self.logins.retain(|login| !servers.iter().any(|server| login.servers.contains(server)));
    }

    fn write(&self, path: &Path) -> Outcome {
        let write = || -> io::Result<()> {
            let directory = path.parent().unwrap_or(Path::new("."));
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            let new = path.with_extension(format!("new-{}", std::process::id()));
            let _ = fs::remove_file(&new);
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        let path = path.display();
        write().map_err(|error| Failure::failed(format!("cannot write {path}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn login(servers: &[&str], token: &str) -> Login {
        let servers = servers.iter().map(ToString::to_string).collect();
        Login { servers, user: "ann".into(), token: token.into(), expires_at_ms: 1 }
    }

    fn found<'a>(credentials: &'a Credentials, servers: &[&str]) -> Option<&'a str> {
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        credentials.find(&servers).map(|login| login.token.as_str())
    }

    #[test]
    fn a_token_is_for_the_servers_that_were_given_only() {
        let mut credentials =
            Credentials { logins: vec![login(&["a", "b"], "1"), login(&["c"], "2")] };
        assert_eq!(found(&credentials, &["a"]), Some("1"));
        assert_eq!(found(&credentials, &["b", "a"]), Some("1"));
        assert_eq!(found(&credentials, &["c"]), Some("2"));
        for other in [&["d"][..], &["a", "c"], &["a", "d"], &[]] {
            assert_eq!(found(&credentials, other), None, "{other:?}");
        }
        credentials.forget(&["b".into()]);
        assert_eq!(found(&credentials, &["a"]), None);
        assert!(!format!("{:?}", login(&["a"], "fm_secret")).contains("secret"));
    }

    #[test]
    fn the_file_is_the_users_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("folkmoot/credentials.json");
        assert!(Credentials::read(&path).unwrap().logins.is_empty());
        for token in ["1", "2"] {
            let credentials = Credentials { logins: vec![login(&["a"], token)] };
            credentials.write(&path).unwrap();
            assert_eq!(Credentials::read(&path).unwrap().logins, credentials.logins);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        fs::write(&path, "{").unwrap();
        assert!(Credentials::read(&path).is_err());
    }

    #[test]
    fn it_is_where_the_environment_says() {
        let of = |set: &[(&str, &str)]| {
            let found = |name: &str| set.iter().find(|(known, _)| *known == name);
            path_in(|name| found(name).map(|(_, value)| value.into()))
        };
        let home = ("HOME", "/h");
        assert_eq!(of(&[home]), Some("/h/.config/folkmoot/credentials.json".into()));
        let xdg = ("XDG_CONFIG_HOME", "/x");
        assert_eq!(of(&[home, xdg]), Some("/x/folkmoot/credentials.json".into()));
        assert_eq!(of(&[home, xdg, (VARIABLE, "/f")]), Some("/f".into()));
        assert_eq!(of(&[]), None);
    }
}
