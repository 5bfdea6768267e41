//! A handle to the sessions of a layer, for the rest of the application.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    protocol::SessionRef,
    registry::{Errand, Live},
    service::layer::Core,
    session::{Owner, Principal, Scope},
    store::{
        Directory, EndReason, SessionFilter, SessionInfo, SessionStore, StoreError, StoreErrorKind,
    },
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
pub struct Sessions(Arc<dyn Administer>);

impl Sessions {
    pub(crate) fn new<St: SessionStore>(core: &Arc<Core<St>>) -> Self {
        Self(Arc::clone(core) as Arc<dyn Administer>)
    }

    /// How many sessions are live in the layer's scope.
    ///
    /// # Errors
    ///
    /// When the store cannot answer, or keeps no directory ([`StoreErrorKind::Unsupported`]).
    pub async fn count(&self) -> Result<u64, StoreError> {
        self.directory("count sessions")?.count(&self.all()).await
    }

    /// How many sessions this principal has; `None` is nobody.
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

    /// As [`list`](Self::list), of this principal's sessions; `None` is nobody.
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
        let directory = self.directory("end a session")?;
        let ended = directory
            .end(self.0.scope(), reference, EndReason::Revoked)
            .await?;
        if ended {
            self.0.end_here(reference, EndReason::Revoked);
        }
        Ok(ended)
    }

    /// Ends all sessions of this principal and says how many were live; `None` is nobody. Births that began before and
    /// finish later are refused.
    ///
    /// # Errors
    ///
    /// When the store cannot tell whether all are ended: call it again.
    pub async fn end_of(&self, principal: Option<&Principal>) -> Result<u64, StoreError> {
        self.end_whose(&self.filter(principal)).await
    }

    /// Ends all sessions of the layer's scope and says how many were live. Births that began before and finish
    /// later are refused.
    ///
    /// # Errors
    ///
    /// As [`end_of`](Self::end_of).
    pub async fn end_all(&self) -> Result<u64, StoreError> {
        self.end_whose(&self.all()).await
    }

    /// Births and ends from now on. A subscriber that does not listen misses events; it holds nothing up.
    #[must_use]
    pub fn subscribe(&self) -> SessionEvents {
        SessionEvents(self.0.live().events.subscribe())
    }

    /// Refuses births from now on, with 503, and serves everything else: for a node that is about to leave.
    pub fn drain(&self) {
        self.0.live().draining.store(true, Relaxed);
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
        let live = self.0.live();
        self.drain();
        live.close();
        let deadline = Instant::now() + grace;
        while live.is_busy() && Instant::now() < deadline {
            sleep(LOOK_EVERY.min(grace)).await;
        }
        if Instant::now() >= deadline {
            return live.cut_off();
        }
        // Whatever still comes has the rest of the time.
        let sessions = self.clone();
        tokio::spawn(async move {
            sleep_until(deadline).await;
            sessions.0.live().cut_off();
        });
    }

    async fn end_whose(&self, filter: &SessionFilter) -> Result<u64, StoreError> {
        let live = self.0.live();
        let before = live.served();
        let directory = self.directory("end sessions")?;
        live.revoke(filter);
        let ended = directory.end_all(filter, EndReason::Revoked).await?;
        // Nobody's session may have become somebody's on another node, and then it was not meant.
        let may_be_others =
            matches!(filter, SessionFilter::Owner(owner) if owner.principal.is_none());
        for session in before {
            if filter.includes(session.session().owner()) && !may_be_others {
                self.0.end_here(session.reference(), EndReason::Revoked);
            }
        }
        // Of those that came meanwhile, too, some were ended and some were not: ask.
        for session in live.served() {
            if filter.includes(session.session().owner()) {
                let _ = live.agenda.send(Errand::Look(session));
            }
        }
        Ok(ended)
    }

    fn all(&self) -> SessionFilter {
        SessionFilter::Scope(self.0.scope().clone())
    }

    fn filter(&self, principal: Option<&Principal>) -> SessionFilter {
        SessionFilter::Owner(Owner {
            scope: self.0.scope().clone(),
            principal: principal.cloned(),
        })
    }

    fn directory(&self, doing: &'static str) -> Result<&dyn Directory, StoreError> {
        let directory = self.0.directory();
        directory.ok_or_else(|| StoreError::new(StoreErrorKind::Unsupported, doing))
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

/// A subscription to births and ends.
#[derive(Debug)]
pub struct SessionEvents(broadcast::Receiver<SessionEvent>);

impl SessionEvents {
    /// Waits for the next event. `None` when the layer is gone.
    pub async fn next(&mut self) -> Option<SessionEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(missed)) => Some(SessionEvent::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Something that happened to a session of this layer. It names the session by its reference, never by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// A session was born on this node.
    Created {
        /// Which.
        reference: SessionRef,
        /// SessionFilter it is.
        owner: Owner,
    },
    /// A session that this node has served or ended is no more.
    Ended {
        /// Which.
        reference: SessionRef,
        /// Why.
        reason: EndReason,
    },
    /// The subscriber was too slow for this many events.
    Missed(u64),
}

/// A layer's core without its type parameter.
trait Administer: Send + Sync {
    fn scope(&self) -> &Scope;
    fn live(&self) -> &Live;
    fn directory(&self) -> Option<&dyn Directory>;
    fn end_here(&self, reference: &SessionRef, reason: EndReason);
}

impl<St: SessionStore> Administer for Core<St> {
    fn scope(&self) -> &Scope {
        &self.settings.nobody.scope
    }

    fn live(&self) -> &Live {
        &self.live
    }

    fn directory(&self) -> Option<&dyn Directory> {
        self.store.directory()
    }

    fn end_here(&self, reference: &SessionRef, reason: EndReason) {
        Core::end_here(self, reference, reason);
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(50);
