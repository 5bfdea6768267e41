//! Calls to the store: bounded in time and in number, retried while the store is away.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    metrics::StoreCall,
    protocol::SessionId,
    session::{Change, Owner, Session},
    store::{
        BoxSessionStore, Created, Directory, EndReason, Expiry, Feed, Found, Now, SessionStore,
        StoreError, StoreErrorKind, Terms,
    },
};

/// A layer's store. Clones call the same one.
#[derive(Clone)]
pub(crate) struct BoundedStore {
    store: BoxSessionStore,
    waiting: Arc<Semaphore>,
    /// How long a call may take, its retries included.
    pub(crate) timeout: Duration,
}

impl BoundedStore {
    pub(crate) fn new(store: BoxSessionStore) -> Self {
        Self {
            store,
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            timeout: Duration::from_secs(3),
        }
    }

    #[inline]
    pub(crate) fn touch_now(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Now {
        self.store.touch_now(id, owner, idle)
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    pub(crate) fn directory(&self) -> Option<&dyn Directory> {
        self.store.directory()
    }

    pub(crate) fn feed(&self) -> Option<Feed> {
        self.store.feed()
    }

    /// Without a retry: it must not take effect twice.
    pub(crate) async fn create(
        &self,
        session: &Session,
        terms: &Terms,
    ) -> Result<Created, StoreError> {
        let doing = "create a session";
        counted("create", async {
            let _place = self.wait_in_line(doing)?;
            let deadline = Instant::now() + self.timeout;
            match timeout_at(deadline, self.store.create(session, terms)).await {
                Ok(answer) => answer,
                Err(_) => Err(StoreError::new(StoreErrorKind::Unavailable, doing)),
            }
        })
        .await
    }

    pub(crate) async fn make_room(
        &self,
        session: &Session,
        terms: &Terms,
    ) -> Result<Created, StoreError> {
        let call = self.retry("make room for a session", || {
            self.store.make_room(session, terms)
        });
        counted("make_room", call).await
    }

    pub(crate) async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        let call = self.retry("load a session", || self.store.load(id));
        counted("load", call).await
    }

    pub(crate) async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        let call = self.retry("touch a session", || self.store.touch(id, owner, idle));
        counted("touch", call).await
    }

    /// `None`: the store cannot say.
    pub(crate) async fn expire(&self, id: &SessionId) -> Result<Option<Expiry>, StoreError> {
        let doing = "ask whether a session is over";
        let call = self.retry(doing, || self.store.expire(id));
        match counted("expire", call).await {
            Err(error) if error.kind() == StoreErrorKind::Unsupported => Ok(None),
            answer => answer.map(Some),
        }
    }

    pub(crate) async fn change(
        &self,
        id: &SessionId,
        owner: &Owner,
        change: &Change,
    ) -> Result<Option<Found>, StoreError> {
        let doing = "change a session's values";
        let call = self.retry(doing, || self.store.change(id, owner, change));
        counted("change", call).await
    }

    pub(crate) async fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        let call = self.retry("claim a session", || self.store.claim(id, owner, idle));
        counted("claim", call).await
    }

    pub(crate) async fn delete(
        &self,
        id: &SessionId,
        reason: EndReason,
    ) -> Result<bool, StoreError> {
        let call = self.retry("delete a session", || self.store.delete(id, reason));
        counted("delete", call).await
    }

    /// `None`: the store cannot do it.
    pub(crate) async fn delete_idle(
        &self,
        id: &SessionId,
        left: Duration,
        reason: EndReason,
    ) -> Result<Option<bool>, StoreError> {
        let doing = "delete an idle session";
        let call = self.retry(doing, || self.store.delete_idle(id, left, reason));
        match counted("delete_idle", call).await {
            Err(error) if error.kind() == StoreErrorKind::Unsupported => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// However long it takes. For the background.
    pub(crate) async fn load_until_answered(&self, id: &SessionId) -> Option<Found> {
        until_answered(id, "load", || self.load(id)).await
    }

    /// However long it takes. For the background.
    pub(crate) async fn expire_until_answered(&self, id: &SessionId) -> Option<Expiry> {
        until_answered(id, "expire", || self.expire(id)).await
    }

    /// However long it takes. For the background.
    pub(crate) async fn delete_until_answered(&self, id: &SessionId, reason: EndReason) {
        until_answered(id, "delete", || self.delete(id, reason)).await;
    }

    async fn retry<T, F>(&self, doing: &'static str, call: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let _place = self.wait_in_line(doing)?;
        let deadline = Instant::now() + self.timeout;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match timeout_at(deadline, call()).await {
                Ok(Err(error)) if error.kind() == StoreErrorKind::Unavailable => error,
                Ok(answer) => return answer,
                Err(_) => return Err(StoreError::new(StoreErrorKind::Unavailable, doing)),
            };
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
            pause *= 2;
        }
    }

    /// A place among the callers that wait for the store, so that an outage cannot pile up requests without end.
    fn wait_in_line(&self, doing: &'static str) -> Result<SemaphorePermit<'_>, StoreError> {
        self.waiting
            .try_acquire()
            .map_err(|_| StoreError::new(StoreErrorKind::Unavailable, doing))
    }
}

/// The same call, counted under this verb.
async fn counted<T>(
    verb: &'static str,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let counted = StoreCall::begin(verb);
    let answer = call.await;
    counted.end(answer.as_ref().err().map(|error| error.kind().as_str()));
    answer
}

async fn until_answered<T, F>(id: &SessionId, doing: &'static str, call: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match call().await {
            Ok(answer) => return answer,
            Err(error) => error,
        };
        tracing::warn!(
            session = %id.reference(),
            error = &error as &dyn std::error::Error,
            doing,
            "the store could not be asked about a session; trying again"
        );
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

const MAX_WAITING: usize = 16_384;
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
