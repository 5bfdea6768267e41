//! rmcp restores the sessions that the layer recorded, on a node that has never seen them.

use std::{fmt, sync::Arc};

use rmcp::transport::streamable_http_server::session::store::{
    SessionState, SessionStore as RmcpStore, SessionStoreError,
};

use crate::{
    protocol::SessionId,
    store::{SessionStore, StoreError, StoreErrorKind},
};

/// A [`SessionStore`] as rmcp wants one, for reading only: the layer alone creates and ends sessions.
///
/// When a request reaches an rmcp service that does not hold the session, rmcp asks here for the parameters of its
/// `initialize` and replays them. The layer in front has by then checked that the session is live and the
/// caller's. What a session had in memory on another node is not restored.
///
/// Give the layer the same store, tell it to keep the parameters, and let the layer be the only way to the service:
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
/// # let store = MemoryStore::new();
/// let store = Arc::new(store);
/// let layer = McpSessionLayer::new(Arc::clone(&store)).with_initialize_params();
///
/// let mut config = StreamableHttpServerConfig::default();
/// config.session_store = Some(Arc::new(RmcpSessionStore::new(store)));
/// let mcp = StreamableHttpService::new(|| Ok(Tools), LocalSessionManager::default().into(), config);
/// let app: Router = Router::new().route_service("/mcp", layer.layer(mcp));
/// ```
pub struct RmcpSessionStore<St>(Arc<St>);

impl<St: SessionStore> RmcpSessionStore<St> {
    /// Reads from the store that the layer writes to.
    #[must_use]
    pub fn new(store: Arc<St>) -> Self {
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
        let Some(params) = found.session.record().initialize_params else {
            tracing::error!(
                session = %found.session.reference(),
                "cannot restore a session: use `McpSessionLayer::with_initialize_params`"
            );
            return Ok(None);
        };
        let params = serde_json::from_slice(&params).map_err(|error| {
            StoreError::new(
                StoreErrorKind::Corrupt,
                "read the parameters of `initialize`",
            )
            .with_source(error)
        })?;
        Ok(Some(SessionState::new(params)))
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
