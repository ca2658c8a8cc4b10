//! A browser's session: a cookie that scripts cannot read, taken from pages of this very origin
//! only.
//!
//! `SameSite=Strict` keeps other sites from sending it; in case a browser does so all the same, or
//! a sibling domain of the same site is somebody else's, `Sec-Fetch-Site` and `Origin`, which no
//! page can forge, must say that the page is of this origin. Tokens in an `Authorization` header
//! need none of this: no browser adds them by itself.
//!
//! Under TLS the cookies' names begin with `__Host-`: browsers let no other host set such a one, a sibling
//! domain neither, nor a page without TLS. So nobody is signed in by somebody else's session.

use std::time::Duration;

use axum::http::header::{COOKIE, HOST, ORIGIN, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};

use crate::error::{Code, Error};
use crate::gateway::oidc::browser::PENDING_MS;

/// The name of a session's cookie.
fn session_name(secure: bool) -> &'static str {
    if secure { "__Host-folkmoot_session" } else { "folkmoot_session" }
}

/// The token in the cookie. Under TLS one without the prefix is not looked at.
pub fn token(headers: &HeaderMap, behind_proxy: bool) -> Option<&str> {
    find(headers, session_name(is_secure(headers, behind_proxy)))
}

fn find<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|cookies| cookies.split(';')).find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == wanted).then_some(value)
    })
}

/// The name of the cookie of a sign-in by a provider that is under way.
fn pending_name(secure: bool) -> &'static str {
    if secure { "__Host-folkmoot_sign_in" } else { "folkmoot_sign_in" }
}

/// What a browser remembers of a sign-in by a provider.
pub fn pending(headers: &HeaderMap, secure: bool) -> Option<&str> {
    find(headers, pending_name(secure))
}

/// The `Set-Cookie` header of such a sign-in; without anything it takes the cookie back. `Lax`, as it is
/// from the provider's site that the browser comes back.
pub fn set_pending(sealed: Option<&str>, secure: bool) -> Option<HeaderValue> {
    let (value, seconds) = sealed.map_or(("", 0), |sealed| (sealed, PENDING_MS / 1000));
    let name = pending_name(secure);
    let secure = if secure { "; Secure" } else { "" };
    let cookie =
        format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    let mut value = HeaderValue::from_str(&cookie).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The `Set-Cookie` header of a session; without a token it takes the cookie back. `None` when the
/// token is no header's value.
pub fn set(token: Option<&str>, max_age: Duration, secure: bool) -> Option<HeaderValue> {
    let (value, seconds) = token.map_or(("", 0), |token| (token, max_age.as_secs()));
    let name = session_name(secure);
    let secure = if secure { "; Secure" } else { "" };
    let cookie =
        format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let mut value = HeaderValue::from_str(&cookie).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The `Set-Cookie` headers that take the session's cookie back; under TLS also the one that has no prefix.
pub fn gone(secure: bool) -> Vec<HeaderValue> {
    let names: &[bool] = if secure { &[true, false] } else { &[false] };
    names.iter().filter_map(|secure| set(None, Duration::ZERO, *secure)).collect()
}

/// Whether the client speaks TLS: by the word of a proxy that is trusted, or as it sends a cookie that a
/// browser sends under TLS only. The callback of a provider may set that one where no proxy is trusted.
pub fn is_secure(headers: &HeaderMap, behind_proxy: bool) -> bool {
    let proto = headers.get_all("x-forwarded-proto").iter().next_back();
    let proto = proto.and_then(|value| value.to_str().ok()?.rsplit(',').next());
    // Some proxies say `wss` of a WebSocket.
    let is_tls = |proto: &str| ["https", "wss"].iter().any(|it| proto.eq_ignore_ascii_case(it));
    behind_proxy && proto.is_some_and(|proto| is_tls(proto.trim()))
        || find(headers, session_name(true)).is_some()
}

/// Refuses a request with a cookie that a page of another origin has made.
///
/// # Errors
/// [`Code::Forbidden`].
pub fn check_same_origin(parts: &Parts) -> Result<(), Error> {
    let headers = &parts.headers;
    let safe = parts.method.is_safe() && !headers.contains_key(UPGRADE);
    let origin = headers.get(ORIGIN).map(|origin| is_own(parts, origin));
    let good = match (headers.get("sec-fetch-site").map(HeaderValue::as_bytes), origin) {
        (Some(b"same-origin"), _) => true,
        (_, Some(false)) => false,
        (Some(b"none"), None) => safe, // typed, or out of the bookmarks
        (Some(_), _) => false,
        (None, Some(true)) => true,
        (None, None) => safe,
    };
    if good {
        return Ok(());
    }
    let message = "a cookie is taken from pages of this origin only: send a token as \
                   `Authorization: Bearer fm_…`";
    Err(Error::new(Code::Forbidden, message))
}

/// Whether an `Origin` is that of the host that was asked.
fn is_own(parts: &Parts, origin: &HeaderValue) -> bool {
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = parts.uri.authority().map(|authority| authority.as_str()).or(host);
    let origin = origin.to_str().ok().and_then(|origin| {
        origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"))
    });
    matches!((host, origin), (Some(host), Some(origin)) if host.eq_ignore_ascii_case(origin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn good(method: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri("/v1/rooms");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check_same_origin(&request.body(()).unwrap().into_parts().0).is_ok()
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        assert_eq!(token(&headers, false), None);
        headers.insert(COOKIE, HeaderValue::from_static("a=b; folkmoot_session=fm_x; c"));
        assert_eq!(token(&headers, false), Some("fm_x"));
        headers.insert(COOKIE, HeaderValue::from_static("folkmoot_sessions=no"));
        assert_eq!(token(&headers, false), None);
    }

    #[test]
    fn under_tls_a_session_is_the_browsers_own() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        headers.insert(COOKIE, HeaderValue::from_static("folkmoot_session=planted"));
        assert_eq!((token(&headers, true), token(&headers, false)), (None, Some("planted")));
        let both = "folkmoot_session=planted; __Host-folkmoot_session=fm_x";
        headers.insert(COOKIE, HeaderValue::from_static(both));
        assert_eq!((token(&headers, true), token(&headers, false)), (Some("fm_x"), Some("fm_x")));
    }

    #[test]
    fn a_sign_in_that_is_under_way_is_the_browsers_own() {
        let set = |secure| set_pending(Some("x"), secure).unwrap();
        let expected =
            "__Host-folkmoot_sign_in=x; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure";
        assert_eq!(set(true), expected);
        assert_eq!(set(false), "folkmoot_sign_in=x; Path=/; Max-Age=600; HttpOnly; SameSite=Lax");
        assert!(set_pending(None, false).unwrap().to_str().unwrap().contains("Max-Age=0;"));
        let mut headers = HeaderMap::new();
        let both = "folkmoot_sign_in=a; __Host-folkmoot_sign_in=b";
        headers.insert(COOKIE, HeaderValue::from_static(both));
        assert_eq!((pending(&headers, true), pending(&headers, false)), (Some("b"), Some("a")));
    }

    #[test]
    fn its_flags_are_strict() {
        let cookie = set(Some("fm_x"), Duration::from_secs(60), true).unwrap();
        let flags = "Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure";
        assert_eq!(cookie, format!("__Host-folkmoot_session=fm_x; {flags}"));
        assert!(cookie.is_sensitive());
        let plain = set(None, Duration::from_secs(60), false).unwrap();
        assert_eq!(plain, "folkmoot_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
        assert_eq!(set(Some("a\nb"), Duration::ZERO, false), None);
    }

    #[test]
    fn only_a_trusted_proxy_says_that_it_is_tls() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-proto", HeaderValue::from_static("http, https"));
        assert!(is_secure(&headers, true) && !is_secure(&headers, false));
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https, http"));
        assert!(!is_secure(&headers, true));
        headers.insert("x-forwarded-proto", HeaderValue::from_static("wss"));
        assert!(is_secure(&headers, true) && !is_secure(&headers, false));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let host = ("host", "chat.example.org:7400");
        let own = ("origin", "https://chat.example.org:7400");
        let (same, cross) = (("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site"));
        let evil = ("origin", "https://evil.example");
        for method in ["GET", "POST", "DELETE", "PATCH"] {
            let safe = method == "GET";
            assert!(good(method, &[host, own]));
            assert!(good(method, &[host, same]));
            assert!(good(method, &[host, same, own]));
            assert!(!good(method, &[host, evil]));
            assert!(!good(method, &[host, cross]));
            assert!(!good(method, &[host, cross, own]));
            assert!(!good(method, &[host, ("sec-fetch-site", "same-site")]));
            assert!(!good(method, &[host, ("origin", "null")]));
            assert!(!good(method, &[own]), "no host to compare with");
            assert_eq!(good(method, &[host]), safe);
            assert_eq!(good(method, &[host, ("sec-fetch-site", "none")]), safe);
            assert!(!good(method, &[host, ("upgrade", "websocket")]));
            assert!(good(method, &[host, own, ("upgrade", "websocket")]));
            assert!(!good(method, &[host, ("origin", "https://chat.example.org")]));
        }
    }
}
