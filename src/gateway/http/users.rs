//! `/v1/users`: accounts and tokens.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::gateway::app::{App, Caller};
use crate::gateway::http::extract::{self, Json, ListParams, MaybeJson, Params, Segments};
use crate::gateway::http::json;
use crate::gateway::json::UserJson;

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

/// The body of `POST /v1/users/{user}/tokens`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IssueToken {
    label: String,
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
    let token = app.issue_token(&caller.actor, user_id, body.label, id).await?;
    Ok(json(StatusCode::CREATED, &Issued { user, token }))
}
