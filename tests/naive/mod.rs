//! The simplest store that keeps the contract: one lock around one map. It can be told to break one rule.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use mcp_session_layer::{
    Issuer, Owner, Principal, Scope, Session, SessionId, SessionRecord, SessionRef, SessionStore,
    store::{
        AtLimit, BoxFuture, Created, Directory, EndReason, Feed, FeedEvent, Found, Limit, Now,
        SessionFilter, SessionInfo, StoreError, Terms,
    },
};
use tokio::{sync::broadcast, task::yield_now, time::Instant};
use tokio_stream::{StreamExt as _, wrappers::BroadcastStream};

#[derive(Clone)]
pub(crate) struct NaiveStore {
    state: Arc<Mutex<State>>,
    ends: broadcast::Sender<FeedEvent>,
    defect: Option<Defect>,
    is_slow: bool,
}

/// What a store can get wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    AgeFromLastTouch,
    AnnouncesExpiry,
    AnnouncesTwice,
    CreateIgnoresIdle,
    CreateIgnoresLife,
    CreateIgnoresInitialIdle,
    ClaimCountsAsAnonymous,
    ClaimDoesNotExtend,
    ClaimInTwoSteps,
    ClaimKeepsTheOwner,
    ClaimTakesOthers,
    CountsAbove,
    CountsEveryone,
    CountsAnonymous,
    CountsTheExpired,
    CreateExtends,
    CreateInHalves,
    CreateInTwoSteps,
    CreateKeepsItsPlace,
    CreateReplaces,
    DeleteFindsTheExpired,
    DeleteInTwoSteps,
    DeleteKeepsItsPlace,
    EmptyIsNone,
    EndAllForgetsOne,
    EndAllIgnoresBegun,
    EndAllIsForEver,
    EndIgnoresTheScope,
    EvictsAnybody,
    EvictsOldBeforeUnused,
    EvictsOneInUse,
    EvictsTheLastTouched,
    EvictsTwo,
    ExistsEvicts,
    ExpiresAnInstantLate,
    ExpiresEarly,
    FeedIsSilent,
    ForgetsSkippedTouches,
    IdsIgnoreCase,
    LifeEndsNone,
    LimitsInTwoSteps,
    ListRepeats,
    ListShowsTheExpired,
    ListSkips,
    LoadExtends,
    AnonymousIsEmpty,
    OverflowPanics,
    ParamsAreReformatted,
    ReasonIsAlwaysDeleted,
    RefusedAreKept,
    RevokedEvicts,
    ScopeIsIgnored,
    SkipsTooManyTouches,
    StrangersExtend,
    TouchDoesNotExtend,
    TouchIgnoresTheOwner,
    TouchInserts,
    TouchNowIgnoresTheOwner,
    TouchNowNeverExtends,
    TouchRevives,
    TouchShortens,
    TouchTakesItOut,
    UsedIdsStayTaken,
}

use Defect::*;

#[derive(Default)]
struct State {
    rows: HashMap<SessionRef, Row>,
    revoked: Vec<(SessionFilter, Instant)>,
    used: Vec<SessionRef>,
    /// Room that is taken by nobody: only a defect takes it.
    taken: Vec<Owner>,
}

#[derive(Clone)]
struct Row {
    session: Session,
    created: Instant,
    touched: Option<Instant>,
    /// `None` is never.
    idle_ends: Option<Instant>,
    life_ends: Option<Instant>,
}

impl NaiveStore {
    pub(crate) fn with_defect(defect: Defect) -> Self {
        Self {
            defect: Some(defect),
            ..Self::default()
        }
    }

    /// One whose verbs take their time, before and after they take effect.
    pub(crate) fn slow() -> Self {
        Self {
            is_slow: true,
            ..Self::default()
        }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    async fn dawdle(&self) {
        if self.is_slow {
            yield_now().await;
        }
    }

    fn key(&self, id: &SessionId) -> SessionRef {
        if self.has(IdsIgnoreCase) {
            let lower: SessionId = id.expose().to_lowercase().parse().unwrap();
            return lower.reference();
        }
        id.reference()
    }

    /// The state without what has expired.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap();
        let keeps = [CountsTheExpired, DeleteFindsTheExpired, ListShowsTheExpired];
        if !keeps.iter().any(|defect| self.has(*defect)) {
            state.rows.retain(|reference, row| {
                let live = self.is_live(row);
                if !live && self.has(AnnouncesExpiry) {
                    self.announce(*reference, EndReason::Idle);
                }
                live
            });
        }
        state
    }

    fn is_live(&self, row: &Row) -> bool {
        let now = Instant::now();
        row.deadline().is_none_or(|deadline| match self.defect {
            Some(ExpiresAnInstantLate) => now <= deadline,
            Some(ExpiresEarly) => now + Duration::from_millis(2) < deadline,
            _ => now < deadline,
        })
    }

    fn is_owner(&self, row: &Row, owner: &Owner) -> bool {
        let held = row.session.owner();
        match self.defect {
            Some(TouchIgnoresTheOwner) => true,
            Some(ScopeIsIgnored) => held.principal == owner.principal,
            Some(AnonymousIsEmpty) => {
                let name = |owner: &Owner| owner.principal.as_ref().map(Principal::to_string);
                held.scope == owner.scope
                    && name(held).unwrap_or_default() == name(owner).unwrap_or_default()
            }
            _ => held == owner,
        }
    }

    fn extend(&self, row: &mut Row, idle: Duration) {
        let now = Instant::now();
        let is_within = |time| row.touched.is_some_and(|touched| now < touched + time);
        if self.has(SkipsTooManyTouches) && is_within(idle / 4) {
            return;
        }
        if !(self.has(ForgetsSkippedTouches) && is_within(idle / 16)) {
            row.touched = Some(now);
        }
        if self.has(TouchDoesNotExtend) {
            return;
        }
        let ends = self.later(now, idle);
        row.idle_ends = match (row.idle_ends, ends) {
            (Some(before), Some(after)) if !self.has(TouchShortens) => Some(before.max(after)),
            (Some(_), Some(after)) => Some(after),
            _ => None,
        };
        if self.has(LifeEndsNone) {
            row.life_ends = row.life_ends.max(row.idle_ends);
        }
    }

    fn later(&self, now: Instant, duration: Duration) -> Option<Instant> {
        if self.has(OverflowPanics) {
            return Some(now + duration);
        }
        now.checked_add(duration)
    }

    fn found(&self, row: &Row) -> Found {
        let now = Instant::now();
        let left = |end: Instant| end - now;
        let since = match self.has(AgeFromLastTouch) {
            true => row.touched.unwrap_or(row.created),
            false => row.created,
        };
        Found {
            session: row.session.clone(),
            age: now - since,
            idle_left: row.deadline().map_or(Duration::MAX, left),
            life_left: row.life_ends.map(left),
        }
    }

    fn remove(&self, state: &mut State, reference: &SessionRef, reason: EndReason) -> bool {
        let ended = state.rows.remove(reference).is_some();
        if ended || self.has(AnnouncesTwice) {
            self.announce(*reference, reason);
        }
        ended
    }

    fn announce(&self, reference: SessionRef, reason: EndReason) {
        let reason = match self.has(ReasonIsAlwaysDeleted) {
            true => EndReason::Deleted,
            false => reason,
        };
        if !self.has(FeedIsSilent) {
            // Nobody may be listening.
            let _ = self.ends.send(FeedEvent::Ended { reference, reason });
        }
    }

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
        let AtLimit::Evict { untouched } = at_limit else {
            return Err(());
        };
        let last_used = |row: &Row| row.touched.unwrap_or(row.created);
        let may_go = |row: &&Row| {
            let in_scope = row.session.owner().scope == *filter.scope();
            let counted = filter.includes(row.session.owner());
            let in_use = last_used(row).elapsed() < untouched;
            (counted || in_scope && self.has(EvictsAnybody))
                && (!in_use || self.has(EvictsOneInUse))
        };
        let victims = state.rows.values().filter(may_go);
        let victim = match self.defect {
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
    fn admit(
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

    fn insert(&self, state: &mut State, session: &Session, terms: &Terms) -> Created {
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

    fn row(&self, session: &Session, terms: &Terms) -> Row {
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

    async fn take_a_place_for_a_moment(&self, owner: &Owner) {
        self.state().taken.push(owner.clone());
        yield_now().await;
        self.state().taken.pop();
    }

    /// What is kept of what is to be kept.
    fn kept(&self, session: &Session) -> Session {
        let mut record = session.record();
        if self.has(EmptyIsNone) {
            record.protocol_version = record.protocol_version.filter(|v| !v.is_empty());
        }
        if self.has(ParamsAreReformatted) {
            record.initialize_params = record.initialize_params.map(|params| {
                let parsed = serde_json::from_slice(&params);
                parsed.map_or(params, |value: serde_json::Value| value.to_string().into())
            });
        }
        Session::new(session.id().clone(), record)
    }
}

impl Row {
    fn deadline(&self) -> Option<Instant> {
        [self.idle_ends, self.life_ends].into_iter().flatten().min()
    }
}

impl Default for NaiveStore {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            ends: broadcast::Sender::new(1024),
            defect: None,
            is_slow: false,
        }
    }
}

impl SessionStore for NaiveStore {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.dawdle().await;
        let (key, owner) = (self.key(session.id()), session.owner());
        let mut terms = terms.clone();
        match self.defect {
            Some(CreateKeepsItsPlace) => self.take_a_place_for_a_moment(owner).await,
            Some(CreateInTwoSteps) => {
                if self.state().rows.contains_key(&key) {
                    return Ok(Created::Exists);
                }
                yield_now().await;
                self.state().rows.remove(&key);
            }
            Some(CreateInHalves) if !self.state().rows.contains_key(&key) => {
                let half = SessionRecord::new(owner.clone(), Issuer::Inner);
                let half = self.row(&Session::new(session.id().clone(), half), &terms);
                self.state().rows.insert(key, half);
                yield_now().await;
                self.state().rows.remove(&key);
            }
            Some(LimitsInTwoSteps) if terms.at_limit == AtLimit::Refuse => {
                if let Err(refused) = self.admit(&mut self.state(), owner, &terms) {
                    return Ok(refused);
                }
                yield_now().await;
                (terms.total, terms.per_principal) = (None, None);
            }
            _ => {}
        }
        let created = self.insert(&mut self.state(), session, &terms);
        self.dawdle().await;
        Ok(created)
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        self.dawdle().await;
        let found = {
            let mut state = self.state();
            let row = state.rows.get_mut(&self.key(id));
            row.filter(|row| self.is_live(row)).map(|row| {
                if self.has(LoadExtends) {
                    self.extend(row, Duration::from_secs(1));
                }
                self.found(row)
            })
        };
        self.dawdle().await;
        Ok(found)
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.dawdle().await;
        let key = self.key(id);
        let before = match self.defect {
            Some(TouchTakesItOut) => self.state().rows.remove(&key),
            Some(TouchRevives) => self.state().rows.get(&key).cloned(),
            _ => None,
        };
        if let Some(row) = before {
            yield_now().await;
            self.state().rows.insert(key, row);
        }
        if self.has(TouchInserts) {
            let now = Instant::now();
            let record = SessionRecord::new(owner.clone(), Issuer::Layer);
            self.state().rows.entry(key).or_insert(Row {
                session: Session::new(id.clone(), record),
                created: now,
                touched: Some(now),
                idle_ends: Some(now + idle),
                life_ends: None,
            });
        }
        let found = {
            let mut state = self.state();
            let row = state.rows.get_mut(&key).filter(|row| self.is_live(row));
            row.and_then(|row| {
                let is_owner = self.is_owner(row, owner);
                if is_owner || self.has(StrangersExtend) {
                    self.extend(row, idle);
                }
                is_owner.then(|| self.found(row))
            })
        };
        self.dawdle().await;
        Ok(found)
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        self.dawdle().await;
        let key = self.key(id);
        if self.has(DeleteInTwoSteps) {
            let was_live = self.state().rows.contains_key(&key);
            yield_now().await;
            self.remove(&mut self.state(), &key, reason);
            return Ok(was_live);
        }
        let owner = {
            let mut state = self.state();
            let row = state.rows.get(&key);
            let Some(row) = row.filter(|row| self.is_live(row) || self.has(DeleteFindsTheExpired))
            else {
                if self.has(AnnouncesTwice) {
                    self.announce(key, reason);
                }
                return Ok(false);
            };
            let owner = row.session.owner().clone();
            self.remove(&mut state, &key, reason);
            owner
        };
        if self.has(DeleteKeepsItsPlace) {
            self.take_a_place_for_a_moment(&owner).await;
        }
        self.dawdle().await;
        Ok(true)
    }

    fn touch_now(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Now {
        if self.is_slow {
            return Now::Unknown;
        }
        let mut state = self.state();
        let row = state.rows.get_mut(&self.key(id));
        match row.filter(|row| self.is_live(row)) {
            Some(row) if self.is_owner(row, owner) || self.has(TouchNowIgnoresTheOwner) => {
                if !self.has(TouchNowNeverExtends) {
                    self.extend(row, idle);
                }
                Now::Live(self.found(row))
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
        self.dawdle().await;
        let key = self.key(id);
        let anonymous = Owner {
            principal: None,
            ..owner.clone()
        };
        let may_claim = |row: &Row| {
            let held = row.session.owner();
            *held == anonymous || held == owner || self.has(ClaimTakesOthers)
        };
        let live = |state: &State| {
            let row = state.rows.get(&key).filter(|row| self.is_live(row));
            row.is_some_and(may_claim)
        };
        if !live(&self.state()) {
            return Ok(None);
        }
        if self.has(ClaimInTwoSteps) {
            yield_now().await;
        }
        let found = {
            let mut state = self.state();
            if !live(&state) && !self.has(ClaimInTwoSteps) {
                return Ok(None);
            }
            state.rows.get_mut(&key).map(|row| {
                let mut record = row.session.record();
                record.owner = owner.clone();
                if !self.has(ClaimKeepsTheOwner) {
                    row.session = Session::new(row.session.id().clone(), record);
                }
                if !self.has(ClaimDoesNotExtend) {
                    self.extend(row, idle);
                }
                self.found(row)
            })
        };
        if self.has(ClaimCountsAsAnonymous)
            && let Some(found) = &found
        {
            self.state().taken.push(anonymous);
            self.state().taken.push(found.session.owner().clone());
        }
        self.dawdle().await;
        Ok(found)
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
    fn count<'a>(&'a self, filter: &'a SessionFilter) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async {
            let state = self.state();
            let counted = state.rows.values();
            let counted = counted.filter(|row| filter.includes(row.session.owner()));
            Ok(counted.count() as u64)
        })
    }

    fn list<'a>(
        &'a self,
        filter: &'a SessionFilter,
        after: Option<&'a SessionRef>,
        at_most: usize,
    ) -> BoxFuture<'a, Result<Vec<SessionInfo>, StoreError>> {
        Box::pin(async move {
            let state = self.state();
            let is_after = |reference: &SessionRef| match after {
                Some(after) if self.has(ListRepeats) => reference >= after,
                Some(after) => reference > after,
                None => true,
            };
            let mut listed: Vec<_> = state
                .rows
                .values()
                .filter(|row| filter.includes(row.session.owner()))
                .filter(|row| is_after(row.session.reference()))
                .map(|row| {
                    let found = self.found(row);
                    let mut record = found.session.record();
                    record.initialize_params = None;
                    SessionInfo {
                        reference: *found.session.reference(),
                        record,
                        age: found.age,
                        idle_left: found.idle_left,
                        life_left: found.life_left,
                    }
                })
                .collect();
            listed.sort_by_key(|listed| listed.reference);
            if self.has(ListSkips) && after.is_some() && !listed.is_empty() {
                listed.remove(0);
            }
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
            let is_here = row.is_some_and(|row| {
                row.session.owner().scope == *scope || self.has(EndIgnoresTheScope)
            });
            Ok(is_here && self.remove(&mut state, reference, reason))
        })
    }

    fn end_all<'a>(
        &'a self,
        filter: &'a SessionFilter,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let mut state = self.state();
            state.revoked.push((filter.clone(), Instant::now()));
            let meant = state.rows.values();
            let meant = meant.filter(|row| filter.includes(row.session.owner()));
            let mut meant: Vec<_> = meant.map(|row| *row.session.reference()).collect();
            for reference in meant.iter().skip(usize::from(self.has(EndAllForgetsOne))) {
                self.remove(&mut state, reference, reason);
            }
            meant.dedup();
            Ok(meant.len() as u64)
        })
    }
}
