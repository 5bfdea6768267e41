//! The simplest store that keeps the contract: one lock around one map. It can be told to break one rule.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use mcp_session_layer::{
    Owner, Principal, Session, SessionId, SessionRef, Values,
    store::{EndReason, FeedEvent, Found, SessionFilter},
};
use tokio::{sync::broadcast, task::yield_now, time::Instant};

pub(crate) use self::defect::Defect;
use self::defect::Defect::*;

mod create;
mod defect;
mod directory;
mod verbs;

#[derive(Clone)]
pub(crate) struct NaiveStore {
    state: Arc<Mutex<State>>,
    ends: broadcast::Sender<FeedEvent>,
    defect: Option<Defect>,
    is_slow: bool,
}

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
        let keeps = [
            CountsTheExpired,
            DeleteFindsTheExpired,
            ExpireIsARead,
            ListShowsTheExpired,
        ];
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
        if self.has(ValuesAreForgotten) {
            record.values = Values::default();
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
