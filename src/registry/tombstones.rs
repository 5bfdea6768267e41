//! Sessions whose end this node knows of, while a look-up that began before may still come back.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::protocol::SessionRef;

#[derive(Default)]
pub(super) struct Tombstones {
    ended: HashMap<SessionRef, Tombstone, foldhash::fast::RandomState>,
    by_age: VecDeque<(Instant, SessionRef)>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Tombstone {
    /// Ended here and announced. Kept until then.
    Announced(Instant),
    /// Heard from elsewhere, and not announced. Kept until then.
    Heard(Instant),
    /// Kept until the store has deleted the session.
    DeletePending,
}

impl Tombstones {
    pub(super) fn contains(&self, reference: &SessionRef) -> bool {
        !self.ended.is_empty() && self.ended.contains_key(reference)
    }

    /// Keeps what says most of the end of a session, and answers what was kept before.
    pub(super) fn put(
        &mut self,
        reference: &SessionRef,
        tombstone: impl FnOnce(Instant) -> Tombstone,
    ) -> Option<Tombstone> {
        self.prune();
        let until = Instant::now() + KEPT_FOR;
        let before = self.ended.get(reference).copied();
        let tombstone = match (before, tombstone(until)) {
            (Some(Tombstone::DeletePending | Tombstone::Announced(_)), Tombstone::Heard(_))
            | (Some(Tombstone::DeletePending), _) => return before,
            (_, tombstone) => tombstone,
        };
        self.ended.insert(*reference, tombstone);
        if tombstone != Tombstone::DeletePending {
            self.by_age.push_back((until, *reference));
        }
        before
    }

    /// The store has deleted a session whose delete was pending.
    pub(super) fn deleted(&mut self, reference: &SessionRef) {
        self.ended.remove(reference);
        self.put(reference, Tombstone::Announced);
    }

    /// Forgets the end of a session of whose id another is about to be created.
    pub(super) fn remove(&mut self, reference: &SessionRef) {
        if self.ended.get(reference) != Some(&Tombstone::DeletePending) {
            self.ended.remove(reference);
        }
    }

    /// Forgets what was kept long enough.
    fn prune(&mut self) {
        let now = Instant::now();
        while let Some((until, reference)) = self.by_age.front().copied()
            && until <= now
        {
            self.by_age.pop_front();
            // It may have been put anew since.
            if let Some(Tombstone::Announced(at) | Tombstone::Heard(at)) =
                self.ended.get(&reference)
                && *at == until
            {
                self.ended.remove(&reference);
            }
        }
    }
}

/// Longer than any look-up takes: the longest time limit for a store call is a minute.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SESSION: SessionRef = SessionRef::from_bytes([7; 32]);

    #[tokio::test(start_paused = true)]
    async fn ends_are_forgotten_in_time_and_not_before() {
        let mut tombstones = Tombstones::default();
        tombstones.put(&SESSION, Tombstone::Heard);
        advance(KEPT_FOR / 2).await;
        // A session of the same id was created and has ended.
        tombstones.remove(&SESSION);
        tombstones.put(&SESSION, Tombstone::Heard);
        advance(KEPT_FOR / 2).await;
        tombstones.prune();
        assert_eq!((tombstones.ended.len(), tombstones.by_age.len()), (1, 1));
        advance(KEPT_FOR / 2).await;
        tombstones.prune();
        assert_eq!((tombstones.ended.len(), tombstones.by_age.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_refused_until_its_pending_delete_is_done() {
        let mut tombstones = Tombstones::default();
        tombstones.put(&SESSION, |_| Tombstone::DeletePending);
        tombstones.put(&SESSION, Tombstone::Announced);
        tombstones.remove(&SESSION);
        advance(KEPT_FOR * 2).await;
        tombstones.prune();
        assert!(tombstones.contains(&SESSION));
        tombstones.deleted(&SESSION);
        advance(KEPT_FOR * 2).await;
        tombstones.prune();
        assert_eq!((tombstones.ended.len(), tombstones.by_age.len()), (0, 0));
    }
}
