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
use tokio::time::Instant;

use self::{
    ends::Ends,
    evict::{Among, Place},
    owners::Owners,
    revoked::Revocations,
    shard::{Shard, Slot, Table},
    tally::{NoRoom, Tallies, Tally},
};
use super::{
    AtLimit, Created, Directory, EndReason, Feed, Found, Limit, Now, SessionStore, StoreError,
    Terms,
};
use crate::{
    protocol::{SessionId, SessionRef},
    session::{Owner, Session, SessionRecord},
};

mod directory;
mod ends;
mod evict;
mod owners;
mod revoked;
mod shard;
mod tally;
#[cfg(test)]
mod tests;

/// Keeps sessions in this process's memory. The default, and all that one process needs.
///
/// A look-up hashes the id once, takes one short lock and allocates nothing. It needs no runtime: time is tokio's
/// [`Instant`], which also works outside one, and nothing is spawned. Sessions whose time is up are gone from that
/// instant; their memory is freed piecemeal by the births that follow, or at once by [`sweep`](Self::sweep).
///
/// Limits are exact. Clones share their sessions. A restart forgets them all.
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

struct Inner {
    hasher: RandomState,
    epoch: Instant,
    shards: Box<[Shard]>,
    /// For each shard an instant before which nothing in it expires. Side by side, so that a birth can look at all of
    /// them. Lowered under the shard's write lock, raised under either.
    next_expiry: Box<[AtomicU64]>,
    tallies: Tallies,
    owners: Owners,
    revocations: Revocations,
    ends: Ends,
    /// How many births have swept a little.
    steps: AtomicUsize,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            hasher: RandomState::default(),
            epoch: Instant::now(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            next_expiry: (0..SHARDS).map(|_| AtomicU64::new(Tick::MAX)).collect(),
            tallies: Tallies::default(),
            owners: Owners::default(),
            revocations: Revocations::default(),
            ends: Ends::default(),
            steps: AtomicUsize::new(0),
        }))
    }

    /// Frees the memory of all sessions whose time is up.
    ///
    /// Nobody has to call this: every birth sweeps a little, so that garbage stays a small part of the whole. It is
    /// for a process that wants its memory back although nothing is being born. It holds no lock for long and lets
    /// other tasks run in between.
    pub async fn sweep(&self) {
        for shard in 0..self.0.shards.len() {
            self.0.sweep_shard(shard, self.0.now());
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
        let now = self.0.now();
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
        let now = self.0.now();
        let table = self.0.shard(hash).read();
        Ok(table.find(hash, id).and_then(|slot| {
            let until = slot.live_until(now)?;
            Some(slot.found(now, until))
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
        let ended = self
            .0
            .end(hash, self.0.now(), reason, |slot| slot.session.id() == id);
        Ok(ended.is_some())
    }

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
    fn touch(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Option<Found> {
        let hash = self.hasher.hash_one(id);
        let now = self.now();
        let table = self.shard(hash).read();
        let slot = table.find(hash, id)?;
        if slot.session.owner() != owner {
            return None;
        }
        let until = slot.touch(now, idle)?;
        Some(slot.found(now, until))
    }

    fn create(&self, session: &Session, terms: &Terms, now: Tick) -> Created {
        let hash = self.hasher.hash_one(session.id());
        let tally = self.tallies.of(&session.owner().scope);
        let mut evicted = None;
        let mut place = Place::default();
        let created = loop {
            let departures = tally.departures();
            let limit = match self.insert(session, hash, &tally, place, terms, now) {
                Created::Full(limit) => limit,
                Created::New { left, .. } => return Created::New { left, evicted },
                refused => break refused,
            };
            let AtLimit::Evict { untouched } = terms.at_limit else {
                break Created::Full(limit);
            };
            let among = match limit {
                Limit::Total => Among::Scope(&tally),
                Limit::PerPrincipal => Among::Owner(session.owner()),
            };
            let Some(victim) = self.victim(among, hash, now, untouched) else {
                // Unless those that could have gone did so just before they were looked at.
                if tally.departures() != departures {
                    continue;
                }
                break Created::Full(limit);
            };
            // Another thread may be faster. Then there is another try.
            let gone = self.evict(victim, among, hash, terms, now, untouched);
            if let Some((reference, its_place)) = gone {
                self.give_back(place, &tally, session.owner(), hash);
                place = its_place;
                evicted = Some(reference);
            }
        };
        self.give_back(place, &tally, session.owner(), hash);
        created
    }

    /// One attempt at a birth, within the locks that make it one step: of the shard, so that the id stays free; of
    /// the owner, so that its sessions stay as many, and an `end_all` sees either the session or is seen by it.
    fn insert(
        &self,
        session: &Session,
        hash: u64,
        tally: &Arc<Tally>,
        place: Place,
        terms: &Terms,
        now: Tick,
    ) -> Created {
        // Declared before the lock's guard and therefore dropped after it.
        let _expired;
        let mut table = self.shard(hash).write();
        if let Some(slot) = table.find(hash, session.id()) {
            if slot.live_until(now).is_some() {
                return Created::Exists;
            }
            _expired = self.take(&mut table, hash, |slot| slot.session.id() == session.id());
        }
        let mut owned = self.owners.lock(session.owner());
        let began = now.saturating_sub(ticks(terms.started_ago));
        if self.revocations.revoked(session.owner(), began) {
            return Created::Revoked;
        }
        if let (Some(owned), Some(limit)) = (&owned, terms.per_principal)
            && !place.of_principal
            && owned.count() >= limit.get()
        {
            return Created::Full(Limit::PerPrincipal);
        }
        let count = match place.in_scope {
            true => tally.sessions(),
            false => match tally.enter(terms.total) {
                Ok(count) => count,
                Err(NoRoom) => return Created::Full(Limit::Total),
            },
        };
        if let Some(owned) = &mut owned
            && !place.of_principal
        {
            owned.enter(hash);
        }
        let slot = Slot::new(session.clone(), hash, Arc::clone(tally), now, terms);
        let next_expiry = &self.next_expiry[shard_of(hash, SHARDS)];
        if slot.expiry() < next_expiry.load(Relaxed) {
            next_expiry.store(slot.expiry(), Relaxed);
        }
        table.insert(slot);
        Created::New {
            left: terms.total.map(|total| total.get().saturating_sub(count)),
            evicted: None,
        }
    }

    fn claim(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Option<Found> {
        let hash = self.hasher.hash_one(id);
        let now = self.now();
        // Declared before the lock's guard and therefore dropped after it.
        let _nobodys;
        let mut table = self.shard(hash).write();
        let slot = table.find_mut(hash, id)?;
        let theirs = slot.session.owner();
        let nobodys = theirs.scope == owner.scope && theirs.principal.is_none();
        if theirs != owner && !nobodys {
            return None;
        }
        let until = slot.touch(now, idle)?;
        if slot.session.owner() != owner {
            let record = SessionRecord {
                owner: owner.clone(),
                ..slot.session.record()
            };
            let claimed = slot.session.with_record(record);
            _nobodys = std::mem::replace(&mut slot.session, claimed);
            if let Some(mut owned) = self.owners.lock(owner) {
                owned.enter(hash);
            }
        }
        Some(slot.found(now, until))
    }

    /// Removes the session that this describes, and announces its end if it was live.
    fn end(
        &self,
        hash: u64,
        now: Tick,
        reason: EndReason,
        which: impl Fn(&Slot) -> bool,
    ) -> Option<SessionRef> {
        // The guard goes at the end of this statement; the slot outlives it.
        let slot = self.take(&mut self.shard(hash).write(), hash, which)?;
        slot.live_until(now)?;
        let reference = *slot.session.reference();
        self.ends.announce(reference, reason);
        Some(reference)
    }

    /// Takes a session out of the table and out of all counts. To be dropped when the lock is released: the values
    /// that a session carries run code of the application when they are dropped.
    fn take(&self, table: &mut Table, hash: u64, which: impl Fn(&Slot) -> bool) -> Option<Slot> {
        let slot = table.take(hash, which)?;
        slot.tally.leave();
        if let Some(mut owned) = self.owners.lock(slot.session.owner()) {
            owned.leave(hash);
        }
        Some(slot)
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
        self.remove_expired(shard, &expired.hashes, now);
        // Under the lock, so that nothing is born before it is written down.
        let table = shard.read();
        if let Some(next) = table.next_expiry(&expired) {
            next_expiry.store(next, Relaxed);
        }
    }

    /// Each birth adds one slot and looks at [`STEP`] of them, so that what has expired cannot pile up.
    fn sweep_a_little(&self, now: Tick) {
        let step = self.steps.fetch_add(1, Relaxed);
        let shard = &self.shards[step % self.shards.len()];
        let expired = shard
            .read()
            .expired_among(step / self.shards.len(), STEP, now);
        self.remove_expired(shard, &expired, now);
    }

    fn remove_expired(&self, shard: &Shard, expired: &[u64], now: Tick) {
        for section in expired.chunks(SECTION) {
            // Declared before the lock's guard and therefore dropped after it.
            let mut removed = Vec::with_capacity(section.len());
            let mut table = shard.write();
            for hash in section {
                removed.extend(self.take(&mut table, *hash, |slot| slot.live_until(now).is_none()));
            }
        }
    }

    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[shard_of(hash, SHARDS)]
    }

    fn now(&self) -> Tick {
        let now = Instant::now();
        match now.checked_duration_since(self.epoch) {
            Some(since) => EPOCH.saturating_add(ticks(since)),
            // A paused clock can stand before the instant at which the store was made.
            None => EPOCH.saturating_sub(ticks(self.epoch.duration_since(now))),
        }
    }
}

/// An instant as nanoseconds, so that it fits into an atomic.
type Tick = u64;

fn ticks(duration: Duration) -> Tick {
    Tick::try_from(duration.as_nanos()).unwrap_or(Tick::MAX)
}

/// Which of so many shards (a power of two) a hash belongs to. hashbrown takes the bucket from the low bits and the
/// tag from the top seven: this takes bits between them.
pub(super) fn shard_of(hash: u64, shards: usize) -> usize {
    (hash >> 48) as usize & (shards - 1)
}

/// The instant at which a store was made: 146 years, so that there is room on both sides and zero is free.
const EPOCH: Tick = 1 << 62;

/// A power of two. 256 keep a sweep's hold on a lock under 0.1 ms at a million sessions.
const SHARDS: usize = 256;

/// How many buckets a birth looks at. A table has at most a little over two for each session.
const STEP: usize = 64;

/// How many sessions are removed under one hold of a write lock.
const SECTION: usize = 32;
