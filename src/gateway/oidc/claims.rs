//! What is made of the claims of somebody.

use serde_json::Value;

use crate::chat::account::{Scope, Scopes};
use crate::config::oidc::Provider as Settings;
use crate::gateway::oidc::jwt::Claims;
use crate::id::UserId;
use crate::limits;

/// What a scope of ours is called in a provider's token: `folkmoot:read`.
const SCOPE_PREFIX: &str = "folkmoot:";

fn text<'a>(claims: &'a Claims, name: &str) -> Option<&'a str> {
    claims.get(name)?.as_str()
}

/// Whether a token says that it is for this audience.
pub fn is_for(claims: &Claims, audience: &str) -> bool {
    match claims.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(some)) => some.iter().any(|one| one.as_str() == Some(audience)),
        _ => false,
    }
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
