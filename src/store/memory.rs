//! Sessions in this process's memory.

use std::{fmt, hash::BuildHasher as _, sync::Arc, time::Duration};

use foldhash::quality::RandomState;

use self::{
    create::Purpose,
    ends::Ends,
    owners::Owners,
    revocations::Revocations,
    scopes::ScopeCounts,
    shard::{Sessions, Shard},
};
use super::{
    Created, Directory, EndReason, Expiry, Feed, FeedEvent, Found, Now, SessionStore, StoreError,
    StoreErrorKind, Terms,
};
use crate::{
    protocol::{SessionId, SessionRef},
    session::{
        Change, Owner, Session, ValuesTooLarge,
        times::{self, Tick, ticks},
    },
    sync::atomic::{AtomicU64, AtomicUsize},
};

mod candidates;
mod create;
mod directory;
mod ends;
mod evict;
mod owners;
#[cfg(all(test, shuttle))]
mod permutations;
mod revocations;
mod scopes;
mod shard;
mod sweep;
#[cfg(test)]
mod tests;

/// Keeps sessions in this process's memory. The default, and all that one process needs.
///
/// A look-up hashes the id once, takes one short lock and allocates nothing. It needs no runtime: time is tokio's
/// [`Instant`](tokio::time::Instant), which also works outside one, and nothing is spawned. An expired session is gone from
/// that instant; its memory is freed piecemeal by the sessions created afterwards, or at once by [`sweep`](Self::sweep).
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

    /// Frees the memory of all expired sessions.
    ///
    /// Calling it is optional: every creation sweeps a little, so that garbage stays a small part of the whole. It is
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
            // What has expired must not count against the new session.
            self.0.purge(now).await;
        } else {
            self.0.sweep_a_little(now);
        }
        let purpose = Purpose::Insert;
        Ok(self.0.create(session, terms, purpose, now).await)
    }

    async fn make_room(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        let now = times::now();
        self.0.purge(now).await;
        let purpose = Purpose::MakeRoom;
        Ok(self.0.create(session, terms, purpose, now).await)
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

    async fn delete_idle(
        &self,
        id: &SessionId,
        left: Duration,
        reason: EndReason,
    ) -> Result<bool, StoreError> {
        let hash = self.0.hasher.hash_one(id);
        let now = times::now();
        let latest = now.saturating_add(ticks(left));
        // Asked under the lock, where no touch is under way.
        let is_meant = |session: &Session| session.id() == id && session.times().until() <= latest;
        Ok(self.0.end(hash, now, reason, is_meant).is_some())
    }

    async fn expire(&self, id: &SessionId) -> Result<Expiry, StoreError> {
        Ok(match self.0.expire(id) {
            Some(found) => Expiry::Left(found),
            None => Expiry::Over,
        })
    }

    async fn change(
        &self,
        id: &SessionId,
        owner: &Owner,
        change: &Change,
    ) -> Result<Option<Found>, StoreError> {
        let changed = self.0.change(id, owner, change);
        changed.map_err(|error| {
            StoreError::new(StoreErrorKind::TooLarge, "change a session's values")
                .with_source(error)
        })
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

    fn is_shared(&self) -> bool {
        false
    }

    fn directory(&self) -> Option<&dyn Directory> {
        Some(self)
    }

    fn feed(&self) -> Option<Feed> {
        Some(self.0.ends.subscribe())
    }
}

// The locks are taken in this order: a shard's, an owner's, and inside those the log of revocations. No method
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
            let reference = *session.reference();
            self.ends.send(FeedEvent::Changed { reference });
        }
        Some(found(session, now, until))
    }

    fn change(
        &self,
        id: &SessionId,
        owner: &Owner,
        change: &Change,
    ) -> Result<Option<Found>, ValuesTooLarge> {
        let hash = self.hasher.hash_one(id);
        let now = times::now();
        // Held, so that the session does not end before its change is announced.
        let sessions = self.shard(hash).write();
        let Some(session) = sessions.find(hash, id) else {
            return Ok(None);
        };
        if session.owner() != owner {
            return Ok(None);
        }
        let Some(until) = session.times().live_until(now) else {
            return Ok(None);
        };
        if session.change_values(change)? {
            let reference = *session.reference();
            self.ends.send(FeedEvent::Changed { reference });
        }
        Ok(Some(found(session, now, until)))
    }

    /// The session, if its time is not up. Otherwise removes it, if it is still there.
    fn expire(&self, id: &SessionId) -> Option<Found> {
        let hash = self.hasher.hash_one(id);
        // Declared before the lock's guard and therefore dropped after it.
        let _expired;
        let mut sessions = self.shard(hash).write();
        // Read under the lock. A touch that reads the clock earlier and looks later finds nothing.
        let now = times::now();
        let session = sessions.find(hash, id)?;
        if let Some(until) = session.times().live_until(now) {
            return Some(found(session, now, until));
        }
        _expired = self.take(&mut sessions, hash, |session| session.id() == id);
        None
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
const SHARDS: usize = if cfg!(shuttle) { 2 } else { 512 };
