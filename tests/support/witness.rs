//! An app whose MCP service notes every session id that reaches it and is not live.

use std::sync::Arc;

use axum::{Router, body::Body, extract::Request, response::Response, routing};
use http_body_util::BodyExt as _;
use mcp_session_layer::{Issuer, MemoryStore, SessionId, SessionStore as _};
use parking_lot::Mutex;

use super::{
    answers::RESULT,
    layer::layer,
    sessions::{insert, owner, session, terms},
};

/// The id of the one session that is there before.
pub(crate) const LIVE: &str = "live";

#[derive(Clone)]
pub(crate) struct Witness {
    pub(crate) store: MemoryStore,
    seen: Arc<Mutex<Vec<Request<bytes::Bytes>>>>,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Witness {
    /// A router with the service at `/mcp` and others beside it, and the layer around all of it.
    pub(crate) async fn app() -> (Self, Router) {
        let witness = Self {
            store: MemoryStore::new(),
            seen: Arc::default(),
            wrong: Arc::default(),
        };
        let live = session(LIVE, owner(None), Issuer::Inner);
        insert(&witness.store, &live, &terms()).await;
        let serve = {
            let witness = witness.clone();
            move |request| witness.clone().serve(request)
        };
        let app = Router::new()
            .route("/mcp", routing::any(serve.clone()))
            .route("/mcp/{*rest}", routing::any(serve.clone()))
            .nest("/docs", Router::new().route("/mcp", routing::any(serve)))
            .fallback(async || "elsewhere");
        let layer = layer(witness.store.clone())
            .with_paths(["/mcp", "/docs/mcp"])
            // What the layer asks by itself is not what is looked for here.
            .with_forgotten_statuses([]);
        (witness, app.layer(layer))
    }

    /// The requests that have reached the service since this was asked last, all of them without an id that is not live.
    #[track_caller]
    pub(crate) fn seen(&self) -> Vec<Request<bytes::Bytes>> {
        let wrong = std::mem::take(&mut *self.wrong.lock());
        assert!(wrong.is_empty(), "{wrong:?}");
        std::mem::take(&mut *self.seen.lock())
    }

    async fn serve(self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        for id in parts.headers.get_all("mcp-session-id") {
            let is_live = match SessionId::from_header(id) {
                Ok(id) => self.store.load(&id).await.unwrap().is_some(),
                Err(_) => false,
            };
            if !is_live {
                self.wrong.lock().push(format!("{parts:?}"));
            }
        }
        let body = body.collect().await.map(|body| body.to_bytes());
        let mut request = Request::new(body.unwrap_or_default());
        *request.method_mut() = parts.method;
        *request.uri_mut() = parts.uri;
        *request.headers_mut() = parts.headers;
        self.seen.lock().push(request);
        let json = Response::builder().header("content-type", "application/json");
        json.body(Body::from(RESULT)).unwrap()
    }
}
