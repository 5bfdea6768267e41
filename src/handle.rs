//! A handle to the sessions of a layer, for the rest of the application.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    lifecycle::{Lifecycle, SessionEvents, forgotten, shutdown, terminate},
    protocol::{SessionId, SessionRef},
    session::{Change, Owner, Principal, Session, Values},
    store::{Directory, SessionFilter, SessionInfo, StoreError, StoreErrorKind},
    sync::atomic::Ordering::Relaxed,
};

/// The sessions of one layer: to count, list and end them from elsewhere, and to shut down. Clones are the same handle, and
/// it has no type parameter, so it fits into an application's state.
///
/// Get it from [`McpSessionLayer::sessions`](crate::McpSessionLayer::sessions), after the layer is configured. What
/// counts, lists and ends needs a store with a [`Directory`]; all stores of this crate have one.
///
/// No session id goes in or out: sessions are named by their [`SessionRef`].
///
/// ```
/// # use mcp_session_layer::{McpSessionLayer, MemoryStore, Principal};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), mcp_session_layer::store::StoreError> {
/// let layer = McpSessionLayer::new(MemoryStore::new());
/// let sessions = layer.sessions();
///
/// // A user's account is closed: all their sessions end, and the streams that are open on them.
/// let ended = sessions.end_of(Some(&Principal::new("alice"))).await?;
/// # assert_eq!(ended, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sessions(Arc<Lifecycle>);

impl Sessions {
    pub(crate) fn new(lifecycle: &Arc<Lifecycle>) -> Self {
        Self(Arc::clone(lifecycle))
    }

    /// How many sessions are live in the layer's scope.
    ///
    /// # Errors
    ///
    /// When the store cannot answer, or keeps no directory ([`StoreErrorKind::Unsupported`]).
    pub async fn count(&self) -> Result<u64, StoreError> {
        self.directory("count sessions")?.count(&self.all()).await
    }

    /// How many sessions this principal has; `None` is whoever is anonymous.
    ///
    /// # Errors
    ///
    /// As [`count`](Self::count).
    pub async fn count_of(&self, principal: Option<&Principal>) -> Result<u64, StoreError> {
        let filter = self.filter(principal);
        self.directory("count sessions")?.count(&filter).await
    }

    /// At most `at_most` sessions in the order of their references, from the one after `after` on.
    ///
    /// # Errors
    ///
    /// As [`count`](Self::count).
    pub async fn list(
        &self,
        after: Option<&SessionRef>,
        at_most: usize,
    ) -> Result<Vec<SessionInfo>, StoreError> {
        let directory = self.directory("list sessions")?;
        directory.list(&self.all(), after, at_most).await
    }

    /// As [`list`](Self::list), of this principal's sessions; `None` is whoever is anonymous.
    ///
    /// # Errors
    ///
    /// As [`count`](Self::count).
    pub async fn list_of(
        &self,
        principal: Option<&Principal>,
        after: Option<&SessionRef>,
        at_most: usize,
    ) -> Result<Vec<SessionInfo>, StoreError> {
        let directory = self.directory("list sessions")?;
        directory
            .list(&self.filter(principal), after, at_most)
            .await
    }

    /// Ends one session, here and on every node that shares the store, and says whether it was live.
    ///
    /// # Errors
    ///
    /// When the store cannot tell whether it took effect: call it again.
    pub async fn end(&self, reference: &SessionRef) -> Result<bool, StoreError> {
        terminate::revoke(&self.0, reference).await
    }

    /// Ends all sessions of this principal and says how many were live; `None` is whoever is anonymous. Sessions whose creation began before and
    /// finishes later are refused.
    ///
    /// # Errors
    ///
    /// When the store cannot tell whether all are ended: call it again.
    pub async fn end_of(&self, principal: Option<&Principal>) -> Result<u64, StoreError> {
        terminate::revoke_all(&self.0, &self.filter(principal)).await
    }

    /// Ends all sessions of the layer's scope and says how many were live. Sessions whose creation began before and
    /// finishes later are refused.
    ///
    /// # Errors
    ///
    /// As [`end_of`](Self::end_of).
    pub async fn end_all(&self) -> Result<u64, StoreError> {
        terminate::revoke_all(&self.0, &self.all()).await
    }

    /// Ends those of this node's sessions that `picks` picks and that no node has touched for a third of the idle time, and says
    /// how many: for sessions that this node cannot serve any more, and others perhaps can. One that is touched meanwhile
    /// stays, where the store can look and delete in one step ([`SessionStore::delete_idle`](crate::SessionStore::delete_idle)).
    ///
    /// # Errors
    ///
    /// When the store cannot tell of one of them. The others have been looked at.
    pub async fn end_unused(
        &self,
        picks: impl Fn(&Session) -> bool + Send + Sync,
    ) -> Result<u64, StoreError> {
        forgotten::end_all_unused(&self.0, picks).await
    }

    /// Changes a session's values, in one step of the store, and answers those that it then has: where they are not as the
    /// change makes them ([`Change::holds`]), it was made for others. `None` if the session is over. Extends nothing.
    ///
    /// Every handle of the session on this node shows the change from then on; [`Values`] has an example.
    ///
    /// # Errors
    ///
    /// When the store cannot tell whether it took effect; when there would be too many values, or too long ones
    /// ([`StoreErrorKind::TooLarge`]), and then nothing is changed; or when it keeps none
    /// ([`StoreErrorKind::Unsupported`]).
    pub async fn change(
        &self,
        session: &Session,
        change: &Change,
    ) -> Result<Option<Values>, StoreError> {
        let (id, owner) = (session.id(), session.owner());
        let Some(found) = self.0.store.change(id, owner, change).await? else {
            return Ok(None);
        };
        session.note_values(&found.session);
        if let Some(live) = self.0.alive.registry.get(session.reference()) {
            live.note_values(&found.session);
        }
        Ok(Some(found.session.values()))
    }

    /// What is created and what ends from now on. A subscriber that does not listen misses events; it holds nothing up.
    #[must_use]
    pub fn subscribe(&self) -> SessionEvents {
        self.0.alive.events.subscribe()
    }

    /// Creates no session from now on, with 503, and serves everything else: for a node that is about to leave.
    pub fn drain(&self) {
        self.0.alive.drain();
    }

    /// Whether this node should get requests: it is not draining, and its store answers. For a health check; asks the store
    /// each time, and waits for it as long as a request does
    /// ([`with_store_timeout`](crate::McpSessionLayer::with_store_timeout)).
    ///
    /// A node without its store answers 503 where sessions are concerned, so it is better left out. Why the store cannot
    /// be asked is in the log. For "is this process alive" answer without asking anybody: a store that is away is
    /// nothing that a restart of the node would mend.
    ///
    /// ```
    /// # use axum::{Router, extract::State, http::StatusCode, routing::get};
    /// # use mcp_session_layer::Sessions;
    /// async fn ready(State(sessions): State<Sessions>) -> StatusCode {
    ///     match sessions.ready().await {
    ///         true => StatusCode::OK,
    ///         false => StatusCode::SERVICE_UNAVAILABLE,
    ///     }
    /// }
    ///
    /// # fn app(sessions: Sessions) -> Router {
    /// Router::new().route("/ready", get(ready)).with_state(sessions)
    /// # }
    /// ```
    pub async fn ready(&self) -> bool {
        if self.is_draining() {
            return false;
        }
        // An id that nobody has, so that no memory of an earlier answer can stand in for the store.
        match self.0.store.load(&SessionId::issue()).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "not ready: the store cannot be asked"
                );
                false
            }
        }
    }

    /// Drains, ends GET streams, lets the answers that are under way finish for `grace`, then ends what is left: streams
    /// end, and answers that have not begun are 503. Returns when nothing is under way any more. Sessions stay in
    /// a store that outlives the process. To be called inside a tokio runtime.
    ///
    /// Without it a server's graceful shutdown waits for as long as a client keeps a GET stream open. Requests of revisions
    /// without sessions are not this layer's to end.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn serve(listener: tokio::net::TcpListener, app: axum::Router, sessions: mcp_session_layer::Sessions) -> std::io::Result<()> {
    /// let stopped = async move {
    ///     tokio::signal::ctrl_c().await.ok();
    ///     tokio::spawn(async move { sessions.shut_down(Duration::from_secs(10)).await });
    /// };
    /// axum::serve(listener, app).with_graceful_shutdown(stopped).await
    /// # }
    /// ```
    pub async fn shut_down(&self, grace: Duration) {
        shutdown::shut_down(&self.0.alive, grace).await;
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.alive.is_draining.load(Relaxed)
    }

    fn all(&self) -> SessionFilter {
        SessionFilter::Scope(self.0.settings.anonymous.scope.clone())
    }

    fn filter(&self, principal: Option<&Principal>) -> SessionFilter {
        SessionFilter::Owner(Owner {
            scope: self.0.settings.anonymous.scope.clone(),
            principal: principal.cloned(),
        })
    }

    fn directory(&self, doing: &'static str) -> Result<&dyn Directory, StoreError> {
        let directory = self.0.store.directory();
        directory.ok_or_else(|| StoreError::new(StoreErrorKind::Unsupported, doing))
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}
