//! A browser's session: a cookie that scripts cannot read, taken from pages of this very origin
//! only.
//!
//! `SameSite=Strict` keeps other sites from sending it; in case a browser does so all the same, or
//! a sibling domain of the same site is somebody else's, `Sec-Fetch-Site` and `Origin`, which no
//! page can forge, must say that the page is of this origin. Tokens in an `Authorization` header
//! need none of this: no browser adds them by itself.

use std::fmt::Write as _;
use std::time::Duration;

use axum::http::header::{COOKIE, HOST, ORIGIN, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};

use crate::error::{Code, Error};
use crate::gateway::oidc::browser::PENDING_MS;

/// The cookie's name.
pub const NAME: &str = "folkmoot_session";

/// The token in the cookie.
pub fn token(headers: &HeaderMap) -> Option<&str> {
    find(headers, NAME)
}

fn find<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|cookies| cookies.split(';')).find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == wanted).then_some(value)
    })
}

/// The cookie of a sign-in by a provider that is under way. By its prefix a browser knows that no other
/// host can set it, nor a page without TLS.
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
    let mut cookie =
        format!("{NAME}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict");
    if secure {
        let _ = write!(cookie, "; Secure");
    }
    let mut value = HeaderValue::from_str(&cookie).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether the client speaks TLS, by the word of a proxy that is trusted.
pub fn is_secure(headers: &HeaderMap, behind_proxy: bool) -> bool {
    let proto = headers.get_all("x-forwarded-proto").iter().next_back();
    let proto = proto.and_then(|value| value.to_str().ok()?.rsplit(',').next());
    behind_proxy && proto.is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"))
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
        assert_eq!(token(&headers), None);
        headers.insert(COOKIE, HeaderValue::from_static("a=b; folkmoot_session=fm_x; c"));
        assert_eq!(token(&headers), Some("fm_x"));
        headers.insert(COOKIE, HeaderValue::from_static("folkmoot_sessions=no"));
        assert_eq!(token(&headers), None);
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
        let flags = "folkmoot_session=fm_x; Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure";
        assert_eq!(cookie.to_str().unwrap(), flags);
        assert!(cookie.is_sensitive());
        let plain = set(None, Duration::from_secs(60), false).unwrap();
        assert!(plain.to_str().unwrap().contains("Max-Age=0"));
        assert!(!plain.to_str().unwrap().contains("Secure"));
        assert_eq!(set(Some("a\nb"), Duration::ZERO, false), None);
    }

    #[test]
    fn only_a_trusted_proxy_says_that_it_is_tls() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-proto", HeaderValue::from_static("http, https"));
        assert!(is_secure(&headers, true) && !is_secure(&headers, false));
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https, http"));
        assert!(!is_secure(&headers, true));
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
