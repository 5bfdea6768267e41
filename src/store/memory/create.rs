//! Creating a session within its limits.

use std::sync::Arc;

use super::{
    Inner, SHARDS,
    candidates::{Patience, Victim},
    evict::{Among, Place},
    scopes::{NoRoom, ScopeCount},
    shard::has_expired,
    shard_of,
};
use crate::{
    protocol::SessionRef,
    session::{
        Session,
        times::{Tick, ticks},
    },
    store::{Created, Limit, Terms},
    sync::atomic::Ordering::Relaxed,
};

/// What a creation is to come to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The session is live.
    Insert,
    /// There is room for it.
    MakeRoom,
}

/// What came of an attempt.
enum Attempt {
    Done(Created),
    /// Nobody knows who may be evicted.
    MustLook(Limit, Patience),
}

impl Inner {
    pub(super) async fn create(
        &self,
        session: &Session,
        terms: &Terms,
        purpose: Purpose,
        now: Tick,
    ) -> Created {
        let scope = self.scopes.of(&session.owner().scope);
        let mut evicted = None;
        loop {
            let departures = scope.departures();
            let attempt = self.attempt(session, &scope, terms, purpose, now, &mut evicted);
            // Nothing is held here, should this be the last poll.
            match attempt {
                Attempt::Done(created) => return created,
                Attempt::MustLook(limit, patience) => {
                    let found = self.look_for_candidates(&scope, now, patience).await;
                    // Unless those that could have gone did so just before they were looked at.
                    if !found && scope.departures() == departures {
                        return Created::Full(limit);
                    }
                }
            }
        }
    }

    fn attempt(
        &self,
        session: &Session,
        scope: &Arc<ScopeCount>,
        terms: &Terms,
        purpose: Purpose,
        now: Tick,
        evicted: &mut Option<SessionRef>,
    ) -> Attempt {
        if purpose == Purpose::MakeRoom {
            return self.evict_and_insert(session, scope, terms, purpose, now, evicted);
        }
        // A handle is in one table at most, since its times are what the table goes by.
        let session = match session.state().keep() {
            true => session.clone(),
            false => session.twin(),
        };
        session.state().keep();
        let attempt = self.evict_and_insert(&session, scope, terms, purpose, now, evicted);
        if !matches!(attempt, Attempt::Done(Created::New { .. })) {
            session.state().release();
        }
        attempt
    }

    fn evict_and_insert(
        &self,
        session: &Session,
        scope: &Arc<ScopeCount>,
        terms: &Terms,
        purpose: Purpose,
        now: Tick,
        evicted: &mut Option<SessionRef>,
    ) -> Attempt {
        let hash = self.hash(session);
        let mut place = Place::default();
        let attempt = loop {
            let departures = scope.departures();
            let limit = match self.insert(session, hash, scope, place, terms, purpose, now) {
                Created::Full(limit) => limit,
                Created::New { left, .. } => {
                    let evicted = *evicted;
                    if purpose == Purpose::MakeRoom {
                        self.give_back(place, scope, session, hash);
                    }
                    return Attempt::Done(Created::New { left, evicted });
                }
                refused => break Attempt::Done(refused),
            };
            let Some(patience) = Patience::of(terms.at_limit) else {
                break Attempt::Done(Created::Full(limit));
            };
            let among = match limit {
                Limit::Total => Among::Scope(scope),
                Limit::PerPrincipal => Among::Owner(session.owner()),
            };
            let victim = match self.victim(among, now, patience) {
                Victim::Session(victim) => victim,
                Victim::Unknown => break Attempt::MustLook(limit, patience),
                Victim::Nobody if scope.departures() != departures => continue,
                Victim::Nobody => break Attempt::Done(Created::Full(limit)),
            };
            // Another thread may be faster. Then there is another try.
            let gone = self.evict(&victim, among, session, hash, terms, now, patience);
            if let Some((reference, its_place)) = gone {
                self.give_back(place, scope, session, hash);
                place = its_place;
                *evicted = Some(reference);
            }
        };
        self.give_back(place, scope, session, hash);
        attempt
    }

    /// One attempt at a creation, within the locks that make it one step: of the shard, so that the id stays free; of
    /// the owner, so that its sessions stay as many, and an `end_all` sees either the session or is seen by it.
    #[expect(clippy::too_many_arguments, reason = "one step, which needs all of it")]
    fn insert(
        &self,
        session: &Session,
        hash: u64,
        scope: &Arc<ScopeCount>,
        place: Place,
        terms: &Terms,
        purpose: Purpose,
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
        let left = |count| terms.total.map(|total| total.get().saturating_sub(count));
        let evicted = None;
        if purpose == Purpose::MakeRoom {
            // Without the place that is about to be given back.
            let left = left(scope.sessions() - u64::from(place.in_scope));
            return match left {
                Some(0) => Created::Full(Limit::Total),
                left => Created::New { left, evicted },
            };
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
        let left = left(count);
        Created::New { left, evicted }
    }
}
