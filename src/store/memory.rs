//! Sessions in this process's memory.

use std::{
    fmt,
    hash::BuildHasher as _,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use foldhash::quality::RandomState;

use self::{
    ends::Ends,
    evict::{Among, Place},
    owners::Owners,
    revocations::Revocations,
    scopes::{NoRoom, ScopeCount, ScopeCounts},
    shard::{Sessions, Shard, has_expired},
};
use super::{
    AtLimit, Created, Directory, EndReason, Feed, Found, Limit, Now, SessionStore, StoreError,
    Terms,
};
use crate::{
    protocol::{SessionId, SessionRef},
    session::{
        Owner, Session,
        times::{self, Tick, ticks},
    },
};

mod directory;
mod ends;
mod evict;
mod owners;
mod revocations;
mod scopes;
mod shard;
#[cfg(test)]
mod tests;

/// Keeps sessions in this process's memory. The default, and all that one process needs.
///
/// A look-up hashes the id once, takes one short lock and allocates nothing. It needs no runtime: time is tokio's
/// [`Instant`](tokio::time::Instant), which also works outside one, and nothing is spawned. Sessions whose time is up are gone from that
/// instant; their memory is freed piecemeal by the sessions created afterwards, or at once by [`sweep`](Self::sweep).
///
/// Limits are exact. Clones share their sessions. A restart forgets them all.
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

struct Inner {
    hasher: RandomState,
    shards: Box<[Shard]>,
    /// For each shard an instant before which nothing in it expires. Side by side, so that a creation can look at all of
    /// them. Lowered under the shard's write lock, raised under either.
    next_expiry: Box<[AtomicU64]>,
    scopes: ScopeCounts,
    owners: Owners,
    revocations: Revocations,
    ends: Ends,
    /// How many creations have swept a little.
    steps: AtomicUsize,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            next_expiry: (0..SHARDS).map(|_| AtomicU64::new(Tick::MAX)).collect(),
            scopes: ScopeCounts::default(),
            owners: Owners::default(),
            revocations: Revocations::default(),
            ends: Ends::default(),
            steps: AtomicUsize::new(0),
        }))
    }

    /// Frees the memory of all sessions whose time is up.
    ///
    /// Nobody has to call this: every creation sweeps a little, so that garbage stays a small part of the whole. It is
    /// for a process that wants its memory back although no session is created. It holds no lock for long and lets
    /// other tasks run in between.
    pub async fn sweep(&self) {
        for shard in 0..self.0.shards.len() {
            self.0.sweep_shard(shard, times::now());
            tokio::task::yield_now().await;
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[deny(clippy::missing_trait_methods)]
impl SessionStore for MemoryStore {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        // Read before any lock is waited for: `started_ago` counts back from the call.
        let now = times::now();
        if terms.total.is_some() || terms.per_principal.is_some() {
            // What has expired must not count against the newcomer.
            self.0.purge(now).await;
        } else {
            self.0.sweep_a_little(now);
        }
        Ok(self.0.create(session, terms, now))
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        let hash = self.0.hasher.hash_one(id);
        let now = times::now();
        let sessions = self.0.shard(hash).read();
        Ok(sessions.find(hash, id).and_then(|session| {
            let until = session.times().live_until(now)?;
            Some(found(session, now, until))
        }))
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        Ok(self.0.touch(id, owner, idle))
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        let hash = self.0.hasher.hash_one(id);
        let is_meant = |session: &Session| session.id() == id;
        let ended = self.0.end(hash, times::now(), reason, is_meant);
        Ok(ended.is_some())
    }

    #[inline]
    fn touch_now(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Now {
        match self.0.touch(id, owner, idle) {
            Some(found) => Now::Live(found),
            None => Now::Absent,
        }
    }

    async fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        Ok(self.0.claim(id, owner, idle))
    }

    fn directory(&self) -> Option<&dyn Directory> {
        Some(self)
    }

    fn feed(&self) -> Option<Feed> {
        Some(self.0.ends.subscribe())
    }
}

// The locks are taken in this order: a shard's, an owner's, and inside those the log of revocations. No verb
// holds two shards.
impl Inner {
    #[inline]
    fn touch(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Option<Found> {
        let hash = self.hasher.hash_one(id);
        let now = times::now();
        let sessions = self.shard(hash).read();
        let session = sessions.find(hash, id)?;
        if session.owner() != owner {
            return None;
        }
        let until = session.times().touch(now, idle)?;
        Some(found(session, now, until))
    }

    fn create(&self, session: &Session, terms: &Terms, now: Tick) -> Created {
        // A handle is in one table at most, since its times are what the table goes by.
        let session = match session.state().keep() {
            true => session.clone(),
            false => session.twin(),
        };
        session.state().keep();
        let created = self.create_within_limits(&session, terms, now);
        if !matches!(created, Created::New { .. }) {
            session.state().release();
        }
        created
    }

    fn create_within_limits(&self, session: &Session, terms: &Terms, now: Tick) -> Created {
        let hash = self.hash(session);
        let scope = self.scopes.of(&session.owner().scope);
        let mut evicted = None;
        let mut place = Place::default();
        let created = loop {
            let departures = scope.departures();
            let limit = match self.insert(session, hash, &scope, place, terms, now) {
                Created::Full(limit) => limit,
                Created::New { left, .. } => return Created::New { left, evicted },
                refused => break refused,
            };
            let AtLimit::Evict { untouched } = terms.at_limit else {
                break Created::Full(limit);
            };
            let among = match limit {
                Limit::Total => Among::Scope(&scope),
                Limit::PerPrincipal => Among::Owner(session.owner()),
            };
            let Some(victim) = self.victim(among, hash, now, untouched) else {
                // Unless those that could have gone did so just before they were looked at.
                if scope.departures() != departures {
                    continue;
                }
                break Created::Full(limit);
            };
            // Another thread may be faster. Then there is another try.
            let gone = self.evict(&victim, among, session, hash, terms, now, untouched);
            if let Some((reference, its_place)) = gone {
                self.give_back(place, &scope, session, hash);
                place = its_place;
                evicted = Some(reference);
            }
        };
        self.give_back(place, &scope, session, hash);
        created
    }

    /// One attempt at a creation, within the locks that make it one step: of the shard, so that the id stays free; of
    /// the owner, so that its sessions stay as many, and an `end_all` sees either the session or is seen by it.
    fn insert(
        &self,
        session: &Session,
        hash: u64,
        scope: &Arc<ScopeCount>,
        place: Place,
        terms: &Terms,
        now: Tick,
    ) -> Created {
        // Declared before the lock's guard and therefore dropped after it.
        let _expired;
        let mut sessions = self.shard(hash).write();
        if let Some(other) = sessions.find(hash, session.id()) {
            if !has_expired(other, now) {
                return Created::Exists;
            }
            _expired = self.take(&mut sessions, hash, |other| other.id() == session.id());
        }
        let mut owned = self.owners.lock(session.owner());
        let started = now.saturating_sub(ticks(terms.started_ago));
        if self.revocations.revoked(session.owner(), started) {
            return Created::Revoked;
        }
        if let (Some(owned), Some(limit)) = (&owned, terms.per_principal)
            && !place.of_principal
            && owned.count() >= limit.get()
        {
            return Created::Full(Limit::PerPrincipal);
        }
        let count = match place.in_scope {
            true => scope.sessions(),
            false => match scope.enter(terms.total) {
                Ok(count) => count,
                Err(NoRoom) => return Created::Full(Limit::Total),
            },
        };
        if let Some(owned) = &mut owned
            && !place.of_principal
        {
            owned.add(hash, session.clone());
        }
        let idle = terms.idle.min(terms.initial_idle);
        session.times().start(now, idle, terms.life);
        let next_expiry = &self.next_expiry[shard_of(hash, SHARDS)];
        if session.times().until() < next_expiry.load(Relaxed) {
            next_expiry.store(session.times().until(), Relaxed);
        }
        sessions.insert(hash, session.clone());
        Created::New {
            left: terms.total.map(|total| total.get().saturating_sub(count)),
            evicted: None,
        }
    }

    fn claim(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Option<Found> {
        let hash = self.hasher.hash_one(id);
        let now = times::now();
        // Held, so that the session does not end between being claimed and being counted.
        let sessions = self.shard(hash).write();
        let session = sessions.find(hash, id)?;
        let theirs = session.owner();
        let is_anonymous = theirs.scope == owner.scope && theirs.principal.is_none();
        if theirs != owner && !is_anonymous {
            return None;
        }
        let until = session.times().touch(now, idle)?;
        if theirs != owner {
            session.claim(owner);
            if let Some(mut owned) = self.owners.lock(owner) {
                owned.add(hash, session.clone());
            }
        }
        Some(found(session, now, until))
    }

    /// Removes the session that this describes, and announces its end if it was live.
    fn end(
        &self,
        hash: u64,
        now: Tick,
        reason: EndReason,
        is_meant: impl Fn(&Session) -> bool,
    ) -> Option<SessionRef> {
        // The guard goes at the end of this statement; the session outlives it.
        let session = self.take(&mut self.shard(hash).write(), hash, is_meant)?;
        session.times().live_until(now)?;
        let reference = *session.reference();
        self.ends.announce(reference, reason);
        Some(reference)
    }

    /// Takes a session out of the table and out of all counts. To be dropped when the lock is released: the values
    /// that a session carries run code of the application when they are dropped.
    fn take(
        &self,
        sessions: &mut Sessions,
        hash: u64,
        is_meant: impl Fn(&Session) -> bool,
    ) -> Option<Session> {
        let session = sessions.take(hash, is_meant)?;
        self.scopes.of(&session.owner().scope).leave();
        if let Some(mut owned) = self.owners.lock(session.owner()) {
            owned.remove(hash, &session);
        }
        Some(session)
    }

    /// Removes everything that has expired. Looks only into shards in which something may have, and lets other tasks
    /// run after each.
    async fn purge(&self, now: Tick) {
        for (shard, next_expiry) in self.next_expiry.iter().enumerate() {
            while next_expiry.load(Relaxed) <= now {
                self.sweep_shard(shard, now);
                tokio::task::yield_now().await;
            }
        }
    }

    /// Looks under the read lock, so that look-ups go on, then removes in short sections under the write lock.
    fn sweep_shard(&self, shard: usize, now: Tick) {
        let (shard, next_expiry) = (&self.shards[shard], &self.next_expiry[shard]);
        let expired = shard.read().look_for_expired(now);
        self.remove_expired(shard, &expired.sessions, now);
        // Under the lock, so that nothing is created before it is written down.
        let sessions = shard.read();
        if let Some(next) = sessions.next_expiry(&expired) {
            next_expiry.store(next, Relaxed);
        }
    }

    /// Each creation adds one session and looks at a few, so that what has expired cannot pile up.
    fn sweep_a_little(&self, now: Tick) {
        let step = self.steps.fetch_add(1, Relaxed);
        let shard = &self.shards[step % self.shards.len()];
        let window = step / self.shards.len();
        let expired = shard.read().expired_among(window, STEP, now);
        self.remove_expired(shard, &expired, now);
    }

    fn remove_expired(&self, shard: &Shard, expired: &[Session], now: Tick) {
        for section in expired.chunks(SECTION) {
            // Declared before the lock's guard and therefore dropped after it.
            let mut removed = Vec::with_capacity(section.len());
            let mut sessions = shard.write();
            for session in section {
                let hash = self.hash(session);
                let is_meant = |other: &Session| other.is(session) && has_expired(other, now);
                removed.extend(self.take(&mut sessions, hash, is_meant));
            }
        }
    }

    fn hash(&self, session: &Session) -> u64 {
        self.hasher.hash_one(session.id())
    }

    #[inline]
    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[shard_of(hash, SHARDS)]
    }
}

#[inline]
fn found(session: &Session, now: Tick, until: Tick) -> Found {
    let (age, idle_left, life_left) = session.times().left(now, until);
    Found {
        session: session.clone(),
        age,
        idle_left,
        life_left,
    }
}

/// Which of so many shards (a power of two) a hash belongs to. hashbrown takes the bucket from the low bits and the
/// tag from the top seven, [`Table`](crate::session::Table) the low half: this takes bits between them.
pub(super) fn shard_of(hash: u64, shards: usize) -> usize {
    (hash >> 40) as usize & (shards - 1)
}

/// A power of two. So many keep a sweep's hold on a lock under 0.2 ms at a million sessions.
const SHARDS: usize = 512;

/// How many buckets of five a creation looks at. A table has one for each session at the most.
const STEP: usize = 16;

/// How many sessions are removed under one hold of a write lock.
const SECTION: usize = 32;
