//! Which session is evicted at a limit.

use std::{sync::Arc, time::Duration};

use super::{Inner, SHARDS, scopes::ScopeCount};
use crate::{
    protocol::SessionRef,
    session::{
        Owner, Session,
        times::{Tick, ticks},
    },
    store::{EndReason, Terms},
};

/// The sessions of which one has to be evicted: those that the limit counts.
#[derive(Clone, Copy)]
pub(super) enum Among<'a> {
    Scope(&'a Arc<ScopeCount>),
    Owner(&'a Owner),
}

impl Among<'_> {
    fn includes(self, session: &Session) -> bool {
        match self {
            Self::Scope(scope) => session.owner().scope == *scope.scope(),
            Self::Owner(owner) => session.owner() == owner,
        }
    }
}

impl Inner {
    /// The session, of a sample, to evict first. `random` says where the sample starts.
    pub(super) fn victim(
        &self,
        among: Among<'_>,
        random: u64,
        now: Tick,
        untouched: Duration,
    ) -> Option<Session> {
        match among {
            Among::Scope(scope) if scope.sessions() <= SEE_ALL as u64 => {
                let is_meant = |session: &Session| among.includes(session);
                self.sample(is_meant, random, SHARDS, usize::MAX, now, untouched)
            }
            // Each session looked at is memory waited for, its owner still more, so a few are looked at first, as if
            // there were no other scope.
            Among::Scope(_) => {
                let is_meant = |session: &Session| among.includes(session);
                self.sample(|_| true, random, FEW_SHARDS, PER_SHARD, now, untouched)
                    .filter(is_meant)
                    .or_else(|| {
                        self.sample(is_meant, random, MORE_SHARDS, PER_SHARD, now, untouched)
                    })
            }
            Among::Owner(owner) => {
                let sessions = self.owners.lock(owner)?.some(SEE_ALL, start(random, 0));
                best(sessions.iter(), now, untouched).map(|(_, session)| session)
            }
        }
    }

    fn sample(
        &self,
        is_meant: impl Fn(&Session) -> bool,
        random: u64,
        shards: usize,
        per_shard: usize,
        now: Tick,
        untouched: Duration,
    ) -> Option<Session> {
        let first = start(random, 1);
        let best_of_each = (0..shards).filter_map(|nth| {
            let shard = &self.shards[(first + nth) % self.shards.len()];
            let sessions = shard.read();
            let some = sessions
                .iter_from(start(random, nth))
                .filter(|session| is_meant(session))
                .take(per_shard);
            best(some, now, untouched)
        });
        let (_, session) = best_of_each.min_by_key(|(rank, _)| *rank)?;
        Some(session)
    }

    /// Evicts the victim, unless it was used, or ended, since it was chosen. Its place is the new session's from the
    /// same moment: if another creation took it, a second one would have to be evicted.
    #[expect(clippy::too_many_arguments, reason = "one step, which needs all of it")]
    pub(super) fn evict(
        &self,
        victim: &Session,
        among: Among<'_>,
        new: &Session,
        new_hash: u64,
        terms: &Terms,
        now: Tick,
        untouched: Duration,
    ) -> Option<(SessionRef, Place)> {
        let hash = self.hash(victim);
        // Declared before the lock's guard and therefore dropped after it.
        let session;
        let mut sessions = self.shard(hash).write();
        session = sessions.take(hash, |session| {
            session.is(victim)
                && among.includes(session)
                && evictable(session, now, untouched).is_some()
        })?;
        let scope = self.scopes.of(&session.owner().scope);
        let mut place = Place {
            in_scope: scope.hand_over(terms.total),
            of_principal: false,
        };
        if let Some(mut owned) = self.owners.lock(session.owner()) {
            owned.remove(hash, &session);
            if let (Among::Owner(_), Some(limit)) = (among, terms.per_principal)
                && owned.count() < limit.get()
            {
                owned.add(new_hash, new.clone());
                place.of_principal = true;
            }
        }
        drop(sessions);
        let reference = *session.reference();
        self.ends.announce(reference, EndReason::Evicted);
        Some((reference, place))
    }

    /// Gives back the place of a session that was not created.
    pub(super) fn give_back(&self, place: Place, scope: &ScopeCount, new: &Session, new_hash: u64) {
        if place.in_scope {
            scope.leave();
        }
        if place.of_principal
            && let Some(mut owned) = self.owners.lock(new.owner())
        {
            owned.remove(new_hash, new);
        }
    }
}

/// Where a new session is counted already, in place of the one that was evicted for it.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) in_scope: bool,
    pub(super) of_principal: bool,
}

/// The lower goes first.
type Rank = (bool, Tick);

fn best<'a>(
    sessions: impl Iterator<Item = &'a Session>,
    now: Tick,
    untouched: Duration,
) -> Option<(Rank, Session)> {
    sessions
        .filter_map(|session| Some((evictable(session, now, untouched)?, session)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(rank, session)| (rank, session.clone()))
}

/// Since when it is untouched, if that is so long that it may be evicted; a session without any request since its
/// creation before one that had some.
fn evictable(session: &Session, now: Tick, untouched: Duration) -> Option<Rank> {
    session.times().live_until(now)?;
    let (was_touched, since) = session.times().untouched_since();
    let patience = match was_touched {
        true => untouched,
        false => untouched.min(UNUSED_PATIENCE),
    };
    (now.saturating_sub(since) >= ticks(patience)).then_some((was_touched, since))
}

/// Another start in each shard, from bits that did not choose the new session's own.
fn start(random: u64, nth: usize) -> usize {
    (random.rotate_left(24) as usize).wrapping_add(nth.wrapping_mul(7919))
}

/// Of so many sessions all are seen.
const SEE_ALL: usize = 1024;

/// Of more sessions so many are seen in each shard: more than a bucket's, in which the oldest come first.
const PER_SHARD: usize = 8;
const FEW_SHARDS: usize = 12;
const MORE_SHARDS: usize = 128;

/// How long a session has for its first request before it may be evicted.
const UNUSED_PATIENCE: Duration = Duration::from_secs(5);
