//! One provider: what it says of itself, its keys, and what is asked of it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::config::oidc::Provider as Settings;
use crate::error::{Code, Error};
use crate::gateway::oidc::cached::Cached;
use crate::gateway::oidc::claims::{self, Expected};
use crate::gateway::oidc::fetch::{Answer, Ask, Fetcher, encoded, form};
use crate::gateway::oidc::jose::{self, Bad, Claims, Keys};
use crate::gateway::oidc::seal::Seal;

/// A code, a token or a URL that a provider gives, in bytes.
const WORD_BYTES_MAX: usize = 8 * 1024;
/// When to try again while a provider is not there, in milliseconds.
const RETRY_AFTER_MS: u64 = 3000;

/// What a provider says of itself (OpenID Connect Discovery 1.0, section 3), as far as it is of use.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    issuer: String,
    /// Where browsers are sent.
    pub authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Whether it says who it is when it sends a browser back (RFC 9207).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

/// What comes of a grant.
#[derive(Deserialize)]
pub struct Granted {
    id_token: String,
    access_token: Option<String>,
}

/// What a device is to show (RFC 8628, section 3.2).
#[derive(Deserialize)]
pub struct DeviceGrant {
    /// By which it is asked what has become of it. A secret.
    pub device_code: String,
    /// What somebody is to type.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// Where, with the code in it.
    pub verification_uri_complete: Option<String>,
    /// For how long, in seconds.
    pub expires_in: u64,
    /// How often it may be asked, in seconds.
    pub interval: Option<u64>,
}

/// Why there was no grant, as the provider says it: a word of RFC 6749, section 5.2.
#[derive(Debug)]
pub enum Ungranted {
    /// It said so.
    Refused(String),
    /// It could not be asked.
    Failed(Error),
}

/// A provider with the settings that are in force.
#[derive(Debug)]
pub struct Provider {
    /// Its name, in addresses.
    pub name: String,
    /// Its settings.
    pub settings: Arc<Settings>,
    /// Seals what sign-ins remember.
    pub seal: Seal,
    public_url: String,
    fetcher: Arc<Fetcher>,
    metadata: Arc<Cached<Metadata>>,
    keys: Arc<Cached<Keys>>,
}

impl Provider {
    /// Not asked for anything yet.
    pub fn new(
        name: &str,
        settings: Arc<Settings>,
        public_url: &str,
        fetcher: Arc<Fetcher>,
    ) -> Provider {
        let public = [name, &settings.issuer, &settings.client_id];
        Provider {
            name: name.to_owned(),
            seal: Seal::new(&public, settings.secret.reveal()),
            public_url: public_url.to_owned(),
            fetcher,
            metadata: Arc::default(),
            keys: Arc::default(),
            settings,
        }
    }

    /// Whether it is the provider of these settings.
    pub fn is_of(&self, settings: &Settings, public_url: &str) -> bool {
        *self.settings == *settings && self.public_url == public_url
    }

    /// Where the provider sends browsers back to.
    pub fn redirect_uri(&self) -> String {
        format!("{}/v1/oidc/{}/callback", self.public_url, self.name)
    }

    /// The scopes that are asked for.
    pub fn scope(&self) -> String {
        let others = self.settings.scopes.iter().filter(|scope| *scope != "openid");
        others.fold("openid".to_owned(), |all, scope| all + " " + scope)
    }

    fn unreachable(&self, what: &str, why: &str) -> Error {
        tracing::warn!(provider = %self.name, what, why, "a provider of sign-in does not answer");
        let message = "the provider of this sign-in cannot be reached, or is not as it should be: \
                       try again, or sign in another way";
        Error::new(Code::Unavailable, message).retry_after(RETRY_AFTER_MS)
    }

    async fn fetch(&self, what: &str, ask: Ask<'_>) -> Result<Answer, Error> {
        let fetched = self.fetcher.fetch(ask).await;
        fetched.map_err(|error| self.unreachable(what, &error.to_string()))
    }

    async fn get(&self, what: &str, url: &str) -> Result<Answer, Error> {
        let answer = self.fetch(what, Ask { url, authorization: None, form: None }).await?;
        match answer.status {
            StatusCode::OK => Ok(answer),
            other => Err(self.unreachable(what, &format!("it answers with status {other}"))),
        }
    }

    /// What the provider says of itself.
    ///
    /// # Errors
    /// [`Code::Unavailable`].
    pub async fn metadata(self: &Arc<Self>) -> Result<Arc<Metadata>, Error> {
        let provider = self.clone();
        self.metadata.get(async move { provider.discover().await }).await
    }

    async fn discover(&self) -> Result<Metadata, Error> {
        let what = "discovery";
        let issuer = &self.settings.issuer;
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let answer = self.get(what, &url).await?;
        let metadata: Metadata = serde_json::from_slice(&answer.body)
            .map_err(|error| self.unreachable(what, &error.to_string()))?;
        // Else one issuer could speak for another (OpenID Connect Discovery 1.0, section 4.3).
        if metadata.issuer != *issuer {
            let why = format!("it calls itself {:?}, not {issuer:?}", metadata.issuer);
            return Err(self.unreachable(what, &why));
        }
        Ok(metadata)
    }

    async fn keys(self: &Arc<Self>, newer: bool) -> Result<Arc<Keys>, Error> {
        let provider = self.clone();
        let fetch = async move {
            let url = provider.metadata().await?.jwks_uri.clone();
            let answer = provider.get("its keys", &url).await?;
            let odd = || provider.unreachable("its keys", "there is none that is of use");
            Keys::parse(&answer.body).ok_or_else(odd)
        };
        if newer { self.keys.get_newer(fetch).await } else { self.keys.get(fetch).await }
    }

    /// The claims of a token that the provider has signed.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when it has not; [`Code::Unavailable`].
    pub async fn verify(self: &Arc<Self>, token: &str) -> Result<Claims, Error> {
        let mut verified = jose::verify(token, &*self.keys(false).await?);
        if verified == Err(Bad::UnknownKey) {
            verified = jose::verify(token, &*self.keys(true).await?);
        }
        verified.map_err(|bad| Error::new(Code::Unauthenticated, bad.to_string()))
    }

    /// The client's credentials: in a header, or where the provider takes that only, in the form.
    fn authenticate(
        &self,
        metadata: &Metadata,
        fields: &[(&str, &str)],
    ) -> (Option<HeaderValue>, String) {
        let (id, secret) = (&*self.settings.client_id, self.settings.secret.reveal());
        let methods = metadata.token_endpoint_auth_methods_supported.as_deref();
        let basic = methods.is_none_or(|all| all.iter().any(|one| one == "client_secret_basic"));
        if !basic {
            let own = [("client_id", id), ("client_secret", secret)];
            return (None, form(fields.iter().copied().chain(own)));
        }
        let credentials = STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)));
        let mut header = HeaderValue::try_from(format!("Basic {credentials}")).ok();
        if let Some(header) = &mut header {
            header.set_sensitive(true);
        }
        (header, form(fields.iter().copied()))
    }

    /// Shows the token endpoint something, for an ID token.
    ///
    /// # Errors
    /// What the provider says against it, or that it cannot be asked.
    pub async fn grant(self: &Arc<Self>, fields: &[(&str, &str)]) -> Result<Granted, Ungranted> {
        let metadata = self.metadata().await.map_err(Ungranted::Failed)?;
        let (authorization, form) = self.authenticate(&metadata, fields);
        let ask = Ask { url: &metadata.token_endpoint, authorization, form: Some(form) };
        let answer = self.fetch("its tokens", ask).await.map_err(Ungranted::Failed)?;
        let failed = |why: &str| Ungranted::Failed(self.unreachable("its tokens", why));
        match answer.status {
            StatusCode::OK => serde_json::from_slice(&answer.body)
                .map_err(|_| failed("there is no ID token in its answer")),
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let word =
                    refusal(&answer.body).ok_or_else(|| failed("it refuses, without a reason"))?;
                if matches!(word.as_str(), "invalid_client" | "unauthorized_client") {
                    return Err(failed("it does not know this client, or not by this secret"));
                }
                Err(Ungranted::Refused(word))
            }
            other => Err(failed(&format!("it answers with status {other}"))),
        }
    }

    /// Begins a sign-in of a device.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when the provider has no such sign-in; [`Code::Unavailable`].
    pub async fn begin_device(self: &Arc<Self>) -> Result<DeviceGrant, Error> {
        let what = "sign-in of devices";
        let metadata = self.metadata().await?;
        let url = metadata.device_authorization_endpoint.as_deref().ok_or_else(|| {
            Error::invalid("this provider has no sign-in by a code: use a password or a token")
        })?;
        let scope = self.scope();
        let fields = [("client_id", self.settings.client_id.as_str()), ("scope", scope.as_str())];
        let (authorization, form) = self.authenticate(&metadata, &fields);
        let ask = Ask { url, authorization, form: Some(form) };
        let answer = self.fetch(what, ask).await?;
        if answer.status != StatusCode::OK {
            let word = refusal(&answer.body).unwrap_or_default();
            return Err(self.unreachable(what, &format!("it refuses: {} {word}", answer.status)));
        }
        let grant: DeviceGrant = serde_json::from_slice(&answer.body)
            .map_err(|error| self.unreachable(what, &error.to_string()))?;
        let uris = [Some(&grant.verification_uri), grant.verification_uri_complete.as_ref()];
        let is_web = |uri: &String| uri.starts_with("https://") || uri.starts_with("http://");
        let words = [&grant.device_code, &grant.user_code, &grant.verification_uri];
        let odd = words.iter().any(|word| word.is_empty() || word.len() > WORD_BYTES_MAX)
            || words.iter().any(|word| word.chars().any(char::is_control))
            || !uris.into_iter().flatten().all(is_web);
        match odd {
            true => Err(self.unreachable(what, "its answer is not as it should be")),
            false => Ok(grant),
        }
    }

    /// Who has signed in: the account there, and all that is said of them.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when the ID token is not what it should be; [`Code::Unavailable`].
    pub async fn person(
        self: &Arc<Self>,
        granted: &Granted,
        nonce: Option<&str>,
        now_ms: u64,
    ) -> Result<(crate::chat::account::Link, Claims), Error> {
        let mut said = self.verify(&granted.id_token).await?;
        let settings = &self.settings;
        let (issuer, audience) = (&*settings.issuer, &*settings.client_id);
        let expected = Expected { issuer, audience, now_ms };
        let link = claims::check_id_token(&said, expected, nonce)
            .map_err(|why| Error::new(Code::Unauthenticated, why))?;
        let lacks = |claim: &str| claims::find(&said, claim).is_none();
        let wanted = lacks(&settings.user_claim)
            || settings.admin_group.is_some() && lacks(&settings.groups_claim);
        if wanted && let Some(more) = self.user_info(granted, &link.subject).await? {
            for (name, value) in more {
                said.entry(name).or_insert(value);
            }
        }
        Ok((link, said))
    }

    /// What the provider says of somebody outside the ID token, which some keep short.
    async fn user_info(
        self: &Arc<Self>,
        granted: &Granted,
        subject: &str,
    ) -> Result<Option<Claims>, Error> {
        let what = "its user info";
        let metadata = self.metadata().await?;
        let (Some(url), Some(token)) = (&metadata.userinfo_endpoint, &granted.access_token) else {
            return Ok(None);
        };
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| self.unreachable(what, "its access token is no header's value"))?;
        authorization.set_sensitive(true);
        let ask = Ask { url, authorization: Some(authorization), form: None };
        let answer = self.fetch(what, ask).await?;
        if answer.status != StatusCode::OK {
            return Err(
                self.unreachable(what, &format!("it answers with status {}", answer.status))
            );
        }
        let said: Claims = serde_json::from_slice(&answer.body)
            .map_err(|error| self.unreachable(what, &error.to_string()))?;
        // Else it may be about somebody else (OpenID Connect Core 1.0, section 5.3.2).
        match said.get("sub").and_then(Value::as_str) == Some(subject) {
            true => Ok(Some(said)),
            false => Err(self.unreachable(what, "it is about somebody else")),
        }
    }
}

/// The word by which a provider refuses something.
fn refusal(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let Refusal { error } = serde_json::from_slice(body).ok()?;
    let is_word = error.len() <= 64 && error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    is_word.then_some(error)
}
