//! `/v1/users`: users, their profiles and tokens.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::chat::account::{Scope, Token};
use crate::error::Error;
use crate::gateway::accounts::{self, TokenWish, Update, id_of};
use crate::gateway::app::{App, Caller};
use crate::gateway::http::extract::{self, Json, ListParams, MaybeJson, Params, Segments};
use crate::gateway::http::json;
use crate::gateway::json::{Time, UserJson};

/// The body of `POST /v1/users`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    user: String,
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    admin: bool,
    request_id: Option<String>,
}

/// `POST /v1/users`: 201 with the token, shown once; 200 when the user was there.
pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(body): Json<CreateUser>,
) -> Result<Response, Error> {
    let id = extract::request_id(body.request_id.as_deref())?;
    let user = extract::user(&body.user)?;
    let (user, token, duplicate) =
        app.create_user(&caller.actor, user, body.display_name, body.admin, id).await?;
    let status = if duplicate { StatusCode::OK } else { StatusCode::CREATED };
    Ok(json(status, &UserJson::from(&*user).with_token(token)))
}

/// `GET /v1/users`.
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Users<'a> {
        users: Vec<UserJson<'a>>,
        next: Option<String>,
    }
    let (after, limit) = params.parse(extract::user)?;
    let (users, next) = app.users(&caller.actor, after, limit).await?;
    let users = users.iter().map(|user| UserJson::from(&**user)).collect();
    Ok(json(StatusCode::OK, &Users { users, next }))
}

/// `GET /v1/users/{user}`.
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(user): Segments<String>,
) -> Result<Response, Error> {
    let user = app.user(&caller.actor, extract::user(&user)?).await?;
    Ok(json(StatusCode::OK, &UserJson::from(&*user)))
}

/// The body of `PATCH /v1/users/{user}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateUser {
    display_name: Option<String>,
    status: Option<String>,
    disabled: Option<bool>,
    request_id: Option<String>,
}

/// `PATCH /v1/users/{user}`.
pub async fn update(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(user): Segments<String>,
    Json(body): Json<UpdateUser>,
) -> Result<Response, Error> {
    let id = extract::request_id(body.request_id.as_deref())?;
    let UpdateUser { display_name, status, disabled, .. } = body;
    let update = Update { display_name, status, disabled };
    let user = app.update_user(&caller, extract::user(&user)?, update, id).await?;
    Ok(json(StatusCode::OK, &UserJson::from(&*user)))
}

/// The body of `POST /v1/users/{user}/tokens`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IssueToken {
    label: String,
    scopes: Vec<String>,
    ttl: Option<String>,
    request_id: Option<String>,
}

/// `POST /v1/users/{user}/tokens`: 201 with the token, shown once.
pub async fn issue_token(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(user): Segments<String>,
    MaybeJson(body): MaybeJson<IssueToken>,
) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Issued {
        user: String,
        token: String,
    }
    let id = extract::request_id(body.request_id.as_deref())?;
    let user_id = extract::user(&user)?;
    let scopes = accounts::scopes(body.scopes.iter().map(String::as_str))?;
    let ttl_ms = body.ttl.as_deref().map(extract::ttl_ms).transpose()?.unwrap_or(0);
    let wish = TokenWish { label: body.label, scopes, ttl_ms };
    let token = app.issue_token_as_wished(&caller, user_id, wish, id).await?;
    Ok(json(StatusCode::CREATED, &Issued { user, token }))
}

#[derive(Serialize)]
struct TokenJson<'a> {
    id: String,
    label: &'a str,
    issued_at: Time,
    scopes: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
}

fn token_json(token: &Token) -> TokenJson<'_> {
    TokenJson {
        id: id_of(&token.hash),
        label: &token.label,
        issued_at: Time(token.issued_at_ms),
        scopes: token.scopes.iter().map(Scope::as_str).collect(),
        expires_at: token.expires_at_ms.map(Time),
    }
}

/// `GET /v1/users/{user}/tokens`.
pub async fn tokens(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(user): Segments<String>,
) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Tokens<'a> {
        tokens: Vec<TokenJson<'a>>,
    }
    let tokens = app.tokens(&caller, &extract::user(&user)?).await?;
    let tokens = tokens.iter().map(token_json).collect();
    Ok(json(StatusCode::OK, &Tokens { tokens }))
}

/// `DELETE /v1/users/{user}/tokens/{id}`.
pub async fn revoke_token(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments((user, id)): Segments<(String, String)>,
) -> Result<Response, Error> {
    app.revoke_token(&caller, &extract::user(&user)?, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
