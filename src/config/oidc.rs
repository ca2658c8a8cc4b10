//! Providers of OpenID Connect by which people sign in: a section `[oidc.<name>]` for each.
//!
//! The sections that `config.rs` has are there once; these are as many as an operator writes. One
//! table here too: parsing, `config print` and the environment (`FOLKMOOT_OIDC_<NAME>_<FIELD>`)
//! follow from it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::config::file::Lines;
use crate::config::{Config, Invalid, Setting, push_comment};

/// What the sections' names begin with.
pub(super) const SECTION: &str = "oidc";
/// A provider's name, in bytes.
const NAME_BYTES_MAX: usize = 32;
/// Providers of one cluster.
const PROVIDERS_MAX: usize = 16;
/// An issuer, a client's id and the like, in bytes.
const TEXT_BYTES_MAX: usize = 512;
/// A client secret, in bytes: nodes derive a key from it.
const SECRET_BYTES_MIN: usize = 16;
/// Groups, claims and scopes have shorter names, in bytes.
const WORD_BYTES_MAX: usize = 128;

/// Text that is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Setting for Secret {
    fn parse(text: &str) -> Result<Secret, String> {
        Ok(Secret(text.to_owned()))
    }
    fn from_toml(value: toml::Value) -> Result<Secret, String> {
        match value {
            toml::Value::String(text) => Ok(Secret(text)),
            _ => Err("expected a string".into()), // not said back, as it is a secret
        }
    }
    fn to_toml(&self) -> String {
        self.0.to_toml()
    }
}

macro_rules! provider {
    ($($(#[doc = $doc:literal])* $field:ident: $type:ty = $default:expr;)*) => {
        /// A provider by which people sign in.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Provider {
            $($(#[doc = $doc])* pub $field: $type,)*
            /// The client's secret, wherever it is from.
            pub secret: Secret,
        }

        impl Default for Provider {
            fn default() -> Provider {
                Provider { $($field: $default,)* secret: Secret::default() }
            }
        }

        impl Provider {
            /// Names of the fields.
            pub(super) const FIELDS: &[&str] = &[$(stringify!($field),)*];

            pub(super) fn get(&self, field: &str) -> Option<String> {
                match field {
                    $(stringify!($field) => Some(self.$field.to_toml()),)*
                    _ => None,
                }
            }

            pub(super) fn set_toml(
                &mut self,
                field: &str,
                value: toml::Value,
            ) -> Option<Result<(), String>> {
                match field {
                    $(stringify!($field) => {
                        let parsed = <$type as Setting>::from_toml(value);
                        Some(parsed.map(|value| self.$field = value))
                    })*
                    _ => None,
                }
            }

            pub(super) fn set(&mut self, field: &str, text: &str) -> Option<Result<(), String>> {
                match field {
                    $(stringify!($field) => {
                        let parsed = <$type as Setting>::parse(text);
                        Some(parsed.map(|value| self.$field = value))
                    })*
                    _ => None,
                }
            }

            /// Each field with its description and its default.
            fn each(&self, mut put: impl FnMut(&[&str], &str, String, String)) {
                let default = Provider::default();
                $(put(
                    &[$($doc),*],
                    stringify!($field),
                    default.$field.to_toml(),
                    self.$field.to_toml(),
                );)*
            }
        }
    };
}

provider! {
    /// What the button says: `Sign in with …`. Empty: the section's name.
    title: Option<String> = None;
    /// The provider's issuer, an https URL, exactly as it writes it itself: below it there is
    /// `/.well-known/openid-configuration`. (http is for 127.0.0.1 only.)
    issuer: String = String::new();
    /// What the provider calls this cluster.
    client_id: String = String::new();
    /// The client's secret, 16 characters or more; the same on all nodes.
    client_secret: Secret = Secret::default();
    /// A file with the secret, instead of `client_secret`.
    client_secret_file: Option<String> = None;
    /// What to ask for; `openid` always is.
    scopes: Vec<String> = vec!["profile".to_string()];
    /// The claim that suggests the name of a new account. Who somebody is does not depend on it.
    user_claim: String = "preferred_username".to_string();
    /// Whether an account is made when somebody signs in who has none. If not, an administrator
    /// links accounts: `folkmoot user link`.
    create_accounts: bool = true;
    /// The claim that lists somebody's groups or roles; of one in another: `realm_access.roles`.
    groups_claim: String = "groups".to_string();
    /// Who is in this group administers the cluster, and who is not does not; looked at whenever
    /// they sign in. Empty: the provider has no say in it.
    admin_group: Option<String> = None;
    /// Access tokens (JWT) that the provider has issued for this audience are taken as tokens, on
    /// every interface. Empty: none are.
    bearer_audience: Option<String> = None;
}

/// What `config print` says about providers.
const ABOUT: &[&str] = &[
    " People can sign in by OpenID Connect too: a section for each provider, whose name is in the",
    " addresses to register there: <accounts.public_url>/v1/oidc/<name>/callback. All of it is",
    " reloaded on SIGHUP. Must be the same on all nodes.",
];

/// The sections as TOML; a sample of one, commented out, where there is none.
pub(super) fn push_toml(out: &mut String, providers: &BTreeMap<String, Provider>) {
    push_comment(out, ABOUT);
    let mut put = |name: &str, provider: &Provider, prefix: &str| {
        out.push_str(&format!("{prefix}[{SECTION}.{name}]\n\n"));
        provider.each(|docs, field, default, value| {
            push_comment(out, docs);
            out.push_str(&format!("# Default: {default}\n{prefix}{field} = {value}\n\n"));
        });
    };
    if providers.is_empty() {
        put("example", &Provider::default(), "#");
    }
    providers.iter().for_each(|(name, provider)| put(name, provider, ""));
}

/// Whether a provider can have this name: it is in addresses, and in names of variables.
///
/// # Errors
/// What it has to be.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    match fits {
        true => Ok(()),
        false => Err(format!("a provider's name is of a-z and 0-9, {NAME_BYTES_MAX} at most")),
    }
}

impl Provider {
    /// Takes the secret from where it is.
    pub(super) fn read_secret(&mut self, name: &str, problems: &mut Vec<String>) {
        self.secret = self.client_secret.clone();
        let Some(file) = &self.client_secret_file else { return };
        let setting = format!("{SECTION}.{name}.client_secret_file");
        if !self.client_secret.0.is_empty() {
            problems.push(format!("{setting}: there is client_secret too; give one of them"));
            return;
        }
        match std::fs::read_to_string(Path::new(file)) {
            Ok(text) => self.secret = Secret(text.trim().to_owned()),
            Err(error) => problems.push(format!("{setting}: cannot read {file}: {error}")),
        }
    }

    fn validate(&self, name: &str, problems: &mut Vec<String>) {
        let mut refuse = |field: &str, why: String| {
            problems.push(format!("{SECTION}.{name}.{field}: {why}"));
        };
        if let Err(why) = check_url(&self.issuer) {
            refuse("issuer", why);
        }
        if self.client_id.is_empty() || !is_plain(&self.client_id, TEXT_BYTES_MAX) {
            refuse("client_id", "needed: what the provider calls this cluster".into());
        }
        let secret = self.secret.reveal();
        if secret.len() < SECRET_BYTES_MIN || !is_plain(secret, TEXT_BYTES_MAX) {
            let field =
                self.client_secret_file.as_ref().map_or("client_secret", |_| "client_secret_file");
            refuse(
                field,
                format!(
                    "a secret of {SECRET_BYTES_MIN} characters or more is needed; let the provider make one"
                ),
            );
        }
        let is_word = |word: &str| !word.is_empty() && is_plain(word, WORD_BYTES_MAX);
        let odd =
            self.scopes.iter().find(|scope| !is_word(scope) || scope.contains([' ', '"', '\\']));
        if let Some(odd) = odd {
            refuse("scopes", format!("{odd:?} is none"));
        }
        for (field, claim) in
            [("user_claim", &self.user_claim), ("groups_claim", &self.groups_claim)]
        {
            if !is_word(claim) {
                refuse(field, "needed: the name of a claim".into());
            }
        }
        for (field, text) in [
            ("title", &self.title),
            ("admin_group", &self.admin_group),
            ("bearer_audience", &self.bearer_audience),
        ] {
            let text = text.as_deref().unwrap_or_default();
            if text.len() > WORD_BYTES_MAX || text.chars().any(char::is_control) {
                refuse(field, format!("use at most {WORD_BYTES_MAX} characters"));
            }
        }
    }
}

fn is_plain(text: &str, max: usize) -> bool {
    text.len() <= max && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// Refuses what is no URL of https, or of http on this machine.
fn check_url(url: &str) -> Result<(), String> {
    const SHAPE: &str = "use an https URL without query, like \"https://id.example.org\"";
    if url.is_empty() {
        return Err(format!("needed; {SHAPE}"));
    }
    let uri: http::Uri = url.parse().map_err(|_| format!("{url:?} is no URL; {SHAPE}"))?;
    let host = uri.host().unwrap_or_default();
    let odd = host.is_empty()
        || uri.query().is_some()
        || url.contains(['#', '@', '\\'])
        || !is_plain(url, TEXT_BYTES_MAX);
    match uri.scheme_str() {
        _ if odd => Err(format!("{url:?} is not usable; {SHAPE}")),
        Some("https") => Ok(()),
        Some("http") if is_loopback(host) => Ok(()),
        Some("http") => Err(format!("{url:?} is not encrypted; http is for 127.0.0.1 only")),
        _ => Err(format!("{url:?} is not usable; {SHAPE}")),
    }
}

/// Whether a URL's host is this machine.
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Checks all providers, and that the provider can send people back.
pub(super) fn validate(
    providers: &BTreeMap<String, Provider>,
    public_url: Option<&str>,
    problems: &mut Vec<String>,
) {
    if let Some(url) = public_url {
        let path = url.parse::<http::Uri>().map(|uri| uri.path().to_owned()).unwrap_or_default();
        if let Err(why) = check_url(url) {
            problems.push(format!("accounts.public_url: {why}"));
        } else if path.len() > 1 || url.ends_with('/') {
            problems.push("accounts.public_url: give it without a path or a / at its end".into());
        }
    } else if !providers.is_empty() {
        problems.push(
            "accounts.public_url: needed for sign-in by OpenID Connect; set it to the address at \
             which browsers find the cluster"
                .into(),
        );
    }
    if providers.len() > PROVIDERS_MAX {
        problems
            .push(format!("{SECTION}: there are too many providers; use at most {PROVIDERS_MAX}"));
    }
    let mut bearers = BTreeMap::new();
    for (name, provider) in providers {
        if let Err(why) = check_name(name) {
            problems.push(format!("{SECTION}.{name}: {why}"));
        }
        provider.validate(name, problems);
        if provider.bearer_audience.is_some()
            && let Some(other) = bearers.insert(&provider.issuer, name)
        {
            problems.push(format!(
                "{SECTION}.{name}.bearer_audience: {SECTION}.{other} takes tokens of this issuer \
                 already"
            ));
        }
    }
}

impl Config {
    /// Reads the files that have secrets.
    pub(super) fn read_secrets(&mut self) -> Result<(), Invalid> {
        let mut problems = Vec::new();
        let providers = self.oidc.iter_mut();
        providers.for_each(|(name, provider)| provider.read_secret(name, &mut problems));
        if problems.is_empty() { Ok(()) } else { Err(Invalid { problems }) }
    }

    /// Takes a setting of a provider that the file has; says what is wrong.
    pub(super) fn provider_from_environment(
        &mut self,
        variable: &str,
        rest: &str,
        text: &str,
        lines: &mut Lines,
    ) -> Option<String> {
        let (name, field) = rest.split_once('_').unwrap_or((rest, ""));
        let Some(provider) = self.oidc.get_mut(name) else {
            return Some(format!("{variable}: there is no [oidc.{name}] in the file"));
        };
        match provider.set(field, text) {
            Some(Ok(())) => {
                lines.forget(SECTION, &format!("{name}.{field}"));
                None
            }
            Some(Err(why)) => Some(format!("{variable}: {why}")),
            None => Some(format!("{variable}: [oidc.{name}] has no field {field}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const GOOD: &str = "[accounts]\npublic_url = \"https://chat.example.org\"\n\
        [oidc.kc]\nissuer = \"https://id.example.org/realms/a\"\nclient_id = \"folkmoot\"\n\
        client_secret = \"0123456789abcdef\"\n";

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node.toml");
        std::fs::write(&file, text).unwrap();
        let environment =
            environment.iter().map(|(name, text)| (name.to_string(), text.to_string()));
        let loaded = Config::load(Some(&file), environment, &[]);
        loaded.map_err(|invalid| invalid.to_string().replace(&file.display().to_string(), "file"))
    }

    #[test]
    fn a_provider_is_read_and_printed_as_itself() {
        let config = load(GOOD, &[]).unwrap();
        assert_eq!(config.oidc["kc"].client_id, "folkmoot");
        assert_eq!(config.oidc["kc"].secret.reveal(), "0123456789abcdef");
        let printed = config.to_toml();
        assert_eq!(load(&printed, &[]), Ok(config));
        let environment = [("FOLKMOOT_OIDC_KC_ADMIN_GROUP", "ops")];
        let config = load(GOOD, &environment).unwrap();
        assert_eq!(config.oidc["kc"].admin_group.as_deref(), Some("ops"));
        assert!(!format!("{config:?}").contains("0123456789abcdef"), "secrets are not shown");
    }

    #[test]
    fn what_is_wrong_is_found_where_it_is() {
        for (text, expected) in [
            (
                GOOD.replace("issuer", "isuer"),
                "file:4: there is no setting oidc.kc.isuer: do you mean issuer?",
            ),
            (
                GOOD.replace("[oidc.kc]", "[oidc.Key_Cloak]"),
                "file:3: oidc.Key_Cloak: a provider's name",
            ),
            (
                GOOD.replace("https://id", "http://id"),
                "file:4: oidc.kc.issuer: \"http://id.example.org/realms/a\" is not encrypted",
            ),
            (GOOD.replace("89abcdef", ""), "file:6: oidc.kc.client_secret: a secret of 16"),
            (
                GOOD.replace("client_secret", "client_secret_file"),
                "file:6: oidc.kc.client_secret_file: cannot read",
            ),
            (
                GOOD.replace("public_url", "behind_proxy = true #"),
                "file: accounts.public_url: needed",
            ),
            (
                GOOD.replace("chat.example.org", "chat.example.org/x"),
                "file:2: accounts.public_url: give it without",
            ),
            ("oidc = 3\n".into(), "file:1: oidc has a section for each provider"),
            ("[oidc]\nissuer = \"x\"\n".into(), "file:2: oidc.issuer: write [oidc.<name>]"),
        ] {
            let found = load(&text, &[]).expect_err(expected);
            assert!(found.contains(expected), "{found}\n{expected}");
        }
        let unknown = load(GOOD, &[("FOLKMOOT_OIDC_OTHER_ISSUER", "x")]).unwrap_err();
        assert!(unknown.contains("there is no [oidc.other]"), "{unknown}");
    }

    #[test]
    fn urls_are_https_or_of_this_machine() {
        for good in [
            "https://a",
            "https://a:8443/b/c",
            "http://127.0.0.1:80/x",
            "http://[::1]:1",
            "http://localhost",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a",
            "ftp://a",
            "http://a",
            "http://127.0.0.1.example.org",
            "https://a?b=c",
            "https://a#b",
            "https://u@a",
            "https://ä",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_issuers_of_bearer_tokens_differ() {
        let provider = Provider {
            issuer: "https://id.example.org".into(),
            client_id: "a".into(),
            secret: Secret("0123456789abcdef".into()),
            bearer_audience: Some("chat".into()),
            ..Provider::default()
        };
        let providers =
            BTreeMap::from([("a".to_owned(), provider.clone()), ("b".to_owned(), provider)]);
        let mut problems = Vec::new();
        validate(&providers, Some("https://chat.example.org"), &mut problems);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("oidc.b.bearer_audience"), "{problems:?}");
    }
}
