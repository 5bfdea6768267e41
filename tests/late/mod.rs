//! A store that cannot answer from memory and takes its time, as a remote one does.

use std::{future::Future, time::Duration};

use mcp_session_layer::{
    MemoryStore, Owner, Session, SessionId, SessionStore,
    store::{Created, EndReason, Found, Now, StoreError, Terms},
};
use tokio::time::sleep;

/// Each verb takes this long before it takes effect.
#[derive(Debug, Clone)]
pub(crate) struct Late(pub(crate) MemoryStore, pub(crate) Duration);

impl Late {
    async fn later<T>(&self, answer: impl Future<Output = T>) -> T {
        sleep(self.1).await;
        answer.await
    }
}

impl SessionStore for Late {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.later(self.0.create(session, terms)).await
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        self.later(self.0.load(id)).await
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.later(self.0.touch(id, owner, idle)).await
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        self.later(self.0.delete(id, reason)).await
    }

    fn touch_now(&self, _: &SessionId, _: &Owner, _: Duration) -> Now {
        Now::Unknown
    }
}
