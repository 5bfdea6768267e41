//! A memory store that can be watched and disturbed.

use std::{
    collections::{BTreeMap, HashMap},
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use mcp_session_layer::{
    Change, MemoryStore, Owner, Session, SessionId, SessionStore,
    store::{
        Created, Directory, EndReason, Expiry, Feed, Found, Now, StoreError, StoreErrorKind, Terms,
    },
};
use parking_lot::Mutex;
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use super::sessions::session_id;

/// Clones share the sessions, the disturbance and the record of calls.
#[derive(Clone, Default)]
pub(crate) struct TestStore {
    pub(crate) memory: MemoryStore,
    calls: Arc<Mutex<Vec<&'static str>>>,
    faults: Arc<Mutex<HashMap<&'static str, Fault>>>,
    /// Grows with each pause, so that each is of another length; none at zero.
    pauses: Arc<Mutex<usize>>,
    delay: Duration,
    is_remote: bool,
    has_no_feed: bool,
    cannot_expire: bool,
}

/// What is wrong with a verb.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    Fails(StoreErrorKind),
    FailsUntil(Instant),
    Hangs,
    /// It takes effect and says that it failed.
    FailsAfterEffect,
}

pub(crate) const AWAY: Fault = Fault::Fails(StoreErrorKind::Unavailable);

/// What a request asks of a store.
pub(crate) const VERBS: &[&str] = &[
    "create",
    "make_room",
    "load",
    "touch",
    "delete",
    "delete_idle",
    "expire",
    "change",
    "claim",
];

impl TestStore {
    /// The sessions of this one.
    pub(crate) fn over(memory: &MemoryStore) -> Self {
        Self {
            memory: memory.clone(),
            ..Self::default()
        }
    }

    /// It answers nothing from this process's memory.
    pub(crate) fn remote(self) -> Self {
        Self {
            is_remote: true,
            ..self
        }
    }

    /// The same store as a node sees it to which it has no feed.
    pub(crate) fn without_feed(self) -> Self {
        Self {
            has_no_feed: true,
            ..self
        }
    }

    /// It has no verb that says for certain whether a session is over, and makes a handle of each answer.
    pub(crate) fn without_expire(self) -> Self {
        Self {
            cannot_expire: true,
            ..self
        }
    }

    /// It is remote, and each verb takes this long before it takes effect.
    pub(crate) fn with_delay(self, delay: Duration) -> Self {
        Self { delay, ..self }.remote()
    }

    /// It is remote, and each verb yields before and after its effect, a little differently each time.
    pub(crate) fn yielding(self) -> Self {
        *self.pauses.lock() = 1;
        self.remote()
    }

    pub(crate) fn disturb(&self, verbs: &[&'static str], fault: Fault) {
        let mut faults = self.faults.lock();
        faults.extend(verbs.iter().map(|verb| (*verb, fault)));
    }

    pub(crate) fn recover(&self) {
        self.faults.lock().clear();
    }

    /// The verbs that were called since this was asked last.
    pub(crate) fn take_calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.calls.lock())
    }

    /// How often each of them was called.
    pub(crate) fn take_counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for verb in self.take_calls() {
            *counts.entry(verb).or_default() += 1;
        }
        counts
    }

    /// Looks without leaving a trace.
    pub(crate) async fn peek(&self, id: &str) -> Option<Found> {
        self.memory.load(&session_id(id)).await.unwrap()
    }

    pub(crate) async fn principal_of(&self, id: &str) -> Option<String> {
        let found = self.peek(id).await?;
        let principal = found.session.owner().principal.as_ref();
        principal.map(|principal| principal.as_str().to_owned())
    }

    async fn verb<T>(
        &self,
        verb: &'static str,
        effect: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.calls.lock().push(verb);
        self.pause().await;
        if !self.delay.is_zero() {
            sleep(self.delay).await;
        }
        let fault = self.faults.lock().get(verb).copied();
        let kind = match fault {
            Some(Fault::Hangs) => pending().await,
            Some(Fault::Fails(kind)) => kind,
            Some(Fault::FailsUntil(then)) if Instant::now() < then => StoreErrorKind::Unavailable,
            Some(Fault::FailsAfterEffect) => {
                effect.await?;
                StoreErrorKind::Unavailable
            }
            Some(Fault::FailsUntil(_)) | None => {
                let answer = effect.await;
                self.pause().await;
                return answer;
            }
        };
        Err(StoreError::new(kind, verb))
    }

    fn handed_out(&self, found: Option<Found>) -> Option<Found> {
        let mut found = found?;
        if self.cannot_expire {
            found.session = Session::new(found.session.id().clone(), found.session.record());
        }
        Some(found)
    }

    async fn pause(&self) {
        let random = {
            let mut pauses = self.pauses.lock();
            *pauses += if *pauses > 0 { 7 } else { 0 };
            *pauses
        };
        for _ in 0..(random.wrapping_mul(2_654_435_761)) >> 7 & 3 {
            yield_now().await;
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl SessionStore for TestStore {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        let copy = Session::new(session.id().clone(), session.record());
        let session = if self.cannot_expire { &copy } else { session };
        let effect = self.memory.create(session, terms);
        self.verb("create", effect).await
    }

    async fn make_room(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        let effect = self.memory.make_room(session, terms);
        self.verb("make_room", effect).await
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        let found = self.verb("load", self.memory.load(id)).await?;
        Ok(self.handed_out(found))
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        let effect = self.memory.touch(id, owner, idle);
        let found = self.verb("touch", effect).await?;
        Ok(self.handed_out(found))
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        let effect = self.memory.delete(id, reason);
        self.verb("delete", effect).await
    }

    async fn delete_idle(
        &self,
        id: &SessionId,
        left: Duration,
        reason: EndReason,
    ) -> Result<bool, StoreError> {
        if self.cannot_expire {
            let kind = StoreErrorKind::Unsupported;
            return Err(StoreError::new(kind, "delete_idle"));
        }
        let effect = self.memory.delete_idle(id, left, reason);
        self.verb("delete_idle", effect).await
    }

    async fn expire(&self, id: &SessionId) -> Result<Expiry, StoreError> {
        if self.cannot_expire {
            let kind = StoreErrorKind::Unsupported;
            return Err(StoreError::new(kind, "expire"));
        }
        self.verb("expire", self.memory.expire(id)).await
    }

    async fn change(
        &self,
        id: &SessionId,
        owner: &Owner,
        change: &Change,
    ) -> Result<Option<Found>, StoreError> {
        let effect = self.memory.change(id, owner, change);
        self.verb("change", effect).await
    }

    fn touch_now(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Now {
        if self.is_remote || self.faults.lock().contains_key("touch") {
            return Now::Unknown;
        }
        self.calls.lock().push("touch_now");
        self.memory.touch_now(id, owner, idle)
    }

    async fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        let effect = self.memory.claim(id, owner, idle);
        self.verb("claim", effect).await
    }

    fn is_shared(&self) -> bool {
        self.is_remote
    }

    fn directory(&self) -> Option<&dyn Directory> {
        self.memory.directory()
    }

    fn feed(&self) -> Option<Feed> {
        match self.has_no_feed {
            true => None,
            false => self.memory.feed(),
        }
    }
}
