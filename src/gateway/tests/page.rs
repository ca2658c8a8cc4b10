//! The web page: who gets it, with which headers, and what is not there.

use super::server::{Reply, Server};
use crate::gateway::limits::{GatewayLimits, Registration};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

async fn get(server: &Server, path: &str, headers: &str) -> Reply {
    server.send_raw("GET", path, headers, b"").await
}

fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let mut headers = reply.head.lines().skip(1).filter_map(|line| line.split_once(": "));
    headers.find(|(found, _)| *found == name).map(|(_, value)| value)
}

fn check_headers(reply: &Reply) {
    assert_eq!(header(reply, "content-security-policy"), Some(POLICY));
    assert_eq!(header(reply, "x-content-type-options"), Some("nosniff"));
    assert_eq!(header(reply, "referrer-policy"), Some("no-referrer"));
    assert_eq!(header(reply, "cross-origin-opener-policy"), Some("same-origin"));
    assert_eq!(header(reply, "cross-origin-resource-policy"), Some("same-origin"));
    assert_eq!(header(reply, "cache-control"), Some("no-cache"));
    assert_eq!(header(reply, "access-control-allow-origin"), None);
    assert_eq!(header(reply, "set-cookie"), None);
    let etag = header(reply, "etag").unwrap();
    assert!(etag.starts_with('"') && etag.len() == 34, "{etag}");
}

#[tokio::test]
async fn everybody_gets_the_page_and_its_files() {
    let server = Server::start().await;
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/assets/page/main.js", "text/javascript; charset=utf-8"),
        ("/assets/page/style.css", "text/css; charset=utf-8"),
        ("/assets/page/icon.svg", "image/svg+xml"),
        ("/assets/client/session.js", "text/javascript; charset=utf-8"),
    ] {
        let reply = get(&server, path, "").await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert_eq!(header(&reply, "content-type"), Some(content_type), "{path}");
        assert!(!reply.body.is_empty());
        check_headers(&reply);
        let head = server.send_raw("HEAD", path, "", b"").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(header(&head, "etag"), header(&reply, "etag"));
    }
}

#[tokio::test]
async fn a_browser_that_has_it_is_told_so() {
    let server = Server::start().await;
    for path in ["/", "/assets/page/main.js"] {
        let first = get(&server, path, "").await;
        let etag = header(&first, "etag").unwrap();
        let again = get(&server, path, &format!("if-none-match: {etag}\r\n")).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        check_headers(&again);
        let other = get(&server, path, "if-none-match: \"another\"\r\n").await;
        assert_eq!(other.status, 200);
        assert_eq!(other.body, first.body);
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = Server::start().await;
    for path in [
        "/assets/",
        "/assets/page/",
        "/assets/page/none.js",
        "/assets/index.html",
        "/assets/package.json",
        "/assets/test/fake.js",
        "/assets/page/../../Cargo.toml",
        "/assets/page/%2e%2e/%2e%2e/Cargo.toml",
        "/assets/..%2f..%2fCargo.toml",
        "/assets//etc/passwd",
        "/index.html",
    ] {
        let reply = get(&server, path, "").await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "not_found"), "{path}");
    }
    let bad = get(&server, "/assets/page/%ff.js", "").await;
    assert_eq!((bad.status, bad.code().as_str()), (400, "invalid_argument"));
    for path in ["/", "/assets/page/main.js"] {
        let reply = server.send(&server.ann, "POST", path, "{}").await;
        assert_eq!((reply.status, reply.code().as_str()), (405, "method_not_allowed"));
    }
}

#[tokio::test]
async fn the_page_says_who_may_register_as_of_now() {
    let server = Server::start().await;
    let says = |reply: &Reply, content: &str| {
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        text.contains(&format!(r#"<meta name="folkmoot-registration" content="{content}">"#))
    };
    let closed = get(&server, "/", "").await;
    assert!(says(&closed, "closed"), "{closed:?}");
    for (registration, content) in [(Registration::Invite, "invite"), (Registration::Open, "open")]
    {
        let mut limits = GatewayLimits::default();
        limits.accounts.registration = registration;
        server.limits.set(limits);
        let known = format!("if-none-match: {}\r\n", header(&closed, "etag").unwrap());
        let reply = get(&server, "/", &known).await;
        assert_eq!(reply.status, 200, "it is another page");
        assert!(says(&reply, content));
    }
}
