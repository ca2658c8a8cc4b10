//! Which scope each endpoint needs: the one table, for REST and gRPC.
//!
//! Sessions and tokens without scopes are good for all of them. What is not in the table needs a
//! token that is good for everything; a test holds that every route is.

use axum::http::Method;

use crate::chat::account::{Scope, Scopes};
use crate::error::{Code, Error};

/// The scope that a REST endpoint needs, by its method and route; `None`: all of them.
pub fn of_route(method: &Method, route: &str) -> Option<Scope> {
    let read = method == Method::GET || method == Method::HEAD;
    Some(match route {
        "/v1/me" | "/v1/me/rooms" | "/v1/rooms/{room}/read" | "/v1/ws" => Scope::Read,
        "/v1/me/presence" => Scope::Read,
        "/v1/sessions" | "/v1/sessions/{id}" | "/v1/logout" => Scope::Account,
        "/v1/users" if !read => Scope::Admin,
        "/v1/users/{user}" if !read => Scope::Account,
        "/v1/users/{user}/password" | "/v1/users/{user}/tokens" => Scope::Account,
        "/v1/users/{user}/tokens/{id}" => Scope::Account,
        "/v1/users/{user}/link" => Scope::Admin,
        "/v1/invites" | "/v1/invites/{id}" | "/v1/node/compact" => Scope::Admin,
        _ if !route.starts_with("/v1/users") && !route.starts_with("/v1/rooms") => return None,
        _ if read => Scope::Read,
        _ if route.starts_with("/v1/rooms/{room}/messages") => Scope::Post,
        _ if route.starts_with("/v1/rooms") => Scope::Rooms,
        _ => return None,
    })
}

/// The scope that a gRPC method needs, by its path; `None`: all of them.
pub fn of_method(path: &str) -> Option<Scope> {
    let (service, method) = path.strip_prefix("/folkmoot.v1.")?.split_once('/')?;
    Some(match (service, method) {
        ("Users", "GetUser" | "ListUsers") | ("Accounts", "WhoAmI") => Scope::Read,
        ("Users", "CreateUser") => Scope::Admin,
        ("Accounts", "LinkUser") => Scope::Admin,
        ("Users", "IssueToken") | ("Accounts", _) => Scope::Account,
        ("Rooms", "GetRoom" | "ListRooms" | "Events" | "Thread" | "Session") => Scope::Read,
        ("Rooms", "ListOwnRooms" | "ListParticipants" | "MarkRead" | "SetPresence") => Scope::Read,
        ("Rooms", "Post" | "Edit" | "Redact" | "React") => Scope::Post,
        ("Rooms", "Import" | "Export") | ("Cluster" | "Admin", _) => Scope::Admin,
        ("Rooms", _) => Scope::Rooms,
        _ => return None,
    })
}

/// Refuses who may not do this by what they sign in with.
///
/// # Errors
/// [`Code::Forbidden`].
pub fn require(scopes: Scopes, needed: Option<Scope>) -> Result<(), Error> {
    let good = match needed {
        Some(scope) => scopes.has(scope),
        None => scopes == Scopes::ALL,
    };
    if good {
        return Ok(());
    }
    let what = needed.map_or("everything", Scope::as_str);
    Err(Error::new(Code::Forbidden, format!("this token is not good for this: it needs `{what}`")))
}

/// The paths of all gRPC methods, as the public files declare them.
#[cfg(test)]
pub fn rpcs() -> Vec<String> {
    let protos = [
        include_str!("../../proto/folkmoot/v1/folkmoot.proto"),
        include_str!("../../proto/folkmoot/v1/admin.proto"),
        include_str!("../../proto/folkmoot/v1/accounts.proto"),
    ];
    let (mut service, mut paths) = ("", Vec::new());
    for line in protos.iter().flat_map(|text| text.lines()) {
        if let Some(rest) = line.strip_prefix("service ") {
            service = rest.trim_end_matches(" {");
        } else if let Some((method, _)) =
            line.strip_prefix("  rpc ").and_then(|r| r.split_once('('))
        {
            paths.push(format!("/folkmoot.v1.{service}/{method}"));
        }
    }
    assert!(paths.len() > 40, "{paths:?}");
    paths
}

/// The routes that are for everybody, signed in or not.
#[cfg(test)]
pub const OPEN: [&str; 13] = [
    "/health/live",
    "/health/ready",
    "/metrics",
    "/v1/openapi.json",
    "/v1/cluster",
    "/v1/cluster/init",
    "/v1/login",
    "/v1/oidc",
    "/v1/oidc/{provider}/login",
    "/v1/oidc/{provider}/callback",
    "/v1/oidc/{provider}/device",
    "/v1/oidc/{provider}/device/poll",
    "/v1/register",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::http::ROUTES;

    #[test]
    fn every_route_has_a_scope() {
        for (method, route) in ROUTES {
            if OPEN.contains(route) {
                continue;
            }
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            assert!(of_route(&method, route).is_some(), "{method} {route} is not in the table");
        }
    }

    #[test]
    fn every_rpc_has_a_scope() {
        for path in rpcs() {
            assert!(of_method(&path).is_some(), "{path} is not in the table");
        }
    }

    #[test]
    fn a_scope_is_needed_and_enough() {
        let read = Scopes::of([Scope::Read]);
        assert!(require(read, Some(Scope::Read)).is_ok());
        assert_eq!(require(read, Some(Scope::Post)).unwrap_err().code, Code::Forbidden);
        assert!(require(Scopes::of(Scope::ALL), None).is_err());
        assert!(require(Scopes::ALL, None).is_ok());
    }
}
