//! rmcp's service, as one that is served behind the layer on several nodes.

use std::{
    convert::Infallible,
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{body::Body, response::IntoResponse as _};
use http::{Method, Request, Response, StatusCode};
use rmcp::{
    ServerHandler,
    transport::streamable_http_server::{
        SessionManager, StreamableHttpServerConfig, StreamableHttpService,
    },
};
use tokio::sync::Semaphore;
use tower::Service;

use super::{
    events::EventKey,
    manager::Manager,
    notes::{Note, noted},
    places::Places,
    refusal::refused,
    restore::{Handover, Shared},
};
use crate::{
    lifecycle::BoundedStore,
    protocol::{LAST_EVENT_ID, Rejection, RejectionKind, SESSION_ID},
    session::Session,
    store::{BoxSessionStore, SessionStore},
};

/// rmcp's [`StreamableHttpService`] for a server of several nodes, or of one that restarts: put it behind a
/// [`McpSessionLayer`](crate::McpSessionLayer).
///
/// A session that the layer has checked and that rmcp does not hold here is restored first: rmcp replays the `initialize`
/// that the layer recorded. What the service itself had in memory for the session on another node is not restored.
///
/// ```
/// # use std::sync::Arc;
/// # use axum::Router;
/// # use mcp_session_layer::{McpSessionLayer, MemoryStore, RmcpService};
/// # use rmcp::transport::streamable_http_server::{
/// #     StreamableHttpServerConfig, session::local::LocalSessionManager,
/// # };
/// # use tower::Layer;
/// # #[derive(Clone)]
/// # struct Tools;
/// # impl rmcp::ServerHandler for Tools {}
/// # let store = MemoryStore::new();
/// let layer = McpSessionLayer::new(store.clone()).with_initialize_params();
///
/// let mut manager = LocalSessionManager::default();
/// // The layer ends sessions. rmcp's own limit, five minutes, is a backstop far above.
/// manager.session_config.keep_alive = Some(std::time::Duration::from_secs(24 * 60 * 60));
/// let config = StreamableHttpServerConfig::default();
/// let mcp = RmcpService::new(store, || Ok(Tools), manager.into(), config);
///
/// let app: Router = Router::new().route_service("/mcp", layer.layer(mcp));
/// ```
///
/// # What it adds to rmcp's
///
/// - **Requests that arrive at once.** After a restart a client sends several requests on one session: calls in parallel,
///   and a GET to have its stream back. The first has the session restored, the others wait for that, and then all are served
///   side by side. With rmcp alone some of them fail, and some with a 404. A restore that has begun comes to its end
///   although its client hangs up.
/// - **A store that is away** is 503 with `Retry-After`, and the next request tries again. A session that ended meanwhile is
///   404. An error of your service stays what it is.
/// - **Event ids.** `Last-Event-ID` opens events of its own session only. rmcp's `resume` with an event store looks at the id
///   alone, so that one user reads what was sent to another; here each id carries a proof of whose it is. An id of another
///   session, or of an answer that is not to be had any more, is 400. The specification says no more than that a server "MAY"
///   replay, and "MUST NOT replay messages that would have been delivered on a different stream" (2025-11-25, transports,
///   Resumability and Redelivery); rmcp answers 200 with an empty stream, after which clients come back for ever. An id of the
///   session's own GET stream on another node, whose events are not here, opens that stream anew.
///
/// With an event store that nodes share, set [`with_event_key`](Self::with_event_key).
///
/// # A tool's session
///
/// rmcp puts the request's [`Parts`](http::request::Parts) into the extensions of the context that a tool gets, and there is
/// the [`Session`], on every node, as is all else that middleware outside left there:
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use http::request::Parts;
/// use mcp_session_layer::Session;
/// use rmcp::{handler::server::tool::Extension, tool, tool_router};
///
/// struct Tools;
///
/// #[tool_router(server_handler)]
/// impl Tools {
///     #[tool(description = "Count the calls of this session on this node")]
///     fn count(&self, Extension(parts): Extension<Parts>) -> String {
///         let session = parts.extensions.get::<Session>().expect("behind the layer");
///         let calls = session.local::<AtomicU64>().fetch_add(1, Relaxed) + 1;
///         format!("{calls}, for {:?}", session.owner().principal)
///     }
/// }
/// ```
///
/// In a handler of your own it is `context.extensions.get::<Parts>()`. A request of revision 2026-07-28 has no session, and
/// the answer to `initialize` comes before there is one. When a session is restored, rmcp calls your `initialize` and
/// `on_initialized` once more, with the `Parts` of the request that had it restored and a
/// [`SessionRestoreMarker`](rmcp::transport::streamable_http_server::SessionRestoreMarker) beside them.
///
/// # rmcp logs session ids
///
/// An id is a secret, and rmcp (3.9 to 3.11) writes it into its logs, at `info` for every session it creates. Silence that part:
/// `rmcp::transport::streamable_http_server=off` as a directive of
/// [`EnvFilter`](https://docs.rs/tracing-subscriber/latest/tracing_subscriber/filter/struct.EnvFilter.html).
///
/// # Versions
///
/// rmcp 3.9 to 3.11. The `session_store` of the configuration is replaced.
pub struct RmcpService<S, M> {
    shared: Arc<Shared<S, M>>,
}

impl<S: ServerHandler, M: SessionManager> RmcpService<S, M> {
    /// As [`StreamableHttpService::new`], and the store that the layer has: a clone of it, or an `Arc`.
    pub fn new(
        store: impl SessionStore,
        service_factory: impl Fn() -> Result<S, io::Error> + Send + Sync + 'static,
        session_manager: Arc<M>,
        mut config: StreamableHttpServerConfig,
    ) -> Self {
        let event_key = session_manager.event_store().map(|_| EventKey::random());
        let places = Places::new(event_key);
        let manager = Arc::new(Manager {
            inner: session_manager,
            places: Arc::clone(&places),
        });
        config.session_store = Some(Arc::new(Handover));
        let rmcp = StreamableHttpService::new(service_factory, Arc::clone(&manager), config);
        Self {
            shared: Arc::new(Shared {
                rmcp,
                manager,
                places,
                store: BoundedStore::new(BoxSessionStore::new(store)),
                restoring: Semaphore::new(AT_A_TIME),
            }),
        }
    }

    /// Signs event ids with this key instead of one of this process: for nodes that share an event store, so that a stream
    /// that broke off on one is resumed on another. Without it such a GET stream begins anew there.
    ///
    /// A secret of 32 random bytes, the same on all nodes. Set it before the service is served.
    #[must_use]
    pub fn with_event_key(self, key: impl AsRef<[u8]>) -> Self {
        self.shared
            .places
            .set_event_key(EventKey::new(key.as_ref()));
        self
    }
}

impl<S: ServerHandler, M: SessionManager> Shared<S, M> {
    async fn serve(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let session = parts.extensions.get::<Session>().cloned();
        if session.is_none() {
            // Nobody has looked whose it is.
            parts.headers.remove(&LAST_EVENT_ID);
        }
        if matches!(parts.method, Method::GET | Method::POST)
            && let Some(id) = parts.headers.get(&SESSION_ID)
            && let Ok(id) = id.to_str()
            && !self.places.is_here(id)
            && let Err(refusal) = Box::pin(self.prepare(id, session.as_ref(), &parts)).await
        {
            return refusal;
        }
        let request = Request::from_parts(parts, body);
        let (response, note) = noted(self.rmcp.handle(request)).await;
        match note {
            Some(Note::UnknownEvent) => refused(
                StatusCode::BAD_REQUEST,
                "Last-Event-ID is none of this session",
            ),
            // It went just now, most likely after rmcp's own idle time. It can be restored.
            Some(Note::NotHere) if session.is_some() && !response.status().is_success() => {
                Rejection::new(RejectionKind::Busy).into_response()
            }
            _ => response.map(Body::new),
        }
    }
}

impl<S: ServerHandler, M: SessionManager> Service<Request<Body>> for RmcpService<S, M> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RmcpResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> RmcpResponseFuture {
        RmcpResponseFuture(Box::pin(Arc::clone(&self.shared).serve(request)))
    }
}

impl<S, M> Clone for RmcpService<S, M> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S, M> fmt::Debug for RmcpService<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RmcpService").finish_non_exhaustive()
    }
}

/// The answer of a [`RmcpService`], to come.
pub struct RmcpResponseFuture(Pin<Box<dyn Future<Output = Response<Body>> + Send>>);

impl Future for RmcpResponseFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for RmcpResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RmcpResponseFuture").finish_non_exhaustive()
    }
}

/// Each asks the store once: fewer than would wait longer for one of a pool's connections than a request does.
const AT_A_TIME: usize = 32;
