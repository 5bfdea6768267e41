//! Who gets in, and who makes room.

use std::time::Duration;

use mcp_session_layer::{
    Owner, Session, SessionRef,
    store::{AtLimit, Created, EndReason, Limit, SessionFilter, Terms},
};
use tokio::time::Instant;

use super::{NaiveStore, Row, State, defect::Defect::*};

impl NaiveStore {
    /// Makes room among those that are counted at a limit, if it is reached.
    fn make_place(
        &self,
        state: &mut State,
        filter: &SessionFilter,
        limit: u64,
        at_limit: AtLimit,
    ) -> Result<Option<SessionRef>, ()> {
        let counted = || {
            let rows = state.rows.values();
            rows.filter(|row| self.has(CountsEveryone) || filter.includes(row.session.owner()))
        };
        let taken = state.taken.iter().filter(|owner| filter.includes(owner));
        let limit = limit + u64::from(self.has(CountsAbove));
        if ((counted().count() + taken.count()) as u64) < limit {
            return Ok(None);
        }
        let AtLimit::Evict { unused, untouched } = at_limit else {
            return Err(());
        };
        let is_own = matches!(filter, SessionFilter::Owner(_)) || self.has(EvictsPrincipals);
        let last_used = |row: &Row| row.touched.unwrap_or(row.created);
        let may_go = |row: &&Row| {
            let in_scope = row.session.owner().scope == *filter.scope();
            let counted = filter.includes(row.session.owner());
            let patience = match row.touched {
                None if !self.has(UnusedHaveNoTime) => unused,
                _ => untouched,
            };
            let in_use = last_used(row).elapsed() < patience;
            let is_anonymous = row.session.owner().principal.is_none();
            (counted && (is_own || is_anonymous) || in_scope && self.has(EvictsAnybody))
                && (!in_use || self.has(EvictsOneInUse))
        };
        let victims = state.rows.values().filter(may_go);
        let victim = match self.defect {
            Some(EvictsTheNewestUnused) => victims.min_by_key(|row| {
                let is_used = row.touched.is_some();
                let age = row.created.elapsed();
                (
                    is_used,
                    if is_used {
                        last_used(row).elapsed()
                    } else {
                        age
                    },
                )
            }),
            Some(EvictsTheLastTouched) => victims.max_by_key(|row| last_used(row)),
            Some(EvictsOldBeforeUnused) => victims.min_by_key(|row| last_used(row)),
            _ => victims.min_by_key(|row| (row.touched.is_some(), last_used(row))),
        };
        let victim = *victim.ok_or(())?.session.reference();
        self.remove(state, &victim, EndReason::Evicted);
        let another = state
            .rows
            .values()
            .find(|row| filter.includes(row.session.owner()));
        if let Some(another) = another.map(|row| *row.session.reference())
            && self.has(EvictsTwo)
        {
            self.remove(state, &another, EndReason::Evicted);
        }
        Ok(Some(victim))
    }

    /// Finds room for a newcomer, or says what it is answered.
    pub(super) fn admit(
        &self,
        state: &mut State,
        owner: &Owner,
        terms: &Terms,
    ) -> Result<Option<SessionRef>, Created> {
        let mut evicted = None;
        if let Some(limit) = terms.per_principal
            && (owner.principal.is_some() || self.has(CountsAnonymous))
        {
            evicted = self
                .make_place(
                    state,
                    &SessionFilter::Owner(owner.clone()),
                    limit.get(),
                    terms.at_limit,
                )
                .map_err(|()| Created::Full(Limit::PerPrincipal))?;
        }
        if let Some(limit) = terms.total {
            let everyone = SessionFilter::Scope(owner.scope.clone());
            let victim = self
                .make_place(state, &everyone, limit.get(), terms.at_limit)
                .map_err(|()| Created::Full(Limit::Total))?;
            evicted = evicted.or(victim);
        }
        Ok(evicted)
    }

    fn is_revoked(&self, state: &State, owner: &Owner, started_ago: Duration) -> bool {
        let mut revoked = state.revoked.iter();
        !self.has(EndAllIgnoresBegun)
            && revoked.any(|(filter, ended)| {
                filter.includes(owner)
                    && (started_ago > ended.elapsed() || self.has(EndAllIsForEver))
            })
    }

    pub(super) fn insert(&self, state: &mut State, session: &Session, terms: &Terms) -> Created {
        let (key, owner) = (self.key(session.id()), session.owner());
        if let Some(row) = state.rows.get_mut(&key)
            && !self.has(CreateReplaces)
        {
            if self.has(CreateExtends) {
                self.extend(row, terms.idle);
            }
            if self.has(ExistsEvicts) {
                let _ = self.admit(state, owner, terms);
            }
            return Created::Exists;
        }
        if self.has(UsedIdsStayTaken) && state.used.contains(&key) {
            return Created::Exists;
        }
        if self.is_revoked(state, owner, terms.started_ago) {
            if self.has(RevokedEvicts) {
                let _ = self.admit(state, owner, terms);
            }
            return Created::Revoked;
        }
        let admitted = self.admit(state, owner, terms);
        if admitted.is_ok() || self.has(RefusedAreKept) {
            state.rows.insert(key, self.row(session, terms));
            state.used.push(key);
        }
        let live = state.rows.values();
        let live = live.filter(|row| row.session.owner().scope == owner.scope);
        let live = live.count() as u64;
        match admitted {
            Ok(evicted) => Created::New {
                left: terms.total.map(|total| total.get().saturating_sub(live)),
                evicted,
            },
            Err(refused) => refused,
        }
    }

    pub(super) fn make_place_for(&self, session: &Session, terms: &Terms) -> Created {
        let mut state = self.state();
        let before = state.rows.clone();
        let created = self.insert(&mut state, session, terms);
        let key = self.key(session.id());
        if created == Created::Exists || self.has(MakingRoomInserts) {
            return created;
        }
        state.rows.remove(&key);
        state.used.retain(|used| *used != key);
        if self.has(MakingRoomEvictsNone) {
            state.rows = before;
        }
        match created {
            Created::New { left, evicted } => Created::New {
                left: left.map(|left| left + 1),
                evicted,
            },
            refused => refused,
        }
    }

    pub(super) fn row(&self, session: &Session, terms: &Terms) -> Row {
        let now = Instant::now();
        let heeded = |time, defect| (!self.has(defect)).then_some(time);
        let idle = [
            heeded(terms.idle, CreateIgnoresIdle),
            heeded(terms.initial_idle, CreateIgnoresInitialIdle),
        ];
        let life = terms.life.and_then(|life| heeded(life, CreateIgnoresLife));
        Row {
            session: self.kept(session),
            created: now,
            touched: None,
            idle_ends: self.later(now, idle.into_iter().flatten().min().unwrap()),
            life_ends: life.and_then(|life| self.later(now, life)),
        }
    }
}
