//! A page for whoever runs the server: it lists sessions, ends them, and drains (feature `admin`).
//!
//! `hosts` keeps other web pages out, `page` is what is shown, and here it is served. Uses of this crate what its users use.

use axum::{
    Router,
    extract::{DefaultBodyLimit, Form, Query, State},
    middleware::map_response,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;

use self::page::{Page, Rows};
use crate::{
    handle::Sessions,
    protocol::SessionRef,
    session::Principal,
    store::{StoreError, StoreErrorKind},
};

mod hosts;
mod page;

pub use self::hosts::AllowedHosts;

/// A page at `/` that lists sessions by reference, ends one or all of a principal, and drains this node. Plain HTML, which
/// works without scripts. It shows no session id.
///
/// **It does not ask who is there.** Put your own authentication around it, or serve it on loopback only. What it does against
/// other web pages in the same browser is described at [`AllowedHosts`].
///
/// ```
/// use axum::{Router, middleware::from_fn};
/// use mcp_session_layer::{McpSessionLayer, MemoryStore, admin};
/// # async fn only_staff(request: axum::extract::Request, next: axum::middleware::Next) -> axum::response::Response {
/// #     next.run(request).await
/// # }
///
/// let layer = McpSessionLayer::new(MemoryStore::new());
/// let hosts = admin::AllowedHosts::new(["mcp.example.com"]);
/// let page = admin::router(layer.sessions(), &hosts).layer(from_fn(only_staff));
/// let app: Router = Router::new().nest("/admin/sessions", page);
/// ```
///
/// The store needs a [`Directory`](crate::store::Directory); all stores of this crate have one.
pub fn router(sessions: Sessions, hosts: &AllowedHosts) -> Router {
    let page = Router::new()
        .route("/", get(show).post(change))
        .with_state(sessions)
        .layer(DefaultBodyLimit::max(LONGEST_FORM))
        .layer(map_response(with_headers));
    hosts.protect(page)
}

/// What is looked at.
#[derive(Deserialize)]
struct View {
    after: Option<String>,
    /// How many sessions the change before this ended.
    ended: Option<u64>,
}

async fn show(State(sessions): State<Sessions>, Query(view): Query<View>) -> Response {
    let Ok(after) = view.after.as_deref().map(str::parse).transpose() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let page = Page {
        ended: view.ended,
        is_draining: sessions.is_draining(),
        rows: rows(&sessions, after.as_ref()).await,
    };
    let status = match &page.rows {
        Ok(_) => StatusCode::OK,
        Err(error) => status(error),
    };
    (status, page.draw()).into_response()
}

async fn rows(sessions: &Sessions, after: Option<&SessionRef>) -> Result<Rows, StoreError> {
    let mut listed = sessions.list(after, PAGE + 1).await?;
    let is_last = listed.len() <= PAGE;
    listed.truncate(PAGE);
    Ok(Rows {
        count: sessions.count().await?,
        is_first: after.is_none(),
        next: listed
            .last()
            .filter(|_| !is_last)
            .map(|last| last.reference),
        listed,
    })
}

/// What a form asks for. All are sent to the page itself, so that it does not matter where it is mounted.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Change {
    End { session: String },
    EndAll { principal: String },
    Drain,
}

async fn change(
    State(sessions): State<Sessions>,
    Form(change): Form<Change>,
) -> Result<Response, Failed> {
    let ended = match change {
        Change::End { session } => {
            let Ok(reference) = session.parse() else {
                return Ok(StatusCode::BAD_REQUEST.into_response());
            };
            u64::from(sessions.end(&reference).await?)
        }
        Change::EndAll { principal } => sessions.end_of(Some(&Principal::new(principal))).await?,
        Change::Drain => {
            sessions.drain();
            return Ok(Redirect::to("?").into_response());
        }
    };
    // Whoever loads the page again must not end again.
    Ok(Redirect::to(&format!("?ended={ended}")).into_response())
}

/// The store could not do it.
struct Failed(StoreError);

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Self(error) = self;
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "could not end a session"
        );
        (status(&error), error.to_string()).into_response()
    }
}

fn status(error: &StoreError) -> StatusCode {
    match error.kind() {
        StoreErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        StoreErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        StoreErrorKind::Corrupt | StoreErrorKind::TooLarge | StoreErrorKind::Failed => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// No script, nothing from elsewhere, in nobody's frame, in nobody's cache.
async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, page::POLICY.clone());
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Not `no-referrer`: with it browsers send forms without their `Origin`.
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    );
    response
}

const PAGE: usize = 50;
const LONGEST_FORM: usize = 16 * 1024;
