//! Which session is evicted at a limit.

use std::sync::Arc;

use tokio::task::yield_now;

use super::{
    Inner,
    candidates::{Look, Patience, Victim, may_go, rank},
    scopes::ScopeCount,
};
use crate::{
    protocol::SessionRef,
    session::{Owner, Session, times::Tick},
    store::{EndReason, Terms},
};

/// The sessions of which one has to be evicted: of those that the limit counts, those that may go for the new one.
#[derive(Clone, Copy)]
pub(super) enum Among<'a> {
    /// Anonymous ones: a principal's session is never ended for another's.
    Scope(&'a Arc<ScopeCount>),
    Owner(&'a Owner),
}

impl Among<'_> {
    fn includes(self, session: &Session) -> bool {
        match self {
            Self::Scope(scope) => {
                let owner = session.owner();
                owner.principal.is_none() && owner.scope == *scope.scope()
            }
            Self::Owner(owner) => session.owner() == owner,
        }
    }
}

impl Inner {
    /// The session to evict first.
    pub(super) fn victim(&self, among: Among<'_>, now: Tick, patience: Patience) -> Victim {
        match among {
            Among::Scope(scope) => {
                let is_small = scope.sessions() <= SMALL;
                scope.candidates.next(is_small, now, patience)
            }
            Among::Owner(owner) => {
                let sessions = self.owners.lock(owner);
                let sessions = sessions.map(|owned| owned.some(SEEN_OF_OWNER, now as usize));
                let mut sessions = sessions.unwrap_or_default();
                sessions.retain(|session| may_go(session, now, patience));
                match sessions.into_iter().min_by_key(rank) {
                    Some(session) => Victim::Session(session),
                    None => Victim::Nobody,
                }
            }
        }
    }

    /// Looks at all sessions for the candidates of a scope, and lets other tasks run in between. Says whether there are any.
    ///
    /// A look at a session is memory waited for. So this is done once for many evictions, and not at all while it is known
    /// that nobody may go.
    pub(super) async fn look_for_candidates(
        &self,
        scope: &Arc<ScopeCount>,
        now: Tick,
        patience: Patience,
    ) -> bool {
        let _turn = scope.candidates.turn.lock().await;
        // Somebody else may have looked meanwhile.
        if scope.candidates.has_some_since(now, patience) {
            return true;
        }
        let among = Among::Scope(scope);
        let at_most = (scope.sessions() / SHARE).max(SMALL) as usize;
        let mut found = Look::new(at_most, now, patience);
        let mut seen = 0;
        for shard in &self.shards {
            {
                let shard = shard.read();
                for session in shard.iter().filter(|session| among.includes(session)) {
                    seen += 1;
                    found.see(session, now, patience);
                }
            }
            if seen >= YIELD_EVERY {
                seen = 0;
                yield_now().await;
            }
        }
        let has_some = !found.is_empty();
        scope.candidates.learn(found, now, patience);
        has_some
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
        patience: Patience,
    ) -> Option<(SessionRef, Place)> {
        let hash = self.hash(victim);
        // Declared before the lock's guard and therefore dropped after it.
        let session;
        let mut sessions = self.shard(hash).write();
        session = sessions.take(hash, |session| {
            session.is(victim) && among.includes(session) && may_go(session, now, patience)
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

/// Of an owner's sessions so many are seen.
const SEEN_OF_OWNER: usize = 1024;

/// In a scope of so many sessions all are looked at for each eviction.
const SMALL: u64 = 1024;

/// In a larger one a look finds candidates for so large a part of it.
const SHARE: u64 = 32;

/// After how many sessions other tasks may run.
const YIELD_EVERY: usize = 1024;
