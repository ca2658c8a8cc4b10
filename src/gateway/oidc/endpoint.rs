//! One provider: what it says of itself, its keys, and what is asked of it. The crate `openidconnect`
//! speaks the protocol; here is with what, and what is made of its answers.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClient, CoreClientAuthMethod,
    CoreDeviceAuthorizationResponse, CoreGenderClaim, CoreGrantType, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode,
    CoreResponseType, CoreSubjectIdentifierType, CoreTokenResponse,
};
use openidconnect::{
    AdditionalProviderMetadata, AuthType, AuthorizationCode, ClientId, ClientSecret,
    DeviceAuthorizationUrl, EndpointMaybeSet, EndpointNotSet, EndpointSet, ErrorResponseType,
    IssuerUrl, OAuth2TokenResponse, PkceCodeVerifier, ProviderMetadata, RedirectUrl,
    RequestTokenError, Scope, StandardErrorResponse, SubjectIdentifier, TokenResponse,
    UserInfoClaims,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::chat::account::Link;
use crate::config::oidc::Provider as Settings;
use crate::error::{Code, Error};
use crate::gateway::oidc::cached::Cached;
use crate::gateway::oidc::claims;
use crate::gateway::oidc::fetch::{Client, FetchError, Fetcher, TIMEOUT};
use crate::gateway::oidc::jwt::{self, Bad, Claims, Expected, Kind, Others, Verified};
use crate::gateway::oidc::seal::Seal;

/// A code or a URL that a provider gives to a device, in bytes.
const WORD_BYTES_MAX: usize = 8 * 1024;
/// When to try again while a provider is not there, in milliseconds.
const RETRY_AFTER_MS: u64 = 3000;
/// What is logged of an error, which may have words of the provider's.
const CAUSES_CHARS_MAX: usize = 300;
/// Keys of one issuer.
const KEYS_MAX: usize = 64;

/// What is of use of what a provider says of itself (OpenID Connect Discovery 1.0, section 3), and its
/// set of keys.
const DISCOVERED: &[&str] = &[
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "userinfo_endpoint",
    "device_authorization_endpoint",
    "token_endpoint_auth_methods_supported",
    "authorization_response_iss_parameter_supported",
    "keys",
];
/// And of what it gives for a code.
const GRANTED: &[&str] = &["id_token", "access_token", "error"];
/// And of what a device is to show (RFC 8628, section 3.2).
const SHOWN: &[&str] = &[
    "device_code",
    "user_code",
    "verification_uri",
    "verification_uri_complete",
    "expires_in",
    "interval",
    "error",
];

/// What a provider says of itself in words that the crate does not know.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct More {
    device_authorization_endpoint: Option<DeviceAuthorizationUrl>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for More {}

type Document = ProviderMetadata<
    More,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// What a provider has said of itself.
#[derive(Debug)]
pub struct Known {
    /// Who asks it: the crate's client, which knows where.
    pub client: CoreClient<
        EndpointSet,
        EndpointNotSet,
        EndpointNotSet,
        EndpointNotSet,
        EndpointSet,
        EndpointMaybeSet,
    >,
    /// Whether it says who it is when it sends a browser back (RFC 9207).
    pub names_issuer: bool,
    device_authorization: Option<DeviceAuthorizationUrl>,
    keys: Vec<CoreJsonWebKey>,
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
    known: Arc<Cached<Known>>,
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
            known: Arc::default(),
            settings,
        }
    }

    /// Whether it is the provider of these settings.
    pub fn is_of(&self, settings: &Settings, public_url: &str) -> bool {
        *self.settings == *settings && self.public_url == public_url
    }

    /// The scopes that are asked for, beside `openid`, which the crate adds.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        let others = self.settings.scopes.iter().filter(|scope| *scope != "openid");
        others.cloned().map(Scope::new)
    }

    fn unreachable(&self, what: &str, why: &str) -> Error {
        tracing::warn!(provider = %self.name, what, why, "a provider of sign-in does not answer");
        let message = "the provider of this sign-in cannot be reached, or is not as it should be: \
                       try again, or sign in another way";
        Error::new(Code::Unavailable, message).retry_after(RETRY_AFTER_MS)
    }

    fn asking<'a>(&'a self, fields: &'a [&'a str], given: Value) -> Client<'a> {
        Client { fetcher: &self.fetcher, fields, given }
    }

    /// What the provider says of itself.
    ///
    /// # Errors
    /// [`Code::Unavailable`].
    pub async fn known(self: &Arc<Self>) -> Result<Arc<Known>, Error> {
        let provider = self.clone();
        self.known.get(Box::pin(async move { provider.discover().await })).await
    }

    async fn discover(&self) -> Result<Known, Error> {
        let failed = |why: &dyn std::error::Error| self.unreachable("discovery", &causes(why));
        let issuer = IssuerUrl::new(self.settings.issuer.clone()).map_err(|why| failed(&why))?;
        let client = self.asking(
            DISCOVERED,
            json!({
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }),
        );
        // It looks whether the issuer calls itself so, else one could speak for another (OpenID
        // Connect Discovery 1.0, section 4.3); and it gets the keys.
        let asked = tokio::time::timeout(TIMEOUT, Document::discover_async(issuer, &client)).await;
        let asked = asked.map_err(|_| failed(&FetchError::Timeout))?;
        let document = asked.map_err(|why| failed(&why))?;
        let odd = |why: &str| self.unreachable("discovery", why);
        let token_endpoint =
            document.token_endpoint().cloned().ok_or_else(|| odd("it has no token endpoint"))?;
        let redirect_uri = format!("{}/v1/oidc/{}/callback", self.public_url, self.name);
        let redirect_uri = RedirectUrl::new(redirect_uri).map_err(|why| failed(&why))?;
        let usable = document.jwks().keys().iter().filter(|key| jwt::is_usable(key));
        let keys: Vec<_> = usable.take(KEYS_MAX).cloned().collect();
        if keys.is_empty() {
            return Err(odd("there is no key that is of use"));
        }
        let methods = document.token_endpoint_auth_methods_supported();
        let basic = &CoreClientAuthMethod::ClientSecretBasic;
        let auth_type = match methods.is_none_or(|all| all.contains(basic)) {
            true => AuthType::BasicAuth,
            false => AuthType::RequestBody,
        };
        let More { device_authorization_endpoint, authorization_response_iss_parameter_supported } =
            document.additional_metadata().clone();
        let id = ClientId::new(self.settings.client_id.clone());
        let secret = ClientSecret::new(self.settings.secret.reveal().to_owned());
        let client = CoreClient::from_provider_metadata(document, id, Some(secret));
        Ok(Known {
            client: client
                .set_token_uri(token_endpoint)
                .set_redirect_uri(redirect_uri)
                .set_auth_type(auth_type),
            names_issuer: authorization_response_iss_parameter_supported,
            device_authorization: device_authorization_endpoint,
            keys,
        })
    }

    /// What a token says that the provider has signed.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when it has not, or the token is not what is expected;
    /// [`Code::Unavailable`].
    pub async fn verify(
        self: &Arc<Self>,
        token: &str,
        expected: Expected<'_>,
    ) -> Result<Verified, Error> {
        let mut verified = jwt::verify(token, &self.known().await?.keys, expected);
        if matches!(verified, Err(Bad::UnknownKey)) {
            let provider = self.clone();
            let newer = Box::pin(async move { provider.discover().await });
            let newer = self.known.get_newer(newer).await?;
            verified = jwt::verify(token, &newer.keys, expected);
        }
        verified.map_err(|bad| Error::new(Code::Unauthenticated, bad.to_string()))
    }

    /// Shows the token endpoint a code, for an ID token.
    ///
    /// # Errors
    /// What the provider says against it, or that it cannot be asked.
    pub async fn grant(
        self: &Arc<Self>,
        code: String,
        verifier: String,
    ) -> Result<CoreTokenResponse, Ungranted> {
        let known = self.known().await.map_err(Ungranted::Failed)?;
        let client = self.asking(GRANTED, json!({ "token_type": "Bearer" }));
        let asked = known
            .client
            .exchange_code(AuthorizationCode::new(code))
            .set_pkce_verifier(PkceCodeVerifier::new(verifier))
            .request_async(&client);
        asked.await.map_err(|error| self.ungranted(error))
    }

    fn ungranted<T>(
        &self,
        error: RequestTokenError<FetchError, StandardErrorResponse<T>>,
    ) -> Ungranted
    where
        T: ErrorResponseType + AsRef<str> + std::fmt::Display + 'static,
    {
        let failed = |why: &str| Ungranted::Failed(self.unreachable("its tokens", why));
        match error {
            RequestTokenError::ServerResponse(refusal) => match refusal.error().as_ref() {
                "invalid_client" | "unauthorized_client" => {
                    failed("it does not know this client, or not by this secret")
                }
                word => Ungranted::Refused(word.to_owned()),
            },
            RequestTokenError::Request(error) => failed(&error.to_string()),
            // What else is wrong with it may have a token in it, which is not to be logged.
            RequestTokenError::Parse(_, answer) => {
                let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
                match answer["id_token"].as_str() {
                    Some(token) if answer["access_token"].is_string() => {
                        let why = jwt::unreadable(token).to_string();
                        Ungranted::Failed(Error::new(Code::Unauthenticated, why))
                    }
                    _ => failed("its answer is not as it should be"),
                }
            }
            RequestTokenError::Other(_) => failed("its answer is not as it should be"),
        }
    }

    /// Begins a sign-in of a device.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when the provider has no such sign-in; [`Code::Unavailable`].
    pub async fn begin_device(self: &Arc<Self>) -> Result<CoreDeviceAuthorizationResponse, Error> {
        let what = "sign-in of devices";
        let known = self.known().await?;
        let url = known.device_authorization.clone().ok_or_else(|| {
            Error::invalid("this provider has no sign-in by a code: use a password or a token")
        })?;
        let asking = self.asking(SHOWN, json!({}));
        let client = known.client.clone().set_device_authorization_url(url);
        let mut request = client.exchange_device_code().add_scopes(self.scopes());
        if let AuthType::BasicAuth = client.auth_type() {
            // Some look for it here whatever the header says.
            request = request.add_extra_param("client_id", &self.settings.client_id);
        }
        let asked: Result<CoreDeviceAuthorizationResponse, _> =
            request.request_async(&asking).await;
        let grant = asked.map_err(|why| self.unreachable(what, &causes(&why)))?;
        let complete = grant.verification_uri_complete().map(|uri| uri.secret().as_str());
        let uri = grant.verification_uri().as_str();
        let is_web = |uri: &str| uri.starts_with("https://") || uri.starts_with("http://");
        let codes = [grant.device_code().secret(), grant.user_code().secret()];
        let words = [codes[0].as_str(), codes[1].as_str(), uri];
        let odd = words.iter().any(|word| word.is_empty() || word.len() > WORD_BYTES_MAX)
            || words.iter().any(|word| word.chars().any(char::is_control))
            || ![Some(uri), complete].into_iter().flatten().all(is_web);
        match odd {
            true => Err(self.unreachable(what, "its answer is not as it should be")),
            false => Ok(grant),
        }
    }

    /// Asks once what has become of a device's sign-in, by its code.
    ///
    /// The crate goes on asking until it knows, but the next one who asks may be another node. So it
    /// is stopped where it would wait; for how long it would, tells why.
    ///
    /// # Errors
    /// What the provider says against it, or that it cannot be asked.
    pub async fn poll_device(
        self: &Arc<Self>,
        device_code: &str,
    ) -> Result<CoreTokenResponse, Ungranted> {
        let known = self.known().await.map_err(Ungranted::Failed)?;
        let begun = json!({
            "device_code": device_code, "interval": 1, "expires_in": 60,
            "user_code": "", "verification_uri": &self.settings.issuer, // which are not sent
        });
        let begun: CoreDeviceAuthorizationResponse = serde_json::from_value(begun)
            .map_err(|_| Ungranted::Failed(Error::invalid("this is no sign-in's code")))?;
        let client = self.asking(GRANTED, json!({ "token_type": "Bearer" }));
        let mut request = known.client.exchange_device_access_token(&begun);
        if let AuthType::BasicAuth = known.client.auth_type() {
            request = request.add_extra_param("client_id", &self.settings.client_id);
        }
        let (wait, mut waits) = mpsc::unbounded_channel();
        let stop = move |interval: Duration| {
            let _ = wait.send(interval); // it is there until this is dropped
            std::future::pending::<()>()
        };
        let request = request.set_max_backoff_interval(Duration::ZERO); // where there is no answer
        tokio::select! {
            done = request.request_async(&client, stop, None) => {
                done.map_err(|error| self.ungranted(error))
            }
            Some(interval) = waits.recv() => Err(match interval.as_secs() {
                0 => Ungranted::Failed(self.unreachable("its tokens", "there is no answer, or none of use")),
                1 => Ungranted::Refused("authorization_pending".into()),
                _ => Ungranted::Refused("slow_down".into()),
            }),
        }
    }

    /// Who has signed in: the account there, and all that is said of them.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when the ID token is not what it should be; [`Code::Unavailable`].
    pub async fn person(
        self: &Arc<Self>,
        granted: &CoreTokenResponse,
        nonce: Option<&str>,
        now_ms: u64,
    ) -> Result<(Link, Claims), Error> {
        let settings = &self.settings;
        let token = granted.id_token().map(ToString::to_string);
        let token = token
            .ok_or_else(|| self.unreachable("its tokens", "there is no ID token in its answer"))?;
        let (issuer, audience) = (&*settings.issuer, &*settings.client_id);
        let expected = Expected { issuer, audience, kind: Kind::Id(nonce), now_ms };
        let Verified { link, claims: mut said, .. } = self.verify(&token, expected).await?;
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
        granted: &CoreTokenResponse,
        subject: &str,
    ) -> Result<Option<Claims>, Error> {
        let what = "its user info";
        let known = self.known().await?;
        let access = granted.access_token().clone();
        // The crate would panic.
        if HeaderValue::from_str(access.secret()).is_err() {
            return Err(self.unreachable(what, "its access token is no header's value"));
        }
        // It looks whether it is about somebody else (OpenID Connect Core 1.0, section 5.3.2).
        let subject = SubjectIdentifier::new(subject.to_owned());
        let Ok(request) = known.client.user_info(access, Some(subject)) else { return Ok(None) };
        let named = [self.settings.user_claim.as_str(), self.settings.groups_claim.as_str()];
        let outer = named.map(|claim| claim.split_once('.').map_or(claim, |it| it.0));
        let fields = ["sub", "name", named[0], named[1], outer[0], outer[1]];
        let client = self.asking(&fields, json!({}));
        let asked: Result<UserInfoClaims<Others, CoreGenderClaim>, _> =
            request.request_async(&client).await;
        let said = asked.map_err(|why| self.unreachable(what, &causes(&why)))?;
        match serde_json::to_value(said) {
            Ok(Value::Object(said)) => Ok(Some(said)),
            _ => Err(self.unreachable(what, "its answer is not as it should be")),
        }
    }
}

/// What an error says, and what has caused it, for the log.
fn causes(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    let all: Vec<String> = all.map(ToString::to_string).collect();
    all.join(": ").chars().take(CAUSES_CHARS_MAX).collect()
}
