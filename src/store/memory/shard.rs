//! A shard: a part of the sessions, by hash, under one lock.

use crate::{
    protocol::SessionId,
    session::{Session, Table, times::Tick},
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Aligned so that two shards never share a cache line, nor the pair of lines that a processor fetches.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Shard(RwLock<Sessions>);

impl Shard {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Sessions> {
        self.0.read()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Sessions> {
        self.0.write()
    }

    #[cfg(test)]
    pub(super) fn is_unlocked(&self) -> bool {
        self.0.try_write().is_some()
    }
}

/// The sessions of a shard.
#[derive(Default)]
pub(super) struct Sessions {
    table: Table,
    /// How many were ever inserted.
    inserted: u64,
}

impl Sessions {
    pub(super) fn insert(&mut self, hash: u64, session: Session) {
        self.inserted += 1;
        self.table.insert(low(hash), session);
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, id: &SessionId) -> Option<&Session> {
        self.table.find(low(hash), |session| session.id() == id)
    }

    /// Takes out the session with this hash that is meant.
    pub(super) fn take(
        &mut self,
        hash: u64,
        is_meant: impl Fn(&Session) -> bool,
    ) -> Option<Session> {
        self.table.remove(low(hash), is_meant)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.table.iter()
    }

    /// What has expired, of all sessions here.
    pub(super) fn look_for_expired(&self, now: Tick) -> Expired {
        let mut expired = Expired {
            sessions: Vec::new(),
            next: Tick::MAX,
            inserted: self.inserted,
        };
        for session in self.table.iter() {
            match session.times().live_until(now) {
                Some(until) => expired.next = expired.next.min(until),
                None => expired.sessions.push(session.clone()),
            }
        }
        expired
    }

    /// Those that have expired in one window of so many buckets. The windows repeat.
    pub(super) fn expired_among(&self, window: usize, buckets: usize, now: Tick) -> Vec<Session> {
        let window = self.table.window(window, buckets);
        window
            .filter(|session| has_expired(session, now))
            .cloned()
            .collect()
    }

    /// When the next session here expires at the earliest, once what was found is removed. `None` if one was inserted
    /// since, which may expire before that.
    pub(super) fn next_expiry(&self, expired: &Expired) -> Option<Tick> {
        (self.inserted == expired.inserted).then_some(expired.next)
    }

    /// The room for sessions.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.table.slots()
    }
}

/// What a look through a table found.
pub(super) struct Expired {
    pub(super) sessions: Vec<Session>,
    /// No other that was there expires before this.
    next: Tick,
    inserted: u64,
}

pub(super) fn has_expired(session: &Session, now: Tick) -> bool {
    session.times().live_until(now).is_none()
}

/// The part of a hash that a table goes by. Its shard goes by bits above it.
pub(super) fn low(hash: u64) -> u32 {
    hash as u32
}
