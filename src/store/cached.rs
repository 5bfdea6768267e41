//! A store's answers, kept for a while in this process's memory.
//!
//! Long because the trait has many verbs, and each is a few lines here.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};

use self::{
    cache::{Cache, Forget},
    calls::{Answer, InFlight},
    entries::Known,
    listen::Listener,
};
use super::{
    Created, Directory, EndReason, Expiry, Feed, Found, Now, SessionStore, StoreError,
    StoreErrorKind, Terms,
};
use crate::{
    metrics,
    protocol::SessionId,
    session::{Change, Owner, Session},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

mod cache;
mod calls;
mod directory;
mod entries;
mod listen;
#[cfg(all(test, shuttle))]
mod permutations;
mod terms;
#[cfg(test)]
mod tests;

/// Answers from this process's memory what a slower store said a moment ago.
///
/// A session that the store behind it, the *primary*, has found live for an owner is taken as live for this owner for
/// `max_staleness`. Within that time a request on it costs what it costs with a [`MemoryStore`](super::MemoryStore),
/// and the primary hears nothing of it.
///
/// # What is put off
///
/// * **An end that comes from another node**, or a [`claim`](SessionStore::claim), counts here as soon as the primary's
///   [feed](SessionStore::feed) says so. Without a feed, or while it is interrupted, it counts after `max_staleness` at the
///   latest.
/// * **A touch** reaches the primary once in `max_staleness`. So that no session's time gets shorter, it lets the session live
///   for `max_staleness` more than it was told to: idle sessions live up to that much longer.
/// * **An absence** that the primary has told is told again for a second at most, and only to the same owner. A creation
///   here ends it at once.
///
/// Calls of [`touch`](SessionStore::touch) for one session at the same moment become one call. An end that is answered
/// here counts here from that moment, whatever was in flight.
///
/// # When the primary is away
///
/// A session that was found live within the last minute ([`with_max_outage`](Self::with_max_outage)), and has not expired
/// since, is served although the primary cannot be asked, and [counted](Self::stale_served). "Away" means that it said
/// [`StoreErrorKind::Unavailable`], or nothing for a second. Everything else is then an error.
///
/// # Wrapping
///
/// It does not implement [`Clone`]. Put it into an [`Arc`] to share it between layers.
///
/// # Panics
///
/// In a Tokio runtime without timers (`enable_time`), where something could be served while the primary is slow.
pub struct CachedStore<S> {
    store: S,
    max_staleness: Duration,
    max_outage: Duration,
    cache: Arc<Cache>,
    listener: Listener,
    /// Until when the primary is not asked about what can be served without it.
    away_until: Mutex<Option<Instant>>,
    stale_served: AtomicU64,
}

impl<S> CachedStore<S> {
    /// Puts a cache in front of a store.
    ///
    /// `max_staleness` has no default because it is a decision about security: where no feed says so earlier, a session
    /// that was ended on another node is accepted here for this long. Zero keeps nothing but what
    /// [an outage](Self::with_max_outage) needs.
    #[must_use]
    pub fn new(store: S, max_staleness: Duration) -> Self {
        Self {
            store,
            max_staleness,
            max_outage: MAX_OUTAGE,
            cache: Arc::new(Cache::new(MAX_ENTRIES)),
            listener: Listener::default(),
            away_until: Mutex::new(None),
            stale_served: AtomicU64::new(0),
        }
    }

    /// How many sessions are remembered at most. Default: 100,000.
    ///
    /// Some 200 bytes each, besides the sessions themselves. One more takes the place of one whose last answer is old.
    #[must_use]
    pub fn with_max_entries(mut self, entries: usize) -> Self {
        self.cache = Arc::new(Cache::new(entries));
        self.listener = Listener::default();
        self
    }

    /// For how long after its last answer a session is served while the primary is away. Default: 60 seconds. Zero: not at
    /// all.
    ///
    /// Like `max_staleness` a decision about security: for this long an end may go unheard.
    #[must_use]
    pub fn with_max_outage(mut self, outage: Duration) -> Self {
        self.max_outage = outage;
        self
    }

    /// How many answers were given without the primary because it was away.
    #[must_use]
    pub fn stale_served(&self) -> u64 {
        self.stale_served.load(Relaxed)
    }
}

impl<S> fmt::Debug for CachedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStore")
            .field("max_staleness", &self.max_staleness)
            .field("max_outage", &self.max_outage)
            .finish_non_exhaustive()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: SessionStore> SessionStore for CachedStore<S> {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.listen();
        let call = self.cache.calls.begin(*session.reference());
        let asked = Instant::now();
        let created = self
            .store
            .create(session, &self.terms_for_primary(terms))
            .await?;
        if let Created::New { evicted, .. } = &created {
            if let Some(evicted) = evicted {
                self.cache.forget(evicted);
            }
            let found = Found {
                session: session.clone(),
                age: Duration::ZERO,
                idle_left: terms
                    .life
                    .unwrap_or(Duration::MAX)
                    .min(terms.initial_idle)
                    .min(terms.idle),
                life_left: terms.life,
            };
            self.cache.learn(&call, Known::of_creation(found, asked));
        }
        Ok(created)
    }

    async fn make_room(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.listen();
        let terms = self.terms_for_primary(terms);
        let created = self.store.make_room(session, &terms).await?;
        if let Created::New {
            evicted: Some(evicted),
            ..
        } = &created
        {
            self.cache.forget(evicted);
        }
        Ok(created)
    }

    /// Asks the primary, always: it is the question whether a session is *really* live.
    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        self.listen();
        let found = self.store.load(id).await?;
        match &found {
            None => self.cache.forget(&id.reference()),
            Some(found) => self.cache.entries.remove_unless_owned_as(&found.session),
        }
        Ok(found)
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        match self.touch_now(id, owner, idle) {
            Now::Live(found) => return Ok(Some(found)),
            Now::Absent => return Ok(None),
            Now::Unknown => {}
        }
        if self.is_away()
            && let Some(found) = self.serve_stale(id, owner)
        {
            return Ok(Some(found));
        }
        let call = self
            .cache
            .calls
            .join(id.reference(), owner, idle, self.max_staleness);
        let ask = || self.ask(&call, id, owner, idle);
        match call.answer().get_or_init(ask).await {
            Ok(known) => Ok(known.as_ref().map(|known| known.found(Instant::now()))),
            Err(error) => {
                if error.kind() == StoreErrorKind::Unavailable
                    && let Some(found) = self.serve_stale(id, owner)
                {
                    return Ok(Some(found));
                }
                let shared = Arc::clone(error);
                Err(StoreError::new(error.kind(), "touch a session").with_source(shared))
            }
        }
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        self.listen();
        let reference = id.reference();
        let call = self.cache.calls.begin(reference);
        // The primary first. Then, and also if it failed or this call was cancelled, nothing here may say that the
        // session is live: it is not known.
        let _forget = Forget::later(&self.cache, reference);
        let live = self.store.delete(id, reason).await?;
        let _removed = call.finish(|| {
            let until = Instant::now() + self.max_absence();
            self.cache.entries.put_absent(id, None, until)
        });
        Ok(live)
    }

    /// Asks the primary, always. Whatever it says, nothing here may say that the session is live.
    async fn delete_idle(
        &self,
        id: &SessionId,
        left: Duration,
        reason: EndReason,
    ) -> Result<bool, StoreError> {
        self.listen();
        let _forget = Forget::later(&self.cache, id.reference());
        self.store.delete_idle(id, left, reason).await
    }

    /// Asks the primary, always.
    async fn expire(&self, id: &SessionId) -> Result<Expiry, StoreError> {
        self.listen();
        let expiry = self.store.expire(id).await?;
        match &expiry {
            Expiry::Over => self.cache.forget(&id.reference()),
            Expiry::Left(found) => self.cache.entries.remove_unless_owned_as(&found.session),
        }
        Ok(expiry)
    }

    async fn change(
        &self,
        id: &SessionId,
        owner: &Owner,
        change: &Change,
    ) -> Result<Option<Found>, StoreError> {
        self.listen();
        // Also if it fails or is cancelled: it is not known then what they are.
        let _forget = Forget::later(&self.cache, id.reference());
        self.store.change(id, owner, change).await
    }

    fn touch_now(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Now {
        self.listen();
        let now = Instant::now();
        self.cache.entries.look(id, owner, now, |known| {
            known.covers(now, idle, self.max_staleness)
        })
    }

    async fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.listen();
        let reference = id.reference();
        let call = self.cache.calls.begin(reference);
        // Unless the claim succeeds: another may have, or this one without an answer.
        let mut forget = Forget::later(&self.cache, reference);
        let asked = Instant::now();
        let found = self
            .store
            .claim(id, owner, self.idle_for_primary(idle))
            .await?;
        if let Some(found) = &found {
            forget.not();
            self.cache
                .learn(&call, Known::of_touch(found.clone(), asked));
        }
        Ok(found)
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn directory(&self) -> Option<&dyn Directory> {
        self.store.directory().map(|_| self as &dyn Directory)
    }

    fn feed(&self) -> Option<Feed> {
        let feed = self.store.feed()?;
        Some(listen::forgetting(feed, &self.cache))
    }
}

impl<S: SessionStore> CachedStore<S> {
    /// Asks the primary, for all who wait for the answer, and remembers what it says.
    async fn ask(
        &self,
        call: &InFlight<'_>,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Answer {
        // The primary looks at its clock later than this, so that what it says is left ends later than what is left from
        // here. Never the other way round.
        let asked = Instant::now();
        let touch = self.store.touch(id, owner, self.idle_for_primary(idle));
        let answer = match Handle::try_current() {
            // Where something can be served instead, the wait is short.
            Ok(_) if self.stale(id, owner).is_some() => {
                timeout(PATIENCE, touch).await.unwrap_or_else(|_| {
                    Err(StoreError::new(
                        StoreErrorKind::Unavailable,
                        "touch a session",
                    ))
                })
            }
            _ => touch.await,
        };
        let answer = answer.map(|found| found.map(|found| Known::of_touch(found, asked)));
        let _replaced = call.finish(|| match &answer {
            Ok(Some(known)) => self.cache.entries.put(known.clone()),
            Ok(None) => {
                let until = asked + self.max_absence();
                self.cache.entries.put_absent(id, Some(owner), until)
            }
            Err(_) => Vec::new(),
        });
        let is_away = matches!(&answer, Err(error) if error.kind() == StoreErrorKind::Unavailable);
        *self.away_until.lock() = is_away.then(|| Instant::now() + PATIENCE);
        answer.map_err(Arc::new)
    }

    fn is_away(&self) -> bool {
        self.away_until
            .lock()
            .is_some_and(|until| Instant::now() < until)
    }

    /// What may be answered while the primary is away.
    fn stale(&self, id: &SessionId, owner: &Owner) -> Option<Found> {
        let now = Instant::now();
        let answer = self.cache.entries.look(id, owner, now, |known| {
            known.outlasts_outage(now, self.max_outage)
        });
        match answer {
            Now::Live(found) => Some(found),
            Now::Absent | Now::Unknown => None,
        }
    }

    fn serve_stale(&self, id: &SessionId, owner: &Owner) -> Option<Found> {
        let found = self.stale(id, owner)?;
        self.stale_served.fetch_add(1, Relaxed);
        metrics::stale_served();
        Some(found)
    }

    fn max_absence(&self) -> Duration {
        self.max_staleness.min(MAX_ABSENCE)
    }

    fn listen(&self) {
        self.listener.start(|| self.feed(), &self.cache);
    }
}

const MAX_ENTRIES: usize = 100_000;
const MAX_OUTAGE: Duration = Duration::from_secs(60);
const MAX_ABSENCE: Duration = Duration::from_secs(1);

/// How long a primary that says nothing is waited for, where something can be served without it; and how long it then
/// counts as away.
const PATIENCE: Duration = Duration::from_secs(1);
