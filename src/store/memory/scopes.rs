//! How many sessions each scope has.

use std::{hash::BuildHasher as _, num::NonZeroU64, sync::Arc};

use foldhash::quality::RandomState;
use hashbrown::{HashTable, hash_table::Entry};

use super::candidates::Candidates;
use crate::{
    session::Scope,
    sync::{
        RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// The counts of all scopes. There are few: a scope is a guarded service.
#[derive(Default)]
pub(super) struct ScopeCounts {
    hasher: RandomState,
    scopes: RwLock<HashTable<Arc<ScopeCount>>>,
}

impl ScopeCounts {
    /// The count of a scope, if it has any session or may soon have one.
    pub(super) fn get(&self, scope: &Scope) -> Option<Arc<ScopeCount>> {
        let hash = self.hasher.hash_one(scope);
        let scopes = self.scopes.read();
        scopes.find(hash, |count| count.scope == *scope).cloned()
    }

    /// The count of a scope.
    pub(super) fn of(&self, scope: &Scope) -> Arc<ScopeCount> {
        if let Some(count) = self.get(scope) {
            return count;
        }
        let rehash = |count: &Arc<ScopeCount>| self.hasher.hash_one(&count.scope);
        let mut scopes = self.scopes.write();
        if scopes.len() == scopes.capacity() {
            // Before growing: forget those without a session and without a creation in flight.
            scopes.retain(|count| Arc::strong_count(count) > 1 || count.sessions() > 0);
        }
        let hash = self.hasher.hash_one(scope);
        match scopes.entry(hash, |count| count.scope == *scope, rehash) {
            Entry::Occupied(count) => Arc::clone(count.get()),
            Entry::Vacant(free) => {
                let count = Arc::new(ScopeCount {
                    scope: scope.clone(),
                    sessions: AtomicU64::new(0),
                    departures: AtomicU64::new(0),
                    candidates: Candidates::default(),
                });
                free.insert(Arc::clone(&count));
                count
            }
        }
    }
}

/// How many sessions a scope has, what has expired and is not yet swept included.
pub(super) struct ScopeCount {
    scope: Scope,
    sessions: AtomicU64,
    departures: AtomicU64,
    /// Who may be evicted.
    pub(super) candidates: Candidates,
}

impl ScopeCount {
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(super) fn sessions(&self) -> u64 {
        self.sessions.load(Relaxed)
    }

    /// How many sessions have gone. While this stays the same, a look at one after the other misses none.
    pub(super) fn departures(&self) -> u64 {
        self.departures.load(Relaxed)
    }

    /// Counts one more, if there is room, and says how many there are then.
    pub(super) fn enter(&self, limit: Option<NonZeroU64>) -> Result<u64, NoRoom> {
        let limit = limit.map_or(u64::MAX, NonZeroU64::get);
        self.sessions
            .fetch_update(Relaxed, Relaxed, |sessions| {
                (sessions < limit).then_some(sessions + 1)
            })
            .map(|before| before + 1)
            .map_err(|_| NoRoom)
    }

    /// Counts one less. To be called under the lock of the session's shard.
    pub(super) fn leave(&self) {
        self.sessions.fetch_sub(1, Relaxed);
        self.departures.fetch_add(1, Relaxed);
    }

    /// Leaves the place of a session that is gone to another, and says whether there is such a place: not without a limit,
    /// nor if the limit is lower than it was, and exceeded. Else as [`leave`](Self::leave).
    pub(super) fn hand_over(&self, limit: Option<NonZeroU64>) -> bool {
        self.departures.fetch_add(1, Relaxed);
        let limit = limit.map_or(0, NonZeroU64::get);
        self.sessions
            .fetch_update(Relaxed, Relaxed, |sessions| {
                (sessions > limit).then(|| sessions - 1)
            })
            .is_err()
    }
}

/// The limit is reached.
pub(super) struct NoRoom;
