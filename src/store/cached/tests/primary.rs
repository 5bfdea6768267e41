//! A primary whose answers a test counts and holds up.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;

use crate::{
    protocol::SessionId,
    session::{Change, Owner, Session},
    store::{
        Created, Directory, EndReason, Expiry, Feed, FeedEvent, Found, MemoryStore, SessionStore,
        StoreError, StoreErrorKind, Terms,
    },
};

/// A store in memory that counts what it is asked, and can be held up or away.
#[derive(Default)]
pub(super) struct Primary {
    pub(super) store: MemoryStore,
    pub(super) touches: AtomicUsize,
    pub(super) loads: AtomicUsize,
    pub(super) last_idle: Mutex<Duration>,
    pub(super) last_terms: Mutex<Option<Terms>>,
    pub(super) failing: Mutex<Option<StoreErrorKind>>,
    /// Calls wait here before they take effect.
    pub(super) before: Gate,
    /// Their answers wait here.
    pub(super) after: Gate,
    /// New calls do not wait.
    pub(super) bypass: AtomicBool,
    pub(super) feed: Option<broadcast::Sender<FeedEvent>>,
    pub(super) has_directory: bool,
}

pub(super) struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl Gate {
    pub(super) fn close(&self) {
        self.0.send_replace(false);
    }

    pub(super) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

impl Primary {
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let bypass = self.bypass.load(Relaxed);
        if !bypass {
            self.before.pass().await;
        }
        let failing = *self.failing.lock();
        if let Some(kind) = failing {
            return Err(StoreError::new(kind, "do anything"));
        }
        let answer = call.await;
        if !bypass {
            self.after.pass().await;
        }
        answer
    }

    pub(super) fn fail(&self, kind: impl Into<Option<StoreErrorKind>>) {
        *self.failing.lock() = kind.into();
    }

    pub(super) fn touches(&self) -> usize {
        self.touches.load(Relaxed)
    }

    /// Ends a session as another node does, and says so on the feed, if there is one.
    pub(super) async fn end_elsewhere(&self, session: &Session) -> FeedEvent {
        let reason = EndReason::Deleted;
        assert!(self.store.delete(session.id(), reason).await.unwrap());
        let reference = *session.reference();
        let ended = FeedEvent::Ended { reference, reason };
        self.announce(ended);
        ended
    }

    pub(super) fn announce(&self, event: FeedEvent) {
        if let Some(feed) = &self.feed {
            let _ = feed.send(event);
        }
    }
}

impl SessionStore for Primary {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        *self.last_terms.lock() = Some(terms.clone());
        self.call(self.store.create(session, terms)).await
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        self.loads.fetch_add(1, Relaxed);
        self.call(self.store.load(id)).await.map(from_far)
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.touches.fetch_add(1, Relaxed);
        *self.last_idle.lock() = idle;
        self.call(self.store.touch(id, owner, idle))
            .await
            .map(from_far)
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        self.call(self.store.delete(id, reason)).await
    }

    async fn delete_idle(
        &self,
        id: &SessionId,
        left: Duration,
        reason: EndReason,
    ) -> Result<bool, StoreError> {
        self.call(self.store.delete_idle(id, left, reason)).await
    }

    async fn expire(&self, id: &SessionId) -> Result<Expiry, StoreError> {
        self.loads.fetch_add(1, Relaxed);
        let expiry = self.call(self.store.expire(id)).await?;
        Ok(match expiry {
            Expiry::Left(found) => from_far(Some(found)).map_or(Expiry::Over, Expiry::Left),
            Expiry::Over => Expiry::Over,
        })
    }

    async fn change(
        &self,
        id: &SessionId,
        owner: &Owner,
        change: &Change,
    ) -> Result<Option<Found>, StoreError> {
        self.call(self.store.change(id, owner, change))
            .await
            .map(from_far)
    }

    async fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.call(self.store.claim(id, owner, idle))
            .await
            .map(from_far)
    }

    fn directory(&self) -> Option<&dyn Directory> {
        self.store.directory().filter(|_| self.has_directory)
    }

    fn feed(&self) -> Option<Feed> {
        let events = BroadcastStream::new(self.feed.as_ref()?.subscribe());
        Some(Box::pin(events.map(|event| event.expect("few events"))))
    }
}

/// A store elsewhere shares no handle with this process.
fn from_far(found: Option<Found>) -> Option<Found> {
    found.map(|found| Found {
        session: found.session.twin(),
        ..found
    })
}
