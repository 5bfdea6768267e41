//! What a layer has to know of its inner service.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use http::{HeaderName, Request, Response, StatusCode, request::Parts};
use http_body::Body as HttpBody;
use tower::{BoxError, Service};

use super::{super::upstream::upstream, McpSessionLayer};
use crate::session::InnerContext;

impl McpSessionLayer {
    /// Names the service that is sent a DELETE for sessions whose end it did not see. Default: what the layer wraps.
    ///
    /// Needed with [`Router::layer`](axum::Router::layer) over method handlers, where each handler is wrapped
    /// apart and the one that serves POST does not know DELETE: name the router as it was before the layer. Where it is missing
    /// a warning says so when the first session is created.
    ///
    /// ```
    /// # use axum::{Router, routing::{post}};
    /// # use mcp_session_layer::{McpSessionLayer, MemoryStore};
    /// # async fn call() {}
    /// # async fn end() {}
    /// let mcp: Router = Router::new().route("/mcp", post(call).delete(end));
    /// let layer = McpSessionLayer::new(MemoryStore::new())
    ///     .with_paths(["/mcp"])
    ///     .with_inner(mcp.clone());
    /// let app = mcp.layer(layer);
    /// ```
    #[must_use]
    pub fn with_inner<S, B>(self, inner: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
            + Clone
            + Send
            + 'static,
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.with(|settings| settings.upstream = Some(upstream(inner, false)))
    }

    /// Says what to keep of a request for what the layer sends by itself on its session: the DELETE for an end that the inner
    /// service did not see, and the `ping` that asks [whether it has forgotten a session](Self::with_forgotten_statuses).
    /// Default: nothing; such a request has the path, the `Host` and the version of the session's last request, and the
    /// [`Session`](crate::Session) in its extensions.
    ///
    /// Needed where the inner service looks at who calls it: it would turn the DELETE away, and keep the session. The latest
    /// request that it has served counts. What is kept is kept in memory for each session.
    ///
    /// ```
    /// # use mcp_session_layer::{McpSessionLayer, MemoryStore};
    /// use http::header::AUTHORIZATION;
    /// use mcp_session_layer::InnerContext;
    ///
    /// # #[derive(Clone)]
    /// # struct Claims;
    /// let layer = McpSessionLayer::new(MemoryStore::new()).with_inner_context(|request| {
    ///     InnerContext::new()
    ///         .with_headers_of(request, [AUTHORIZATION])
    ///         .with_extension_of::<Claims>(request)
    /// });
    /// ```
    #[must_use]
    pub fn with_inner_context(
        self,
        context: impl Fn(&Parts) -> InnerContext + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.inner_context = Some(Arc::new(context)))
    }

    /// Forwards ids that this layer issued, for an inner service that passes them on, as a gateway does. Default: an inner
    /// service sees only ids that it issued itself.
    #[must_use]
    pub fn with_issued_ids_forwarded(self) -> Self {
        self.with(|settings| settings.forwards_issued = true)
    }

    /// The statuses with which the inner service may say that it has forgotten a session. Default: 400, 404, 422 and 500; none
    /// turns all of this off.
    ///
    /// An inner service that was restarted, or another node's, does not know a session that the store holds live, and says
    /// so in its own way. Its client would never begin anew. So an answer with one of these statuses, on a session whose id
    /// the inner service issued, makes the layer ask about the session: with a `ping` of its own, in the caller's name.
    /// Where that is answered with 400 or 404, the client is told 404. Otherwise it gets the answer as it came, so a bad
    /// request costs nobody a session.
    ///
    /// The session is *ended*, for all nodes, only where that is certain: this process's inner service has served it, and
    /// the caller is its [principal](Self::with_principal) or sends the [credentials](Self::with_credentials) that it was
    /// created with. Otherwise its time runs out; where there is no room for another session it is the first to go.
    ///
    /// ```
    /// # use mcp_session_layer::{McpSessionLayer, MemoryStore};
    /// use http::StatusCode;
    ///
    /// let layer = McpSessionLayer::new(MemoryStore::new())
    ///     .with_forgotten_statuses([StatusCode::NOT_FOUND, StatusCode::GONE]);
    /// let never_asks = McpSessionLayer::new(MemoryStore::new()).with_forgotten_statuses([]);
    /// ```
    #[must_use]
    pub fn with_forgotten_statuses(self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.with(|settings| settings.forgotten = statuses.into_iter().collect())
    }

    /// In which headers callers carry credentials, besides `Authorization`, `Proxy-Authorization`, `Cookie`, `X-Api-Key` and
    /// the query. Default: no others.
    ///
    /// What the layer asks [in a caller's name](Self::with_forgotten_statuses) carries them.
    #[must_use]
    pub fn with_credentials(self, headers: impl IntoIterator<Item = HeaderName>) -> Self {
        self.with(|settings| settings.credentials = headers.into_iter().collect())
    }
}
