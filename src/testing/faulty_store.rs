//! A store that fails as it is told to.

use std::{
    collections::HashMap,
    fmt,
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    protocol::SessionId,
    session::{Change, Owner, Session},
    store::{
        Created, Directory, EndReason, Expiry, Feed, Found, Now, SessionStore, StoreError,
        StoreErrorKind, Terms,
    },
};

/// A method of a [`SessionStore`] that takes a round trip where the store is remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // Each is named after its method.
pub enum Verb {
    Create,
    MakeRoom,
    Load,
    Touch,
    Delete,
    DeleteIdle,
    Expire,
    Change,
    Claim,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Create,
        Self::MakeRoom,
        Self::Load,
        Self::Touch,
        Self::Delete,
        Self::DeleteIdle,
        Self::Expire,
        Self::Change,
        Self::Claim,
    ];

    /// What it does, for errors.
    fn doing(self) -> &'static str {
        match self {
            Self::Create => "create a session",
            Self::MakeRoom => "make room for a session",
            Self::Load => "load a session",
            Self::Touch => "touch a session",
            Self::Delete => "delete a session",
            Self::DeleteIdle => "delete an idle session",
            Self::Expire => "ask whether a session is over",
            Self::Change => "change a session's values",
            Self::Claim => "claim a session",
        }
    }
}

/// What is wrong with a [`Verb`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It takes no effect and says that it failed.
    Fails(StoreErrorKind),
    /// It takes effect and says that it failed: the answer was lost.
    FailsAfterEffect(StoreErrorKind),
    /// It waits this long before it takes effect.
    Delays(Duration),
    /// It takes effect, and answers this much later.
    AnswersLate(Duration),
    /// It takes no effect and never answers.
    Hangs,
    /// It takes no effect and says that it did, as before a failover to a replica that was behind.
    LosesWrites,
}

/// A store around another, which fails as it is told to, and counts its calls.
///
/// Clones share the store, the faults and the counts. The directory and the feed are the inner store's, and never fail.
///
/// While [`Verb::Touch`] has a fault, [`touch_now`](SessionStore::touch_now) leaves every answer to
/// [`touch`](SessionStore::touch), as a remote store does.
pub struct FaultyStore<S>(Arc<Shared<S>>);

struct Shared<S> {
    store: S,
    faults: Mutex<HashMap<Verb, Fault>>,
    calls: Mutex<HashMap<Verb, u64>>,
}

impl<S> FaultyStore<S> {
    /// A store with no faults yet.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self(Arc::new(Shared {
            store,
            faults: Mutex::default(),
            calls: Mutex::default(),
        }))
    }

    /// The store inside.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.0.store
    }

    /// From now on these verbs have this fault, and no other. A call that has begun has those of its beginning.
    pub fn disturb(&self, verbs: impl IntoIterator<Item = Verb>, fault: Fault) {
        let faults = verbs.into_iter().map(|verb| (verb, fault));
        self.0.faults.lock().extend(faults);
    }

    /// From now on nothing is wrong.
    pub fn recover(&self) {
        self.0.faults.lock().clear();
    }

    /// How often this verb was called, tries that failed included.
    #[must_use]
    pub fn calls(&self, verb: Verb) -> u64 {
        self.0.calls.lock().get(&verb).copied().unwrap_or_default()
    }

    fn count(&self, verb: Verb) -> Option<Fault> {
        *self.0.calls.lock().entry(verb).or_default() += 1;
        self.0.faults.lock().get(&verb).copied()
    }

    /// `effect` is what the verb does, `pretence` what it answers if that is lost.
    async fn call<T>(
        &self,
        verb: Verb,
        effect: impl Future<Output = Result<T, StoreError>>,
        pretence: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match self.count(verb) {
            None => effect.await,
            Some(Fault::Fails(kind)) => Err(StoreError::new(kind, verb.doing())),
            Some(Fault::FailsAfterEffect(kind)) => {
                effect.await?;
                Err(StoreError::new(kind, verb.doing()))
            }
            Some(Fault::Delays(delay)) => {
                sleep(delay).await;
                effect.await
            }
            Some(Fault::AnswersLate(delay)) => {
                let answer = effect.await;
                sleep(delay).await;
                answer
            }
            Some(Fault::Hangs) => pending().await,
            Some(Fault::LosesWrites) => pretence.await,
        }
    }
}

impl<S: SessionStore> FaultyStore<S> {
    /// Reads a session of this owner, as what it would be after this change of the handle.
    async fn pretend(
        &self,
        id: &SessionId,
        change: impl FnOnce(&Session) -> bool,
    ) -> Result<Option<Found>, StoreError> {
        let found = self.inner().load(id).await?;
        let found = found.map(|found| Found {
            // Not the store's own, which would be a write.
            session: found.session.twin(),
            ..found
        });
        Ok(found.filter(|found| change(&found.session)))
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: SessionStore> SessionStore for FaultyStore<S> {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        let pretence = async {
            Ok(match self.inner().load(session.id()).await? {
                Some(_) => Created::Exists,
                None => NEW,
            })
        };
        let effect = self.inner().create(session, terms);
        self.call(Verb::Create, effect, pretence).await
    }

    async fn make_room(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        let effect = self.inner().make_room(session, terms);
        self.call(Verb::MakeRoom, effect, async { Ok(NEW) }).await
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        let (effect, same) = (self.inner().load(id), self.inner().load(id));
        self.call(Verb::Load, effect, same).await
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        let pretence = async {
            let found = self.pretend(id, |session| session.owner() == owner).await?;
            Ok(found.map(|found| extended(found, idle)))
        };
        let effect = self.inner().touch(id, owner, idle);
        self.call(Verb::Touch, effect, pretence).await
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        let pretence = async { Ok(self.inner().load(id).await?.is_some()) };
        let effect = self.inner().delete(id, reason);
        self.call(Verb::Delete, effect, pretence).await
    }

    async fn delete_idle(
        &self,
        id: &SessionId,
        left: Duration,
        reason: EndReason,
    ) -> Result<bool, StoreError> {
        let pretence = async {
            let found = self.inner().load(id).await?;
            Ok(found.is_some_and(|found| found.idle_left <= left))
        };
        let effect = self.inner().delete_idle(id, left, reason);
        self.call(Verb::DeleteIdle, effect, pretence).await
    }

    async fn expire(&self, id: &SessionId) -> Result<Expiry, StoreError> {
        let pretence = async {
            Ok(match self.inner().load(id).await? {
                Some(found) => Expiry::Left(found),
                None => Expiry::Over,
            })
        };
        self.call(Verb::Expire, self.inner().expire(id), pretence)
            .await
    }

    async fn change(
        &self,
        id: &SessionId,
        owner: &Owner,
        change: &Change,
    ) -> Result<Option<Found>, StoreError> {
        let pretence = self.pretend(id, |session| {
            session.owner() == owner && session.change_values(change).is_ok()
        });
        let effect = self.inner().change(id, owner, change);
        self.call(Verb::Change, effect, pretence).await
    }

    fn touch_now(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Now {
        if self.0.faults.lock().contains_key(&Verb::Touch) {
            return Now::Unknown;
        }
        let now = self.inner().touch_now(id, owner, idle);
        if !matches!(now, Now::Unknown) {
            self.count(Verb::Touch);
        }
        now
    }

    async fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        let pretence = async {
            let found = self.pretend(id, |session| session.claim(owner)).await?;
            Ok(found.map(|found| extended(found, idle)))
        };
        let effect = self.inner().claim(id, owner, idle);
        self.call(Verb::Claim, effect, pretence).await
    }

    fn is_shared(&self) -> bool {
        self.inner().is_shared()
    }

    fn directory(&self) -> Option<&dyn Directory> {
        self.inner().directory()
    }

    fn feed(&self) -> Option<Feed> {
        self.inner().feed()
    }
}

impl<S> Clone for FaultyStore<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: fmt::Debug> fmt::Debug for FaultyStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore")
            .field("store", &self.0.store)
            .field("faults", &*self.0.faults.lock())
            .finish_non_exhaustive()
    }
}

/// As a touch would leave it.
fn extended(found: Found, idle: Duration) -> Found {
    let idle = found.life_left.map_or(idle, |left| idle.min(left));
    Found {
        idle_left: found.idle_left.max(idle),
        ..found
    }
}

const NEW: Created = Created::New {
    left: None,
    evicted: None,
};
