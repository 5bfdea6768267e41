//! Freeing the memory of sessions that have expired.

use super::{
    Inner,
    shard::{Shard, has_expired},
};
use crate::{
    session::{Session, times::Tick},
    sync::atomic::Ordering::Relaxed,
};

impl Inner {
    /// Removes everything that has expired. Looks only into shards in which something may have, and lets other tasks
    /// run after each.
    pub(super) async fn purge(&self, now: Tick) {
        for (shard, next_expiry) in self.next_expiry.iter().enumerate() {
            while next_expiry.load(Relaxed) <= now {
                self.sweep_shard(shard, now);
                tokio::task::yield_now().await;
            }
        }
    }

    /// Looks under the read lock, so that look-ups go on, then removes in short batches under the write lock.
    pub(super) fn sweep_shard(&self, shard: usize, now: Tick) {
        let (shard, next_expiry) = (&self.shards[shard], &self.next_expiry[shard]);
        let expired = shard.read().look_for_expired(now);
        self.remove_expired(shard, &expired.sessions, now);
        // Under the lock, so that nothing is created before it is stored.
        let sessions = shard.read();
        if let Some(next) = sessions.next_expiry(&expired) {
            next_expiry.store(next, Relaxed);
        }
    }

    /// Each creation adds one session and looks at a few, so that what has expired cannot pile up.
    pub(super) fn sweep_a_little(&self, now: Tick) {
        let step = self.steps.fetch_add(1, Relaxed);
        let shard = &self.shards[step % self.shards.len()];
        let window = step / self.shards.len();
        let expired = shard.read().expired_among(window, STEP, now);
        self.remove_expired(shard, &expired, now);
    }

    fn remove_expired(&self, shard: &Shard, expired: &[Session], now: Tick) {
        for batch in expired.chunks(BATCH) {
            // Declared before the lock's guard and therefore dropped after it.
            let mut removed = Vec::with_capacity(batch.len());
            let mut sessions = shard.write();
            for session in batch {
                let hash = self.hash(session);
                let is_meant = |other: &Session| other.is(session) && has_expired(other, now);
                removed.extend(self.take(&mut sessions, hash, is_meant));
            }
        }
    }
}

/// How many buckets of five a creation looks at. A table has one for each session at the most.
const STEP: usize = 16;

/// How many sessions are removed under one hold of a write lock.
const BATCH: usize = 32;
