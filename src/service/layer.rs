//! The layer: its settings, and what its clones share.

use std::{fmt, num::NonZeroU64, sync::Arc, time::Duration};

use axum::{body::Body, extract::OriginalUri};
use http::{Request, Response, request::Parts};
use tower::{BoxError, Layer, Service};

use crate::{
    handle::Sessions,
    lifecycle::upstream::{Tell, Teller},
    protocol::paths::GuardedPaths,
    protocol::rejection::{self, Rejection, RejectionKind},
    protocol::request::{Revisions, Rules, SessionNeed},
    registry::Live,
    service::McpSessionService,
    session::{Owner, Principal, Scope},
    store::{AtLimit, SessionStore, Terms},
};

/// Puts an MCP service behind a session check: a request with an `Mcp-Session-Id` that the store does not hold live, for
/// this caller, at this moment, is answered with 404 and does not reach the service.
///
/// Put it around one service, around a whole app with [`with_paths`](Self::with_paths), or into a tower stack.
/// Clones share everything; configure first, then clone.
///
/// ```
/// use axum::{Router, routing::{get, post}};
/// use mcp_session_layer::{McpSessionLayer, MemoryStore};
///
/// # async fn mcp() {}
/// let app: Router = Router::new()
///     .route("/mcp", post(mcp))
///     .route("/health", get(|| async { "ok" }))
///     .layer(McpSessionLayer::new(MemoryStore::new()).with_paths(["/mcp"]));
/// ```
pub struct McpSessionLayer<St> {
    core: Arc<Core<St>>,
}

impl<St: SessionStore> McpSessionLayer<St> {
    /// A layer over this store, with the defaults that each setting names.
    #[must_use]
    pub fn new(store: St) -> Self {
        Self {
            core: Arc::new(Core {
                store: Arc::new(store),
                settings: Settings::default(),
                live: Arc::new(Live::new()),
            }),
        }
    }

    /// Guards these paths and all below them; requests to others pass untouched. Default: all paths.
    ///
    /// Needed where the layer is put on a whole app. `/mcp` means `/mcp`, `/mcp/` and `/mcp/x`, not `/mcpx`, however
    /// the request spells it (percent-encoded, with doubled slashes or dots); in doubt a path is guarded.
    #[must_use]
    #[track_caller]
    pub fn with_paths(self, paths: impl Into<GuardedPaths>) -> Self {
        let paths = paths.into();
        self.with(|settings| settings.paths = paths)
    }

    /// Names the guarded service. Sessions of one scope do not exist in another, so several services can share a
    /// store. Default: `mcp`.
    #[must_use]
    pub fn with_scope(self, scope: Scope) -> Self {
        self.with(|settings| settings.nobody.scope = scope)
    }

    /// Says who a caller is, from the place where the authentication in front of this layer left it. Sessions then
    /// belong to their principal; to everybody else they are 404. Default: everybody is nobody.
    ///
    /// An error is answered with 500, never taken for nobody.
    ///
    /// ```
    /// # use mcp_session_layer::{McpSessionLayer, MemoryStore, Principal};
    /// #[derive(Clone)]
    /// struct Claims { iss: String, sub: String }
    ///
    /// let layer = McpSessionLayer::new(MemoryStore::new()).with_principal(|parts| {
    ///     let claims = parts.extensions.get::<Claims>().ok_or("no authentication in front")?;
    ///     Ok(Some(Principal::issued(&claims.iss, &claims.sub)))
    /// });
    /// ```
    #[must_use]
    pub fn with_principal(
        self,
        principal: impl Fn(&Parts) -> Result<Option<Principal>, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.principal = Some(Arc::new(principal)))
    }

    /// Lets a session that was born without a principal be taken over, once, by the first principal that uses it.
    /// Default: a session born anonymous is lost at login.
    ///
    /// For services that let clients `initialize` anonymously and ask for a login later. Streams opened before the
    /// login are ended. Until the login, whoever holds the id can take the session over.
    #[must_use]
    pub fn with_claim_on_login(self) -> Self {
        self.with(|settings| settings.claims = true)
    }

    /// How long a session may be idle: without a request being answered and without an open stream. Default: 1 hour; at
    /// least 1 second. A session without any request since its birth lives 5 minutes at most.
    #[must_use]
    pub fn with_idle_timeout(self, idle: Duration) -> Self {
        self.with(|settings| settings.idle = idle.max(SHORTEST_IDLE))
    }

    /// How long a session may live, however busy it is. Default: no limit.
    #[must_use]
    pub fn with_max_lifetime(self, life: Duration) -> Self {
        self.with(|settings| settings.life = Some(life))
    }

    /// How many sessions may be live in this scope. Default: 100,000. Exact in one process; stores that are shared
    /// say by how much they may overshoot.
    #[must_use]
    pub fn with_max_sessions(self, sessions: NonZeroU64) -> Self {
        self.with(|settings| settings.total = sessions)
    }

    /// How many sessions one principal may have. Default: no limit. Nobody is not a principal.
    #[must_use]
    pub fn with_max_sessions_per_principal(self, sessions: NonZeroU64) -> Self {
        self.with(|settings| settings.per_principal = Some(sessions))
    }

    /// At a limit ends the session that was longest untouched, of a sample, instead of refusing the newcomer. Never one
    /// in use, never the newcomer; if all are in use, the newcomer is refused. Default: refuse (503).
    #[must_use]
    pub fn with_eviction(self) -> Self {
        self.with(|settings| settings.evicts = true)
    }

    /// Lets legacy requests without a session id pass, for an inner service that can do without sessions. Nothing is
    /// read, and only ids that the inner service issues make sessions. Default: they are answered with 400.
    #[must_use]
    pub fn with_optional_sessions(self) -> Self {
        self.with(|settings| settings.rules.session = SessionNeed::Optional)
    }

    /// Refuses every protocol revision but those with sessions, for an inner service that does not look at
    /// `MCP-Protocol-Version` itself. `supported` is what the refusal names. Default: what this layer does not know is
    /// the inner service's to judge.
    ///
    /// The refusal of a JSON-RPC request is an `UnsupportedProtocolVersionError` (2026-07-28, versioning). Clients that
    /// speak both eras then fall back to `initialize`, if they are willing to speak one of `supported`.
    #[must_use]
    pub fn with_legacy_only(self, supported: impl IntoIterator<Item: Into<String>>) -> Self {
        self.with(|settings| {
            settings.rules.revisions = Revisions::LegacyOnly;
            settings.supported = supported.into_iter().map(Into::into).collect();
        })
    }

    /// Renders refusals. Default: what [`Rejection`] describes.
    ///
    /// Whatever the function answers, `Cache-Control: no-store` is set, no session id goes out, and the [`Rejection`] lies
    /// in the response's extensions. Keep all 404 alike, or a stranger can tell an id that exists from one that does not.
    #[must_use]
    pub fn with_rejection(
        self,
        render: impl Fn(&Rejection) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.renderer = Some(Arc::new(render)))
    }

    /// Keeps the parameters of `initialize` in the store, so that another node can restore the session (feature
    /// `rmcp`). Default: they are not kept.
    #[must_use]
    pub fn with_initialize_params(self) -> Self {
        self.with(|settings| settings.keeps_params = true)
    }

    /// Forwards ids that this layer issued, for an inner service that passes them on, as a gateway does. Default: an inner
    /// service sees only ids that it issued itself.
    #[must_use]
    pub fn with_issued_ids_forwarded(self) -> Self {
        self.with(|settings| settings.forwards_issued = true)
    }

    /// Ends a session when the inner service answers 404 to it. Default: the client is told 404 and the session stays,
    /// since the inner service may have meant something else.
    #[must_use]
    pub fn with_inner_not_found_ending_sessions(self) -> Self {
        self.with(|settings| settings.ends_with_inner = true)
    }

    /// How long a request waits for the store before it is answered with 503. Default: 3 seconds; at most a minute.
    #[must_use]
    pub fn with_store_timeout(self, limit: Duration) -> Self {
        self.with(|settings| settings.store_timeout = limit.min(LONGEST_STORE_TIMEOUT))
    }

    /// Names the service that is sent a DELETE for sessions whose end it did not see. Default: what the layer wraps.
    ///
    /// Needed with [`Router::layer`](axum::Router::layer) over method handlers, where each handler is wrapped
    /// apart and the one that serves POST does not know DELETE: name the router as it was before the layer.
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
        B: Send + 'static,
    {
        let teller: Arc<dyn Tell> = Arc::new(Teller::new(inner));
        self.with(|settings| settings.teller = Some(teller))
    }

    /// A handle to the sessions of this layer, to count and end them from elsewhere in the application.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        Sessions::new(&self.core)
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut Arc::make_mut(&mut self.core).settings);
        self
    }
}

impl<St> Clone for McpSessionLayer<St> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
        }
    }
}

impl<St> fmt::Debug for McpSessionLayer<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpSessionLayer")
            .field("scope", &self.core.settings.nobody.scope)
            .field("idle", &self.core.settings.idle)
            .finish_non_exhaustive()
    }
}

impl<S, St, B> Layer<S> for McpSessionLayer<St>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Send + 'static,
{
    type Service = McpSessionService<S, St>;

    fn layer(&self, inner: S) -> Self::Service {
        let teller = match &self.core.settings.teller {
            Some(named) => Arc::clone(named),
            None => Arc::new(Teller::new(inner.clone())),
        };
        McpSessionService::new(inner, teller, Arc::clone(&self.core))
    }
}

/// What clones of a layer, and the services it makes, share.
pub(crate) struct Core<St> {
    pub(crate) store: Arc<St>,
    pub(crate) settings: Settings,
    pub(crate) live: Arc<Live>,
}

impl<St> Clone for Core<St> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            settings: self.settings.clone(),
            live: Arc::clone(&self.live),
        }
    }
}

impl<St> Core<St> {
    /// The answer that a refusal is.
    pub(crate) fn answer(&self, rejection: Rejection) -> Response<Body> {
        tracing::debug!(kind = ?rejection.kind(), "refused a request");
        rejection::respond(rejection, self.settings.renderer.as_ref())
    }
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) paths: GuardedPaths,
    pub(crate) rules: Rules,
    pub(crate) supported: Arc<[String]>,
    /// The owner of sessions without a principal.
    pub(crate) nobody: Owner,
    pub(crate) principal: Option<PrincipalOf>,
    pub(crate) claims: bool,
    pub(crate) idle: Duration,
    life: Option<Duration>,
    total: NonZeroU64,
    per_principal: Option<NonZeroU64>,
    pub(crate) evicts: bool,
    pub(crate) renderer: Option<rejection::Renderer>,
    pub(crate) keeps_params: bool,
    pub(crate) forwards_issued: bool,
    pub(crate) ends_with_inner: bool,
    pub(crate) store_timeout: Duration,
    pub(crate) teller: Option<Arc<dyn Tell>>,
}

type PrincipalOf = Arc<dyn Fn(&Parts) -> Result<Option<Principal>, BoxError> + Send + Sync>;

impl Settings {
    /// Whether a request goes to a guarded path, as it is spelled here or as it came to the outermost router.
    pub(crate) fn guards(&self, parts: &Parts) -> bool {
        let original = parts.extensions.get::<OriginalUri>();
        self.paths
            .guards(parts.uri.path(), original.map(|uri| uri.path()))
    }

    /// SessionFilter session a request asks for.
    pub(crate) fn owner(&self, parts: &Parts) -> Result<Owner, RejectionKind> {
        let Some(principal) = &self.principal else {
            return Ok(self.nobody.clone());
        };
        let principal = principal(parts).map_err(|error| {
            tracing::error!(
                error = &*error as &dyn std::error::Error,
                "could not tell who the caller is"
            );
            RejectionKind::PrincipalFailed
        })?;
        Ok(Owner {
            scope: self.nobody.scope.clone(),
            principal,
        })
    }

    /// On what terms a session is born whose birth began that long ago.
    pub(crate) fn terms(&self, begun: Duration) -> Terms {
        Terms {
            idle: self.idle,
            initial_idle: NEWBORN.min(self.idle),
            life: self.life,
            total: Some(self.total),
            per_principal: self.per_principal,
            at_limit: match self.evicts {
                true => AtLimit::Evict {
                    untouched: self.beat().saturating_mul(2),
                },
                false => AtLimit::Refuse,
            },
            started_ago: begun,
        }
    }

    /// After how long a use of a session its idle time is counted anew: short beside the idle time.
    pub(crate) fn rest_after(&self) -> Duration {
        (self.idle / 64).clamp(Duration::from_millis(50), Duration::from_secs(10))
    }

    /// How often a session in use is touched.
    pub(crate) fn beat(&self) -> Duration {
        self.idle / 3
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            paths: GuardedPaths::default(),
            rules: Rules::default(),
            supported: Arc::default(),
            nobody: Owner {
                scope: Scope::default(),
                principal: None,
            },
            principal: None,
            claims: false,
            idle: Duration::from_secs(60 * 60),
            life: None,
            total: NonZeroU64::new(100_000).expect("not zero"),
            per_principal: None,
            evicts: false,
            renderer: None,
            keeps_params: false,
            forwards_issued: false,
            ends_with_inner: false,
            store_timeout: Duration::from_secs(3),
            teller: None,
        }
    }
}

const SHORTEST_IDLE: Duration = Duration::from_secs(1);
const NEWBORN: Duration = Duration::from_secs(5 * 60);
const LONGEST_STORE_TIMEOUT: Duration = Duration::from_secs(60);
