//! HTTP to providers, by which the crate `openidconnect` asks: one small request at a time, with an end.
//!
//! Not a general client. A request has 5 s in all, an answer 256 KiB, a node 32 requests under way;
//! no redirect is followed, for none is expected. TLS is rustls with the system's certificates
//! (`SSL_CERT_FILE` names others). Connections are not kept: a node asks its providers for
//! something a few times a minute.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, Semaphore};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tokio_util::task::AbortOnDropHandle;

use crate::config::oidc::is_loopback;

/// How long a request may take, its connection included.
pub const TIMEOUT: Duration = Duration::from_secs(5);
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
    /// It neither answers nor refuses.
    #[error("it answers with status {0}")]
    Status(StatusCode),
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

/// The fetcher as the crate asks by it, for one thing.
///
/// The crate would refuse all of an answer for an oddity in a field that nobody looks at: an empty URL
/// of terms of service, a lifetime that is a text. So it is shown those fields that are of use.
#[derive(Debug)]
pub struct Client<'a> {
    /// By what it asks.
    pub fetcher: &'a Fetcher,
    /// The fields that are shown; `null` is as good as nothing.
    pub fields: &'a [&'a str],
    /// What is in others whatever the provider says: the crate wants them, some providers leave them
    /// out, and nothing here depends on them.
    pub given: Value,
}

impl<'a> AsyncHttpClient<'a> for Client<'_> {
    type Error = FetchError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, FetchError>> + Send + 'a>>;

    fn call(&'a self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let mut answer = self.fetcher.fetch(request).await?;
            if let Ok(mut said) = serde_json::from_slice::<Map<String, Value>>(answer.body()) {
                said.retain(|name, value| self.fields.contains(&name.as_str()) && !value.is_null());
                said.extend(self.given.as_object().cloned().unwrap_or_default());
                *answer.body_mut() = Value::Object(said).to_string().into_bytes();
            }
            Ok(answer)
        })
    }
}

fn failed(error: impl std::fmt::Display) -> FetchError {
    FetchError::Failed(error.to_string())
}

impl Fetcher {
    /// Asks, and waits for all of the answer, of which there are only the status and the body: what
    /// type the body is said to have is not what decides whether it is JSON.
    ///
    /// # Errors
    /// Why there is none.
    async fn fetch(&self, request: HttpRequest) -> Result<HttpResponse, FetchError> {
        let _permit = self.permits.try_acquire().map_err(|_| FetchError::Busy)?;
        // Boxed: it is some 20 KiB of TLS, which each WebSocket's task would have room for otherwise.
        let fetched = tokio::time::timeout(TIMEOUT, Box::pin(self.fetch_for_long(request))).await;
        let answer = fetched.unwrap_or(Err(FetchError::Timeout))?;
        match answer.status() {
            // With what is not 200 it says why it refuses (RFC 6749, section 5.2).
            StatusCode::OK
            | StatusCode::BAD_REQUEST
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN => Ok(answer),
            other => Err(FetchError::Status(other)),
        }
    }

    async fn fetch_for_long(&self, mut request: HttpRequest) -> Result<HttpResponse, FetchError> {
        let uri = std::mem::take(request.uri_mut());
        let odd = || FetchError::Url(uri.to_string().chars().take(200).collect());
        let authority = uri.authority().filter(|it| !it.as_str().contains('@')).ok_or_else(odd)?;
        let host = Some(authority.host()).filter(|host| !host.is_empty()).ok_or_else(odd)?;
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if is_loopback(host) => false,
            _ => return Err(odd()),
        };
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let agent = HeaderValue::from_static(concat!("folkmoot/", env!("CARGO_PKG_VERSION")));
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_str(authority.as_str()).map_err(failed)?);
        headers.insert(header::USER_AGENT, agent);
        if let Some(path) = uri.path_and_query() {
            *request.uri_mut() = Uri::from(path.clone());
        }
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

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: HttpRequest,
) -> Result<HttpResponse, FetchError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.await; // what goes wrong is said to who waits for the answer
    }));
    let request = request.map(|body| Full::new(Bytes::from(body)));
    let answer = sender.send_request(request).await.map_err(failed)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let mut answer = HttpResponse::new(body.map_err(failed)?.to_bytes().into());
    *answer.status_mut() = status;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn fetch(url: &str) -> Result<HttpResponse, FetchError> {
        let request = http::Request::get(url).body(Vec::new()).map_err(failed)?;
        Fetcher::default().fetch(request).await
    }

    async fn fetch_from(answer: Vec<u8>) -> Result<HttpResponse, FetchError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/a?b=c", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let n = stream.read(&mut asked).await.unwrap();
            assert!(asked[..n].starts_with(b"GET /a?b=c HTTP/1.1\r\nhost: 127.0.0.1:"));
            let _ = stream.write_all(&answer).await;
        });
        fetch(&url).await
    }

    #[tokio::test]
    async fn an_answer_is_taken_whole_and_up_to_a_limit() {
        let refused = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nhi";
        let answer = fetch_from(refused.to_vec()).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (400, &b"hi"[..]));
        let elsewhere = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n".to_vec();
        let not_followed = fetch_from(elsewhere).await;
        assert!(matches!(not_followed, Err(FetchError::Status(StatusCode::FOUND))));
        let length = ANSWER_BYTES_MAX + 1;
        let mut long = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        long.resize(long.len() + length, b'x');
        assert!(fetch_from(long).await.is_err());
        assert!(fetch_from(b"SSH-2.0-x\r\n".to_vec()).await.is_err());
    }

    #[tokio::test]
    async fn only_https_and_this_machine_are_asked() {
        for url in ["http://192.0.2.1/", "ftp://127.0.0.1/", "/a", "http://a@127.0.0.1/"] {
            assert!(matches!(fetch(url).await, Err(FetchError::Url(_))), "{url}");
        }
        for url in ["file:///etc/passwd", "", "https://"] {
            assert!(fetch(url).await.is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn the_crate_is_shown_what_is_of_use() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            let body = r#"{"a":1,"b":null,"c":"odd","d":7}"#;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + body).as_bytes()).await;
        });
        let fetcher = Fetcher::default();
        let client =
            Client { fetcher: &fetcher, fields: &["a", "b"], given: json!({ "d": ["x"] }) };
        let answer = client.call(http::Request::get(url).body(Vec::new()).unwrap()).await.unwrap();
        assert_eq!(answer.body(), br#"{"a":1,"d":["x"]}"#);
    }
}
