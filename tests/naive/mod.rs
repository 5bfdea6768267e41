//! The simplest store that keeps the contract: one lock around one map.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use mcp_session_layer::{
    Owner, Scope, Session, SessionId, SessionRef, SessionStore,
    store::{
        AtLimit, BoxFuture, Created, Directory, EndReason, Feed, FeedEvent, Found, Limit, Listed,
        Now, StoreError, Terms, Whose,
    },
};
use tokio::{sync::broadcast, time::Instant};
use tokio_stream::{StreamExt as _, wrappers::BroadcastStream};

#[derive(Clone)]
pub(crate) struct NaiveStore {
    state: Arc<Mutex<State>>,
    ends: broadcast::Sender<FeedEvent>,
}

#[derive(Default)]
struct State {
    rows: HashMap<SessionRef, Row>,
    revoked: Vec<(Whose, Instant)>,
}

#[derive(Clone)]
struct Row {
    session: Session,
    born: Instant,
    touched: Option<Instant>,
    idle_ends: Option<Instant>,
    life_ends: Option<Instant>,
}

impl Row {
    fn is_live(&self) -> bool {
        self.deadline()
            .is_none_or(|deadline| Instant::now() < deadline)
    }

    /// `None` is never.
    fn deadline(&self) -> Option<Instant> {
        [self.idle_ends, self.life_ends].into_iter().flatten().min()
    }

    fn extend(&mut self, idle: Duration) {
        let now = Instant::now();
        self.touched = Some(now);
        self.idle_ends = match (self.idle_ends, now.checked_add(idle)) {
            (Some(before), Some(after)) => Some(before.max(after)),
            _ => None,
        };
    }

    fn found(&self) -> Found {
        let now = Instant::now();
        let left = |end: Instant| end - now;
        Found {
            session: self.session.clone(),
            age: now - self.born,
            idle_left: self.deadline().map_or(Duration::MAX, left),
            life_left: self.life_ends.map(left),
        }
    }
}

impl NaiveStore {
    /// The state without what has expired.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap();
        state.rows.retain(|_, row| row.is_live());
        state
    }

    fn end(&self, state: &mut State, reference: &SessionRef, reason: EndReason) -> bool {
        let ended = state.rows.remove(reference).is_some();
        if ended {
            self.announce(*reference, reason);
        }
        ended
    }

    fn announce(&self, reference: SessionRef, reason: EndReason) {
        // Nobody may be listening.
        let _ = self.ends.send(FeedEvent::Ended { reference, reason });
    }

    /// Makes room among those that are counted at a limit, if it is reached.
    fn make_room(
        &self,
        state: &mut State,
        whose: &Whose,
        limit: u64,
        at_limit: AtLimit,
    ) -> Result<Option<SessionRef>, ()> {
        let counted = || {
            state
                .rows
                .values()
                .filter(|row| whose.includes(row.session.owner()))
        };
        if (counted().count() as u64) < limit {
            return Ok(None);
        }
        let AtLimit::Evict { untouched } = at_limit else {
            return Err(());
        };
        let victim = counted()
            .filter(|row| row.touched.unwrap_or(row.born).elapsed() >= untouched)
            .min_by_key(|row| (row.touched.is_some(), row.touched.unwrap_or(row.born)))
            .map(|row| *row.session.reference())
            .ok_or(())?;
        self.end(state, &victim, EndReason::Evicted);
        Ok(Some(victim))
    }
}

impl Default for NaiveStore {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            ends: broadcast::Sender::new(1024),
        }
    }
}

impl SessionStore for NaiveStore {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        let mut state = self.state();
        let state = &mut *state;
        let owner = session.owner();
        if state.rows.contains_key(session.reference()) {
            return Ok(Created::Exists);
        }
        let now = Instant::now();
        let begun_before = |ended: Instant| terms.begun > now - ended;
        if state
            .revoked
            .iter()
            .any(|(whose, ended)| whose.includes(owner) && begun_before(*ended))
        {
            return Ok(Created::Revoked);
        }
        let mut evicted = None;
        if let Some(limit) = terms.per_principal
            && owner.principal.is_some()
        {
            let whose = Whose::Owner(owner.clone());
            match self.make_room(state, &whose, limit.get(), terms.at_limit) {
                Ok(victim) => evicted = victim,
                Err(()) => return Ok(Created::Full(Limit::PerPrincipal)),
            }
        }
        let everyone = Whose::Scope(owner.scope.clone());
        if let Some(limit) = terms.total {
            match self.make_room(state, &everyone, limit.get(), terms.at_limit) {
                Ok(victim) => evicted = evicted.or(victim),
                Err(()) => return Ok(Created::Full(Limit::Total)),
            }
        }
        let row = Row {
            session: session.clone(),
            born: now,
            touched: None,
            idle_ends: now.checked_add(terms.newborn.min(terms.idle)),
            life_ends: terms.life.and_then(|life| now.checked_add(life)),
        };
        state.rows.insert(*session.reference(), row);
        let live = state
            .rows
            .values()
            .filter(|row| everyone.includes(row.session.owner()));
        let live = live.count() as u64;
        Ok(Created::New {
            left: terms.total.map(|total| total.get().saturating_sub(live)),
            evicted,
        })
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        Ok(self.state().rows.get(&id.reference()).map(Row::found))
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        let mut state = self.state();
        let row = state.rows.get_mut(&id.reference());
        Ok(row.filter(|row| row.session.owner() == owner).map(|row| {
            row.extend(idle);
            row.found()
        }))
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        Ok(self.end(&mut self.state(), &id.reference(), reason))
    }

    fn touch_now(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Now {
        let mut state = self.state();
        match state.rows.get_mut(&id.reference()) {
            Some(row) if row.session.owner() == owner => {
                row.extend(idle);
                Now::Live(row.found())
            }
            _ => Now::Absent,
        }
    }

    async fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        let mut state = self.state();
        let Some(row) = state.rows.get_mut(&id.reference()) else {
            return Ok(None);
        };
        let nobody = Owner {
            principal: None,
            ..owner.clone()
        };
        let held = row.session.owner();
        if *held != nobody && held != owner {
            return Ok(None);
        }
        let mut record = row.session.record().clone();
        record.owner = owner.clone();
        row.session = row.session.with_record(record);
        row.extend(idle);
        Ok(Some(row.found()))
    }

    fn directory(&self) -> Option<&dyn Directory> {
        Some(self)
    }

    fn feed(&self) -> Option<Feed> {
        let ends = BroadcastStream::new(self.ends.subscribe());
        Some(Box::pin(ends.map(|event| event.unwrap_or(FeedEvent::Gap))))
    }
}

impl Directory for NaiveStore {
    fn count<'a>(&'a self, whose: &'a Whose) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async {
            let state = self.state();
            let counted = state.rows.values();
            let counted = counted.filter(|row| whose.includes(row.session.owner()));
            Ok(counted.count() as u64)
        })
    }

    fn list<'a>(
        &'a self,
        whose: &'a Whose,
        after: Option<&'a SessionRef>,
        at_most: usize,
    ) -> BoxFuture<'a, Result<Vec<Listed>, StoreError>> {
        Box::pin(async move {
            let state = self.state();
            let mut listed: Vec<_> = state
                .rows
                .values()
                .filter(|row| whose.includes(row.session.owner()))
                .filter(|row| after.is_none_or(|after| row.session.reference() > after))
                .map(|row| {
                    let found = row.found();
                    let mut record = found.session.record().clone();
                    record.initialize_params = None;
                    Listed {
                        reference: *found.session.reference(),
                        record,
                        age: found.age,
                        idle_left: found.idle_left,
                        life_left: found.life_left,
                    }
                })
                .collect();
            listed.sort_by_key(|listed| listed.reference);
            listed.truncate(at_most);
            Ok(listed)
        })
    }

    fn end<'a>(
        &'a self,
        scope: &'a Scope,
        reference: &'a SessionRef,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let mut state = self.state();
            let row = state.rows.get(reference);
            let here = row.is_some_and(|row| row.session.owner().scope == *scope);
            Ok(here && self.end(&mut state, reference, reason))
        })
    }

    fn end_all<'a>(
        &'a self,
        whose: &'a Whose,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let mut state = self.state();
            state.revoked.push((whose.clone(), Instant::now()));
            let meant: Vec<_> = state
                .rows
                .values()
                .filter(|row| whose.includes(row.session.owner()))
                .map(|row| *row.session.reference())
                .collect();
            for reference in &meant {
                self.end(&mut state, reference, reason);
            }
            Ok(meant.len() as u64)
        })
    }
}
