//! A store chosen at run time.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    BoxFuture, Created, Directory, EndReason, Expiry, Feed, Found, Now, SessionStore, StoreError,
    Terms,
};
use crate::{
    protocol::SessionId,
    session::{Change, Owner, Session},
};

/// Any [`SessionStore`] as one type, for a store that is chosen at run time. Clones share it.
///
/// ```
/// # use mcp_session_layer::{BoxSessionStore, McpSessionLayer, MemoryStore};
/// let store = match std::env::var("SESSION_STORE").as_deref() {
///     // .. other stores here
///     _ => BoxSessionStore::new(MemoryStore::new()),
/// };
/// let layer = McpSessionLayer::new(store);
/// ```
#[derive(Clone)]
pub struct BoxSessionStore(Arc<dyn ObjectSafe>);

impl BoxSessionStore {
    /// Boxes a store.
    pub fn new(store: impl SessionStore) -> Self {
        Self(Arc::new(store))
    }
}

impl fmt::Debug for BoxSessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxSessionStore")
    }
}

#[deny(clippy::missing_trait_methods)]
impl SessionStore for BoxSessionStore {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.0.create(session, terms).await
    }

    async fn make_room(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.0.make_room(session, terms).await
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        self.0.load(id).await
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.0.touch(id, owner, idle).await
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        self.0.delete(id, reason).await
    }

    async fn delete_idle(
        &self,
        id: &SessionId,
        left: Duration,
        reason: EndReason,
    ) -> Result<bool, StoreError> {
        self.0.delete_idle(id, left, reason).await
    }

    async fn expire(&self, id: &SessionId) -> Result<Expiry, StoreError> {
        self.0.expire(id).await
    }

    async fn change(
        &self,
        id: &SessionId,
        owner: &Owner,
        change: &Change,
    ) -> Result<Option<Found>, StoreError> {
        self.0.change(id, owner, change).await
    }

    fn touch_now(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Now {
        self.0.touch_now(id, owner, idle)
    }

    async fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.0.claim(id, owner, idle).await
    }

    fn is_shared(&self) -> bool {
        self.0.is_shared()
    }

    fn directory(&self) -> Option<&dyn Directory> {
        self.0.directory()
    }

    fn feed(&self) -> Option<Feed> {
        self.0.feed()
    }
}

/// [`SessionStore`] with its futures boxed.
trait ObjectSafe: Send + Sync {
    fn create<'a>(
        &'a self,
        session: &'a Session,
        terms: &'a Terms,
    ) -> BoxFuture<'a, Result<Created, StoreError>>;
    fn make_room<'a>(
        &'a self,
        session: &'a Session,
        terms: &'a Terms,
    ) -> BoxFuture<'a, Result<Created, StoreError>>;
    fn load<'a>(&'a self, id: &'a SessionId) -> BoxFuture<'a, Result<Option<Found>, StoreError>>;
    fn touch<'a>(
        &'a self,
        id: &'a SessionId,
        owner: &'a Owner,
        idle: Duration,
    ) -> BoxFuture<'a, Result<Option<Found>, StoreError>>;
    fn delete<'a>(
        &'a self,
        id: &'a SessionId,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;
    fn delete_idle<'a>(
        &'a self,
        id: &'a SessionId,
        left: Duration,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;
    fn expire<'a>(&'a self, id: &'a SessionId) -> BoxFuture<'a, Result<Expiry, StoreError>>;
    fn change<'a>(
        &'a self,
        id: &'a SessionId,
        owner: &'a Owner,
        change: &'a Change,
    ) -> BoxFuture<'a, Result<Option<Found>, StoreError>>;
    fn touch_now(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Now;
    fn claim<'a>(
        &'a self,
        id: &'a SessionId,
        owner: &'a Owner,
        idle: Duration,
    ) -> BoxFuture<'a, Result<Option<Found>, StoreError>>;
    fn is_shared(&self) -> bool;
    fn directory(&self) -> Option<&dyn Directory>;
    fn feed(&self) -> Option<Feed>;
}

impl<St: SessionStore> ObjectSafe for St {
    fn create<'a>(
        &'a self,
        session: &'a Session,
        terms: &'a Terms,
    ) -> BoxFuture<'a, Result<Created, StoreError>> {
        Box::pin(SessionStore::create(self, session, terms))
    }

    fn make_room<'a>(
        &'a self,
        session: &'a Session,
        terms: &'a Terms,
    ) -> BoxFuture<'a, Result<Created, StoreError>> {
        Box::pin(SessionStore::make_room(self, session, terms))
    }

    fn load<'a>(&'a self, id: &'a SessionId) -> BoxFuture<'a, Result<Option<Found>, StoreError>> {
        Box::pin(SessionStore::load(self, id))
    }

    fn touch<'a>(
        &'a self,
        id: &'a SessionId,
        owner: &'a Owner,
        idle: Duration,
    ) -> BoxFuture<'a, Result<Option<Found>, StoreError>> {
        Box::pin(SessionStore::touch(self, id, owner, idle))
    }

    fn delete<'a>(
        &'a self,
        id: &'a SessionId,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(SessionStore::delete(self, id, reason))
    }

    fn delete_idle<'a>(
        &'a self,
        id: &'a SessionId,
        left: Duration,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(SessionStore::delete_idle(self, id, left, reason))
    }

    fn expire<'a>(&'a self, id: &'a SessionId) -> BoxFuture<'a, Result<Expiry, StoreError>> {
        Box::pin(SessionStore::expire(self, id))
    }

    fn change<'a>(
        &'a self,
        id: &'a SessionId,
        owner: &'a Owner,
        change: &'a Change,
    ) -> BoxFuture<'a, Result<Option<Found>, StoreError>> {
        Box::pin(SessionStore::change(self, id, owner, change))
    }

    fn touch_now(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Now {
        SessionStore::touch_now(self, id, owner, idle)
    }

    fn claim<'a>(
        &'a self,
        id: &'a SessionId,
        owner: &'a Owner,
        idle: Duration,
    ) -> BoxFuture<'a, Result<Option<Found>, StoreError>> {
        Box::pin(SessionStore::claim(self, id, owner, idle))
    }

    fn is_shared(&self) -> bool {
        SessionStore::is_shared(self)
    }

    fn directory(&self) -> Option<&dyn Directory> {
        SessionStore::directory(self)
    }

    fn feed(&self) -> Option<Feed> {
        SessionStore::feed(self)
    }
}
