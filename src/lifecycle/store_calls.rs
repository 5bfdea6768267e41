//! Calls to the store: bounded in time and in number, repeated while the store is away.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    protocol::SessionId,
    service::layer::Core,
    session::Owner,
    store::{EndReason, Found, SessionStore, StoreError, StoreErrorKind},
};

impl<St: SessionStore> Core<St> {
    /// [`SessionStore::load`], within bounds.
    pub(crate) async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        self.patiently("load a session", || self.store.load(id))
            .await
    }

    /// [`SessionStore::touch`], within bounds; for a login, where it is allowed, [`SessionStore::claim`] too.
    pub(crate) async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
    ) -> Result<Option<Found>, StoreError> {
        let idle = self.settings.idle;
        self.patiently("touch a session", || self.store.touch(id, owner, idle))
            .await
    }

    /// [`SessionStore::claim`], within bounds.
    pub(crate) async fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
    ) -> Result<Option<Found>, StoreError> {
        let idle = self.settings.idle;
        self.patiently("claim a session", || self.store.claim(id, owner, idle))
            .await
    }

    /// [`SessionStore::delete`], within bounds.
    pub(crate) async fn delete(
        &self,
        id: &SessionId,
        reason: EndReason,
    ) -> Result<bool, StoreError> {
        self.patiently("delete a session", || self.store.delete(id, reason))
            .await
    }

    /// Deletes however long it takes, in the background. Until then this node refuses the id.
    pub(crate) fn delete_at_last(self: &Arc<Self>, id: SessionId, reason: EndReason) {
        let core = Arc::clone(self);
        core.live.condemn(id.reference());
        tokio::spawn(async move {
            let mut pause = FIRST_PAUSE;
            while let Err(error) = core.delete(&id, reason).await {
                tracing::warn!(
                    session = %id.reference(),
                    error = &error as &dyn std::error::Error,
                    "could not delete a session; trying again"
                );
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            core.live.pardon(&id.reference());
        });
    }

    /// Loads however long it takes. For the background.
    pub(crate) async fn load_at_last(&self, id: &SessionId) -> Option<Found> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.load(id).await {
                Ok(found) => return found,
                Err(error) => {
                    tracing::warn!(
                        session = %id.reference(),
                        error = &error as &dyn std::error::Error,
                        "could not ask for a session; trying again"
                    );
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One call without another try, for what must not take effect twice.
    pub(crate) async fn once<T, F>(
        &self,
        doing: &'static str,
        call: impl FnOnce() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let _waiting = self.wait_in_line(doing)?;
        let deadline = Instant::now() + self.settings.store_timeout;
        match timeout_at(deadline, call()).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::new(StoreErrorKind::Unavailable, doing)),
        }
    }

    async fn patiently<T, F>(
        &self,
        doing: &'static str,
        call: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let _waiting = self.wait_in_line(doing)?;
        let deadline = Instant::now() + self.settings.store_timeout;
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
    fn wait_in_line(
        &self,
        doing: &'static str,
    ) -> Result<tokio::sync::SemaphorePermit<'_>, StoreError> {
        self.live
            .store_calls
            .try_acquire()
            .map_err(|_| StoreError::new(StoreErrorKind::Unavailable, doing))
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
