//! The web page, which is in the binary: `/`, and `/assets/…` with what it is made of (web/).
//!
//! Whoever asks gets it, signed in or not: it has no secrets, and does what it does over the API
//! like any client, by the cookie of `cookie.rs`. The page's own policy is as strict as can be:
//! scripts, styles and connections of this origin only, nothing inline, in nobody's frame. So what
//! somebody writes cannot become a script, even if the page forgot to escape it.
//!
//! File names have no hashes, since modules import each other by name: a browser keeps what it has
//! and asks each time whether that is still it (`no-cache`, with an `ETag`). So a node of another
//! version never leaves a browser with half of each.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use rust_embed::RustEmbed;

use crate::error::{Code, Error};
use crate::gateway::app::App;
use crate::gateway::http::extract::Segments;
use crate::gateway::limits::Registration;
use crate::gateway::oidc::Shown;

const INDEX: &str = include_str!("../../../web/index.html");
/// Where the page says who may register; what is served says how it is here.
const REGISTRATION: &str = r#"name="folkmoot-registration" content="closed""#;

/// Where it says by which providers people sign in, as lines of a name and a title.
const PROVIDERS: &str = r#"name="folkmoot-providers" content="""#;

/// What makes the page.
#[derive(RustEmbed)]
#[folder = "web/page/"]
#[prefix = "page/"]
struct PageFiles;

/// What any client in a browser could use.
#[derive(RustEmbed)]
#[folder = "web/client/"]
#[prefix = "client/"]
struct ClientFiles;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'";

/// What everything here is answered with.
const HEADERS: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-cache"),
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The routes. They are not the API's, so they are not in its table.
pub fn router() -> Router<Arc<App>> {
    Router::new().route("/", get(index)).route("/assets/{*path}", get(asset))
}

/// `GET /`.
async fn index(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let content = match app.limits().accounts.registration {
        Registration::Closed => "closed",
        Registration::Invite => "invite",
        Registration::Open => "open",
    };
    let here = REGISTRATION.replace("closed", content);
    let providers = providers(&app.limits().accounts.oidc.shown());
    let page = INDEX.replace(REGISTRATION, &here).replace(PROVIDERS, &providers);
    answer(&headers, "text/html; charset=utf-8", page.into_bytes())
}

/// The providers, in an attribute.
fn providers(shown: &[Shown]) -> String {
    let lines = shown.iter().map(|shown| format!("{} {}", shown.name, shown.title));
    let text = lines.collect::<Vec<_>>().join("\n");
    let mut content = String::new();
    for c in text.chars() {
        match c {
            '&' => content.push_str("&amp;"),
            '"' => content.push_str("&quot;"),
            '<' => content.push_str("&lt;"),
            '>' => content.push_str("&gt;"),
            '\n' => content.push_str("&#10;"),
            _ => content.push(c),
        }
    }
    PROVIDERS.replace("\"\"", &format!("\"{content}\""))
}

/// `GET /assets/{path}`.
async fn asset(Segments(path): Segments<String>, headers: HeaderMap) -> Result<Response, Error> {
    let file = PageFiles::get(&path).or_else(|| ClientFiles::get(&path));
    match (file, content_type(&path)) {
        (Some(file), Some(content_type)) => {
            Ok(answer(&headers, content_type, file.data.into_owned()))
        }
        _ => Err(Error::new(Code::NotFound, "there is no such file")),
    }
}

fn content_type(path: &str) -> Option<&'static str> {
    Some(match path.rsplit_once('.')?.1 {
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    })
}

/// A body, or that the browser has it already.
fn answer(asked: &HeaderMap, content_type: &'static str, body: Vec<u8>) -> Response {
    let etag = format!("\"{}\"", &blake3::hash(&body).to_hex()[..32]);
    let is_known = asked.get_all(IF_NONE_MATCH).iter().any(|known| names(known, &etag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, content_type)], body).into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(ETAG, etag);
    }
    response
}

/// Whether an `If-None-Match` names this tag. A proxy that compresses may have made it a weak one.
fn names(header: &HeaderValue, etag: &str) -> bool {
    let tags = header.to_str().unwrap_or_default().split(',').map(str::trim);
    tags.map(|tag| tag.strip_prefix("W/").unwrap_or(tag)).any(|tag| tag == etag || tag == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_type_and_none_is_a_test() {
        let files: Vec<_> = PageFiles::iter().chain(ClientFiles::iter()).collect();
        assert!(files.len() > 10, "{files:?}");
        for path in files {
            assert!(content_type(&path).is_some(), "{path}");
            assert!(!path.contains("test"), "{path}");
        }
    }

    #[test]
    fn what_the_page_and_its_modules_name_is_there() {
        let mut named = vec![];
        for part in INDEX.split("\"/assets/").skip(1) {
            named.push(part.split('"').next().unwrap().to_owned());
        }
        assert!(named.len() >= 3, "{named:?}");
        for path in PageFiles::iter().chain(ClientFiles::iter()).filter(|p| p.ends_with(".js")) {
            let file = PageFiles::get(&path).or_else(|| ClientFiles::get(&path)).unwrap();
            let text = String::from_utf8(file.data.into_owned()).unwrap();
            let own = path.split('/').next().unwrap();
            for part in text.lines().filter_map(|line| line.split(" from '").nth(1)) {
                let import = part.split('\'').next().unwrap();
                named.push(match import.strip_prefix("../") {
                    Some(other) => other.to_owned(),
                    None => format!("{own}/{}", import.strip_prefix("./").unwrap()),
                });
            }
        }
        for path in named {
            let file = PageFiles::get(&path).or_else(|| ClientFiles::get(&path));
            assert!(file.is_some(), "{path} is not there");
        }
    }

    #[test]
    fn the_page_runs_and_styles_nothing_inline() {
        assert!(INDEX.contains(REGISTRATION) && INDEX.contains(PROVIDERS));
        for part in INDEX.split("<script").skip(1) {
            assert!(part.split_once('>').unwrap().1.starts_with("</script>"), "{part}");
        }
        for word in ["<style", " style=", " onclick=", " onload=", "javascript:"] {
            assert!(!INDEX.contains(word), "{word}");
        }
        for path in PageFiles::iter().chain(ClientFiles::iter()) {
            let file = PageFiles::get(&path).or_else(|| ClientFiles::get(&path)).unwrap();
            let text = String::from_utf8(file.data.into_owned()).unwrap();
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
            {
                assert!(!text.contains(word), "{path}: {word}");
            }
        }
    }

    #[test]
    fn a_title_stays_in_its_attribute() {
        let shown = |name: &str, title: &str| Shown { name: name.into(), title: title.into() };
        let made = providers(&[shown("a", "\"><script>&"), shown("b", "Bee")]);
        let content = "a &quot;&gt;&lt;script&gt;&amp;&#10;b Bee";
        assert_eq!(made, format!("name=\"folkmoot-providers\" content=\"{content}\""));
        assert_eq!(providers(&[]), PROVIDERS);
    }

    #[test]
    fn a_tag_is_found_among_others_and_when_it_was_made_weak() {
        let header = HeaderValue::from_static;
        assert!(names(&header("\"a\", W/\"b\""), "\"b\""));
        assert!(names(&header("*"), "\"b\""));
        assert!(!names(&header("\"bb\""), "\"b\""));
    }
}
