//! A shard: the sessions whose hashes fall into it, under one lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hashbrown::HashTable;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Tally, Tick, ticks};
use crate::{
    protocol::SessionId,
    session::Session,
    store::{Found, Terms},
};

/// Aligned so that two shards never share a cache line, nor the pair of lines that a processor fetches.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Shard(RwLock<Table>);

impl Shard {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write()
    }

    #[cfg(test)]
    pub(super) fn is_unlocked(&self) -> bool {
        self.0.try_write().is_some()
    }
}

/// The sessions of a shard.
#[derive(Default)]
pub(super) struct Table {
    slots: HashTable<Slot>,
    /// How many were ever inserted.
    births: u64,
}

impl Table {
    pub(super) fn insert(&mut self, slot: Slot) {
        self.births += 1;
        self.slots.insert_unique(slot.hash, slot, |slot| slot.hash);
    }

    pub(super) fn find(&self, hash: u64, id: &SessionId) -> Option<&Slot> {
        self.slots.find(hash, |slot| slot.is(hash, id))
    }

    pub(super) fn find_mut(&mut self, hash: u64, id: &SessionId) -> Option<&mut Slot> {
        self.slots.find_mut(hash, |slot| slot.is(hash, id))
    }

    /// Takes out the session with this hash that is meant.
    pub(super) fn take(&mut self, hash: u64, which: impl Fn(&Slot) -> bool) -> Option<Slot> {
        let meant = |slot: &Slot| slot.hash == hash && which(slot);
        let (slot, _) = self.slots.find_entry(hash, meant).ok()?.remove();
        shrink(&mut self.slots, |slot| slot.hash);
        Some(slot)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// The sessions with this hash: one, but for a coincidence in 64 bits.
    pub(super) fn with_hash(&self, hash: u64) -> impl Iterator<Item = &Slot> {
        self.slots
            .iter_hash(hash)
            .filter(move |slot| slot.hash == hash)
    }

    /// All sessions, starting somewhere in the middle.
    pub(super) fn iter_from(&self, start: usize) -> impl Iterator<Item = &Slot> {
        let buckets = self.slots.num_buckets();
        let start = start % buckets;
        (start..buckets)
            .chain(0..start)
            .filter_map(|bucket| self.slots.get_bucket(bucket))
    }

    /// What has expired, of all sessions here.
    pub(super) fn look_for_expired(&self, now: Tick) -> Expired {
        let mut found = Expired {
            hashes: Vec::new(),
            next: Tick::MAX,
            births: self.births,
        };
        for slot in &self.slots {
            match slot.live_until(now) {
                Some(until) => found.next = found.next.min(until),
                None => found.hashes.push(slot.hash),
            }
        }
        found
    }

    /// The hashes of those that have expired in one window of so many buckets. The windows repeat.
    pub(super) fn expired_among(&self, window: usize, buckets: usize, now: Tick) -> Vec<u64> {
        let windows = self.slots.num_buckets().div_ceil(buckets);
        let first = window % windows * buckets;
        (first..first + buckets)
            .filter_map(|bucket| self.slots.get_bucket(bucket))
            .filter(|slot| slot.live_until(now).is_none())
            .map(|slot| slot.hash)
            .collect()
    }

    /// When the next session here expires at the earliest, once what was found is removed. `None` if one was born
    /// since, which may expire before that.
    pub(super) fn next_expiry(&self, found: &Expired) -> Option<Tick> {
        (self.births == found.births).then_some(found.next)
    }

    #[cfg(test)]
    pub(super) fn buckets(&self) -> usize {
        self.slots.num_buckets()
    }
}

/// What a look through a table found.
pub(super) struct Expired {
    pub(super) hashes: Vec<u64>,
    /// No other that was there expires before this.
    next: Tick,
    births: u64,
}

/// Gives memory back once a table is nearly empty. Leaves so much room that a table does not shrink and grow in turn.
pub(super) fn shrink<T>(table: &mut HashTable<T>, hash: impl Fn(&T) -> u64) {
    if table.num_buckets() > 32 && table.len() < table.num_buckets() / 8 {
        table.shrink_to(table.len() * 2, hash);
    }
}

/// One session in the table. Its times are atomic, so that a look-up extends them under the read lock.
pub(super) struct Slot {
    pub(super) session: Session,
    /// Of its id. Kept, so that neither growing nor comparing follows a pointer.
    pub(super) hash: u64,
    /// The count of its scope.
    pub(super) tally: Arc<Tally>,
    born: Tick,
    /// The end of its life, [`Tick::MAX`] if it has none.
    life: Tick,
    /// The end of its time unless it is touched, at most `life`. [`OVER`] once anyone saw it over.
    until: AtomicU64,
    /// Its last touch, or [`NEVER`].
    touched: AtomicU64,
}

impl Slot {
    pub(super) fn new(
        session: Session,
        hash: u64,
        tally: Arc<Tally>,
        now: Tick,
        terms: &Terms,
    ) -> Self {
        let life = match terms.life {
            Some(life) => now.saturating_add(ticks(life)).min(Tick::MAX - 1),
            None => Tick::MAX,
        };
        let idle = ticks(terms.idle.min(terms.initial_idle));
        Self {
            session,
            hash,
            tally,
            born: now,
            life,
            until: AtomicU64::new(now.saturating_add(idle).min(life)),
            touched: AtomicU64::new(NEVER),
        }
    }

    fn is(&self, hash: u64, id: &SessionId) -> bool {
        self.hash == hash && self.session.id() == id
    }

    /// When its time is over unless it is touched.
    pub(super) fn expiry(&self) -> Tick {
        self.until.load(Relaxed)
    }

    /// Until when it lives, if it does.
    pub(super) fn live_until(&self, now: Tick) -> Option<Tick> {
        self.extend(now, OVER)
    }

    /// Lets it live for `idle` more, if it lives.
    pub(super) fn touch(&self, now: Tick, idle: Duration) -> Option<Tick> {
        let until = self.extend(now, now.saturating_add(ticks(idle)).min(self.life))?;
        self.touched.store(now, Relaxed);
        Some(until)
    }

    /// Whoever finds its time over says so for all, in the same step. Otherwise a thread that read the clock a little
    /// earlier could still extend what this one has just called absent.
    fn extend(&self, now: Tick, to: Tick) -> Option<Tick> {
        let extended = |until: Tick| if until > now { until.max(to) } else { OVER };
        let before = self
            .until
            .fetch_update(Relaxed, Relaxed, |until| {
                let next = extended(until);
                (next != until).then_some(next)
            })
            .unwrap_or_else(|unchanged| unchanged);
        (before > now).then(|| extended(before))
    }

    pub(super) fn found(&self, now: Tick, until: Tick) -> Found {
        let left = |end: Tick| Duration::from_nanos(end.saturating_sub(now));
        Found {
            session: self.session.clone(),
            age: Duration::from_nanos(now.saturating_sub(self.born)),
            idle_left: left(until),
            life_left: (self.life != Tick::MAX).then(|| left(self.life)),
        }
    }

    /// Since when nobody has touched it, if that is so long that it may be ended for another. The lower goes first: a
    /// session without any request since its birth (`false`) before one that had some.
    pub(super) fn dispensable(&self, now: Tick, untouched: Duration) -> Option<(bool, Tick)> {
        self.live_until(now)?;
        let touched = self.touched.load(Relaxed);
        let (since, patience) = match touched {
            NEVER => (self.born, untouched.min(NEWBORN_PATIENCE)),
            touched => (touched, untouched),
        };
        (now.saturating_sub(since) >= ticks(patience)).then_some((touched != NEVER, since))
    }
}

/// Before every instant.
const OVER: Tick = 0;
const NEVER: Tick = 0;

/// How long a newborn session has for its first request before it may be ended for another.
const NEWBORN_PATIENCE: Duration = Duration::from_secs(5);
