//! The store that rmcp restores sessions from, for services that are put together otherwise.

use std::fmt;

use rmcp::transport::streamable_http_server::session::store::{
    SessionState, SessionStore as RmcpStore, SessionStoreError,
};

use crate::{
    protocol::SessionId,
    session::Session,
    store::{SessionStore, StoreError, StoreErrorKind},
};

/// A [`SessionStore`] as rmcp wants one, for reading only: the layer alone creates and ends sessions.
///
/// **Prefer [`RmcpService`](crate::RmcpService)**, which needs none. This is for an rmcp service that has to be put together
/// otherwise. rmcp (3.9 to 3.11) takes a session for restored before it is: of several requests that arrive at once on a node
/// that has never seen their session, some fail, and some of these with a 404 that makes the client throw its session away.
/// And a store that is away is a 500 there. So let no second request of a session through while its first one here
/// waits for its answer, and answer 503 where [`load`](RmcpStore::load) failed.
///
/// When a request reaches an rmcp service that does not hold the session, rmcp asks here for the parameters of its
/// `initialize` and replays them. The layer in front has by then checked that the session is live and the
/// caller's. What a session had in memory on another node is not restored.
///
/// Give it the store that the layer has, tell the layer to keep the parameters, and let it be the only way to the service:
///
/// ```
/// # use std::sync::Arc;
/// # use axum::Router;
/// # use mcp_session_layer::{McpSessionLayer, MemoryStore, RmcpSessionStore};
/// # use rmcp::transport::streamable_http_server::{
/// #     StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
/// # };
/// # use tower::Layer;
/// # #[derive(Clone)]
/// # struct Tools;
/// # impl rmcp::ServerHandler for Tools {}
/// let store = MemoryStore::new();
/// let layer = McpSessionLayer::new(store.clone()).with_initialize_params();
///
/// let mut config = StreamableHttpServerConfig::default();
/// config.session_store = Some(Arc::new(RmcpSessionStore::new(store)));
/// let mcp = StreamableHttpService::new(|| Ok(Tools), LocalSessionManager::default().into(), config);
/// let app: Router = Router::new().route_service("/mcp", layer.layer(mcp));
/// ```
pub struct RmcpSessionStore<St>(St);

impl<St: SessionStore> RmcpSessionStore<St> {
    /// Reads from the store that the layer writes to: a clone of it, or an `Arc`.
    #[must_use]
    pub fn new(store: St) -> Self {
        Self(store)
    }
}

impl<St> fmt::Debug for RmcpSessionStore<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RmcpSessionStore").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl<St: SessionStore> RmcpStore for RmcpSessionStore<St> {
    async fn load(&self, session_id: &str) -> Result<Option<SessionState>, SessionStoreError> {
        let Ok(id) = session_id.parse::<SessionId>() else {
            return Ok(None);
        };
        let Some(found) = self.0.load(&id).await? else {
            return Ok(None);
        };
        let state = state_of(&found.session)?;
        if state.is_none() {
            cannot_restore(&found.session);
        }
        Ok(state)
    }

    /// Does nothing: the layer records a session when it sees the answer to `initialize`.
    async fn store(&self, _: &str, _: &SessionState) -> Result<(), SessionStoreError> {
        Ok(())
    }

    /// Does nothing: the layer deletes a session when it sees the answer to DELETE.
    async fn delete(&self, _: &str) -> Result<(), SessionStoreError> {
        Ok(())
    }
}

/// What rmcp needs to restore a session. `None` if it is not kept.
pub(super) fn state_of(session: &Session) -> Result<Option<SessionState>, StoreError> {
    let Some(params) = session.record().initialize_params else {
        return Ok(None);
    };
    let params = serde_json::from_slice(&params).map_err(|error| {
        let doing = "read the parameters of `initialize`";
        StoreError::new(StoreErrorKind::Corrupt, doing).with_source(error)
    })?;
    Ok(Some(SessionState::new(params)))
}

pub(super) fn cannot_restore(session: &Session) {
    tracing::error!(
        session = %session.reference(),
        "cannot restore a session: use `McpSessionLayer::with_initialize_params`"
    );
}
