//! What is looked at in a token whose signature is good, and what is made of it.

use serde_json::Value;

use crate::chat::account::{Link, Scope, Scopes};
use crate::config::oidc::Provider as Settings;
use crate::gateway::oidc::jose::Claims;
use crate::id::UserId;
use crate::limits;

/// How far clocks may be apart, in seconds.
const LEEWAY_S: u64 = 30;
/// What a scope of ours is called in a provider's token: `folkmoot:read`.
const SCOPE_PREFIX: &str = "folkmoot:";

/// What a token must be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Who issued it.
    pub issuer: &'a str,
    /// For whom.
    pub audience: &'a str,
    /// The time, milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// Whose a token is, and until when it is good, milliseconds since the Unix epoch.
pub type Held = (Link, u64);

fn text<'a>(claims: &'a Claims, name: &str) -> Option<&'a str> {
    claims.get(name)?.as_str()
}

/// A time, in seconds; `Err` when there is one that is none.
fn seconds(claims: &Claims, name: &str) -> Result<Option<u64>, &'static str> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            // Times may have fractions (RFC 7519, section 2), which are of no use here.
            let whole =
                value.as_u64().or_else(|| value.as_f64().filter(|s| *s >= 0.0).map(|s| s as u64));
            whole.map(Some).ok_or("a time in the token is none")
        }
    }
}

/// Checks whose a token is, for whom, and for when.
///
/// # Errors
/// What is wrong, for whoever shows it.
pub fn check(claims: &Claims, expected: Expected<'_>) -> Result<Held, &'static str> {
    if text(claims, "iss") != Some(expected.issuer) {
        return Err("the token is of another issuer");
    }
    let is_audience = |value: &Value| value.as_str() == Some(expected.audience);
    let is_for_us = match claims.get("aud") {
        Some(Value::Array(all)) => all.iter().any(is_audience),
        Some(one) => is_audience(one),
        None => false,
    };
    if !is_for_us {
        return Err("the token is for somebody else");
    }
    let now_s = expected.now_ms / 1000;
    let ends_s = seconds(claims, "exp")?.ok_or("the token has no end")?.saturating_add(LEEWAY_S);
    if ends_s <= now_s {
        return Err("the token has expired");
    }
    for name in ["nbf", "iat"] {
        if seconds(claims, name)?.is_some_and(|from_s| from_s > now_s.saturating_add(LEEWAY_S)) {
            return Err("the token is not valid yet");
        }
    }
    let subject = text(claims, "sub").unwrap_or_default();
    if subject.is_empty() || subject.len() > limits::SUBJECT_BYTES_MAX || has_control(subject) {
        return Err("the token does not say whose it is");
    }
    let link = Link { issuer: expected.issuer.to_owned(), subject: subject.to_owned() };
    Ok((link, ends_s.saturating_mul(1000)))
}

/// Checks what an ID token has besides (OpenID Connect Core 1.0, section 3.1.3.7).
///
/// # Errors
/// What is wrong.
pub fn check_id_token(
    claims: &Claims,
    expected: Expected<'_>,
    nonce: Option<&str>,
) -> Result<Link, &'static str> {
    let (link, _) = check(claims, expected)?;
    let several = claims.get("aud").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
    match text(claims, "azp") {
        Some(party) if party != expected.audience => {
            return Err("the ID token is another client's");
        }
        None if several => return Err("the ID token does not say which client's it is"),
        _ => {}
    }
    if nonce.is_some() && text(claims, "nonce") != nonce {
        return Err("the ID token is of another sign-in");
    }
    Ok(link)
}

/// What a token of a provider is good for: the scopes of ours that it names; everything when it names
/// none.
pub fn scopes(claims: &Claims) -> Option<Scopes> {
    let words: Vec<&str> = match claims.get("scope").or_else(|| claims.get("scp")) {
        Some(Value::String(words)) => words.split(' ').collect(),
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let ours: Vec<&str> = words.iter().filter_map(|word| word.strip_prefix(SCOPE_PREFIX)).collect();
    if ours.is_empty() {
        return Some(Scopes::ALL);
    }
    // One that this release does not know is good for nothing here.
    let known = Scope::ALL.into_iter().filter(|scope| ours.contains(&scope.as_str()));
    let scopes: Vec<Scope> = known.collect();
    (!scopes.is_empty()).then(|| Scopes::of(scopes))
}

/// A claim by its name, or that of one in another: `a.b`.
pub fn find<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

/// Whether claims make somebody an administrator; `None` when the provider has no say in it.
pub fn is_admin(claims: &Claims, settings: &Settings) -> Option<bool> {
    let group = settings.admin_group.as_deref()?;
    let is_it = |value: &Value| value.as_str() == Some(group);
    Some(match find(claims, &settings.groups_claim) {
        Some(Value::Array(groups)) => groups.iter().any(is_it),
        Some(one) => is_it(one),
        None => false,
    })
}

/// The id that a new account is to have: what the claim says, as far as an id can.
///
/// `None` when that is nothing.
pub fn wished_id(claims: &Claims, settings: &Settings) -> Option<UserId> {
    let name = find(claims, &settings.user_claim)?.as_str()?;
    let name = name.split('@').next().unwrap_or_default().to_lowercase();
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let name: String = name.chars().map(|c| if fits(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches(['.', '_', '-']);
    UserId::parse(&name[..name.len().min(limits::SLUG_BYTES_MAX)]).ok()
}

/// The name that people see of a new account; empty when there is none.
pub fn display_name(claims: &Claims) -> String {
    let name = text(claims, "name").unwrap_or_default();
    let mut shown = String::new();
    for c in name.chars().filter(|c| !c.is_control()) {
        if shown.len() + c.len_utf8() > limits::DISPLAY_NAME_BYTES_MAX {
            break;
        }
        shown.push(c);
    }
    shown
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn names_become_ids_as_far_as_they_can() {
        let wished = |name: Value| {
            let id =
                wished_id(&claims(json!({ "preferred_username": name })), &Settings::default());
            id.map(|id| id.to_string())
        };
        for (name, id) in [
            ("ann", "ann"),
            ("Ann.Lee@example.org", "ann.lee"),
            ("Ann Lee", "ann-lee"),
            ("_Jörg_", "j-rg_"),
            ("İ", "i-"), // small letters take more room, and are no letters of ids
        ] {
            assert_eq!(wished(json!(name)).as_deref(), Some(id), "{name}");
        }
        assert_eq!(wished(json!("x".repeat(99))).map(|id| id.len()), Some(limits::SLUG_BYTES_MAX));
        for none in [json!(""), json!("@a"), json!("~-._"), json!(7), json!(null), json!(["a"])] {
            assert_eq!(wished(none.clone()), None, "{none}");
        }
    }

    #[test]
    fn groups_are_found_wherever_they_are() {
        let admin = |claim: &str, said: Value| {
            let settings = Settings {
                groups_claim: claim.into(),
                admin_group: Some("ops".into()),
                ..Settings::default()
            };
            is_admin(&claims(said), &settings)
        };
        assert_eq!(admin("groups", json!({ "groups": ["a", "ops"] })), Some(true));
        assert_eq!(admin("groups", json!({ "groups": "ops" })), Some(true));
        let nested = json!({ "realm_access": { "roles": ["ops"] } });
        assert_eq!(admin("realm_access.roles", nested.clone()), Some(true));
        assert_eq!(
            admin("https://a.example/groups", json!({ "https://a.example/groups": ["ops"] })),
            Some(true)
        );
        for none in
            [json!({}), json!({ "groups": ["opsx"] }), json!({ "groups": { "ops": 1 } }), nested]
        {
            assert_eq!(admin("groups", none.clone()), Some(false), "{none}");
        }
        assert_eq!(is_admin(&claims(json!({ "groups": ["ops"] })), &Settings::default()), None);
    }

    #[test]
    fn scopes_of_ours_narrow_a_token() {
        assert_eq!(scopes(&claims(json!({}))), Some(Scopes::ALL));
        assert_eq!(scopes(&claims(json!({ "scope": "openid profile" }))), Some(Scopes::ALL));
        let some = Some(Scopes::of([Scope::Read, Scope::Post]));
        assert_eq!(scopes(&claims(json!({ "scope": "x folkmoot:read folkmoot:post" }))), some);
        assert_eq!(scopes(&claims(json!({ "scp": ["folkmoot:read", "folkmoot:post"] }))), some);
        assert_eq!(scopes(&claims(json!({ "scope": "folkmoot:fly" }))), None);
        let all =
            ["read", "post", "rooms", "account", "admin"].map(|name| format!("folkmoot:{name}"));
        assert_ne!(scopes(&claims(json!({ "scope": all.join(" ") }))), Some(Scopes::ALL));
    }

    #[test]
    fn names_for_people_are_short_and_plain() {
        let name = |name: &str| display_name(&claims(json!({ "name": name })));
        assert_eq!(name("Ann\u{7}\n Lee"), "Ann Lee");
        assert_eq!(name(&"ü".repeat(99)).len(), limits::DISPLAY_NAME_BYTES_MAX);
        assert_eq!(display_name(&claims(json!({}))), "");
    }
}
