//! Creating a session within its limits.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    Inner, SHARDS,
    evict::{Among, Place},
    scopes::{NoRoom, ScopeCount},
    shard::has_expired,
    shard_of,
};
use crate::{
    session::{
        Session,
        times::{Tick, ticks},
    },
    store::{AtLimit, Created, Limit, Terms},
};

impl Inner {
    pub(super) fn create(&self, session: &Session, terms: &Terms, now: Tick) -> Created {
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
}
