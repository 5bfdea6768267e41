//! The layer: its settings, and what its clones share. Long because each setting is explained where it is made.

use std::{fmt, num::NonZeroU64, sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use http::{Request, Response, request::Parts};
use http_body::Body as HttpBody;
use tower::{BoxError, Layer, Service};

use super::{
    McpSessionService,
    upstream::{is_route, upstream},
};
use crate::{
    handle::Sessions,
    lifecycle::{BODY_BUDGET, CreationRates, Lifecycle, Settings, SigningKeys},
    protocol::{
        Rejection,
        paths::GuardedPaths,
        request::{Revisions, SessionNeed},
    },
    session::{Principal, Scope, Values},
    store::{BoxSessionStore, SessionStore},
};

mod inner;

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
/// let mcp: Router = Router::new().route("/mcp", post(mcp));
/// let layer = McpSessionLayer::new(MemoryStore::new())
///     .with_paths(["/mcp"])
///     .with_inner(mcp.clone());
/// let app: Router = mcp.route("/health", get(|| async { "ok" })).layer(layer);
/// ```
#[derive(Clone)]
pub struct McpSessionLayer {
    lifecycle: Arc<Lifecycle>,
}

impl McpSessionLayer {
    /// A layer over this store, with the defaults that each setting names.
    #[must_use]
    pub fn new(store: impl SessionStore) -> Self {
        Self {
            lifecycle: Arc::new(Lifecycle::new(BoxSessionStore::new(store))),
        }
    }

    /// Guards these paths and all below them; requests to others pass untouched. Default: all paths.
    ///
    /// Needed where the layer is put on a whole app. `/mcp` means `/mcp`, `/mcp/` and `/mcp/x`, not `/mcpx`. With
    /// [`GuardedPaths`] a path below can be let out:
    ///
    /// ```
    /// # use mcp_session_layer::{GuardedPaths, McpSessionLayer, MemoryStore};
    /// let layer = McpSessionLayer::new(MemoryStore::new())
    ///     .with_paths(GuardedPaths::new(["/mcp"]).except(["/mcp/health"]));
    /// ```
    ///
    /// A request is guarded if some reader in use arrives at a guarded path: one that decodes its path once or twice,
    /// merges slashes, resolves dots, cuts parameters, or does several of these. What the layer sees as `/x/%2e%2e/mcp` may
    /// be `/mcp` to a router behind it.
    ///
    /// # Panics
    ///
    /// On a path that no request has, such as `mcp`, `/mcp?x` or `/{name}`, and says what to write instead. For paths that
    /// are not known at compile time there is [`GuardedPaths::try_new`].
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
        self.with(|settings| settings.anonymous.scope = scope)
    }

    /// Says who a caller is, from the place where the authentication in front of this layer left it. Sessions then
    /// belong to their principal; to everybody else they are 404. Default: everybody is anonymous.
    ///
    /// An error is answered with 500, never taken for anonymous.
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

    /// Lets an anonymous session be claimed, once, by the first principal that uses it.
    /// Default: an anonymous session is lost at login.
    ///
    /// For services that let clients `initialize` anonymously and ask for a login later. Streams opened before the
    /// login are ended. Until the login, whoever holds the id can claim the session.
    #[must_use]
    pub fn with_claim_on_login(self) -> Self {
        self.with(|settings| settings.claims = true)
    }

    /// Signs session ids: a client gets each with a tag that proves to whom it was issued, and what comes back without one
    /// is 404 before the store is asked. Default: they are not signed.
    ///
    /// Only the wire has the tag. The store, the inner service and all that names a session have the id without it. See
    /// [how to introduce it and to change keys][page].
    ///
    /// [page]: https://docs.rs/crate/mcp-session-layer/latest/source/docs/signed-ids.md
    ///
    /// ```
    /// # use mcp_session_layer::{McpSessionLayer, MemoryStore, SigningKeys};
    /// # fn secret(_: &str) -> [u8; 32] { [7; 32] }
    /// let keys = SigningKeys::new(secret("session-ids"));
    /// let layer = McpSessionLayer::new(MemoryStore::new()).with_signed_ids(keys);
    /// ```
    #[must_use]
    pub fn with_signed_ids(self, keys: SigningKeys) -> Self {
        self.with(|settings| {
            settings.rules.has_signed_ids = true;
            settings.signed_ids = Some(Arc::new(keys));
        })
    }

    /// Says what [`Values`] a new session gets from the request that creates it. Default: none. What the inner service puts
    /// into the extensions of its answer is added, and counts where both name the same.
    ///
    /// An error is answered with 500, and so are too many values, or too long ones.
    ///
    /// ```
    /// # use mcp_session_layer::{McpSessionLayer, MemoryStore, Values};
    /// let layer = McpSessionLayer::new(MemoryStore::new()).with_values(|parts| {
    ///     let tenant = parts.headers.get("x-tenant").ok_or("which tenant?")?;
    ///     Ok(Values::of([("tenant", tenant.to_str()?)])?)
    /// });
    /// ```
    #[must_use]
    pub fn with_values(
        self,
        values: impl Fn(&Parts) -> Result<Values, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.values = Some(Arc::new(values)))
    }

    /// How long a session may be idle: without a request being answered and without an open stream. Default: 1 hour; at
    /// least 1 second. A session without any request since its creation lives 5 minutes at most.
    #[must_use]
    pub fn with_idle_timeout(self, idle: Duration) -> Self {
        let idle = idle.max(SHORTEST_IDLE);
        self.lifecycle.alive.registry.tracker.set_idle(idle);
        self.with(|settings| settings.idle = idle)
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

    /// How many of these only principals may have. So a flood of anonymous callers leaves room for those who are known.
    /// Default: a sixteenth, where [`with_principal`](Self::with_principal) is set.
    #[must_use]
    pub fn with_reserve_for_principals(self, sessions: u64) -> Self {
        self.with(|settings| settings.reserved = Some(sessions))
    }

    /// How often sessions may be created, before that costs anything. Default: [`CreationRates::default`].
    ///
    /// ```
    /// # use std::num::NonZero;
    /// # use mcp_session_layer::{CreationRate, CreationRates, McpSessionLayer, MemoryStore};
    /// // Behind one proxy: an anonymous address may open five sessions a second, and fifty at once.
    /// let rate = CreationRate::per_second(NonZero::new(5).unwrap()).with_burst(NonZero::new(50).unwrap());
    /// let layer = McpSessionLayer::new(MemoryStore::new())
    ///     .with_creation_rates(CreationRates::default().per_address(rate, NonZero::<usize>::MIN));
    /// ```
    #[must_use]
    pub fn with_creation_rates(self, rates: CreationRates) -> Self {
        self.with(|settings| settings.rates = rates)
    }

    /// How many sessions one principal may have. Default: no limit. Anonymous sessions do
    /// not count.
    #[must_use]
    pub fn with_max_sessions_per_principal(self, sessions: NonZeroU64) -> Self {
        self.with(|settings| settings.per_principal = Some(sessions))
    }

    /// Refuses a new session at a limit, with 503, although another could be ended for it. Default: the first of these
    /// that there is makes room for it, and only if there is none it is refused:
    ///
    /// 1. a session without any request in the 30 seconds since its creation, the oldest first;
    /// 2. the one longest untouched, if that is for two thirds of the idle timeout or longer.
    ///
    /// One in use never goes: a request or an open stream touches it every third of the idle timeout. At the limit on all
    /// sessions only anonymous ones go: a principal's session is never ended for somebody else's. At the limit of a
    /// principal it is one of its own. Stores with many sessions choose from a sample.
    #[must_use]
    pub fn without_eviction(self) -> Self {
        self.with(|settings| settings.evicts = false)
    }

    /// Lets legacy requests without a session id pass, for an inner service that can do without sessions. Default: all but
    /// `initialize` are answered with 400.
    ///
    /// A POST without an id is read all the same, for an `initialize` request creates a session as ever. Every other one goes
    /// on byte for byte, also if it could not be read, and ends when its client hangs up. If its answer has a session id,
    /// that makes a session too.
    #[must_use]
    pub fn with_optional_sessions(self) -> Self {
        self.with(|settings| settings.rules.session = SessionNeed::Optional)
    }

    /// Lets a POST that names a dead session create one, if it is an `initialize` request that this picks by its head. Default:
    /// it is answered with 404, as everything that names a dead session.
    ///
    /// For deployed clients that answer a 404 with an `initialize` that still has the dead id, and would be stuck for good.
    /// **This departs from the specification**: "the server [..] MUST respond to requests containing that session ID with HTTP
    /// 404 Not Found" (2025-11-25, transports, session management). So pick those clients only.
    ///
    /// Only what is picked is read, and only if its id is not a live one of this caller. Every such id is removed, also one
    /// that is somebody else's, and the new session has an id of its own: one that a client chose is never adopted. What is
    /// no `initialize` request, or too long or too slow to be read, gets the 404.
    ///
    /// ```
    /// # use mcp_session_layer::{McpSessionLayer, MemoryStore};
    /// use http::header::USER_AGENT;
    ///
    /// let layer = McpSessionLayer::new(MemoryStore::new()).with_initialize_on_dead_id(|request| {
    ///     let agent = request.headers.get(USER_AGENT);
    ///     agent.is_some_and(|agent| agent.as_bytes().starts_with(b"stuck-client/1."))
    /// });
    /// ```
    #[must_use]
    pub fn with_initialize_on_dead_id(
        self,
        picks: impl Fn(&Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.resends = Some(Arc::new(picks)))
    }

    /// Lets a GET without a session id pass, for an inner service that still offers the transport of 2024-11-05 (HTTP+SSE)
    /// on the same path. Default: it is answered with 400.
    ///
    /// Such a GET opens a stream that names another endpoint, to which the client posts its messages without a session id.
    /// That endpoint must not be guarded: see [`GuardedPaths::except`].
    #[must_use]
    pub fn with_get_without_session(self) -> Self {
        self.with(|settings| settings.rules.passes_get = true)
    }

    /// How many bytes of a POST without a session id are read to see whether it is an `initialize` request. Default: 64 KiB;
    /// at most 16 MiB, which is what all bodies that are being read may take together.
    ///
    /// A longer one is answered with 413, or passes where sessions are optional. Raise it for clients that send icons as data
    /// in their `initialize`. The default is many times what an `initialize` without such data needs; the higher the limit,
    /// the fewer strangers it takes to keep the 16 MiB occupied, and everybody who comes without a session is answered with
    /// 503 meanwhile.
    ///
    /// # What is an `initialize` request
    ///
    /// What a strict parser (serde_json) reads as one JSON object with the method `initialize` and an `id` that is a string
    /// or a number. A number out of range, half a surrogate pair, brackets nested too deep, a byte order mark, a key twice at
    /// whatever depth: none of this ever creates a session, for two readers could see two requests in it.
    #[must_use]
    pub fn with_body_limit(self, bytes: usize) -> Self {
        self.with(|settings| settings.body_limit = bytes.min(BODY_BUDGET))
    }

    /// Refuses every protocol revision but those with sessions, for an inner service that does not look at
    /// `MCP-Protocol-Version` itself; and, without a session id, every message that claims a version by itself (2026-07-28,
    /// `_meta`), whatever version that is, for only clients without sessions do. `supported` is what the refusal names.
    /// Default: what this layer does not know is the inner service's to judge.
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

    /// How long a request waits for the store before it is answered with 503. Default: 3 seconds; at most a minute.
    #[must_use]
    pub fn with_store_timeout(mut self, limit: Duration) -> Self {
        let lifecycle = Arc::make_mut(&mut self.lifecycle);
        lifecycle.store.timeout = limit.min(LONGEST_STORE_TIMEOUT);
        self
    }

    /// A handle to the sessions of this layer, to count and end them from elsewhere in the application.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        Sessions::new(&self.lifecycle)
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut Arc::make_mut(&mut self.lifecycle).settings);
        self
    }
}

impl fmt::Debug for McpSessionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpSessionLayer")
            .field("scope", &self.lifecycle.settings.anonymous.scope)
            .field("idle", &self.lifecycle.settings.idle)
            .finish_non_exhaustive()
    }
}

impl<S, B> Layer<S> for McpSessionLayer
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Service = McpSessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let upstream = match &self.lifecycle.settings.upstream {
            Some(named) => Arc::clone(named),
            None => upstream(inner.clone(), is_route::<S>()),
        };
        McpSessionService::new(inner, upstream, Arc::clone(&self.lifecycle))
    }
}

const SHORTEST_IDLE: Duration = Duration::from_secs(1);
const LONGEST_STORE_TIMEOUT: Duration = Duration::from_secs(60);
