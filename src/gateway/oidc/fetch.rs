//! HTTP to providers: one small request at a time, with an end.
//!
//! Not a general client. A request has 5 s in all, an answer 256 KiB, a node 32 requests under way;
//! no redirect is followed, for none is expected. TLS is rustls with the system's certificates
//! (`SSL_CERT_FILE` names others). Connections are not kept: a node asks its providers for
//! something a few times a minute.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, Semaphore};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tokio_util::task::AbortOnDropHandle;

use crate::config::oidc::is_loopback;

/// How long a request may take, its connection included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Requests under way at once.
const REQUESTS_MAX: usize = 32;

/// Why there is no answer. For the node's log; it has nothing that a client sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The URL is none that is asked.
    #[error("{0} is not an https URL")]
    Url(String),
    /// Nobody is there, or they do not speak HTTP.
    #[error("{0}")]
    Failed(String),
    /// It took too long.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// There are as many requests as there may be.
    #[error("{REQUESTS_MAX} requests to providers are under way already")]
    Busy,
}

/// Fetches.
#[derive(Debug)]
pub struct Fetcher {
    permits: Semaphore,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Default for Fetcher {
    fn default() -> Fetcher {
        Fetcher { permits: Semaphore::new(REQUESTS_MAX), tls: OnceCell::new() }
    }
}

/// A request.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Where to.
    pub url: &'a str,
    /// The value of `Authorization`.
    pub authorization: Option<HeaderValue>,
    /// A form to be posted; `None`: it is a GET.
    pub form: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// All of its body.
    pub body: Bytes,
}

fn failed(error: impl std::fmt::Display) -> FetchError {
    FetchError::Failed(error.to_string())
}

impl Fetcher {
    /// Asks, and waits for all of the answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn fetch(&self, ask: Ask<'_>) -> Result<Answer, FetchError> {
        let _permit = self.permits.try_acquire().map_err(|_| FetchError::Busy)?;
        // Boxed: it is some 20 KiB of TLS, which each WebSocket's task would have room for otherwise.
        let fetched = tokio::time::timeout(TIMEOUT, Box::pin(self.fetch_for_long(ask))).await;
        fetched.unwrap_or(Err(FetchError::Timeout))
    }

    async fn fetch_for_long(&self, ask: Ask<'_>) -> Result<Answer, FetchError> {
        let odd = || FetchError::Url(ask.url.chars().take(200).collect());
        let uri: Uri = ask.url.parse().map_err(|_| odd())?;
        let named = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let host = uri.host().filter(|host| !host.is_empty() && !named).ok_or_else(odd)?.to_owned();
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if is_loopback(&host) => false,
            _ => return Err(odd()),
        };
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let request = request(ask, &uri)?;
        let stream = TcpStream::connect((name.as_str(), port)).await.map_err(failed)?;
        if !is_tls {
            return exchange(stream, request).await;
        }
        let name = ServerName::try_from(name).map_err(failed)?;
        let connector = TlsConnector::from(self.tls().await?);
        exchange(connector.connect(name, stream).await.map_err(failed)?, request).await
    }

    async fn tls(&self) -> Result<Arc<ClientConfig>, FetchError> {
        let made = self.tls.get_or_try_init(|| async {
            let read = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
            let mut roots = RootCertStore::empty();
            let (good, _) = roots.add_parsable_certificates(read.await.map_err(failed)?.certs);
            if good == 0 {
                let hint = "this machine has no certificates of authorities: install \
                            ca-certificates, or set SSL_CERT_FILE";
                return Err(FetchError::Failed(hint.into()));
            }
            let provider = Arc::new(crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(failed)?;
            Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
        });
        made.await.cloned()
    }
}

fn request(ask: Ask<'_>, uri: &Uri) -> Result<Request<Full<Bytes>>, FetchError> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let method = if ask.form.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("folkmoot/", env!("CARGO_PKG_VERSION")));
    if let Some(value) = ask.authorization {
        request = request.header(header::AUTHORIZATION, value);
    }
    if ask.form.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    request.body(Full::from(ask.form.unwrap_or_default())).map_err(failed)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, FetchError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.await; // what goes wrong is said to who waits for the answer
    }));
    let answer = sender.send_request(request).await.map_err(failed)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    Ok(Answer { status, body: body.map_err(failed)?.to_bytes() })
}

/// Writes a form, or a query.
pub fn form<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let fields = fields.into_iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    fields.collect::<Vec<_>>().join("&")
}

/// Writes a value as forms and queries have it.
pub fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn fetch_from(answer: Vec<u8>) -> Result<Answer, FetchError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/a?b=c", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let n = stream.read(&mut asked).await.unwrap();
            assert!(asked[..n].starts_with(b"GET /a?b=c HTTP/1.1\r\nhost: 127.0.0.1:"));
            let _ = stream.write_all(&answer).await;
        });
        Fetcher::default().fetch(Ask { url: &url, authorization: None, form: None }).await
    }

    #[tokio::test]
    async fn an_answer_is_taken_whole_and_up_to_a_limit() {
        let answer =
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 2\r\n\r\nhi";
        let answer = fetch_from(answer.to_vec()).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (302, &b"hi"[..]), "not followed");
        let length = ANSWER_BYTES_MAX + 1;
        let mut long = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        long.resize(long.len() + length, b'x');
        assert!(fetch_from(long).await.is_err());
        assert!(fetch_from(b"SSH-2.0-x\r\n".to_vec()).await.is_err());
    }

    #[tokio::test]
    async fn only_https_and_this_machine_are_asked() {
        for url in [
            "http://192.0.2.1/",
            "ftp://127.0.0.1/",
            "/a",
            "file:///etc/passwd",
            "http://a@127.0.0.1/",
            "",
        ] {
            let fetcher = Fetcher::default();
            let asked = fetcher.fetch(Ask { url, authorization: None, form: None });
            assert!(matches!(asked.await, Err(FetchError::Url(_))), "{url}");
        }
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(form([("a", "b c&d"), ("e", "ü~")]), "a=b%20c%26d&e=%C3%BC~");
    }
}
